import type { Trace } from "../generated/wire.ts";
import { promptLength } from "./runs.ts";

/** Positions in a row whose entries are in the cache of a layer for the same time and in the same share of its heads. */
export interface Life {
  /** The first position. */
  first: number;
  /** The position behind the last. */
  end: number;
  /** The first column: -1 while the prompt is read, 0 after it, then one per token that was read. */
  from: number;
  /** The column behind the last. */
  to: number;
  /** The share of the heads that hold the entries, above 0. */
  share: number;
}

/** A layer of a trace as its plans have it. */
export interface Lives {
  lives: Life[];
  /** Entries per column from 0 on; the mean over the heads. */
  held: number[];
  /** Entries that went before the first column, and after it; the mean over the heads. */
  freed: { prompt: number; later: number };
  /** Entries that were merged into others; the mean over the heads. */
  merged: number;
}

/**
 * Reads from the plans of a trace how long each entry of a layer was there.
 *
 * Nothing but plans is looked at: the entries of a column are those that were added minus those that plans let go, so that `held`
 * can be compared with `kept` of the trace's steps. Undefined for a layer that the method leaves alone because it keeps a window of its own.
 */
export function livesOf(trace: Trace, layer: number): Lives | undefined {
  const { importance = [], source = layer } = trace.layers[layer] ?? {};
  if (importance.length === 0) return undefined;
  const prompt = promptLength(trace);
  const columns = trace.steps.length;
  const lanes = (trace.layers[layer]?.kept ?? []).map(({ heads: [first, end] }) => end - first);
  const heads = lanes.reduce((sum, own) => sum + own, 0);
  // Per lane and position the column at which an entry is gone.
  const gone = lanes.map(() => new Array<number>(prompt + columns - 1).fill(columns));
  const born = (position: number): number => (position < prompt ? -1 : position - prompt + 1);
  let merged = 0;
  for (const { moment, layer: at = 0, step = 0, lanes: changes, evict, rows } of trace.plans) {
    // A plan before a token and one after it both show once it is read.
    const column = moment === "token" || moment === "step" ? step + 1 : 0;
    const leave = (lane: number, position: number): void => {
      const own = gone[lane];
      if (own !== undefined) own[position] = Math.min(own[position] ?? columns, column);
    };
    if (rows !== undefined && (moment === "images" || at < source)) {
      // A row that does not go on has no entry in later layers, from the beginning.
      const seen = new Set(rows);
      for (const own of gone)
        for (let position = 0; position < prompt; position++) if (!seen.has(position)) own[position] = -1;
    }
    for (const change of changes) {
      if (change.layer !== source) continue;
      const stays = change.keep && new Set(change.keep);
      const seen = moment === "token" ? column - 1 : column;
      gone[change.lane]?.forEach((_, position) => {
        if (born(position) <= seen && stays?.has(position) === false) leave(change.lane, position);
      });
      merged += change.merge.length * (lanes[change.lane] ?? 0);
    }
    for (const { layer: of, lane, position } of evict) if (of === source) leave(lane, position);
  }
  const held = new Array<number>(columns).fill(0);
  const freed = { prompt: 0, later: 0 };
  const lives: Life[] = [];
  for (let position = 0; position < prompt + columns - 1; position++) {
    gone.forEach((own, lane) => {
      const share = (lanes[lane] ?? 0) / Math.max(1, heads);
      const end = own[position] ?? columns;
      for (let column = Math.max(0, born(position)); column < end; column++) held[column] = (held[column] ?? 0) + share;
      if (end < columns) freed[end === 0 ? "prompt" : "later"] += share;
    });
    const ends = [...new Set(gone.map((own) => own[position] ?? columns))].sort((a, b) => a - b);
    let from = born(position);
    for (const to of ends) {
      const share = gone.reduce(
        (sum, own, lane) => sum + ((own[position] ?? columns) >= to ? (lanes[lane] ?? 0) : 0),
        0,
      );
      if (to > from) lives.push({ first: position, end: position + 1, from, to, share: share / Math.max(1, heads) });
      from = Math.max(from, to);
    }
  }
  return { lives: joined(lives), held, freed, merged: merged / Math.max(1, heads) };
}

/** Neighbours that live alike as one. */
function joined(lives: readonly Life[]): Life[] {
  const open = new Map<string, Life>();
  const result: Life[] = [];
  for (const life of lives) {
    const key = `${life.from} ${life.to} ${life.share}`;
    const last = open.get(key);
    if (last?.end === life.first) last.end = life.end;
    else {
      const own = { ...life };
      open.set(key, own);
      result.push(own);
    }
  }
  return result;
}
