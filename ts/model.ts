/// <reference lib="esnext.disposable" preserve="true" />

import { type CalibrateOptions, calibrate } from "./calibrate.ts";
import { type CalibrateBitsOptions, calibrateBits } from "./calibrate_bits.ts";
import { type CalibrateChannelsOptions, calibrateChannels } from "./calibrate_channels.ts";
import { type CalibrateCllaOptions, calibrateClla } from "./calibrate_clla.ts";
import { type CalibrateCskvOptions, calibrateCskv } from "./calibrate_cskv.ts";
import { type CalibrateHeadsOptions, calibrateHeads } from "./calibrate_heads.ts";
import { type CalibrateKvquantOptions, calibrateKvquant } from "./calibrate_kvquant.ts";
import { type CalibrateSharingOptions, calibrateSharing } from "./calibrate_sharing.ts";
import { Chat } from "./chat.ts";
import type { Fit } from "./fit/file.ts";
import { fit } from "./fit/fit.ts";
import type { FitOptions } from "./fit/options.ts";
import { printable } from "./format.ts";
import type {
  BitsCalibration,
  Calibration,
  ChannelsCalibration,
  CodebookCalibration,
  DirectionsCalibration,
  HeadsCalibration,
  ImageTokens,
  Kept,
  KeptSpan,
  ModelInfo,
  Score,
  SharingCalibration,
  Trace,
} from "./generated/wire.ts";
import { Generation } from "./generation.ts";
import type { ReadPolicy } from "./images/policy.ts";
import type { NativeEngine } from "./native/contract.ts";
import { lastEvent } from "./native/ticket.ts";
import { Place } from "./options/place.ts";
import {
  type ChatOptions,
  type GenerateOptions,
  type PrefillOptions,
  readGenerate,
  readPrefill,
  readScore,
  type ScoreOptions,
} from "./options/requests.ts";
import {
  fields,
  flag,
  list,
  number,
  signal as signalRule,
  text as textRule,
  tokenIds,
  whole,
} from "./options/rules.ts";
import { Prefix } from "./prefix.ts";
import { Requests } from "./requests.ts";
import type { VideoOptions } from "./video.ts";

const undisposed = new FinalizationRegistry<string>((source) => {
  process.emitWarning(
    `a model (${printable(source)}) was collected without being disposed; use \`await using\` or model.dispose()`,
    {
      code: "PREFIXKV_UNDISPOSED",
    },
  );
});

const readTokenize = fields({ addSpecialTokens: flag });
const readDetokenize = fields({ skipSpecialTokens: flag });
const readRestore = fields({ signal: signalRule });
const readFilm = fields({ frames: whole, fps: number, times: list(number) });

