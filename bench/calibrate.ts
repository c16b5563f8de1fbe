// Calibrations through the engine's `profile`, until `model.calibrate` exists; then this file goes.
import { fileURLToPath } from "node:url";
import type { Message, ModelInfo } from "../ts/index.ts";
import { wirePrompt } from "../ts/messages.ts";
import { pickDoor } from "../ts/native/pick.ts";
import { lastEvent } from "../ts/native/ticket.ts";
import type { Cache } from "./cache_option.ts";

export interface Calibration {
  format: "prefixkv-calibration";
  version: 1;
  model: { layers: number; kvHeads: number; headDim: number };
  samples: number;
  rows: { keep: number; retained: number[] }[];
}

/** How much each layer of the embedded model keeps for each of `keeps`, averaged over the prompts of each group. */
export async function calibrate(
  groups: readonly (readonly Message[][])[],
  method: Cache,
  keeps: readonly number[],
): Promise<Calibration[]> {
  const { native } = await pickDoor();
  const engine = native.open(
    JSON.stringify({ source: fileURLToPath(new URL("../models/tiny-llava", import.meta.url)) }),
  );
  try {
    const { info } = await lastEvent(engine.loading(), "loaded");
    const rising = [...keeps].sort((a, b) => a - b);
    const profile = async (messages: Message[]): Promise<number[][]> => {
      const { fields, images } = wirePrompt({ messages });
      const bytes = await Promise.all(images.map((image) => image.bytes()));
      // A method needs a size, which a profile does not use.
      const request = { op: "profile", ...fields, cache: { keep: 0.5, ...method }, keeps: rising };
      const done: unknown = await lastEvent(engine.submit(JSON.stringify(request), bytes), "profiled" as "scored");
      return (done as { retained: number[][] }).retained;
    };
    const found: Calibration[] = [];
    for (const group of groups) {
      const profiles: number[][][] = [];
      for (const messages of group) profiles.push(await profile(messages));
      found.push(average(info, rising, profiles));
    }
    return found;
  } finally {
    await lastEvent(engine.close(), "closed");
  }
}

/** The mean over `profiles`: per prompt, size and layer the retained share. */
export function average(
  { layers, kvHeads, headDim }: Pick<ModelInfo, "layers" | "kvHeads" | "headDim">,
  keeps: readonly number[],
  profiles: readonly (readonly (readonly number[])[])[],
): Calibration {
  const mean = (row: number, layer: number): number =>
    profiles.reduce((sum, profile) => sum + (profile[row]?.[layer] ?? Number.NaN), 0) / profiles.length;
  const rows = keeps.map((keep, row) => ({ keep, retained: Array.from({ length: layers }, (_, n) => mean(row, n)) }));
  return {
    format: "prefixkv-calibration",
    version: 1,
    model: { layers, kvHeads, headDim },
    samples: profiles.length,
    rows,
  };
}
