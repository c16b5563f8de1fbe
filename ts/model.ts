import { disposedError, errorFromThrown, MediaError } from "./errors.ts";
import { Generation } from "./generation.ts";
import { type PromptInput, wirePrompt } from "./messages.ts";
import type {
  EngineRequest,
  Memory,
  ModelInfo,
  NativeEngine,
  NativeTicket,
  Timings,
  Usage,
} from "./native/contract.ts";
import { lastEvent } from "./native/ticket.ts";

/**
 * What to generate, and how. Without a temperature the most likely token is taken each time.
 *
 * @example
 * ```ts
 * import { type GenerateOptions, load } from "prefixkv";
 *
 * const options: GenerateOptions = { prompt: "USER: Hello ASSISTANT:", maxTokens: 8, temperature: 0.7, topP: 0.9, seed: 1 };
 * const model = await load();
 * console.log((await model.generate(options)).text);
 * await model.dispose();
 * ```
 */
export interface GenerateOptions extends PromptInput {
  /** The most tokens to generate. */
  maxTokens?: number;
  /** 0 takes the most likely token; higher values spread the choice. */
  temperature?: number;
  /** Choose among this many likeliest tokens. */
  topK?: number;
  /** Choose among the likeliest tokens that together have this probability. */
  topP?: number;
  /** Choose among tokens at least this share as likely as the likeliest. */
  minP?: number;
  /** Above 1, tokens that have occurred become less likely. */
  repetitionPenalty?: number;
  /** The same seed and request give the same text. */
  seed?: number;
  /** Texts that end the generation; they are not part of the result. */
  stop?: readonly string[];
  /** Goes on after the model's end token, up to `maxTokens`. */
  ignoreEos?: boolean;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

/**
 * Which answer to score after which prompt.
 *
 * @example
 * ```ts
 * import { load, type ScoreOptions } from "prefixkv";
 *
 * const options: ScoreOptions = { prompt: "USER: <image>\nWhat color is the star? ASSISTANT:", images: ["scene.png"], answer: " green" };
 * const model = await load();
 * console.log((await model.score(options)).ppl);
 * await model.dispose();
 * ```
 */
export interface ScoreOptions extends PromptInput {
  /** The text whose probability is asked for. */
  answer: string;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

/**
 * How likely the model finds an answer.
 *
 * @example
 * ```ts
 * import { load, type Score } from "prefixkv";
 *
 * const model = await load();
 * const score: Score = await model.score({ prompt: "USER: Hello ASSISTANT:", answer: " There is a star." });
 * console.log(score.tokens.length === score.logprobs.length, score.ppl);
 * await model.dispose();
 * ```
 */
export interface Score {
  /** The tokens of the answer. */
  tokens: number[];
  /** The natural logarithm of each token's probability. */
  logprobs: number[];
  /** exp of the mean negative log-probability. */
  ppl: number;
  usage: Usage;
  /** Milliseconds. */
  timings: Timings;
  /** Bytes of the key-value cache. */
  memory: Memory;
}

const undisposed = new FinalizationRegistry<string>((source) => {
  process.emitWarning(
    `a model (${source}) was collected without being disposed; use \`await using\` or model.dispose()`,
    {
      code: "PREFIXKV_UNDISPOSED",
    },
  );
});

/**
 * A loaded model. Its requests run in the order in which they are made, off the event loop. Dispose it when done; `await using`
 * does.
 *
 * @example
 * ```ts
 * import { image, load } from "prefixkv";
 *
 * await using model = await load();
 * const content = [image("scene.png"), "How many objects are there?"];
 * const { text } = await model.generate({ messages: [{ role: "user", content }] });
 * console.log(text);
 * ```
 */
export class Model implements AsyncDisposable {
  /** What was loaded: architecture, sizes, formats, device. */
  readonly info: ModelInfo;
  readonly #engine: NativeEngine;
  #closing: Promise<void> | undefined;

  /** @internal Made by `load`. */
  constructor(engine: NativeEngine, info: ModelInfo) {
    this.#engine = engine;
    this.info = info;
    undisposed.register(this, info.source, this);
  }

  /** Starts to answer a prompt. The result is both iterable and awaitable: see Generation. */
  generate(options: GenerateOptions): Generation {
    const { messages, prompt, images, signal, ...rest } = options;
    return new Generation(this.#ask({ messages, prompt, images }, { op: "generate", ...rest }, signal), signal);
  }

  /** Reads an answer after a prompt and says how likely the model finds each of its tokens. */
  async score(options: ScoreOptions): Promise<Score> {
    const { messages, prompt, images, signal, ...rest } = options;
    const ticket = await this.#ask({ messages, prompt, images }, { op: "score", ...rest }, signal);
    const { type: _, ...score } = await lastEvent(ticket, "scored", { signal });
    return score;
  }

  /** The token ids of a text. */
  async tokenize(text: string, options: { addSpecialTokens?: boolean } = {}): Promise<number[]> {
    return (await lastEvent(this.#submit({ op: "tokenize", text, ...options }), "tokens")).tokens;
  }

  /** The text of token ids. */
  async detokenize(tokens: readonly number[], options: { skipSpecialTokens?: boolean } = {}): Promise<string> {
    return (await lastEvent(this.#submit({ op: "detokenize", tokens: [...tokens], ...options }), "text")).text;
  }

  /** Cancels what runs and frees the model's memory. Later calls are refused; a second disposal waits for the first. */
  dispose(): Promise<void> {
    undisposed.unregister(this);
    this.#closing ??= lastEvent(this.#engine.close(), "closed").then(() => {});
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** Reads the images of a prompt, then submits it. Unknown fields go through: the engine refuses them with a suggestion. */
  async #ask(
    input: { [K in keyof PromptInput]: PromptInput[K] | undefined },
    request: Record<string, unknown> & { op: "generate" | "score" },
    signal: AbortSignal | undefined,
  ): Promise<NativeTicket> {
    const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined)) as PromptInput;
    const { fields, images } = wirePrompt(given);
    const bytes = await Promise.all(
      images.map((image, index) =>
        image.bytes(signal).catch((error: unknown) => {
          if (!(error instanceof MediaError)) throw error;
          throw new MediaError(error.code, error.message, { ...error.details, index }, { cause: error.cause });
        }),
      ),
    );
    return this.#submit({ ...request, ...fields } as EngineRequest, bytes);
  }

  #submit(request: EngineRequest, images: Uint8Array[] = []): NativeTicket {
    if (this.#closing) throw disposedError();
    try {
      return this.#engine.submit(JSON.stringify(request), images);
    } catch (error) {
      throw errorFromThrown(error);
    }
  }
}
