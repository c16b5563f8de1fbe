import type { Trace } from "../../generated/wire.ts";
import { keptPatches } from "../../report/runs.ts";

/** The kept parts of the pictures, for the page: for each picture and layer the share of the heads that keep each cell. */
export function keptOf(trace: Trace): Record<string, unknown> {
  const images = trace.images.map(({ index, width, height, rows, columns, area }, image) => ({
    ...{ image: index, width, height, rows, columns, area },
    layers: trace.layers.map((_, layer) =>
      keptPatches(trace, layer, image).map((share) => Math.round(share * 100) / 100),
    ),
  }));
  return { text: trace.text, images };
}
