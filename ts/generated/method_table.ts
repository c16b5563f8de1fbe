// Written by `cargo xtask gen` from the specifications of the engine; edit those instead.

/** The name of a method. */
export type MethodName =
  | "full"
  | "prefixkv"
  | "h2o"
  | "snapkv"
  | "pyramidkv"
  | "adakv"
  | "streaming"
  | "knorm"
  | "keydiff"
  | "random"
  | "fastv"
  | "custom"
  | "merge"
  | "bf16"
  | "fp8"
  | "int8"
  | "int4"
  | "int2"
  | "turboquant"
  | "kivi"
  | "akvqVl"
  | "zipvl"
  | "kvtuner"
  | "skvq"
  | "think"
  | "lorc"
  | "cskv"
  | "kvquant"
  | "minicache"
  | "kvsharer";

/** An option of a method, for the command line. */
export interface MethodOption {
  name: string;
  kind:
    | "count"
    | "share"
    | "flag"
    | "choice"
    | "number"
    | "calibration"
    | "layers"
    | "sharing"
    | "pairs"
    | "bits"
    | "channels"
    | "codebooks"
    | "directions";
  /** The values that it takes, in words. */
  values: string;
  /** Null where leaving it out means something of its own. */
  default: string | number | boolean | null;
  text: string;
}

/** Facts of a method, for the command line. */
export interface MethodFacts {
  name: MethodName;
  title: string;
  summary: string;
  source: string;
  /** How what is kept relates to the asked size: met to the entry, never more, or not asked for. */
  budget: "exact" | "atmost" | "outcome";
  /**
   * Whether it chooses entries, goes behind a method and changes what that does, or stores what stays (alone or behind a method) or has
   * layers share entries (alone or before a method).
   */
  role: "chooses" | "refines" | "stores" | "shares";
  options: readonly MethodOption[];
  /** Values of the option `variant` whose defaults are others, with those; what is not listed has the option's default. */
  variants: Readonly<Record<string, Readonly<Record<string, string | number | boolean>>>>;
}

