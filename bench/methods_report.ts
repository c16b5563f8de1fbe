// docs/results/methods.md, made of bench/results/methods.json and nothing else.
import type { Interval } from "../ts/eval/bootstrap.ts";
import type { Refused, Report, Row } from "./methods.ts";
import { percent, table } from "./stats.ts";

const head = [
  "method",
  "perplexity",
  "objects right",
  "ROUGE-L",
  "kept after the prompt",
  "kept at the end",
  "resident",
  "peak",
];

export function markdown(report: Report): string {
  const { scenes, objects, answerTokens, resampling, layers } = report;
  return `# Results on the embedded model

Written by \`npm run methods\` from \`bench/results/methods.json\`; edit those instead.

${scenes} held-out scenes with ${objects} objects and reference descriptions of ${answerTokens} tokens, weights in ${report.weights}. In brackets ${percent(resampling.coverage)}
intervals: percentile bootstrap over the scenes, ${resampling.resamples} resamples, the same draws in every cell.

- **perplexity**: of the reference descriptions, token by token after the compacted prompt, token-weighted over all scenes.
- **objects right**: objects whose place, colour and shape stand together in one sentence of the greedy description.
- **ROUGE-L**: F1 of the greedy description against that of the full cache; a description ends at the latest 16 tokens after that one.
- **kept**: share of positions, after the prompt and at the end of the reference description. **resident**, **peak**: bytes, all
  bookkeeping included, over what the full cache of the same positions takes without any; at the end of the reference description.
  The prompt alone is ${percent(report.promptShare)} of these positions: a method that must see the whole prompt before it frees anything peaks there.

## The defaults of PrefixKV, on scenes that did not choose them

The defaults of \`prefixkv\` were chosen on the scenes with odd numbers, among scores, windows, ways to join neighbours, what goes
while generating and how many last entries are safe. Here are the ${Math.ceil(scenes / 2)} with even numbers: objects right, and perplexity.

${evenScenes(report)}

${report.keeps.map((keep) => section(report, keep)).join("\n\n")}

## How each method was called

${report.methods.map(({ title, cache }) => `- ${title}: ${call(cache)}`).join("\n")}

${offline(report)}## What the tables show

${shown(report)}

## What they cannot show

- **Which method is better in general.** The embedded model has ${layers} layers and was trained on drawn scenes only. Which layers spread
  their attention, how strong sinks are and where keys with low norms lie are properties of a model; an order found here is one of
  this model and these prompts.
- **The quality of text about natural pictures.** The descriptions come from a few sentence templates over a small vocabulary. Much of
  a sentence follows from its beginning without a look at the picture, so the perplexity mixes the grasp of the picture with the
  memory of the last words; *objects right* is nearer to the former. A model so small that has lost its thread does not find it
  again, which a larger one may.
- **Long contexts.** A picture takes 144 positions, the prompt is little longer and the answer takes about a hundred more. Methods
  made for thousands of positions have here windows and sinks that are a good part of all there is.
- **Several pictures, several turns, other models.** There is one picture and one question.
- **Time.** Nothing here is timed; see the benches of the cache.
`;
}

function offline({ methods }: Report): string {
  if (!methods.some(({ cache }) => cache.calibration !== undefined)) return "";
  return `PrefixKV, offline, has sizes per layer that were averaged over prompts: for a scene with an even number over the scenes with odd
numbers, and the other way round, so no scene is measured with its own.

`;
}

function evenScenes({ even, keeps, methods }: Report): string {
  const shown = methods.filter(({ id }) => ["prefixkv", "prefixkv-paper", "snapkv", "h2o", "random"].includes(id));
  const body = shown.map(({ id, title }) => [
    title,
    ...keeps.map((keep) => {
      const row = even.find((row) => row.method === id && row.keep === keep);
      return row ? `${interval(row.right, percent)}; ${row.ppl.value.toFixed(3)}` : "";
    }),
  ]);
  return table([["method", ...keeps.map((keep) => `keep ${keep}`)], ...body]);
}