/**
 * A loaded model. Its requests start in the order in which they are made, off the event loop, and run one after the other, or
 * together when it was loaded with `batch`. Dispose it when done; `await using` does.
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
  /** Architecture, sizes, formats and device of the loaded model. */
  readonly info: ModelInfo;
  readonly #requests: Requests;

  /** @internal Made by `load`. */
  constructor(engine: NativeEngine, info: ModelInfo, images?: ReadPolicy) {
    this.#requests = new Requests(engine, images, info.fingerprint);
    this.info = info;
    undisposed.register(this, info.source, this);
  }

  /** Starts to answer a prompt. The result is both iterable and awaitable: see Generation. */
  generate(options: GenerateOptions): Generation {
    return Generation.of(() => {
      const asked = readGenerate(options, "generate");
      return { ticket: this.#requests.ask("generate", asked), signal: asked.signal };
    });
  }

  /**
   * Reads a prompt once, so that questions about it do not read it again: see Prefix. Where the method chooses by the question, all of the prompt is
   * kept and each question frees entries of a copy; where it does not, it acts now. An OptionError from a method that can do neither.
   */
  async prefill(options: PrefillOptions): Promise<Prefix> {
    return Prefix.read(this.#requests, readPrefill(options));
  }

  /** Goes on from a prefix that the same model has saved: see Prefix. A SnapshotError says what is wrong with the file. */
  async restore(path: string | URL, options: { signal?: AbortSignal } = {}): Promise<Prefix> {
    const { signal } = readRestore(options, new Place("restore"));
    return Prefix.restore(this.#requests, path, signal);
  }

  /** Starts a conversation that keeps its cache from turn to turn: see Chat. */
  chat(options: ChatOptions = {}): Chat {
    return Chat.open(this.#requests, options);
  }

  /** Scores an answer after a prompt: the log-probability of each of its tokens. */
  score(options: ScoreOptions & { kept: true }): Promise<Score & { kept: Kept[][]; spans: KeptSpan[] }>;
  score(options: ScoreOptions): Promise<Score>;
  async score(options: ScoreOptions): Promise<Score> {
    const asked = readScore(options);
    const ticket = await this.#requests.ask("score", asked);
    const { type: _, ...score } = await lastEvent(ticket, "scored", { signal: asked.signal });
    return score;
  }

  /**
   * Generates, and also records what the cache held at every step and how its entries were ranked: see Trace. The answer is
   * the same as from `generate` with the same options.
   */
  async trace(options: GenerateOptions): Promise<Trace> {
    const asked = readGenerate(options, "trace");
    const ticket = await this.#requests.ask("trace", asked);
    const { type: _, ...trace } = await lastEvent(ticket, "traced", { signal: asked.signal });
    return trace;
  }

  /** Finds how much each layer should keep, averaged over sample prompts: see CalibrateOptions. */
  async calibrate(options: CalibrateOptions): Promise<Calibration> {
    return calibrate(this.#requests, this.info, options);
  }

  /** Finds layers that can read the keys and values of others, by sample prompts: see CalibrateSharingOptions. */
  async calibrateSharing(options: CalibrateSharingOptions): Promise<SharingCalibration> {
    return calibrateSharing(this.#requests, this.info, options);
  }

  /** Finds in how many bits each layer can store its keys and values, by sample prompts: see CalibrateBitsOptions. */
  async calibrateBits(options: CalibrateBitsOptions): Promise<BitsCalibration> {
    return calibrateBits(this.#requests, this.info, options);
  }

  /** Finds an order of the channels of every head, and clips for their codes, by sample prompts: see CalibrateChannelsOptions. */
  async calibrateChannels(options: CalibrateChannelsOptions): Promise<ChannelsCalibration> {
    return calibrateChannels(this.#requests, this.info, options);
  }

  /** Finds the codebooks that `kvquant` stores keys and values with, by sample prompts: see CalibrateKvquantOptions. */
  async calibrateKvquant(options: CalibrateKvquantOptions): Promise<CodebookCalibration> {
    return calibrateKvquant(this.#requests, this.info, options);
  }

  /** Finds the directions along which `cskv` stores keys and values, by sample prompts: see CalibrateCskvOptions. */
  async calibrateCskv(options: CalibrateCskvOptions): Promise<DirectionsCalibration> {
    return calibrateCskv(this.#requests, this.info, options);
  }

  /** Finds the directions along which `clla` stores keys and values of two layers, by sample prompts: see CalibrateCllaOptions. */
  async calibrateClla(options: CalibrateCllaOptions): Promise<DirectionsCalibration> {
    return calibrateClla(this.#requests, this.info, options);
  }

  /** Finds how much each attention head looks at images, or at what it copies, by sample prompts: see CalibrateHeadsOptions. */
  async calibrateHeads(options: CalibrateHeadsOptions): Promise<HeadsCalibration> {
    return calibrateHeads(this.#requests, this.info, options);
  }

  /** Finds what a cache of so many bytes should keep, and in how many bits, for the best answers to samples: see FitOptions. */
  async fit(options: FitOptions): Promise<Fit> {
    return fit(this.#requests, this.info, options);
  }

  /** The token ids of a text. */
  async tokenize(text: string, options: { addSpecialTokens?: boolean } = {}): Promise<number[]> {
    const place = new Place("tokenize");
    const given = { text: textRule(text, place.field("text")), ...readTokenize(options, place) };
    return (await lastEvent(this.#requests.submit({ op: "tokenize", ...given }), "tokens")).tokens;
  }

  /** The text of token ids. */
  async detokenize(tokens: readonly number[], options: { skipSpecialTokens?: boolean } = {}): Promise<string> {
    const place = new Place("detokenize");
    const given = { tokens: tokenIds(tokens, place.field("tokens")), ...readDetokenize(options, place) };
    return (await lastEvent(this.#requests.submit({ op: "detokenize", ...given }), "text")).text;
  }

  /**
   * The positions that a picture of so many pixels takes in a prompt, without the picture: see ImageTokens. With `frames`, those of a video of so
   * many frames of that size. A PromptError from a text-only model, and for a video from one that takes none; a MediaError for a size that the
   * model takes no pictures of.
   */
  async imageTokens(
    width: number,
    height: number,
    video: VideoOptions & { frames?: number } = {},
  ): Promise<ImageTokens> {
    const place = new Place("imageTokens");
    const size = { width: whole(width, place.field("width")), height: whole(height, place.field("height")) };
    const asked = { ...size, ...readFilm(video, place) };
    const { type: _, ...found } = await lastEvent(this.#requests.submit({ op: "image-tokens", ...asked }), "pieces");
    return found;
  }

  /** Cancels running requests and frees the model's memory. Later calls are rejected; a second disposal waits for the first. */
  dispose(): Promise<void> {
    undisposed.unregister(this);
    return this.#requests.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
