import { filePath } from "../files/path.ts";
import { replaceFile, requireWritable, writeFailure } from "../files/write.ts";
import type { CacheMethod } from "../generated/methods.ts";
import type { CalibratedModel } from "../generated/wire.ts";
import { shorten } from "../options/show.ts";
import { readingReason, readRegularText } from "../regular_file.ts";
import { stopError } from "../stop.ts";
import { FitError } from "./error.ts";

/**
 * The best cache that a fit has found for a number of bytes.
 *
 * @example
 * ```ts
 * import { type FitPoint, int8, load, prefixkv } from "prefixkv";
 *
 * await using model = await load();
 * const samples = [{ prompt: "USER: Which shapes are there? ASSISTANT:", answer: " There is a star." }];
 * const choice = { methods: [prefixkv()], stores: [int8()] };
 * const { curve } = await model.fit({ bytes: ["256KiB", "512KiB"], samples, ...choice });
 * for (const { bytes, resident, loss, cache } of curve satisfies readonly FitPoint[]) console.log(bytes, resident, loss, cache);
 * ```
 */
export interface FitPoint {
  /** The bytes that were asked for. */
  bytes: number;
  /** The configuration, for `generate`, `score` and `chat`; plain, so that JSON can hold it. */
  cache: readonly CacheMethod[];
  /** The greatest `memory.resident` at the end of an answer over the samples: at most `bytes`. */
  resident: number;
  /** The loss, in nats per token of the answers. With `objective: "ppl"` its exponential is the perplexity. */
  loss: number;
}

/**
 * The result of `fit`, which its file holds: `cache` options by bytes, bound to the model by its fingerprint.
 *
 * @example
 * ```ts
 * import { type Fit, load } from "prefixkv";
 *
 * await using model = await load();
 * const sample = { prompt: "USER: Which shapes are there? ASSISTANT:", answer: " There is a star." };
 * const found: Fit = await model.fit({ bytes: "512KiB", samples: [sample], methods: [], file: "fit.json" });
 * console.log(found.full, found.curve);
 * const { memory } = await model.score({ ...sample, cache: "./fit.json" });
 * console.log(memory.resident);
 * ```
 */
export interface Fit {
  /** `"prefixkv-fit"`, which marks such a file. */
  format: "prefixkv-fit";
  /** The version of the format: 1. */
  version: 1;
  /** The model that it belongs to. */
  model: CalibratedModel;
  /** The loss: the negative log-likelihood of the answers, or the divergence from the full cache. */
  objective: "ppl" | "kl";
  /** How many samples there were. */
  samples: number;
  /** Tokens of their answers together. */
  tokens: number;
  /** The full cache, for comparison: its greatest bytes, and its loss. */
  full: { resident: number; loss: number };
  /** The configuration for the most bytes that were asked for, the last of `curve`. */
  cache: readonly CacheMethod[];
  /** By rising bytes; the loss never rises with them. */
  curve: readonly FitPoint[];
}

/** More than any fit needs. */
const maxBytes = 16 * 1024 * 1024;

/** The absolute path of a fit that is to be written. */
export function fitFile(file: string | URL): string {
  const path = file === "" ? undefined : filePath(file);
  if (path !== undefined) return path;
  throw new FitError("fit", `cannot write the fit: ${file === "" ? "`file` is empty" : `${file} is no file: URL`}`);
}

/** Refuses a file that cannot be written, before the work for it is done. */
export async function requireFitFile(file: string): Promise<void> {
  await requireWritable(file).catch((cause: unknown) => unwritable(file, cause));
}

/** Writes a fit so that a reader never sees half of it, a point of the curve per line. */
export async function writeFit({ curve, ...head }: Fit, file: string): Promise<void> {
  const lines = curve.map((point) => `    ${JSON.stringify(point)}`).join(",\n");
  const start = JSON.stringify(head, null, 2).replace(/\n\}$/, "");
  const text = `${start},\n  "curve": [\n${lines}\n  ]\n}\n`;
  await replaceFile(file, text).catch((cause: unknown) => unwritable(file, cause));
}

function unwritable(file: string, cause: unknown): never {
  throw new FitError("fit", `cannot write the fit ${shorten(file, 240)}: ${writeFailure(cause)}`, {}, { cause });
}

/** The `cache` option that a file of a fit holds; throws a FitError for another file, and for the fit of another model. */
export async function readFitFile(
  source: string | URL,
  fingerprint: string,
  signal?: AbortSignal,
): Promise<readonly CacheMethod[]> {
  const unusable = (why: string): FitError =>
    new FitError("fit", `cannot use the fit ${shorten(String(source), 240)}: ${why}`);
  const file = filePath(source);
  if (file === undefined) throw unusable("it is read from a file; use a path or a file: URL");
  let text: string;
  try {
    text = await readRegularText(file, maxBytes, signal);
  } catch (cause) {
    if (signal?.aborted) throw stopError(signal);
    throw unusable(readingReason(cause, file));
  }
  let found: Partial<Fit> | null;
  try {
    found = JSON.parse(text) as Partial<Fit> | null;
  } catch {
    // A parser's message quotes what it has read, which may be any file.
    throw unusable("it is not JSON");
  }
  if (found?.format !== "prefixkv-fit") throw unusable('it has no `format` "prefixkv-fit", which model.fit writes');
  if (found.version !== 1) throw unusable(`its version is ${JSON.stringify(found.version)}, and this code reads 1`);
  if (found.model?.fingerprint !== fingerprint)
    throw unusable("it belongs to another model, by its fingerprint; fit this one");
  if (!Array.isArray(found.cache) || found.cache.length === 0) throw unusable("it has no `cache`");
  return found.cache;
}
