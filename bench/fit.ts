// Fits to several numbers of bytes on the odd scenes, measured again on the even ones: bench/results/<machine>-fit.json and .md.
// Options: --quick. One thread.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { openData } from "../ts/eval/data/open.ts";
import { promptOf } from "../ts/eval/samples.ts";
import { BudgetError, type CacheOption, type Fit, type FitSample, load, type Progress } from "../ts/index.ts";
import { heading, keep, origin } from "./machine.ts";
import { table } from "./stats.ts";

const quick = process.argv.includes("--quick");
const budgets = quick ? ["512KiB", "1MiB"] : ["512KiB", "768KiB", "1MiB", "2MiB"];
const { samples } = await openData("scenes");
/** Every so manieth scene, from one on. */
const every = (step: number, first: number): FitSample[] =>
  samples
    .filter((_, index) => index % step === first)
    .slice(0, quick ? 2 : undefined)
    .map((sample) => ({ ...promptOf(sample), answer: sample.answer }));
// A third of the scenes with odd numbers is enough, and all with even ones say what that is worth.
const [calibration, heldOut] = [every(6, 1), every(2, 0)];
const work = new URL("../.cache/bench/fit/", import.meta.url);
await mkdir(work, { recursive: true });

const from = await origin();
await using model = await load(undefined, { threads: 1 });
const full = await over(heldOut, { method: "full" });
const ways = {
  both: await fitted("both", {}),
  "entries alone": await fitted("entries", { stores: [] }),
  "bits alone": await fitted("bits", { methods: [] }),
};

/** A fit with its points measured on the held-out half. */
interface Measured extends Fit {
  heldOut: { resident: number; loss: number }[];
}

/** A fit to the numbers of bytes that something fits into, with each point measured on the held-out half. */
async function fitted(name: string, options: object): Promise<Measured> {
  // A bench that was interrupted goes on: both files are there for that.
  const file = new URL(`fit-${name}${quick ? "-quick" : ""}.json`, work);
  const done = new URL(`measured-${name}${quick ? "-quick" : ""}.json`, work);
  const found = await readFile(done, "utf8").catch(() => undefined);
  if (found !== undefined) return JSON.parse(found) as Measured;
  for (let bytes = budgets; ; bytes = bytes.slice(1)) {
    try {
      const onProgress = ({ stage, done, total }: Progress): unknown =>
        process.stderr.write(`\r${stage} ${done} of ${total} `);
      const fit = await model.fit({ bytes, samples: calibration, file, onProgress, ...options });
      const measured = [];
      for (const { cache } of fit.curve) measured.push(await over(heldOut, cache));
      const result = { ...fit, heldOut: measured };
      await writeFile(done, JSON.stringify(result));
      return result;
    } catch (error) {
      if (!(error instanceof BudgetError) || bytes.length === 1) throw error;
    }
  }
}

async function over(scenes: readonly FitSample[], cache: CacheOption): Promise<{ resident: number; loss: number }> {
  let [resident, loss, tokens] = [0, 0, 0];
  for (const sample of scenes) {
    const { memory, logprobs } = await model.score({ ...sample, answer: sample.answer ?? "", cache });
    resident = Math.max(resident, memory.resident);
    loss -= logprobs.reduce((sum, each) => sum + each, 0);
    tokens += logprobs.length;
  }
  return { resident, loss: loss / tokens };
}

const count = (bytes: number): string => String(bytes).replace(/\B(?=(\d{3})+$)/g, ",");
const shown = (cache: unknown): string =>
  [cache]
    .flat()
    .map((stage) => {
      const { method, ...options } = stage as { method: string };
      const list = Object.entries(options).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
      return list.length === 0 ? `${method}()` : `${method}({ ${list.join(", ")} })`;
    })
    .join(" + ");

const rows = budgets.flatMap((_, at) => {
  const bytes = ways.both.curve[at]?.bytes;
  return Object.entries(ways).flatMap(([way, { curve, heldOut }]) => {
    const index = curve.findIndex((point) => point.bytes === bytes);
    const [point, other] = [curve[index], heldOut[index]];
    if (point === undefined || other === undefined) return [];
    const perplexity = (loss: number): string => Math.exp(loss).toFixed(3);
    return [
      [
        way === "both" ? count(point.bytes) : "",
        way,
        `\`${shown(point.cache)}\``,
        count(point.resident),
        perplexity(point.loss),
        count(other.resident),
        perplexity(other.loss),
      ],
    ];
  });
});

const page = `${heading("Entries and bits for a number of bytes", from)}

\`model.fit\` on ${calibration.length} scenes with odd numbers, one thread, as it comes (\`both\`), without stores (\`entries alone\`) and without methods (\`bits
alone\`); perplexity of the reference descriptions, and the greatest bytes at the end of one. The full cache takes
${count(ways.both.full.resident)} bytes and has ${Math.exp(ways.both.full.loss).toFixed(3)} there, ${count(full.resident)} and ${Math.exp(full.loss).toFixed(3)} on the ${heldOut.length} scenes with even numbers.

${table([["bytes", "choice of", "configuration", "bytes used", "perplexity", "held-out: bytes", "held-out: perplexity"], ...rows])}
`;
const report = { origin: from, full, ...ways };
await keep("fit", quick, report, page);
await rm(work, { recursive: true });
