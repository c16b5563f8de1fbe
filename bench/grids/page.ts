// docs/results.md, made of bench/results/eval-*.json and, for stores on a trained model, of what bench/stores.ts has written.
import { resampling } from "../../ts/eval/bootstrap.ts";
import type { MethodRecord } from "../../ts/eval/records.ts";
import { methods as known } from "../../ts/generated/method_table.ts";
import { percent, table } from "../stats.ts";
import { type StoresReport, storesTable } from "../stores_page.ts";
import { about as patches } from "./pictures.ts";
import { canTell, interval, memory, titleOf, works, worksNot } from "./statements.ts";
import { type Evaluated, isOfStores } from "./summary.ts";
import { equalBytes, grids, stores, unseen } from "./tables.ts";

/** Title and description of each data set, by its name in run.json. */
const about: Record<string, { title: string; text: string }> = {
  scenes: {
    title: "Scenes",
    text: "held-out drawn scenes that come with the package ([data/scenes](../data/scenes/README.md)), each to be described in detail; the reference answers are made of sentence templates",
  },
  "easy-vqa": {
    title: "easy-VQA",
    text: "first test questions of easy-VQA (`npm run fetch:easy-vqa`), asked as `prefixkv eval` asks them: with LLaVA-1.5's instruction to answer in a word",
  },
  "easy-vqa-plain": {
    title: "easy-VQA, plain questions",
    text: "the same questions without that instruction, which is how the embedded model was trained on the train split of easy-VQA ([card](../models/tiny-llava/CARD.md))",
  },
};

const titleOfData = ({ run }: Evaluated): string => about[run.data.name]?.title ?? run.data.name;

/** The file of bench/stores.ts whose rows the page has: a machine that has measured all of them. */
export const trainedFile = "2c-amd-epyc-avx2-stores";

/** The page of grids, and of the stores that `bench/stores.ts` has measured on a trained model. */
export function markdown(all: readonly Evaluated[], trained: StoresReport = { rows: [] }): string {
  const reports = all.filter((report) => !isOfStores(report));
  const ofStores = all.filter(isOfStores);
  const [first] = all;
  if (!first) throw new RangeError("a page needs results");
  const telling = reports.filter(canTell);
  const bytes = memory(reports);
  return `# Results of the evaluations

Written by \`npm run results\` from \`bench/results/eval-*.json\` and \`${trainedFile}.json\` beside them; edit those instead.

This page says what works, what does not, and what cannot be concluded from a tiny model.
${old(all)}
## What was run

${model(first)}

Data:

${[...reports.map((report) => `- **${titleOfData(report)}**: ${data(report)}`), ...missing(reports)].join("\n")}

Every method at every size over all samples with \`evaluate\` of \`prefixkv/eval\`; [eval.md](eval.md) has the protocol, the formulas and
their sources. In short: the reference answer is scored token by token after the compacted prompt (perplexity, divergence KL from the
full cache, entries, bytes), then the model answers greedily (ROUGE-L and agreement with the full cache's text, objects or answers
right). \`keep\` is the share of all positions that a method is asked to keep; one that finds its size by itself has its figures in the first column of
sizes. The methods are those of
[bench/grids/methods.json](../bench/grids/methods.json), where they differ from their defaults by what stands behind their names:

${calls(reports)}
${ofStores.length === 0 ? "" : storesText(ofStores)}${unmeasured(all)}
In brackets ${percent(resampling.coverage)} intervals: percentile bootstrap over the samples, ${resampling.resamples} resamples, the same draws in every cell. *Over full* is the
ratio of the perplexities, whose interval is of the same draws of both.

${[...reports.flatMap((report) => [grids(report, titleOfData(report)), ...equalBytes(report, titleOfData(report))]), ...ofStores.map((report) => stores(report, titleOfData(report))), ...onTrained(trained)].join("\n\n")}

## Which patches stay

![${patches}](kept-patches.svg)

${patches} Drawn by \`npm run results -- --pictures\`.

${[...reports.flatMap(unseen), "## Time"].join("\n\n")}

${table([["data", "lines", "all time, s", "engine, s", "all over engine", "threads", "measured"], ...all.map(time)])}

*All time* is the grid's from the first line to the last, files and text measures included. *Engine* is the engine's own time for the same lines:
pictures, prefill, decode, and in scoring the full cache beside it for the divergence. Times are of a shared machine; the ratio is what counts.

## What works

${[...bytes.works, ...telling.flatMap((report) => headed(report, works(report)))].join("\n")}

## What does not

${[...bytes.worksNot, ...telling.flatMap((report) => headed(report, worksNot(report)))].join("\n")}

## What cannot be concluded

${limits(reports)}

## Again, and on real models

\`npm run results\` measures what is missing and writes this page; [bench/README.md](../bench/README.md) has its options.
\`prefixkv report DIR --out report.html\` shows the folder of a method in a grid, such as \`.cache/bench/results/scenes/h2o\`, as [charts](report.md).
For LLaVA-1.5, beside the published numbers (see [eval.md](eval.md#published-tables)):

\`\`\`sh
prefixkv reproduce prefixkv-mm-vet --model llava-hf/llava-1.5-7b-hf --data mm-vet --out mm-vet-7b
\`\`\`
`;
}

