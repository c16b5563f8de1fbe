// `npm run soak`: the rounds on every runtime and through every door, each in a process of its own, one after the other or `--jobs`
// side by side. Writes bench/results/soak.json and .md when it is the whole soak. Options: --runtime NAME, --door NAME, --rounds N, --seed N.
import { spawn } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { heading, origin, resultsFolder } from "../../bench/machine.ts";
import { table } from "../../bench/stats.ts";
import type { Sample } from "./rounds.ts";
import { slope } from "./slope.ts";

const { runtime } = (await import(new URL("../../scripts/shell.mjs", import.meta.url).href)) as {
  runtime(name: string): string;
};
const script = fileURLToPath(new URL("./child.ts", import.meta.url));

/** Rounds that a process is given to reach its size. */
const warmup = 50;
const whole = 200;
/** Bytes per round. */
const limit = 20 * 1024;

const deno = ["run", "-A", "--no-check", "--v8-flags=--expose-gc"];
const combinations = [
  { runtime: "bun", door: "napi", args: [] },
  { runtime: "bun", door: "ffi", args: [] },
  { runtime: "deno", door: "napi", args: deno },
  { runtime: "deno", door: "ffi", args: deno },
  { runtime: "node", door: "napi", args: ["--disable-warning=ExperimentalWarning", "--expose-gc"] },
] as const;

const { values } = parseArgs({
  options: {
    runtime: { type: "string" },
    door: { type: "string" },
    rounds: { type: "string", default: String(whole) },
    seed: { type: "string", default: "1" },
    jobs: { type: "string", default: "1" },
  },
});
const rounds = Number(values.rounds);
const jobs = Number(values.jobs);
const chosen = combinations.filter(
  ({ runtime, door }) => (values.runtime ?? runtime) === runtime && (values.door ?? door) === door,
);
if (chosen.length === 0 || !Number.isSafeInteger(rounds) || rounds < 1)
  throw new Error(
    "--runtime is bun, deno or node; --door is napi or, on bun and deno, ffi; --rounds is a whole number",
  );

interface Result {
  runtime: string;
  door: string;
  /** Rounds that were run; fewer than asked for after a failure. */
  rounds: number;
  /** The most that was alive after a round: models, sessions, requests and bytes of the cache. */
  left: number;
  /** Bytes. */
  first: number;
  last: number;
  /** Bytes per round after the warm-up, with its standard error; null for a soak too short to tell. */
  slope: number | null;
  error: number | null;
  failure: string | null;
  resident: number[];
}

async function measure(combination: (typeof combinations)[number]): Promise<Result> {
  const args = [...combination.args, script, combination.door, values.rounds, values.seed];
  const child = spawn(runtime(combination.runtime), args, { stdio: ["ignore", "pipe", "inherit"] });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    stdout += chunk;
  });
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  process.stderr.write(`\n${combination.runtime} ${combination.door} has ended\n`);
  const run = read(stdout, status);
  const resident = run.samples.map((sample) => sample.resident);
  const left = run.samples.map(({ live }) => live.models + live.sessions + live.requests + live.cacheBytes);
  const grown = resident.length > warmup + 2 ? slope(resident.slice(warmup)) : null;
  return {
    runtime: combination.runtime,
    door: combination.door,
    rounds: resident.length,
    left: Math.max(0, ...left),
    first: resident[Math.min(warmup, resident.length - 1)] ?? 0,
    last: resident.at(-1) ?? 0,
    slope: grown && Math.round(grown.slope),
    error: grown && Math.round(grown.error),
    failure: run.failure,
    resident,
  };
}

// Counts and resident memory are those of each process, so they may run side by side.
const measured = new Map<string, Result>();
const waiting = [...chosen];
const worker = async (): Promise<void> => {
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    measured.set(`${next.runtime} ${next.door}`, await measure(next));
  }
};
await Promise.all(Array.from({ length: jobs }, worker));
const results = chosen.map(({ runtime, door }) => measured.get(`${runtime} ${door}`) as Result);

const mebibytes = (bytes: number): string => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
const kibibytes = (bytes: number | null): string => (bytes === null ? "-" : (bytes / 1024).toFixed(1));
const broken = ({ left, slope, failure, rounds: done }: Result): boolean =>
  failure !== null || left > 0 || done < rounds || (slope ?? 0) >= limit;

const rows = results.map((result) => [
  result.runtime,
  result.door,
  String(result.rounds),
  String(result.left),
  mebibytes(result.first),
  mebibytes(result.last),
  `${kibibytes(result.slope)} ± ${kibibytes(result.error)}`,
  broken(result) ? "BROKEN" : "kept",
]);
const from = await origin();
const page = `${heading("Soak", from)}

${rounds} rounds each of loading the embedded model, three random uses (answers, compressed caches, chats, scores, aborts before the start, in
the prompt and in decode, loops that are left, refused requests), something left running or unread, and disposal; seed ${values.seed}. After each
round nothing may be alive: models, chats, requests, bytes of the cache. Resident memory is the process's after garbage was
collected. Its slope is fitted by least squares from round ${warmup} on, ± one standard error, and must stay below ${limit / 1024} KiB a round.

${table([["runtime", "door", "rounds", "left after a round", `resident at round ${warmup}`, "at the end", "slope, KiB a round", "limits"], ...rows])}
`;
if (chosen.length === combinations.length && rounds >= whole) {
  const folder = resultsFolder(false);
  await mkdir(folder, { recursive: true });
  await writeFile(new URL("soak.md", folder), page);
  const json = { origin: from, rounds, seed: Number(values.seed), warmup, limit, results };
  const text = JSON.stringify(json, null, 2).replace(/\[[\d,\s]+\]/g, (list) => list.replace(/\s+/g, " "));
  await writeFile(new URL("soak.json", folder), `${text}\n`);
}
process.stdout.write(page);
for (const { runtime, door, failure } of results) if (failure) process.stderr.write(`${runtime} ${door}: ${failure}\n`);
process.exitCode = results.some(broken) ? 1 : 0;

function read(stdout: string, status: number | null): { failure: string | null; samples: Sample[] } {
  try {
    return JSON.parse(stdout) as { failure: string | null; samples: Sample[] };
  } catch {
    return { failure: `the process ended with ${status ?? "a signal"}`, samples: [] };
  }
}
