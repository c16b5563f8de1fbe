// Fits to several numbers of bytes on the odd scenes, measured again on the even ones: bench/results/<machine>-fit.json and .md, and the
// figures of docs/fit.md.
// Options: --quick. One thread.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { openData } from "../ts/eval/data/open.ts";
import { promptOf } from "../ts/eval/samples.ts";
import { pointsOf } from "../ts/fit/axes.ts";
import { methods } from "../ts/generated/method_table.ts";
import { BudgetError, type CacheOption, type FitSample, load, type Progress } from "../ts/index.ts";
import { count, type FitReport, figures, type Measured, withBlock } from "./fit_page.ts";
import { heading, keep, origin, resultsFolder } from "./machine.ts";

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

const facts = methods.find(({ name }) => name === "prefixkv");
const defaults = Object.fromEntries(
  (facts?.options ?? []).flatMap(({ name, default: value }) =>
    value === undefined || value === null ? [] : [[name, value]],
  ),
);
const stores = [
  ...new Set(
    pointsOf(() => undefined)
      .stores.flat()
      .map(({ method }) => method),
  ),
];
const report: FitReport = {
  origin: from,
  scenes: { fitted: calibration.length, heldOut: heldOut.length },
  defaults,
  stores,
  full,
  ...ways,
};

const page = `${heading("Entries and bits for a number of bytes", from)}

\`model.fit\` on ${calibration.length} scenes with odd numbers, one thread, as it comes (\`both\`), without stores (\`entries alone\`) and without methods (\`bits
alone\`); perplexity of the reference descriptions, and the greatest bytes at the end of one. The full cache takes
${count(ways.both.full.resident)} bytes and has ${Math.exp(ways.both.full.loss).toFixed(3)} there, ${count(full.resident)} and ${Math.exp(full.loss).toFixed(3)} on the ${heldOut.length} scenes with even numbers.

${figures(report)}
`;
await keep("fit", quick, report, page);
// A quick run proves only that this works.
const docs = new URL("../docs/fit.md", import.meta.url);
const written = withBlock(await readFile(docs, "utf8"), report);
await writeFile(quick ? new URL("fit-docs.md", resultsFolder(quick)) : docs, written);
await rm(work, { recursive: true });
