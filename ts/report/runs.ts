import type { ModelInfo, Trace } from "../generated/wire.ts";

/** A traced generation with the name of its method. */
export interface Run {
  /** The name shown in charts. */
  label: string;
  /** The recorded trace. */
  trace: Trace;
}

/** A picture of the prompt as it was given. */
export interface Picture {
  /** The name shown on the page. */
  name: string;
  /** The encoded file. */
  bytes: Uint8Array;
}

/** The data behind the charts of one prompt. */
export interface Scene {
  info: ModelInfo;
  runs: readonly Run[];
  pictures: readonly Picture[];
}

/** The frame of a run and a layer; charts follow `run layer`, or only `layer` where there is one run. */
export function frameOf({ runs }: Scene, run: number, layer: number): string {
  return runs.length > 1 ? `${run}.${layer}` : `${layer}`;
}

/** The controls that {@link frameOf} goes by. */
export function follows({ runs }: Scene): string {
  return runs.length > 1 ? "run layer" : "layer";
}

/** Every run and layer. */
export function frames(scene: Scene): { run: number; layer: number; frame: string }[] {
  return scene.runs.flatMap(({ trace }, run) =>
    trace.layers.map((_, layer) => ({ run, layer, frame: frameOf(scene, run, layer) })),
  );
}

/** Positions of the prompt. */
export function promptLength({ layers }: Trace): number {
  return Math.max(0, ...layers.map(({ importance }) => importance.length));
}

/** The position of each patch of a picture. */
export function patchesOf({ images }: Trace, image: number): readonly number[] {
  return images[image]?.cells ?? [];
}

/** For each patch of a picture the share of the heads that keep it in a layer. */
export function keptPatches(trace: Trace, layer: number, image: number): number[] {
  const cells = patchesOf(trace, image);
  const patchAt = new Map(cells.map((position, patch) => [position, patch]));
  const lanes = trace.layers[layer]?.kept ?? [];
  const heads = Math.max(1, ...lanes.map((lane) => lane.heads[1]));
  const shares = new Array<number>(cells.length).fill(0);
  for (const lane of lanes) {
    const weight = (lane.heads[1] - lane.heads[0]) / heads;
    for (const position of lane.positions) {
      const patch = patchAt.get(position);
      if (patch !== undefined) shares[patch] = (shares[patch] ?? 0) + weight;
    }
  }
  return shares;
}

/** Entries that a layer keeps after the prompt; the mean over its heads. */
export function keptEntries(trace: Trace, layer: number): number {
  const lanes = trace.layers[layer]?.kept ?? [];
  const heads = Math.max(1, ...lanes.map((lane) => lane.heads[1]));
  return lanes.reduce((sum, { heads: [first, end], positions }) => sum + (end - first) * positions.length, 0) / heads;
}

/** Describes in words how a run ranks its entries. */
export function scoreText({ ranking, mass }: Trace): string {
  return mass ? ranking : `${ranking} (no attention)`;
}

/** A number with as many digits as tell something. */
export function short(value: number): string {
  if (value === 0 || Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 100 ? value.toFixed(1) : String(Number(value.toPrecision(4)));
}
