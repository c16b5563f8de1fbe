// The same random weights in Hugging Face transformers and here, one right after the other, round by round: `npm run bench:peers`.
import { fileURLToPath } from "node:url";
import { heading, keep, type Origin, origin } from "../machine.ts";
import { promptOf } from "../prompts.ts";
import { randomModel, smol } from "../random_model.ts";
import { digits, paired, type Summary, summarise, table } from "../stats.ts";
import { Child, type Ran } from "./child.ts";

const quick = process.argv.includes("--quick");
const threads = "2";
const rounds = quick ? 2 : 5;
const steps = quick ? 8 : 32;
const contexts = quick ? [128] : [512, 2048];
const trial = { prompt: promptOf(quick ? 64 : 256), steps: 4 };
/** A mode of theirs that is so many times slower than their f32 in both phases is left out. */
const hopeless = 2;

interface Side {
  child: Child;
  attention: string;
}

export interface Comparison {
  ours: string;
  theirs: string;
  context: number;
  /** Our time over theirs, round by round: below 1 we are faster. */
  prefill: Summary & { pairs: number[] };
  decode: Summary & { pairs: number[] };
}

interface PeersReport {
  origin: Origin;
  threads: string;
  rounds: number;
  steps: number;
  /** Modes of theirs that were tried and left out. */
  leftOut: string[];
  samples: Record<string, Record<number, { prefill: number[]; decode: number[] }>>;
  comparisons: Comparison[];
}

const local = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

function ours(folder: string, weights: string): Side {
  return {
    child: new Child(`ours ${weights}`, process.execPath, [local("ours.ts"), folder, weights, threads]),
    attention: "",
  };
}

function theirs(folder: string, dtype: string): Side {
  const python = process.env.PREFIXKV_PYTHON ?? "python3";
  const child = new Child(`transformers ${dtype}`, python, [local("transformers.py"), folder, dtype, threads]);
  return { child, attention: "sdpa" };
}

/** The faster attention to decode with, and the times of the trial. */
async function bestMode(side: Side): Promise<Ran> {
  const found: [string, Ran][] = [];
  // The very first run pays for what is set up once.
  for (const attention of ["sdpa", "sdpa", "eager", "eager"])
    found.push([attention, await side.child.run({ ...trial, attention })]);
  const [fastest] = found.slice(1).sort(([, a], [, b]) => a.decode - b.decode);
  if (!fastest) throw new Error("nothing was tried");
  side.attention = fastest[0];
  return fastest[1];
}

/** Their modes that are worth a comparison on this machine. */
async function modes(folder: string, leftOut: string[]): Promise<Side[]> {
  const full = theirs(folder, "float32");
  await full.child.ready.catch((error: Error) => {
    throw new Error(`${error.message}\nPREFIXKV_PYTHON names the Python to run; it needs torch and transformers.`);
  });
  const reference = await bestMode(full);
  const found = [full];
  for (const dtype of quick ? [] : ["bfloat16", "float16"]) {
    const side = theirs(folder, dtype);
    await side.child.ready;
    const tried = await bestMode(side);
    const [prefill, decode] = [tried.prefill / reference.prefill, tried.decode / reference.decode];
    if (Math.min(prefill, decode) < hopeless) {
      found.push(side);
      continue;
    }
    leftOut.push(
      `${side.child.name}: ${digits(prefill)} times the prefill and ${digits(decode)} times the decode of float32`,
    );
    await side.child[Symbol.asyncDispose]();
  }
  return found;
}

async function measure(sides: Side[], samples: PeersReport["samples"]): Promise<void> {
  for (const context of contexts) {
    const prompt = promptOf(context);
    for (let round = 0; round < rounds; round += 1) {
      // Every other round runs backwards, so that nobody always comes first.
      for (const { child, attention } of round % 2 === 0 ? sides : [...sides].reverse()) {
        const ran = await child.run({ prompt, steps, attention });
        if (ran.promptTokens !== context || ran.tokens.length !== steps + 1)
          throw new Error(
            `${child.name} took ${ran.promptTokens} + ${ran.tokens.length} tokens, not ${context} + ${steps + 1}`,
          );
        samples[child.name] ??= {};
        const of = samples[child.name] as PeersReport["samples"][string];
        of[context] ??= { prefill: [], decode: [] };
        of[context].prefill.push(ran.prefill);
        of[context].decode.push(ran.decode / steps);
        process.stderr.write(
          `${context} tokens, round ${round + 1}: ${child.name.padEnd(22)} prefill ${digits(ran.prefill)} ms, ` +
            `decode ${digits(ran.decode / steps)} ms a token\n`,
        );
      }
    }
  }
}

/** Every one of ours beside every one of theirs. */
export function compare(samples: PeersReport["samples"], us: readonly string[], them: readonly string[]): Comparison[] {
  const found: Comparison[] = [];
  for (const our of us) {
    for (const their of them) {
      for (const context of Object.keys(samples[our] ?? {}).map(Number)) {
        const [a, b] = [samples[our]?.[context], samples[their]?.[context]];
        if (!a || !b) continue;
        const of = (phase: "prefill" | "decode"): Comparison["prefill"] => {
          const pairs = paired(a[phase], b[phase]);
          return { ...summarise(pairs), pairs };
        };
        found.push({ ours: our, theirs: their, context, prefill: of("prefill"), decode: of("decode") });
      }
    }
  }
  return found;
}

export function markdown(report: Omit<PeersReport, "samples">): string {
  const ratio = ({ median, pairs }: Comparison["prefill"]): string =>
    `**${digits(median)}** (${pairs.map(digits).join(", ")})`;
  const rows = report.comparisons.map(({ ours, theirs, context, prefill, decode }) => [
    ours,
    theirs,
    String(context),
    ratio(prefill),
    ratio(decode),
  ]);
  const notes = report.leftOut.map((note) => `\nLeft out as hopeless on this machine: ${note}.`).join("");
  return `${heading("Time beside Hugging Face transformers", report.origin)}

Our time over theirs, ${report.rounds} pairs of runs one right after the other and their median: below 1 we are faster. The shape of
SmolLM2-135M with random weights, ${report.threads} threads, the same tokens; decode is ${report.steps} steps. Theirs is a bare greedy loop that
reads the prompt with sdpa and decodes with the faster of sdpa and eager.
${notes}

${table([["ours", "theirs", "tokens", "prefill", "decode"], ...rows])}
`;
}

async function main(): Promise<void> {
  const folder = await randomModel("135m", smol);
  const leftOut: string[] = [];
  const them = await modes(folder, leftOut);
  const us = (quick ? ["f32"] : ["f32", "f16", "q8_0"]).map((weights) => ours(folder, weights));
  const sides = [us[0], ...them, ...us.slice(1)].filter((side) => side !== undefined);
  const samples: PeersReport["samples"] = {};
  let versions: Record<string, string> = {};
  try {
    for (const { child } of sides) versions = { ...versions, ...(await child.ready).versions };
    for (const { child, attention } of us) await child.run({ ...trial, attention });
    await measure(sides, samples);
  } finally {
    for (const { child } of sides) await child[Symbol.asyncDispose]();
  }
  const names = (of: Side[]): string[] => of.map(({ child }) => child.name);
  const report: PeersReport = {
    origin: await origin(versions),
    threads,
    rounds,
    steps,
    leftOut,
    samples,
    comparisons: compare(samples, names(us), names(them)),
  };
  await keep("peers", quick, report, markdown(report));
}

if (import.meta.main) {
  await main().catch((error: Error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  });
}
