// Two versions of the library against each other: `npm run bench:versions -- --before DIR [--rounds N] [--only TEXT]`, DIR being a
// checkout that has been built. Writes bench/results/<machine>-versions.json and .md. Each round runs every scene in both, in alternating
// order, in processes of its own. Rounds of the same two commits that the file has already stay, and count together with the new ones.
import { type ChildProcessWithoutNullStreams, execFileSync, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import { heading, keep, origin, resultsFolder } from "./machine.ts";
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

const measured = chosen.map(({ name }) => ({ name, before: [] as number[], after: [] as number[] }));
// New processes for every round: where its pages lie makes a process faster or slower than the next one by several percent, as long as
// it lives. The first run of a scene pays for what is set up once, and is not counted.
for (let round = 0; round < rounds; round += 1) {
  const sides = { before: new Side(before), after: new Side(here) };
  const [first, second] = round % 2 === 0 ? (["before", "after"] as const) : (["after", "before"] as const);
  for (const scene of measured) {
    process.stderr.write(`\r\x1b[Kround ${round + 1} of ${rounds}: ${scene.name}`);
    const took = { before: [] as number[], after: [] as number[] };
    for (const side of [first, second, second, first, first, second])
      took[side].push(await sides[side].measure(scene.name));
    const mean = ([, ...counted]: number[]): number => counted.reduce((sum, time) => sum + time, 0) / counted.length;
    scene.before.push(mean(took.before));
    scene.after.push(mean(took.after));
  }
  sides.before.close();
  sides.after.close();
}
process.stderr.write("\n");

const from = await origin();
interface Report {
  origin: typeof from;
  before: string;
  measured: typeof measured;
}
const file = new URL(`${from.machine.slug}-versions.json`, resultsFolder(quick));
const last = await readFile(file, "utf8").then(
  (text) => JSON.parse(text) as Report,
  () => undefined,
);
if (last && last.before === commit && last.origin.commit === from.commit && !last.origin.changed && !from.changed)
  for (const known of last.measured) {
    const scene = measured.find(({ name }) => name === known.name);
    if (!scene) measured.push(known);
    else for (const side of ["before", "after"] as const) scene[side].unshift(...known[side]);
  }
const order = scenes.map(({ name }) => name);
measured.sort((a, b) => order.indexOf(a.name) - order.indexOf(b.name));
const page = `${heading("Two versions of the library", from)}

Before is commit ${commit}. A random model of 8 layers with LLaVA's proportions (\`plain\` of bench/random_model.ts), 2 threads, on Bun. Each round is in
new processes, with two runs a side in alternating order behind one that is not counted. Milliseconds of a prompt or of a token are medians;
the ratio is the median of the rounds' ratios, beside its quartiles.

${table([
  ["scene", "rounds", "before, ms", "after, ms", "after / before", "quartiles"],
  ...measured.map(({ name, before, after }) => {
    const ratio = summarise(paired(after, before));
    const [old, now] = [summarise(before), summarise(after)];
    return [
      name,
      String(ratio.n),
      digits(old.median),
      digits(now.median),
      ratio.median.toFixed(3),
      `${ratio.low.toFixed(3)} to ${ratio.high.toFixed(3)}`,
    ];
  }),
])}
`;
const report = { origin: from, before: commit, measured };
await keep("versions", quick, report, page);