function section(report: Report, keep: number): string {
  const rows = report.rows.filter((row) => row.keep === keep);
  const title = (id: string): string => report.methods.find((method) => method.id === id)?.title ?? id;
  const body = rows.map((row) => ("least" in row ? refused(title(row.method), row) : cells(title(row.method), row)));
  return `## keep ${keep}\n\n${table([head, cells("full cache", report.full), ...body])}`;
}

function cells(title: string, row: Row): string[] {
  return [
    title,
    interval(row.ppl, (value) => value.toFixed(3)),
    interval(row.right, percent),
    interval(row.rouge, (value) => value.toFixed(2)),
    ...[row.afterPrompt, row.atEnd, row.resident, row.peak].map((value) => value.toFixed(3)),
  ];
}

function refused(title: string, { least }: Refused): string[] {
  return [title, `least ${(Math.ceil(least * 100) / 100).toFixed(2)}`, ...head.slice(2).map(() => "")];
}

function interval({ value, low, high }: Interval, text: (value: number) => string): string {
  return `${text(value)} (${text(low)} to ${text(high)})`;
}

function call({ method, ...options }: Report["methods"][number]["cache"]): string {
  const given = Object.entries(options).map(([name, value]) => `, ${name}: ${JSON.stringify(value)}`);
  return `\`{ method: "${method}", keep${given.join("")} }\``;
}

/** What can be read off the figures whatever they are. */
function shown(report: Report): string {
  const rows = report.rows.filter((row): row is Row => !("least" in row));
  if (rows.length === 0) return "No size was large enough.";
  const title = (id: string): string => report.methods.find((method) => method.id === id)?.title ?? id;
  const exact = rows.every((row) => row.excess === 0);
  const worst = rows.reduce((a, b) => (Math.abs(b.excess) > Math.abs(a.excess) ? b : a));
  const met = exact
    ? "After the prompt every method kept exactly the number of entries that was asked, in every scene."
    : `After the prompt the number of kept entries over all layers differed from the asked one by at most ${Math.abs(worst.excess)} ` +
      `(${title(worst.method)}, keep ${worst.keep}).`;
  const grown = [...new Set(rows.filter((row) => row.atEnd > row.keep + 0.005).map((row) => title(row.method)))];
  const growth =
    grown.length === 0
      ? "At the end every method still kept the asked share."
      : `At the end all kept the asked share but ${grown.join(" and ")}, whose caches grew while generating: their figures are those of larger ones.`;
  const over = rows.map((row) => row.resident - row.atEnd);
  const overhead = `Bytes fall with the entries: the resident share lay ${(Math.min(...over)).toFixed(3)} to ${Math.max(...over).toFixed(3)} above the kept one, which is bookkeeping and slack.`;
  const of = (id: string, keep: number): string | undefined =>
    rows.find((row) => row.method === id && row.keep === keep)?.ppl.value.toFixed(3);
  const pairs = report.keeps.flatMap((keep) => {
    const [without, by] = [of("prefixkv-none", keep), of("prefixkv", keep)];
    return without && by ? [`${without} and ${by} at ${keep}`] : [];
  });
  const generating =
    pairs.length === 0
      ? ""
      : `\n- What is freed while generating counts by itself. PrefixKV without and with it, the same after the prompt, has the perplexities ${pairs.join(", ")}.`;
  const measured = report.keeps.filter((keep) => rows.some((row) => row.keep === keep));
  const orders = measured.map((keep) => {
    const sorted = rows.filter((row) => row.keep === keep).sort((a, b) => a.ppl.value - b.ppl.value);
    return `  - ${keep}: ${sorted.map((row) => `${title(row.method)} ${row.ppl.value.toFixed(3)}`).join("; ")}`;
  });
  return `- ${met} ${growth}
- ${overhead}${generating}
- The order by perplexity on this model, best first. Neighbours whose intervals overlap are not told apart by these scenes.
${orders.join("\n")}`;
}