/** Every method, in the order of the docs. */
export const methods: readonly MethodFacts[] = [
  {
    name: "full",
    title: "Full cache",
    summary: "keeps every entry",
    source: "",
    budget: "outcome",
    role: "chooses",
    options: [],
    variants: {},
  },
  {
    name: "prefixkv",
    title: "PrefixKV",
    summary: "gives each layer its own size by one binary search over cumulative importance",
    source: "Wang et al. 2024, PrefixKV, arXiv 2412.03409 (NeurIPS 2025)",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "score",
        kind: "choice",
        values: 'one of "question", "window", "text", "columns"',
        default: "question",
        text: "attention from the text among the last `window` queries, from all of the last `window`, from all text of the prompt, or from all queries",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 32,
        text: 'queries that count with `score: "question"` and `"window"`',
      },
      {
        name: "pool",
        kind: "choice",
        values: 'one of "max", "mean", "none"',
        default: "max",
        text: 'how neighbouring scores are joined, with `score: "question"` and `"window"`',
      },
      {
        name: "poolSize",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 7,
        text: "entries of a neighbourhood; odd",
      },
      {
        name: "calibration",
        kind: "calibration",
        values: "a calibration, its file, the name of a shipped one, or the evicted share of every layer",
        default: null,
        text: "sizes found before instead of a search per prompt: see model.calibrate. It brings its score along",
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "lowest-score", "distance", "none"',
        default: "lowest-score",
        text: "which entry goes while generating: the one with the lowest score, the one at a fixed distance, or none",
      },
      {
        name: "distance",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 25,
        text: 'places before the end of what the prompt has left, for `decode: "distance"`',
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 1,
        text: "first entries that are never evicted",
      },
      {
        name: "recent",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 8,
        text: 'last entries that are never evicted; with `variant: "tuned"` at most half of the size',
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "excludeSink",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "leave the sinks out of the cumulative importance",
      },
      {
        name: "positions",
        kind: "choice",
        values: 'one of "true", "official"',
        default: "true",
        text: "`official` replays the published code's positions while generating",
      },
      {
        name: "variant",
        kind: "choice",
        values: 'one of "tuned", "paper", "official"',
        default: "tuned",
        text: "other defaults: `paper` is the published method, `official` also replays the published code's search, which misses the asked size by a little",
      },
    ],
    variants: {
      paper: { score: "columns", pool: "none", decode: "distance", recent: 1 },
      official: { score: "columns", pool: "none", decode: "distance", recent: 1 },
    },
  },
  {
    name: "h2o",
    title: "H2O",
    summary: "keeps heavy hitters and recent entries, per layer and head",
    source: "Zhang et al. 2023, H2O: Heavy-Hitter Oracle, arXiv 2306.14048",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "recentShare",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.5,
        text: "share of what a head keeps that is its last entries",
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "first entries that are never evicted",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "lowest-score", "none"',
        default: "lowest-score",
        text: "which entry goes while generating: the one with the lowest score, or none",
      },
    ],
    variants: {},
  },
  {
    name: "snapkv",
    title: "SnapKV",
    summary: "keeps what the last queries of the prompt look at, per layer and head",
    source: "Li et al. 2024, SnapKV, arXiv 2404.14469",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "window",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 32,
        text: "queries that vote, and last entries that are kept; at most half of the size",
      },
      {
        name: "pool",
        kind: "choice",
        values: 'one of "max", "mean", "none"',
        default: "max",
        text: "how neighbouring votes are joined",
      },
      {
        name: "poolSize",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 7,
        text: "entries of a neighbourhood; odd",
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "first entries that are never evicted",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "none", "lowest-score"',
        default: "none",
        text: "which entry goes while generating: none, or the one with the lowest score",
      },
    ],
    variants: {},
  },
  {
    name: "pyramidkv",
    title: "PyramidKV",
    summary: "keeps what the last queries look at, in sizes that fall from layer to layer",
    source: "Cai et al. 2024, PyramidKV, arXiv 2406.02069",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "window",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 8,
        text: "queries that vote, and last entries that are kept; at most half of the size",
      },
      {
        name: "beta",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 20,
        text: "the mean size over the last layer's, beside the window: how steep the pyramid is",
      },
      {
        name: "pool",
        kind: "choice",
        values: 'one of "max", "mean", "none"',
        default: "max",
        text: "how neighbouring votes are joined",
      },
      {
        name: "poolSize",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 7,
        text: "entries of a neighbourhood; odd",
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "first entries that are never evicted",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "none", "lowest-score"',
        default: "none",
        text: "which entry goes while generating: none, or the one with the lowest score",
      },
    ],
    variants: {},
  },
  {
    name: "adakv",
    title: "AdaKV",
    summary: "splits each layer over its heads by what the last queries look at",
    source: "Feng et al. 2024, AdaKV, arXiv 2407.11550",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "window",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 32,
        text: "queries that vote, and last entries that are kept; at most half of the size",
      },
      {
        name: "floor",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.2,
        text: "the share of an even split that every head gets in any case",
      },
      {
        name: "pool",
        kind: "choice",
        values: 'one of "max", "mean", "none"',
        default: "max",
        text: "how neighbouring votes are joined",
      },
      {
        name: "poolSize",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 7,
        text: "entries of a neighbourhood; odd",
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "first entries that are never evicted",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "none", "lowest-score"',
        default: "none",
        text: "which entry goes while generating: none, or the one with the lowest score",
      },
    ],
    variants: {},
  },
  {
    name: "streaming",
    title: "StreamingLLM",
    summary: "keeps the first entries and the last ones",
    source: "Xiao et al. 2023, StreamingLLM, arXiv 2309.17453",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 4,
        text: "first entries that are never evicted",
      },
      {
        name: "positions",
        kind: "choice",
        values: 'one of "true", "cache"',
        default: "true",
        text: "`cache` rotates keys to their rank among the entries that are left",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "oldest", "none"',
        default: "oldest",
        text: "which entry goes while generating: the oldest that is not protected, or none",
      },
    ],
    variants: {},
  },
  {
    name: "knorm",
    title: "L2 norm",
    summary: "keeps the keys with the lowest L2 norm, per layer and head",
    source:
      "Devoto et al. 2024, A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression, arXiv 2406.11430",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "first entries that are never evicted",
      },
      {
        name: "recent",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "last entries that are never evicted",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "none", "lowest-score"',
        default: "none",
        text: "which entry goes while generating: none, or the one with the highest norm",
      },
    ],
    variants: {},
  },
  {
    name: "keydiff",
    title: "KeyDiff",
    summary: "keeps the keys that resemble the others least, per layer and head",
    source: "Park et al. 2025, KeyDiff, arXiv 2504.15364",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "first entries that are never evicted",
      },
      {
        name: "recent",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "last entries that are never evicted",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "none", "lowest-score"',
        default: "none",
        text: "which entry goes while generating: none, or the one that resembles the others most",
      },
    ],
    variants: {},
  },
  {
    name: "random",
    title: "Random",
    summary: "keeps entries by chance: what every method must beat",
    source: "",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "seed",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "the same seed keeps the same entries",
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 1,
        text: "first entries that are never evicted",
      },
      {
        name: "recent",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 1,
        text: "last entries that are never evicted",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
    ],
    variants: {},
  },
  {
    name: "fastv",
    title: "FastV",
    summary: "ends the way of image positions that get little attention after the first layers",
    source: "Chen et al. 2024, An Image is Worth 1/2 Tokens After Layer 2, arXiv 2403.06764",
    budget: "outcome",
    role: "chooses",
    options: [
      {
        name: "layer",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 2,
        text: "layers that read the whole prompt",
      },
      {
        name: "images",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.5,
        text: "the share of image positions that later layers see",
      },
    ],
    variants: {},
  },
  {
    name: "custom",
    title: "Custom recipe",
    summary: "any score with any budget, put together from options",
    source: "",
    budget: "exact",
    role: "chooses",
    options: [
      {
        name: "score",
        kind: "choice",
        values: 'one of "question", "window", "text", "columns", "key-norm", "key-diff", "recency", "random"',
        default: "question",
        text: "the score that ranks entries",
      },
      {
        name: "budget",
        kind: "choice",
        values: 'one of "uniform", "prefix", "pyramid", "ada"',
        default: "uniform",
        text: "how the whole is split over layers and heads",
      },
      {
        name: "lanes",
        kind: "choice",
        values: 'one of "layer", "head"',
        default: "layer",
        text: 'whether the heads of a layer share their entries or have their own; `"head"` by default with `budget: "ada"`',
      },
      {
        name: "decode",
        kind: "choice",
        values: 'one of "lowest-score", "distance", "oldest", "none"',
        default: "lowest-score",
        text: "which entry goes while generating: the one with the lowest score, the one at a fixed distance, the oldest, or none",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 32,
        text: 'queries that count with `score: "question"` and `"window"`',
      },
      {
        name: "pool",
        kind: "choice",
        values: 'one of "max", "mean", "none"',
        default: "max",
        text: 'how neighbouring scores are joined, with `score: "question"` and `"window"`',
      },
      {
        name: "poolSize",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 7,
        text: "entries of a neighbourhood; odd",
      },
      {
        name: "seed",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: 'for `score: "random"`',
      },
      {
        name: "calibration",
        kind: "calibration",
        values: "a calibration, its file, the name of a shipped one, or the evicted share of every layer",
        default: null,
        text: 'for `budget: "prefix"`: sizes found before instead of a search per prompt. It brings its score along',
      },
      {
        name: "floor",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.2,
        text: 'for `budget: "ada"`: the share of an even split that every head gets in any case',
      },
      {
        name: "beta",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 20,
        text: 'for `budget: "pyramid"`: the mean size over the last layer\'s, beside the `recent` entries',
      },
      {
        name: "distance",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 25,
        text: 'places before the end of what the prompt has left, for `decode: "distance"`',
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 1,
        text: "first entries that are never evicted",
      },
      {
        name: "recent",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 8,
        text: "last entries that are never evicted, as far as `recentShare` lets them",
      },
      {
        name: "recentShare",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.5,
        text: "the most that `recent` takes of what a lane keeps",
      },
      {
        name: "protectText",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "never evict positions that are text of the prompt",
      },
      {
        name: "excludeSink",
        kind: "flag",
        values: "true or false",
        default: false,
        text: 'for `budget: "prefix"`: leave the sinks out of the cumulative importance',
      },
      {
        name: "positions",
        kind: "choice",
        values: 'one of "true", "cache"',
        default: "true",
        text: "`cache` rotates keys to their rank among the entries that are left",
      },
    ],
    variants: {},
  },
  {
    name: "merge",
    title: "Merging",
    summary: "a stage: adds what the method before it drops to the most similar entries that stay",
    source: "Wan et al. 2024, LOOK-M, arXiv 2406.18139 (its averaged merging)",
    budget: "outcome",
    role: "refines",
    options: [
      {
        name: "weight",
        kind: "share",
        values: "a number from 0 to 1",
        default: 1,
        text: "how much a merged entry counts beside the one that stays",
      },
      {
        name: "least",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0,
        text: "the least cosine at which an entry is merged",
      },
    ],
    variants: {},
  },
  {
    name: "bf16",
    title: "bf16",
    summary: "stores what stays in bf16",
    source: "",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "most recent entries that stay in full precision, per layer and head",
      },
    ],
    variants: {},
  },
  {
    name: "fp8",
    title: "8 bits of floating point",
    summary: "stores what stays in 8 bits of floating point",
    source: "Micikevicius et al. 2022, FP8 Formats for Deep Learning, arXiv 2209.05433",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "most recent entries that stay in full precision, per layer and head",
      },
    ],
    variants: {},
  },
  {
    name: "int8",
    title: "8 bits",
    summary: "stores what stays in 8 bits",
    source: "",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "group",
        kind: "count",
        values: "a whole number from 8 to 64",
        default: 32,
        text: "numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as they divide a head",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "most recent entries that stay in full precision, per layer and head",
      },
      {
        name: "keys",
        kind: "choice",
        values: 'one of "channel", "entry"',
        default: "entry",
        text: "the numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or channels of one entry",
      },
      {
        name: "rotate",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "store keys and values through a Hadamard transform, which spreads outliers over the channels of a head",
      },
      {
        name: "rope",
        kind: "choice",
        values: 'one of "after", "before"',
        default: "after",
        text: "whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are read, on the CPU only",
      },
    ],
    variants: {},
  },
  {
    name: "int4",
    title: "4 bits (KIVI)",
    summary: "stores what stays in 4 bits",
    source: "Liu et al. 2024, KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, arXiv 2402.02750",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "group",
        kind: "count",
        values: "a whole number from 8 to 64",
        default: 32,
        text: "numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as they divide a head",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 128,
        text: "most recent entries that stay in full precision, per layer and head",
      },
      {
        name: "keys",
        kind: "choice",
        values: 'one of "channel", "entry"',
        default: "channel",
        text: "the numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or channels of one entry",
      },
      {
        name: "rotate",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "store keys and values through a Hadamard transform, which spreads outliers over the channels of a head",
      },
      {
        name: "rope",
        kind: "choice",
        values: 'one of "after", "before"',
        default: "after",
        text: "whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are read, on the CPU only",
      },
    ],
    variants: {},
  },
  {
    name: "int2",
    title: "2 bits (KIVI)",
    summary: "stores what stays in 2 bits",
    source: "Liu et al. 2024, KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, arXiv 2402.02750",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "group",
        kind: "count",
        values: "a whole number from 8 to 64",
        default: 32,
        text: "numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as they divide a head",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 128,
        text: "most recent entries that stay in full precision, per layer and head",
      },
      {
        name: "keys",
        kind: "choice",
        values: 'one of "channel", "entry"',
        default: "channel",
        text: "the numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or channels of one entry",
      },
      {
        name: "rotate",
        kind: "flag",
        values: "true or false",
        default: false,
        text: "store keys and values through a Hadamard transform, which spreads outliers over the channels of a head",
      },
      {
        name: "rope",
        kind: "choice",
        values: 'one of "after", "before"',
        default: "after",
        text: "whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are read, on the CPU only",
      },
    ],
    variants: {},
  },
  {
    name: "turboquant",
    title: "TurboQuant",
    summary: "stores what stays in levels of the normal distribution, after a random rotation",
    source:
      "Zandieh et al. 2025, TurboQuant: Online Vector Quantization with Near-optimal Distortion Rate, arXiv 2504.19874",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "bits",
        kind: "count",
        values: "a whole number from 2 to 4",
        default: 4,
        text: "bits of a code, 2 or 4",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "most recent entries that stay in full precision, per layer and head",
      },
    ],
    variants: {},
  },
  {
    name: "kivi",
    title: "KIVI",
    summary: "stores what stays in 2 or 4 bits, keys per channel and values per entry",
    source: "Liu et al. 2024, KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, arXiv 2402.02750",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "bits",
        kind: "count",
        values: "a whole number from 2 to 4",
        default: 2,
        text: "bits of a code, 2 or 4",
      },
      {
        name: "group",
        kind: "count",
        values: "a whole number from 8 to 64",
        default: 32,
        text: "numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as they divide a head",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 128,
        text: "most recent entries that stay in full precision, per layer and head",
      },
      {
        name: "rope",
        kind: "choice",
        values: 'one of "after", "before"',
        default: "after",
        text: "whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are read, on the CPU only",
      },
    ],
    variants: {},
  },
  {
    name: "akvqVl",
    title: "AKVQ-VL",
    summary: "stores what stays in 2 bits, text of the first layers in 4, and keeps pivot tokens whole",
    source:
      "Su et al. 2025, AKVQ-VL: Attention-Aware KV Cache Adaptive 2-Bit Quantization for Vision-Language Models, arXiv 2501.15021",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 128,
        text: "most recent entries that stay in full precision, per layer and head",
      },
      {
        name: "pivots",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 15,
        text: "tokens of a prompt that stay whole for their magnitude, in the layers behind the text layers",
      },
      {
        name: "textLayers",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 2,
        text: "first layers, in which text takes 4 bits and pivots are as other entries",
      },
      {
        name: "clip",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.8,
        text: "the part of a group's range that codes of 2 bits cover, in whole hundredths",
      },
      {
        name: "hadamard",
        kind: "flag",
        values: "true or false",
        default: true,
        text: "store keys and values through a Hadamard transform of each head",
      },
    ],
    variants: {},
  },
  {
    name: "zipvl",
    title: "ZipVL",
    summary: "stores the entries that hold most of a layer's attention in 4 bits, the others in 2",
    source:
      "He et al. 2024, ZipVL: Efficient Large Vision-Language Models with Dynamic Token Sparsification, arXiv 2410.08584",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "mass",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.975,
        text: "the share of the attention that the entries in 4 bits hold",
      },
      {
        name: "probes",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 64,
        text: "last queries that are asked, and as many of the others",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "most recent entries that stay in full precision, per layer and head",
      },
    ],
    variants: {},
  },
  {
    name: "kvtuner",
    title: "KVTuner",
    summary: "stores what stays in bits that every layer has of its own, for keys and for values",
    source:
      "Li et al. 2025, KVTuner: Sensitivity-Aware Layer-Wise Mixed-Precision KV Cache Quantization, arXiv 2502.04420 (ICML 2025)",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "calibration",
        kind: "bits",
        values: "such a calibration, or its file",
        default: null,
        text: "the bits that model.calibrateBits has found",
      },
      {
        name: "bits",
        kind: "number",
        values: "a number from 2 to 16",
        default: null,
        text: "the most bits of a number, the mean over layers, keys and values: the best of the calibration within them; its last point where it is left out",
      },
      {
        name: "pairs",
        kind: "pairs",
        values: "an array such as [[8, 4], [4, 2]]",
        default: null,
        text: "bits by hand instead: of keys and of values, for each layer or once for all; 8 and 4 for all without a calibration",
      },
      {
        name: "group",
        kind: "count",
        values: "a whole number from 8 to 64",
        default: 32,
        text: "numbers that share a scale and a zero, a multiple of 8: entries of a channel, or channels of an entry as far as they divide a head",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 32,
        text: "most recent entries that stay in full precision, per layer and head",
      },
      {
        name: "keys",
        kind: "choice",
        values: 'one of "channel", "entry"',
        default: "channel",
        text: "the numbers of the keys that share a scale: a channel over a group of entries, which are then freed together, or channels of one entry",
      },
    ],
    variants: {},
  },
  {
    name: "skvq",
    title: "SKVQ",
    summary:
      "stores what stays in 2 or 4 bits, with alike channels in a group, clipped ranges, and the first and last entries whole",
    source:
      "Duanmu et al. 2024, SKVQ: Sliding-window Key and Value Cache Quantization for Large Language Models, arXiv 2405.06219",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "calibration",
        kind: "channels",
        values: "such a calibration, or its file",
        default: null,
        text: "the orders and clips that model.calibrateChannels has found",
      },
      {
        name: "bits",
        kind: "count",
        values: "a whole number from 2 to 4",
        default: 2,
        text: "bits of a code, 2 or 4",
      },
      {
        name: "group",
        kind: "count",
        values: "a whole number from 8 to 128",
        default: 64,
        text: "channels of an entry that share a scale and a zero, a multiple of 8, as far as they divide a head; a calibration says its own",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 128,
        text: "most recent entries that stay in full precision, per layer and head",
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 5,
        text: "first positions of the sequence that stay whole",
      },
      {
        name: "clip",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.92,
        text: "the part of a group's range that codes cover, in whole hundredths; a calibration says its own for each layer",
      },
    ],
    variants: {},
  },
  {
    name: "think",
    title: "ThinK",
    summary: "stores the channels of keys that the prompt's last queries use, and leaves out the others",
    source: "Xu et al. 2024, ThinK: Thinner Key Cache by Query-Driven Pruning, arXiv 2407.21018",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "channels",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.6,
        text: "the share of a head's key channels that is stored",
      },
      {
        name: "queries",
        kind: "count",
        values: "a whole number from 1 to 1,000,000",
        default: 32,
        text: "last queries of a prompt that choose the channels",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 32,
        text: "most recent entries that keep all channels, per layer and head",
      },
      {
        name: "bits",
        kind: "choice",
        values: 'one of "whole", "8", "4", "2"',
        default: "whole",
        text: 'bits of a code for the channels and the values; "whole" is the precision of new entries',
      },
    ],
    variants: {},
  },
  {
    name: "lorc",
    title: "LoRC",
    summary:
      "stores keys and values as fewer numbers, along the directions in which the model's weights put most of them",
    source:
      "Zhang et al. 2024, LoRC: Low-Rank Compression for LLMs KV Cache with a Progressive Compression Strategy, arXiv 2410.03111",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "most",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.75,
        text: "the share of a head's coordinates that is stored in the layer that keeps most",
      },
      {
        name: "least",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.5,
        text: "the share of a head's coordinates that is stored in the layer that keeps least",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 32,
        text: "most recent entries that stay whole, per layer and head",
      },
      {
        name: "heads",
        kind: "choice",
        values: 'one of "each", "joint"',
        default: "each",
        text: "whether each head has directions of its own, or all of a layer have some together",
      },
      {
        name: "rope",
        kind: "choice",
        values: 'one of "after", "before"',
        default: "before",
        text: "whether keys are stored after their rotary embedding or before it; before it they are rotated whenever they are read",
      },
    ],
    variants: {},
  },
  {
    name: "cskv",
    title: "CSKV",
    summary:
      "stores keys and values as fewer numbers, along directions that a calibration has found, recent ones whole",
    source:
      "Wang et al. 2024, CSKV: Training-Efficient Channel Shrinking for KV Cache in Long-Context Scenarios, arXiv 2409.10593",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "calibration",
        kind: "directions",
        values: "such a calibration, or its file",
        default: null,
        text: "the directions that model.calibrateCskv has found",
      },
      {
        name: "keys",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.5,
        text: "the share of the coordinates of keys that is stored",
      },
      {
        name: "values",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.5,
        text: "the share of the coordinates of values that is stored",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 32,
        text: "most recent entries that stay whole, per layer and head",
      },
      {
        name: "bits",
        kind: "choice",
        values: 'one of "whole", "8", "4"',
        default: "whole",
        text: 'bits of a code for the coordinates; "whole" is the precision of new entries',
      },
    ],
    variants: {},
  },
  {
    name: "kvquant",
    title: "KVQuant",
    summary:
      "stores what stays in levels that a calibration has found, keys before their rotary embedding, outliers apart",
    source:
      "Hooper et al. 2024, KVQuant: Towards 10 Million Context Length LLM Inference with KV Cache Quantization, arXiv 2401.18079",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "calibration",
        kind: "codebooks",
        values: "such a calibration, or its file",
        default: null,
        text: "the codebooks that model.calibrateKvquant has found",
      },
      {
        name: "sinks",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 1,
        text: "first positions that stay in full precision",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 0,
        text: "most recent entries that stay in full precision, per layer and head",
      },
    ],
    variants: {},
  },
  {
    name: "minicache",
    title: "MiniCache",
    summary: "stores the directions of keys and values of two neighbouring layers once, with a size for each layer",
    source:
      "Liu et al. 2024, MiniCache: KV Cache Compression in Depth Dimension for Large Language Models, arXiv 2405.14366",
    budget: "outcome",
    role: "stores",
    options: [
      {
        name: "from",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.5,
        text: "the share of the layers before the first pair",
      },
      {
        name: "t",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.6,
        text: "how far the direction is on the way from the lower layer's to the upper layer's",
      },
      {
        name: "retain",
        kind: "share",
        values: "a number from 0 to 1",
        default: 0.05,
        text: "the share of the entries that stays unmerged, whose angles are the largest",
      },
      {
        name: "window",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: 32,
        text: "most recent entries that stay whole, per layer and head",
      },
      {
        name: "bits",
        kind: "choice",
        values: 'one of "whole", "8", "4", "2"',
        default: "whole",
        text: 'bits of a code for directions and for entries that stay unmerged; "whole" is as new entries are',
      },
    ],
    variants: {},
  },
  {
    name: "kvsharer",
    title: "KVSharer",
    summary: "lets layers read the keys and values of layers before them",
    source:
      "Yang et al. 2024, KVSharer: Efficient Inference via Layer-Wise Dissimilar KV Cache Sharing, arXiv 2410.18517",
    budget: "outcome",
    role: "shares",
    options: [
      {
        name: "calibration",
        kind: "sharing",
        values: "such a calibration, or its file",
        default: null,
        text: "the map that model.calibrateSharing has found",
      },
      {
        name: "layers",
        kind: "count",
        values: "a whole number from 0 to 1,000,000",
        default: null,
        text: "how many layers share: the first so many of the calibration, all of them where it is left out",
      },
      {
        name: "sources",
        kind: "layers",
        values: 'an object such as { "6": 2 }',
        default: null,
        text: "a map by hand instead: by the number of a layer that shares, the layer that it reads",
      },
    ],
    variants: {},
  },
];
