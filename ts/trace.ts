import type { Kept, Memory, Timings, Usage } from "./native/report.ts";

/**
 * What the cache held during a generation, and by what order its entries were chosen: what {@link Model.trace} gives. Positions
 * count from 0 over the prompt and the answer; importance is known for those of the prompt.
 *
 * @example
 * ```ts
 * import { image, load, prefixkv, type Trace } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }];
 * const trace: Trace = await model.trace({ messages, cache: prefixkv({ keep: 0.3 }), maxTokens: 8 });
 * const [picture] = trace.images;
 * const patches = trace.spans.find(({ modality }) => modality.type === "image");
 * const first = trace.layers[0]?.kept[0]?.positions.filter((at) => at >= (patches?.start ?? 0));
 * console.log(trace.threshold, picture?.rows, picture?.columns, first?.length);
 * ```
 */
export interface Trace {
  /** The answer. */
  text: string;
  /** The token ids of the answer. */
  tokens: number[];
  /** Why it ended. */
  finish: "eos" | "stop" | "length" | "aborted";
  /** Numbers of tokens. */
  usage: Usage;
  /** Milliseconds. */
  timings: Timings;
  /** Bytes of the key-value cache at the end. */
  memory: Memory;
  /**
   * What the method ranks entries by: `columns`, `window` or `text` (attention of all queries, of the last ones, of the text),
   * `key-norm`, `recency` or `random`. The plain cache is ranked by `columns`, and keeps everything.
   */
  score: string;
  /** Whether the score is attention. Where it is not, shares of it mean nothing, and layers have no `cumulative`. */
  mass: boolean;
  /** The share of importance that PrefixKV's search has found for all layers; null for methods that look for none. */
  threshold: number | null;
  /** What the positions are, in order and without gaps; `index` counts the image placeholders of the prompt. */
  spans: { modality: { type: "text" | "generated" } | { type: "image"; index: number }; start: number; len: number }[];
  /** The pictures in the order of their placeholders. */
  images: TraceImage[];
  /** The layers after the prompt. */
  layers: TraceLayer[];
  /** The cache after the prompt, then after each token that was read; the last token of an answer is not. */
  steps: TraceStep[];
}

/** A picture of a traced prompt. Its patches are numbered by rows from the top left, after `lead` other positions. */
export interface TraceImage {
  /** Its number among the images of the request. */
  source: number;
  /** Pixels of the upright picture. */
  width: number;
  height: number;
  rows: number;
  columns: number;
  lead: number;
  /** What all patches together cover, in pixels of the picture; it reaches beyond a picture that is padded. */
  area: { x: number; y: number; width: number; height: number };
}

/** A layer of a trace. */
export interface TraceLayer {
  /** The score of each position of the prompt; the mean over the heads where they have their own. */
  importance: number[];
  /** The share of the importance that the best `from`, `from` + 1, ... entries hold; null for a score without mass. */
  cumulative: { from: number; shares: number[] } | null;
  /** The share that the kept entries hold; null for a score without mass. */
  retained: number | null;
  /** What is kept after the prompt. */
  kept: Kept[];
}

/** The cache at one moment; sizes in bytes. */
export interface TraceStep {
  /** Positions seen. */
  positions: number;
  resident: number;
  payload: number;
  /** What a cache that keeps everything takes. */
  full: number;
  /** Entries held; the mean over the layers. */
  kept: number;
}
