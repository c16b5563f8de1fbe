import { faults, type Ours, type PublishedTable, prefixkvOffline, source } from "./table.ts";

const online: readonly Ours[] = [
  {
    variant: "official",
    method: () => ({
      id: "prefixkv, online, official",
      cache: { method: "prefixkv", positions: "official", variant: "official" },
    }),
  },
  { variant: "correct", method: () => ({ id: "prefixkv, online", cache: { method: "prefixkv", variant: "paper" } }) },
];

export const ablation: PublishedTable = {
  name: "prefixkv-ablation",
  title: "PrefixKV, how the size is split over layers: perplexity on MM-Vet",
  source: `${source}; the ablation by a third party's note of the paper`,
  faults,
  data: { file: "mm-vet.json", images: "the folder `images` beside it, or --images", samples: 218 },
  keeps: [0.1, 0.2, 0.3, 0.5],
  rows: [
    { model: "7B", method: "Uniform", values: { ppl: [41.8, 26.6, 20.4, 11.8] } },
    { model: "7B", method: "PyramidKV", values: { ppl: [20.8, 10.4, 7.5, 5.63] } },
    { model: "7B", method: "PrefixKV, offline", values: { ppl: [7.38, 5.97, 5.72, 5.5] } },
    { model: "7B", method: "PrefixKV, online", values: { ppl: [7.38, 5.97, 5.66, 5.5] } },
  ],
  ours: {
    Uniform: [{ variant: "correct", method: { notBuilt: "PrefixKV's scores with the same size in every layer" } }],
    PyramidKV: [{ variant: "correct", method: { notBuilt: "PyramidKV" } }],
    "PrefixKV, offline": prefixkvOffline,
    "PrefixKV, online": online,
  },
};
