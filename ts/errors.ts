import type { Keep } from "./generated/wire.ts";

/**
 * The base class of all errors thrown by this library. `code` is stable; `details` holds the facts of the case.
 *
 * @example
 * ```ts
 * import { load, PrefixKvError } from "prefixkv";
 *
 * try {
 *   await load("no/such/folder");
 * } catch (error) {
 *   if (error instanceof PrefixKvError) console.log(error.code, error.message);
 * }
 * ```
 */
export class PrefixKvError extends Error {
  /** The stable, machine-readable name of the kind of error, e.g. `"context-overflow"`. */
  readonly code: string;
  /** The facts of this case, by name. */
  readonly details: Record<string, unknown>;

  constructor(code: string, message: string, details: Record<string, unknown> = {}, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
    this.details = details;
  }
}

/**
 * A model folder is missing (`model-not-found`), one of its files is unusable (`model-file`; `details.path` names it), or weights
 * are not finite or exceed the range of the requested format (`numbers`; `details.fits` lists formats that can hold them).
 *
 * @example
 * ```ts
 * import { load, ModelError } from "prefixkv";
 *
 * const error = await load("no/such/folder").catch((error: unknown) => error);
 * console.log(error instanceof ModelError);
 * ```
 */
export class ModelError extends PrefixKvError {}

/**
 * The architecture, or a feature that its configuration asks for, is not implemented; `details.known` lists the supported ones.
 *
 * @example
 * ```ts
 * import { ModelError, UnsupportedModelError } from "prefixkv";
 *
 * console.log(UnsupportedModelError.prototype instanceof ModelError); // true: one `catch` serves both
 * ```
 */
export class UnsupportedModelError extends ModelError {}

/**
 * A model cannot be obtained from the Hub. `code` is `hub-not-found`, `hub-unauthorized`, `hub-rate-limited`, `hub-network`,
 * `hub-response`, `hub-integrity`, `hub-files`, `hub-offline` or `hub-disk`; docs/errors.md says what each means.
 *
 * @example
 * ```ts
 * import { HubError, load } from "prefixkv";
 *
 * const error = await load("org/name", { offline: true, cacheDir: "empty" }).catch((error: unknown) => error);
 * if (error instanceof HubError) console.log(error.code, error.details.missing);
 * ```
 */
export class HubError extends ModelError {}

/**
 * An image cannot be read, fetched or decoded, or exceeds a limit.
 *
 * @example
 * ```ts
 * import { image, MediaError } from "prefixkv";
 *
 * const error = await image("no-such-file.png").bytes().catch((error: unknown) => error);
 * console.log(error instanceof MediaError);
 * ```
 */
export class MediaError extends PrefixKvError {}

/**
 * An option is unknown, of the wrong type or out of range; `details.suggestion` is the closest known name, if any.
 *
 * @example
 * ```ts
 * import { load, OptionError } from "prefixkv";
 *
 * const error = await load(undefined, { weights: "q9" as "q8_0" }).catch((error: unknown) => error);
 * console.log(error instanceof OptionError);
 * ```
 */
export class OptionError extends PrefixKvError {}

/**
 * The requested cache size is too small for the entries that the method protects. Raised before any work.
 *
 * @example
 * ```ts
 * import { BudgetError, load, streaming } from "prefixkv";
 *
 * await using model = await load();
 * const prompt = "USER: Which shapes are there? ASSISTANT:";
 * const error = await model.generate({ prompt, cache: streaming({ keep: { tokens: 2 } }) }).catch((error: unknown) => error);
 * if (error instanceof BudgetError) console.log((await model.generate({ prompt, cache: streaming({ keep: error.least }) })).text);
 * ```
 */
export class BudgetError extends OptionError {
  /** The requested size. */
  get asked(): Keep {
    return this.details.asked as Keep;
  }

  /** The least size that works for this prompt, in the unit of the requested one. */
  get least(): Keep {
    return this.details.least as Keep;
  }
}

/**
 * A calibration cannot be found or read, belongs to another model, or lacks the requested size.
 *
 * @example
 * ```ts
 * import { CalibrationError, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const cache = prefixkv({ keep: 0.5, calibration: "llava-1.5-7b" });
 * const error = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache }).catch((error: unknown) => error);
 * console.log(error instanceof CalibrationError); // true: the embedded model has other sizes
 * ```
 */
export class CalibrationError extends OptionError {}

/**
 * The `plan` of a custom method has thrown, which is then `cause`, or has answered with what cannot be carried out. The model goes on.
 *
 * @example
 * ```ts
 * import { custom, load, PlanError } from "prefixkv";
 *
 * await using model = await load();
 * const cache = custom({ plan: () => [[3, 1]] });
 * const error = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache }).catch((error: unknown) => error);
 * console.log(error instanceof PlanError);
 * ```
 */