/** Runs of an earlier release are said to be such, and figures of which something is to be said. */
function old(reports: readonly Evaluated[]): string {
  const notes = [...new Set(reports.flatMap(({ note }) => note ?? []))].map((note) => `\n${note}\n`).join("");
  const found = reports.filter(({ run }) => run.version === 1).map(titleOfData);
  if (found.length === 0) return notes;
  return `${notes}\nOf an earlier release, whose runs had version 1: ${found.join("; ")}. \`npm run results -- --fresh\` measures them anew.\n`;
}

function storesText(reports: readonly Evaluated[]): string {
  const own = reports.map((report) => `${report.run.data.samples} samples of ${titleOfData(report)}`).join(" and ");
  const sizes = reports[0]?.run.keeps.join(", ") ?? "";
  return `
How entries are stored, and which layers have any, was measured on ${own}, with the caches of [bench/grids/stores.json](../bench/grids/stores.json): a row for
each. *bits* are those of a number of a key or value at the end, scales and what stays whole included; *resident* and *peak* are bytes with all bookkeeping over
those of a full cache in 32 bits. Most keep the last 16 entries whole, so that something of these short prompts is stored in few bits. Methods that choose
entries are at keep ${sizes}. Calibrations are of the other half of the samples. How fast stores are read is in
[codecs.md](design/codecs.md#reading).
`;
}

function onTrained({ rows, note }: StoresReport): string[] {
  if (rows.length === 0) return [];
  return [
    `## A trained model: how entries are stored

SmolLM2-135M reads a page of text and the tokens that follow, one by one, and goes on with five beginnings of it: \`npm run bench:stores\`, whose
[own page](../bench/results/${trainedFile}.md) says what the columns are. Intervals are of blocks of neighbouring tokens of this one text, for *ROUGE-L* of the five
beginnings. *speed*: tokens a second over the full cache's.
${note === undefined ? "" : `\n${note}\n`}
${storesTable(rows)}`,
  ];
}

/** How the methods were called, each once. */
function calls(reports: readonly Evaluated[]): string {
  const methods = new Map(reports.flatMap(({ run }) => run.methods.map((method) => [method.id, method] as const)));
  methods.delete("full");
  return [...methods.values()].map((method) => `- ${titleOf(method.id)}: ${call(method)}`).join("\n");
}

function call({ cache }: MethodRecord): string {
  const { method, ...options } = cache as { method: string; calibration?: { crossFit: number } };
  const given = Object.entries(options).map(([name, value]) => `, ${name}: ${JSON.stringify(value)}`);
  const of = method === "sparseMm" || method === "headKv" ? "scores of heads" : "sizes per layer";
  const across = options.calibration ? `, so with ${of} that were found on the other half of the samples` : "";
  const sized = known.find(({ name }) => name === method)?.budget === "outcome" ? "" : ", keep";
  return `\`{ method: "${method}"${sized}${given.join("")} }\`${across}`;
}

/** Methods of which no grid has figures; recipes of `custom` have no end. */
function unmeasured(reports: readonly Evaluated[]): string {
  const stages = reports.flatMap(({ run }) => run.methods.flatMap(({ cache }) => cache as { method: string }));
  const measured = stages.map(({ method }) => method);
  const left = known.filter(({ name }) => name !== "custom" && !measured.includes(name));
  return left.length === 0 ? "" : `\nNot measured yet: ${left.map(({ title }) => title).join(", ")}.\n`;
}

function missing(reports: readonly Evaluated[]): string[] {
  const names = reports.map(({ run }) => run.data.name);
  const left = Object.entries(about).filter(([name]) => !names.includes(name));
  return left.map(([, { title }]) => `- **${title}**: not measured yet.`);
}

function model({ run }: Evaluated): string {
  const { source, architecture, layers, kvHeads, weights, device, fingerprint } = run.model;
  return (
    `Model: \`${source}\` (${architecture}), the embedded one: 5.5 million parameters, ${layers} layers with ${kvHeads} KV heads, 144 positions for a picture; ` +
    `weights in ${weights} on the ${device === "cpu" ? "CPU" : device}, \`${fingerprint.slice(0, 19)}\`, prefixkv ${run.package}.`
  );
}

