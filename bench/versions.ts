// Two versions of the library against each other: `npm run bench:versions -- --before DIR [--rounds N] [--only TEXT]`, DIR being a
// checkout that has been built. Writes bench/results/<machine>-versions.json and .md. Each round runs every scene in both, one right
// after the other, and the other one first in the next round.
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import { heading, keep, origin } from "./machine.ts";
import { digits, paired, summarise, table } from "./stats.ts";
import { scenes } from "./versions_scenes.ts";

const { runtime } = (await import(new URL("../scripts/shell.mjs", import.meta.url).href)) as {
  runtime(name: string): string;
};
const script = fileURLToPath(new URL("./versions_run.ts", import.meta.url));
const here = fileURLToPath(new URL("..", import.meta.url));

class Side {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  constructor(checkout: string) {
    this.#child = spawn(runtime("bun"), [script, checkout], { stdio: ["pipe", "pipe", "inherit"] as never });
    const lines: Interface = createInterface({ input: this.#child.stdout });
    this.#lines = lines[Symbol.asyncIterator]();
  }

  async measure(name: string): Promise<number> {
    this.#child.stdin.write(`${name}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${name}: the process ended`);
    return Number(value);
  }

  close(): void {
    this.#child.stdin.end();
  }
}

const option = (name: string): string | undefined => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? undefined : process.argv[at + 1];
};
const before = option("before");
if (!before) throw new Error("name a checkout that has been built: --before DIR");
const quick = process.argv.includes("--quick");
const rounds = Number(option("rounds") ?? (quick ? 1 : 9));
const chosen = scenes.filter(({ name }) => name.includes(option("only") ?? ""));
const commit = execFileSync("git", ["-C", before, "rev-parse", "--short=10", "HEAD"], { encoding: "utf8" }).trim();

const [old, now] = [new Side(before), new Side(here)];
const measured = chosen.map(({ name }) => ({ name, before: [] as number[], after: [] as number[] }));
// The very first run of a scene pays for what is set up once.
for (let round = -1; round < rounds; round += 1) {
  for (const { name, before, after } of measured) {
    process.stderr.write(`\r\x1b[Kround ${round + 1} of ${rounds}: ${name}`);
    const times = new Map<Side, number>();
    for (const side of round % 2 === 0 ? [old, now] : [now, old]) times.set(side, await side.measure(name));
    if (round < 0) continue;
    before.push(times.get(old) ?? Number.NaN);
    after.push(times.get(now) ?? Number.NaN);
  }
}
process.stderr.write("\n");
old.close();
now.close();

const from = await origin();
const page = `${heading("Two versions of the library", from)}

Before is commit ${commit}. A random model of 8 layers with LLaVA's proportions (\`plain\` of bench/random_model.ts), 2 threads, on Bun; a process a side, ${rounds} rounds
in alternating pairs. Milliseconds of a prompt or of a token are medians; the ratio is the median of the rounds' ratios, beside its quartiles.

${table([
  ["scene", "before, ms", "after, ms", "after / before", "quartiles"],
  ...measured.map(({ name, before, after }) => {
    const ratio = summarise(paired(after, before));
    const [old, now] = [summarise(before), summarise(after)];
    return [
      name,
      digits(old.median),
      digits(now.median),
      ratio.median.toFixed(3),
      `${ratio.low.toFixed(3)} to ${ratio.high.toFixed(3)}`,
    ];
  }),
])}
`;
const report = { origin: from, before: commit, rounds, measured };
await keep("versions", quick, report, page);
