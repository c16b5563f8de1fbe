// How long a GGUF file of 7 billion numbers takes to load and what a process holds that answers with it: `npm run bench:large`. The file has
// the shape of Llama 2 7B and random blocks in Q4_K. Writes bench/results/<machine>-large.{json,md}.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { source } from "../tests/real/goldens.ts";
import { type CacheOption, full, load, prefixkv } from "../ts/index.ts";
import { largeModel } from "./large_model.ts";
import { heading, keep, origin } from "./machine.ts";
import { mixedPrompt } from "./prompts.ts";
import { digits, table } from "./stats.ts";

const quick = process.argv.includes("--quick");
const steps = quick ? 4 : 16;
const words = quick ? 16 : 256;
/** Bytes that the whole process may hold: the goal. */
const most = 6 * 2 ** 30;
const path = fileURLToPath(new URL("../.cache/bench/random-7b-q4_k.gguf", import.meta.url));

interface Held {
  map: boolean;
  cache: string;
  /** Milliseconds. */
  load: number;
  prompt: number;
  token: number;
  promptTokens: number;
  /** Bytes: the most that the process ever held, and the cache at its end. */
  peak: number;
  resident: number;
}

const caches: Record<string, CacheOption> = { full: full(), "prefixkv, keep 0.2": prefixkv({ keep: 0.2 }) };

/** A process of its own for each, so that its peak is its own. */
function measure(map: boolean, cache: string): Held {
  const out = execFileSync(
    process.execPath,
    [fileURLToPath(import.meta.url), "--child", String(map), cache, ...(quick ? ["--quick"] : [])],
    {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  return JSON.parse(out) as Held;
}

async function child(map: boolean, cache: string): Promise<void> {
  const started = performance.now();
  await using model = await load(path, { map });
  const took = performance.now() - started;
  const prompt = mixedPrompt(words);
  const { timings, usage, memory } = await model.generate({
    prompt,
    maxTokens: steps + 1,
    ignoreEos: true,
    cache: caches[cache] ?? full(),
  });
  const kibibytes = Number(readFileSync("/proc/self/status", "utf8").match(/^VmHWM:\s+(\d+) kB$/m)?.[1]);
  const held: Held = {
    map,
    cache,
    load: took,
    prompt: timings.prefill,
    token: timings.decode / steps,
    promptTokens: usage.promptTokens,
    peak: kibibytes * 1024,
    resident: memory.resident,
  };
  process.stdout.write(JSON.stringify(held));
}

async function main(): Promise<void> {
  if (!existsSync(source("gguf"))) throw new Error("the vocabulary is SmolLM2's: `npm run real -- --fetch` fetches it");
  mkdirSync(new URL("./", new URL(`file://${path}`)), { recursive: true });
  largeModel(path, source("gguf"));
  const { size } = statSync(path);
  const measured = [true, false].flatMap((map) => Object.keys(caches).map((cache) => measure(map, cache)));
  const from = await origin();
  const gibibytes = (bytes: number): string => (bytes / 2 ** 30).toFixed(2);
  const page = `${heading("A model of 7 billion weights from a GGUF file", from)}

The shape of Llama 2 7B with a vocabulary of 49,152, random blocks in Q4_K, a file of ${gibibytes(size)} GiB that was read before and lies in the system's cache. A process of its own for each row; *held*: the
most that it ever held, mapped file included; the goal is ${gibibytes(most)} GiB at most. ${steps} tokens behind a prompt of ${measured[0]?.promptTokens}; one run each, so the times are only an order of magnitude.

${table([
  ["file", "cache", "seconds to load", "seconds of the prompt", "ms for a token", "cache, MiB", "held, GiB", "goal"],
  ...measured.map(({ map, cache, load: took, prompt, token, peak, resident }) => [
    map ? "mapped" : "read",
    cache,
    digits(took / 1000),
    digits(prompt / 1000),
    digits(token),
    digits(resident / 2 ** 20),
    gibibytes(peak),
    peak <= most ? "met" : "missed",
  ]),
])}
`;
  const report = { origin: from, size, measured };
  await keep("large", quick, report, page);
}

const [, , flag, map, cache = "full"] = process.argv;
if (flag === "--child") await child(map === "true", cache);
else await main();