function data({ run, answerTokens, objects }: Evaluated): string {
  const text = about[run.data.name]?.text ?? "";
  const found = objects === undefined ? "" : ` with ${objects} objects`;
  return `${run.data.samples} samples${found}, reference answers of ${answerTokens} tokens in all, sizes ${run.keeps.join(", ")}; ${text}.`;
}

function time(report: Evaluated): string[] {
  const { run, timings, cells, commits } = report;
  const { origin, wallMs, engineMs, ratio } = timings;
  const lines = cells.reduce((sum, { samples, refused }) => sum + samples + refused, 0);
  const summed = `${origin.commit}${origin.changed ? " with changes" : ""}`;
  const measured = commits ? `measured at ${commits.join(", ")}` : `at commit ${summed}`;
  return [
    `${titleOfData(report)}${isOfStores(report) ? ", stores" : ""}`,
    String(lines),
    (wallMs / 1000).toFixed(0),
    run.batch ? "" : (engineMs / 1000).toFixed(0),
    run.batch ? "" : ratio.toFixed(3),
    `${run.threads}${run.batch ? `, ${run.batch} lines at once` : ""}`,
    `${origin.machine.cpu}, ${origin.machine.cores} cores; summed up ${origin.date}, ${measured}`,
  ];
}

function headed(report: Evaluated, points: readonly string[]): string[] {
  return ["", `${titleOfData(report)}:`, "", ...(points.length === 0 ? ["- Nothing to name."] : points)];
}

function limits(reports: readonly Evaluated[]): string {
  const compared = reports.reduce((sum, { cells }) => sum + cells.filter(({ versusRandom }) => versusRandom).length, 0);
  const layers = reports[0]?.run.model.layers ?? 0;
  // Runs of version 2 draw anew for each sample.
  const drawn = reports.some(({ run }) => run.version === 1) ? ", which drew the same entries for every sample" : "";
  return `- **Which method is better on real models.** Nothing here ranks methods. The model has ${layers} layers and 5.5 million parameters. Which layers
  spread their attention, how strong sinks are and where keys with low norms lie are properties of a model; what is better or worse than
  Random here is so for this model and these prompts, with these options and one seed of Random${drawn}.
- **Long prompts.** A picture takes 144 positions and a prompt has few more. The windows and sinks of methods made for thousands of
  positions are a good part of all there is.
- **The quality of text about photographs.** The scenes are drawn and the captions are templates: much of a sentence follows from its
  beginning without a look at the picture. *Objects right* is nearer to what is seen than perplexity.
- **Small differences.** ${compared} cells are set against Random and as many against the full cache, and no interval is corrected for their number: at
  ${percent(resampling.coverage)} some leave 0 out by chance. An interval that holds 0 does not show that two are equal.
- **Speed.** The times above are of the grid. How much longer a prompt takes with each method:
  [overhead](../bench/results/2c-amd-epyc-avx2-overhead.md). The other [benches](../bench/README.md) say what a smaller cache costs and gains.
${reports.flatMap(questions).join("\n")}`;
}

/** Conclusions that accuracies of short answers allow. */
function questions(report: Evaluated): string[] {
  const { blind, spoiled, cells, answerTokens, run } = report;
  const full = cells.find(({ method }) => method === "full")?.accuracy;
  if (!blind || !full) return [];
  const title = titleOfData(report);
  const guess =
    `Of its questions ${percent(blind.yesNo)} are yes/no; the most frequent of ${blind.answers} answers, "${blind.majority}", is right for ${percent(blind.majorityShare)},\n` +
    `  a guess among them by lot for ${percent(1 / blind.answers)}, and the most frequent answer of each kind of question for ${percent(blind.byKind)}.\n` +
    `  The full cache has ${interval(full, percent)} right.`;
  if (!canTell(report))
    return [
      `- **Anything about quality from ${title}.** ${guess} That is no better than answering without the picture: the model does not follow this\n` +
        "  prompt, so there is nothing that a method could lose, and the perplexities are those of answers that the model does not give.\n" +
        `  The tables of ${title} are evidence for entries and bytes only, and no statement above about quality uses them.`,
    ];
  const { answers, begun } = spoiled ?? { answers: 0, begun: 0 };
  const wrong =
    answers === 0
      ? "No method spoiled an answer."
      : `Of the ${answers} answers that a method spoiled, ${begun} begin with the full cache's and say more.`;
  return [
    `- **How much of the picture a method remembers, from ${title}.** ${guess} But an answer has ${(answerTokens / run.data.samples).toFixed(1)} tokens, the end token included,\n` +
      `  and every method predicts the first from the whole prompt, before it frees anything. ${wrong} So *answers right*\n` +
      "  and perplexity say here whether the model still stops in time. The same kind of questions was in its training.",
  ];
}
