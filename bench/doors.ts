// Cost of each door on each runtime: bench/results/<machine>-doors.json and .md. Options: --quick.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { DoorRun } from "./doors_run.ts";
import { heading, keep, origin } from "./machine.ts";
import { digits, type Summary, summarise, table } from "./stats.ts";

const { runtime } = (await import(new URL("../scripts/shell.mjs", import.meta.url).href)) as {
  runtime(name: string): string;
};
const script = fileURLToPath(new URL("./doors_run.ts", import.meta.url));

const combinations = [
  { runtime: "bun", door: "napi", args: [] },
  { runtime: "bun", door: "ffi", args: [] },
  { runtime: "deno", door: "napi", args: ["run", "-A", "--no-check"] },
  { runtime: "deno", door: "ffi", args: ["run", "-A", "--no-check"] },
  { runtime: "node", door: "napi", args: ["--disable-warning=ExperimentalWarning"] },
] as const;

const quick = process.argv.includes("--quick");
const [rounds, tokens, requests] = quick ? [2, 400, 20] : [5, 500, 100];

const runs = new Map(combinations.map((combination) => [combination, [] as DoorRun[]]));
for (let round = 0; round < rounds; round++) {
  // Every other round backwards, so that a machine that changes slowly favours nobody.
  const order = round % 2 === 0 ? combinations : [...combinations].reverse();
  for (const combination of order) {
    const args = [...combination.args, script, combination.door, String(tokens), String(requests)];
    const { stdout, stderr, status } = spawnSync(runtime(combination.runtime), args, { encoding: "utf8" });
    if (status !== 0) throw new Error(`${combination.runtime} ${combination.door}: ${stderr}`);
    runs.get(combination)?.push(JSON.parse(stdout) as DoorRun);
    process.stderr.write(".");
  }
}
process.stderr.write("\n");

const measured = [...runs].map(([{ runtime, door }, runs]) => ({
  runtime,
  door,
  decode: summarise(runs.map(({ decode }) => decode)),
  rate: summarise(runs.map(({ rate }) => rate)),
  cpu: summarise(runs.map(({ cpu }) => cpu)),
  delay: summarise(runs.flatMap(({ delay }) => delay)),
}));

const range = ({ median, low, high }: Summary): string => `${digits(median)} (${digits(low)} to ${digits(high)})`;
const from = await origin();
const page = `${heading("Doors", from)}

The embedded model, ${tokens} tokens per run, ${rounds} runs each, one after the other and every other round backwards; medians with
their quartiles. The delay is of ${rounds * requests} requests for one token.

${table([
  [
    "runtime",
    "door",
    "decode, ms per token",
    "token events per second",
    "processor ms per token",
    "delay of an answer, ms",
  ],
  ...measured.map(({ runtime, door, decode, rate, cpu, delay }) => {
    return [runtime, door, range(decode), range(rate), range(cpu), range(delay)];
  }),
])}
`;
const report = { origin: from, rounds, tokens, requests, measured };
await keep("doors", quick, report, page);