export class PlanError extends OptionError {}

/**
 * The prompt cannot be built: a malformed message, or images and placeholders that do not match.
 *
 * @example
 * ```ts
 * import { load, PromptError } from "prefixkv";
 *
 * await using model = await load();
 * const error = await model.generate({ prompt: "<image>\nWhat is it?" }).catch((error: unknown) => error);
 * console.log(error instanceof PromptError);
 * ```
 */
export class PromptError extends PrefixKvError {}

/**
 * The prompt and the requested tokens exceed the model's context. Raised before any work.
 *
 * @example
 * ```ts
 * import { ContextOverflowError, load } from "prefixkv";
 *
 * await using model = await load();
 * const error = await model.generate({ prompt: "Hello", maxTokens: 100_000 }).catch((error: unknown) => error);
 * if (error instanceof ContextOverflowError) console.log(error.needed > error.available, error.imageTokens);
 * ```
 */
export class ContextOverflowError extends PrefixKvError {
  /** Positions that the request needs. */
  get needed(): number {
    return Number(this.details.needed);
  }

  /** Positions that the model has. */
  get available(): number {
    return Number(this.details.available);
  }

  /** How many of the needed positions are image tokens. */
  get imageTokens(): number {
    return Number(this.details.imageTokens);
  }
}

/**
 * The cache limit or the memory would be exceeded (raised before allocating), or a GPU is full. `details` has `needed` and `available` in bytes.
 *
 * @example
 * ```ts
 * import { OutOfMemoryError } from "prefixkv";
 *
 * const advice = (error: unknown) => (error instanceof OutOfMemoryError ? "use fewer images" : "look further");
 * console.log(advice(new OutOfMemoryError("out-of-memory", "out of memory", { needed: 2, available: 1 })));
 * ```
 */
export class OutOfMemoryError extends PrefixKvError {}

/**
 * A snapshot of a prefix cannot be written or read.
 *
 * @example
 * ```ts
 * import { SnapshotError } from "prefixkv";
 *
 * console.log(new SnapshotError("snapshot", "it is cut", { problem: "truncated" }).problem);
 * ```
 */
export class SnapshotError extends OptionError {
  /** `missing`, `io`, `no-snapshot`, `version`, `truncated`, `corrupt`, `too-large` or `other-model`. */
  get problem(): string {
    return String(this.details.problem);
  }
}

/**
 * The requested device does not exist in this build or on this machine, or a GPU failed during the work.
 *
 * @example
 * ```ts
 * import { DeviceError, load } from "prefixkv";
 *
 * await using model = await load(undefined, { device: "cuda" }).catch((error: unknown) => {
 *   if (error instanceof DeviceError) return load();
 *   throw error;
 * });
 * console.log(model.info.device);
 * ```
 */
export class DeviceError extends PrefixKvError {}

/**
 * The caller's signal stopped the work. `name` is `"AbortError"`, as everywhere on the web; `partial` is the text so far and
 * `cause` the signal's reason.
 *
 * @example
 * ```ts
 * import { AbortError, load } from "prefixkv";
 *
 * await using model = await load();
 * const error = await model.generate({ prompt: "Hello", signal: AbortSignal.abort() }).catch((error: unknown) => error);
 * if (error instanceof AbortError) console.log(error.name, error.partial);
 * ```
 */
export class AbortError extends PrefixKvError {
  /** The text generated before the work stopped. */
  get partial(): string {
    return String(this.details.partial ?? "");
  }
}

/**
 * The model was disposed before or during the request.
 *
 * @example
 * ```ts
 * import { DisposedError, load } from "prefixkv";
 *
 * const model = await load();
 * await model.dispose();
 * const error = await model.tokenize("Hello").catch((error: unknown) => error);
 * console.log(error instanceof DisposedError);
 * ```
 */
export class DisposedError extends PrefixKvError {}

/**
 * The native addon is missing or fails to load (`native-missing`; the message says what to do), or the engine has a bug
 * (`internal`).
 *
 * @example
 * ```ts
 * import { about, NativeError } from "prefixkv";
 *
 * const facts = await about().catch((error: unknown) => {
 *   if (error instanceof NativeError) console.log(error.message);
 *   throw error;
 * });
 * console.log(facts.version);
 * ```
 */
export class NativeError extends PrefixKvError {}

/** The error of a signal that has fired. */
export const abortError = (signal: AbortSignal | undefined, partial = ""): AbortError =>
  new AbortError("aborted", "the request was aborted", { partial }, { cause: signal?.reason });

/** The error of a use after disposal. */
export const disposedError = (message = "the model is disposed; load it again"): DisposedError =>
  new DisposedError("disposed", message);
