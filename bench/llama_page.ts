// The page of bench/llama.ts, made of its figures alone.
import { heading, type Origin } from "./machine.ts";
import { digits, paired, summarise, table } from "./stats.ts";

/** Milliseconds, and bytes that the process holds more than before it loaded. */
interface Start {
  wall: number;
  load: number;
  first: number;
  more: number;
}

export interface Samples {
  /** By side. */
  fresh: Record<string, Start[]>;
  /** By side and tokens of the prompt: milliseconds of the prompt, and of a token behind it. */
  warm: Record<string, Record<number, { prefill: number[]; decode: number[] }>>;
}

export interface FileReport {
  name: string;
  bytes: number;
  /** Of which its speeds are. */
  commit?: string;
  /** The instructions that llama.cpp says it uses. */
  system: string;
  versions: Record<string, string>;
  samples: Samples;
  quality: Quality;
}

/** Perplexities, `exact` with the file's weights and the cache in 32 bits, and mean distances of log-probabilities. */
export interface Quality {
  tokens: number;
  ours: number;
  theirs: number;
  exact: number;
  /** Standard error of the logarithm of ours over theirs. */
  error: number;
  off: { between: number; ours: number; theirs: number };
}

export interface LlamaReport {
  origin: Origin;
  rounds: number;
  starts: number;
  steps: number;
  measured: FileReport[];
}

const median = (samples: readonly number[]): number => summarise(samples).median;

/** The side whose median is the least. */
function best(report: FileReport, context: number, phase: "prefill" | "decode", isOurs: boolean): [string, number[]] {
  const sides = Object.entries(report.samples.warm).flatMap(([side, of]): [string, number[]][] =>
    side.startsWith("ours") === isOurs ? [[side, of[context]?.[phase] ?? []]] : [],
  );
  const [first] = sides.sort(([, one], [, other]) => median(one) - median(other));
  if (!first) throw new Error("a side was not measured");
  return first;
}

/** Those that llama.cpp says it uses. */
const instructions = (system: string): string =>
  [...system.matchAll(/(\w+) = 1/g)].map(([, name]) => name?.toLowerCase()).join(" ");

function speeds(report: FileReport): string[][] {
  const contexts = Object.keys(Object.values(report.samples.warm)[0] ?? {}).map(Number);
  return contexts.flatMap((context) =>
    (["prefill", "decode"] as const).map((phase) => {
      const [[mine, us], [other, them]] = [best(report, context, phase, true), best(report, context, phase, false)];
      const { median: ratio, low, high } = summarise(paired(them, us));
      const rate = (samples: readonly number[]): string =>
        digits((phase === "prefill" ? context : 1) / (median(samples) / 1000));
      return [
        report.name,
        phase === "prefill" ? `prompt of ${context}` : `tokens behind ${context}`,
        `**${digits(ratio)}** (${digits(low)} to ${digits(high)})`,
        rate(us),
        mine.replace("ours, ", ""),
        rate(them),
        other.replace("llama.cpp, ", ""),
      ];
    }),
  );
}

function fresh({ name, bytes, samples }: FileReport): string[] {
  const of = (side: string, what: keyof Start): number =>
    median((samples.fresh[side] ?? []).map((start) => start[what]));
  const both = (what: keyof Start, unit = 1): string[] =>
    ["ours", "llama.cpp"].map((side) => digits(of(side, what) / unit));
  const mebibyte = 2 ** 20;
  return [
    name,
    ...both("wall"),
    ...both("load"),
    ...both("first"),
    digits(bytes / mebibyte),
    ...both("more", mebibyte),
  ];
}

/** Files whose speeds are of another commit than the page say so. */
const dated = (measured: readonly FileReport[], commit: string): FileReport[] =>
  measured.map((file) =>
    file.commit === undefined || file.commit === commit ? file : { ...file, name: `${file.name} (${file.commit})` },
  );

export function markdown({ origin, rounds, starts, steps, ...report }: LlamaReport): string {
  const measured = dated(report.measured, origin.commit);
  const quality = measured.map(({ name, quality: { tokens, ours, theirs, exact, error, off } }) => [
    name,
    String(tokens),
    exact.toFixed(3),
    ours.toFixed(3),
    theirs.toFixed(3),
    `${(100 * (ours / theirs - 1)).toFixed(2)} % ± ${(100 * error).toFixed(2)}`,
    off.between.toFixed(4),
    off.ours.toFixed(4),
    off.theirs.toFixed(4),
  ]);
  return `${heading("Beside llama.cpp", origin)}

llama.cpp on the CPU (\`node-llama-cpp\`, its own build for this processor: ${instructions(measured[0]?.system ?? "")}) and this library on the same GGUF
files, tokens given, greedy. Blocks are used as they lie in the file on our side; llama.cpp repacks what it can. Its cache is f16, ours has the format that goes with the weights.

## Speed

Their time over ours, pairs of runs in the same round and their quartiles, ${rounds} rounds that turn about: **above 1 we are faster**. Each side with the better of 1 and 2 threads, and theirs with
the better of flash attention and none, chosen by the medians of that row. ${steps} tokens are generated.

${table([["file", "", "their time over ours", "our tokens/s", "threads", "their tokens/s", "threads, attention"], ...measured.flatMap(speeds)])}

## From nothing

A fresh process: milliseconds from its start to the second token behind a prompt of 64 (ours on Bun, theirs on Node with all that \`node-llama-cpp\` loads), milliseconds of loading, milliseconds of the prompt
right after, and MiB that the process holds then beyond what it held before it loaded, mapped files included. Medians of ${starts}. llama.cpp reserves its cache for 2304 positions at once.

${table([["file", "start: ours", "theirs", "load: ours", "theirs", "prompt: ours", "theirs", "MiB of the file", "held: ours", "theirs"], ...measured.map(fresh)])}

## The same numbers

Perplexity of \`tests/real/text.txt\` behind its first words, the same tokens read by all. *In 32 bits*: this library with the file's weights unpacked to 32 bits and a cache of 32 bits; nothing is rounded
there, while both sides round activations to 8 bits where weights are in blocks. *Apart*: the mean distance of log-probabilities. The error is one standard error, of the differences of single tokens.

${table([["file", "tokens", "in 32 bits", "ours", "theirs", "ours over theirs", "apart", "ours from 32 bits", "theirs from 32 bits"], ...quality])}
`;
}
