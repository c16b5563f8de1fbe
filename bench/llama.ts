// llama.cpp and this library on the same GGUF files, one right after the other, round by round: `npm run bench:llama`. The files are those
// of the tests with real weights, and SmolLM2's numbers once more in F16 and Q8_0. Writes bench/results/<machine>-llama.{json,md}.
// Options: --quick, --only TEXT for the files whose names have it, and --perplexity or --speed, which measures that alone anew. Everything
// else stays as it is in the file of results.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { source } from "../tests/real/goldens.ts";
import { order } from "./cache.ts";
import { type FileReport, type LlamaReport, markdown, type Samples } from "./llama_page.ts";
import { perplexities } from "./llama_perplexity.ts";
import { keep, origin, resultsFolder } from "./machine.ts";
import { Child, type Ran } from "./peers/child.ts";
import { type Width, writeGguf } from "./peers/gguf_of.ts";
import { promptOfText } from "./prompts.ts";

const quick = process.argv.includes("--quick");
const rounds = quick ? 2 : 5;
const starts = quick ? 2 : 5;
const steps = quick ? 8 : 32;
const characters = quick ? 800 : undefined;
const contexts = quick ? [128] : [512, 2048];
const version = "3.22.1";

const root = new URL("../", import.meta.url);
const local = (path: string): string => fileURLToPath(new URL(path, root));
const install = local(".cache/llama/");
const llamaPackage = local(".cache/llama/node_modules/node-llama-cpp");

/** Threads, and for llama.cpp whether its flash attention is on: all that it has to choose from here. */
const ours = ["1", "2"];
const theirs = ["1", "2"].flatMap((threads) => ["flash", "plain"].map((attention) => [threads, attention] as const));

function fetchLlama(): void {
  if (existsSync(llamaPackage)) return;
  mkdirSync(install, { recursive: true });
  const asked = ["install", "--prefix", install, "--ignore-scripts", "--no-save", `node-llama-cpp@${version}`];
  execFileSync("npm", asked, { stdio: "inherit" });
}

function converted(width: Width): string {
  const file = local(`.cache/llama/SmolLM2-135M-Instruct.${width}.gguf`);
  if (!existsSync(file)) writeGguf(source("gguf"), file, width);
  return file;
}

const us = (file: string, threads: string, weights = "stored"): Child =>
  new Child(`ours, ${threads}`, process.execPath, [local("bench/peers/ours.ts"), file, weights, threads]);
const them = (file: string, threads: string, attention: string): Child =>
  new Child(`llama.cpp, ${threads}, ${attention}`, "node", [
    local("bench/peers/llama_cpp.mjs"),
    llamaPackage,
    file,
    threads,
    attention,
  ]);

/** From the start of a process to its first token, in milliseconds, and what it holds then. */
async function fresh(
  make: () => Child,
  prompt: { prompt: string; ids: number[] },
): Promise<Samples["fresh"][string][number]> {
  const begun = performance.now();
  await using child = make();
  const { load: loading = Number.NaN } = await child.ready;
  const ran = await child.run({ ...prompt, steps: 1 });
  return { wall: performance.now() - begun, load: loading, first: ran.prefill, more: ran.more ?? Number.NaN };
}

async function measure(name: string, file: string, kept?: FileReport): Promise<FileReport> {
  const say = (text: string): void => void process.stderr.write(`\r\x1b[K${name}: ${text}`);
  const found: Samples = { fresh: {}, warm: {} };
  const short = await promptOfText(file, 64);
  for (let round = 0; round < starts; round += 1) {
    const makers: [string, () => Child][] = [
      ["ours", () => us(file, "2")],
      ["llama.cpp", () => them(file, "2", "flash")],
    ];
    for (const [side, make] of order(makers, round)) {
      say(`start ${round + 1} of ${starts}, ${side}`);
      found.fresh[side] = [...(found.fresh[side] ?? []), await fresh(make, short)];
    }
  }
  const sides = [
    ...ours.map((threads) => us(file, threads)),
    ...theirs.map(([threads, attention]) => them(file, threads, attention)),
  ];
  let versions: Record<string, string> = {};
  let system = "";
  try {
    for (const side of sides) {
      const ready = await side.ready;
      versions = { ...versions, ...ready.versions };
      system = ready.ready;
      await side.run({ ...short, steps: 4 });
    }
    for (const context of contexts) {
      const prompt = await promptOfText(file, context);
      for (let round = 0; round < rounds; round += 1) {
        for (const side of order(sides, round)) {
          say(`${context} tokens, round ${round + 1} of ${rounds}, ${side.name}`);
          const ran: Ran = await side.run({ ...prompt, steps });
          if (ran.promptTokens !== context || ran.tokens.length !== steps + 1)
            throw new Error(`${side.name} took ${ran.promptTokens} + ${ran.tokens.length} tokens`);
          found.warm[side.name] ??= {};
          const of = found.warm[side.name] as Samples["warm"][string];
          of[context] ??= { prefill: [], decode: [] };
          of[context].prefill.push(ran.prefill);
          of[context].decode.push(ran.decode / steps);
        }
      }
    }
  } finally {
    for (const side of sides) await side[Symbol.asyncDispose]();
  }
  say("perplexity");
  const quality = kept?.quality ?? (await perplexities(file, us, them, characters));
  process.stderr.write("\n");
  return { name, bytes: statSync(file).size, system, versions, samples: found, quality };
}

async function main(): Promise<void> {
  fetchLlama();
  const files: [string, string][] = [
    ["SmolLM2-135M, Q4_1", source("gguf")],
    ["SmolLM2-135M, Q8_0", converted("Q8_0")],
    ["SmolLM2-135M, F16", converted("F16")],
    ["Gemma 3 270M, Q4_K_M", local(".cache/real/gemma/gemma-3-270m-q4_k_m.gguf")],
  ];
  const missing = files.find(([, file]) => !existsSync(file));
  if (missing) throw new Error(`${missing[0]} is not there: \`npm run real -- --fetch\` fetches it`);
  const asked = process.argv.indexOf("--only");
  const only = asked < 0 ? "" : (process.argv[asked + 1] ?? "");
  const wanted = files.filter(([name]) => name.includes(only));
  const [one] = ["--perplexity", "--speed"].filter((part) => process.argv.includes(part));
  const report = one || only ? await kept() : undefined;
  let measured = report?.measured ?? [];
  for (const [name, file] of quick ? wanted.slice(0, 1) : wanted) {
    const before = measured.find((each) => each.name === name);
    if (one && !before) throw new Error(`${name} is not among the results: measure it without ${one} first`);
    const now: FileReport =
      one === "--perplexity" && before
        ? { ...before, quality: await perplexities(file, us, them, characters) }
        : { ...(await measure(name, file, one ? before : undefined)), commit: (await origin()).commit };
    measured = before ? measured.map((each) => (each === before ? now : each)) : [...measured, now];
    // After each, so that a run that is ended leaves what it has.
    const at = one === "--perplexity" && report ? report.origin : await origin(now.versions);
    const all: LlamaReport = { origin: at, rounds, starts, steps, measured };
    await keep("llama", quick, all, markdown(all));
  }
}

/** The results so far. */
async function kept(): Promise<LlamaReport | undefined> {
  const { machine } = await origin();
  const file = new URL(`${machine.slug}-llama.json`, resultsFolder(quick));
  return existsSync(file) ? (JSON.parse(await readFile(file, "utf8")) as LlamaReport) : undefined;
}

if (import.meta.main) {
  await main().catch((error: Error) => {
    process.stderr.write(`\n${error.message}\n`);
    process.exit(1);
  });
}
