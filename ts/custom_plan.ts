import type { Keep, Span } from "./generated/wire.ts";

/** Data that a method of your own asks to see, and when. */
export interface CustomNeeds {
  /** When it is asked: once the prompt is read, after a generated token, or both; `["prompt"]` by default. */
  moments?: readonly ("prompt" | "step")[];
  /** With `"step"`: after every so many tokens; 1 by default. */
  every?: number;
  /** Whether the heads of a layer share their entries, the default, or have their own. */
  lanes?: "layer" | "head";
  /**
   * The queries of the prompt whose attention is summed for `sums`: the text among the last `window`, all of the last `window`, all
   * text, or all.
   */
  sums?: "question" | "window" | "text" | "columns";
  /** For `sums`; 32 by default. */
  window?: number;
  /** Whether lanes have their `keys`. */
  keys?: boolean;
  /** Whether lanes have their `values`. */
  values?: boolean;
  /** How many of the prompt's last queries lanes have as `queries`; none by default. */
  queries?: number;
}

/** The entries of some heads of a layer, in the order of their positions; the numbers of an entry are at the same place in every list. */
export interface CustomLane {
  /** The layer. */
  layer: number;
  /** First key-value head and the one behind the last. */
  heads: [number, number];
  /** Where the entries stand in the whole of prompt and answer. */
  positions: Uint32Array;
  /**
   * With `needs.sums`, the attention that each entry has got, the mean over the heads: at the prompt from its queries, at a step from
   * the tokens since the last plan. Else empty.
   */
  sums: Float32Array;
  /** With `needs.keys`: `[entries, heads, head size]`, as attention reads them. Else empty. */
  keys: Float32Array;
  /** With `needs.values`, as `keys`. */
  values: Float32Array;
  /** With `needs.queries`, at the prompt: `[queries, query heads, head size]`, as they have attended. Else empty. */
  queries: Float32Array;
}

/**
 * A sequence as a method of your own sees it.
 */
export interface CustomView {
  /** After the prompt, or after a generated token. */
  moment: "prompt" | "step";
  /** Generated tokens since the prompt. */
  step: number;
  /** Positions seen, all of them. */
  positions: number;
  /** Entries that may stay over all lanes together, each counting its heads; null without `keep`. */
  most: number | null;
  /** Spans that cover all positions, in order and without gaps. */
  spans: Span[];
  /** The lanes of all layers, in order. */
  lanes: CustomLane[];
}

/** Entries by their places in a lane's lists. */
export type Entries = ArrayLike<number>;

/**
 * Plan for a lane: the entries that stay, ascending, and which of the others are merged into them; `null` leaves it as it is.
 * A merged entry counts `weight` (1 by default) beside the one that stays, which counts 1: keys and values become the mean.
 */
export type LanePlan = Entries | { keep: Entries; merge?: readonly Merge[] } | null;

/** An entry that goes, and the one that it is merged into. */
export interface Merge {
  from: number;
  into: number;
  weight?: number;
}

/** A method whose decisions are code of your own. */
export interface CustomPlanner {
  /** The size that plans must not pass; without it they are free. */
  keep?: Keep;
  /** Data that it asks to see, and when. */
  needs?: CustomNeeds;
  /** Decides: one plan for each lane of the view, in order. Called at most once per moment; the request waits for it, others go on. */
  plan(view: CustomView): readonly LanePlan[] | Promise<readonly LanePlan[]>;
}

/** What `custom` makes of a `plan`. */
export type PlannedMethod = Readonly<{ method: "custom" } & CustomPlanner>;
