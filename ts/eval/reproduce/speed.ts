import { type PublishedRow, type PublishedTable, prefixkvOffline, type Size, source } from "./table.ts";

/** Tokens per second at each size relative to the full cache; null where memory ran out. */
function row(
  model: Size,
  batch: number,
  tokens: string,
  rates: readonly (number | null)[],
  full: number | null,
): PublishedRow {
  const speed = rates.map((rate) => (rate === null || full === null ? null : rate / full));
  return { model, method: `PrefixKV, batch ${batch}, ${tokens}`, values: { speed } };
}

const first = row("13B", 8, "1024+512", [204.6, 168.1, 148.7, 137.6], 134.1);
const second = row("13B", 16, "624+256", [349.5, 288.0, 256.3, 236.5], 230.2);
const third = row("7B", 16, "1024+512", [486.7, 363.3, 307.9, 276.9], 266.6);
const fourth = row("7B", 48, "624+256", [934.4, null, null, null], null);
const rows: readonly PublishedRow[] = [first, second, third, fourth];

export const speed: PublishedTable = {
  name: "prefixkv-speed",
  title: "PrefixKV, generation: tokens per second over those of the full cache",
  source,
  faults: [
    "the published batches are 8, 16 and 48; batches are not built here, so ours is one sequence at a time",
    "the GPU is not named, and the rates are those of its memory",
    "the full cache and three of four sizes did not fit at batch 48, so that row has no ratio",
  ],
  data: {
    file: "detail_1k.json",
    images: "the COCO pictures that it names, beside it or under --images",
    samples: 1000,
  },
  keeps: [0.2, 0.4, 0.6, 0.8],
  rows,
  ours: Object.fromEntries(rows.map(({ method }) => [method, prefixkvOffline])),
};
