// `npm run real -- --matrix`: the text in every file type and format, beside torch and llama.cpp, to bench/results/<machine>-real.{json,md}.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { heading, keep, type Origin, origin } from "../../bench/machine.ts";
import { LLAMA_CPP_Q8_0 } from "./bounds.ts";
import { allCells, type DenseCell, formats, withModel } from "./cells.ts";
import { distance, ppl } from "./compare.ts";
import { perplexity } from "./goldens.ts";
import { type FileType, fileTypes } from "./safetensors.ts";
import { requestsTogether, scoreText } from "./windows.ts";

interface Row extends DenseCell {
  ppl: number;
  /** Mean absolute difference of a log-probability to torch's in 32 bits, with the weights of the same file ... */
  off: number;
  /** ... the most that one differs ... */
  worst: number;
  /** ... and the mean to those of the f32 file. */
  offExact: number;
  /** Bytes of the weights. */
  weightBytes: number;
  seconds: number;
}

interface Report {
  origin: Origin;
  tokens: number;
  torch: Record<FileType, number>;
  rows: Row[];
}

async function measure(cell: DenseCell): Promise<Row> {
  return withModel(
    cell,
    async (model) => {
      const started = performance.now();
      const got = await scoreText(model);
      const { mean, worst } = distance(got, perplexity.logprobs[cell.file]);
      return {
        ...cell,
        ppl: ppl(got),
        off: mean,
        worst,
        offExact: distance(got, perplexity.logprobs.f32).mean,
        weightBytes: model.info.weightBytes,
        seconds: (performance.now() - started) / 1000,
      };
    },
    requestsTogether,
  );
}

function table(
  title: string,
  rows: readonly Row[],
  show: (row: Row) => string,
  last: (file: FileType) => string,
): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const of = (file: FileType): string[] =>
    formats.map((weights) => show(rows.find((row) => row.file === file && row.weights === weights) as Row));
  return [
    `## ${title}`,
    "",
    line(["file", ...formats, "torch, 32 bits"]),
    line(["---", ...formats.map(() => "---"), "---"]),
    ...fileTypes.map((file) => line([file, ...of(file), last(file)])),
  ].join("\n");
}

function page({ origin, rows, tokens, torch }: Report): string {
  const exact = perplexity.logprobs.f32;
  return `${[
    heading("SmolLM2-135M-Instruct in every file type and format", origin),
    `The ${tokens} tokens of tests/real/text.txt behind its first sentence, against torch in 32 bits (tests/real/golden.py). Four requests are
decoded together, each with all that stands before its part as its prompt. The columns are values of \`weights\`.`,
    table(
      "Perplexity",
      rows,
      (row) => row.ppl.toFixed(4),
      (file) => torch[file].toFixed(4),
    ),
    table(
      "Mean difference of a log-probability to torch with the same file",
      rows,
      (row) => row.off.toPrecision(3),
      () => "0",
    ),
    table(
      "Mean difference of a log-probability to torch with the f32 file",
      rows,
      (row) => row.offExact.toPrecision(3),
      (file) => distance(perplexity.logprobs[file], exact).mean.toPrecision(3),
    ),
    `llama.cpp with Q8_0 weights, made of the same f32 values, is off by ${LLAMA_CPP_Q8_0} on the same tokens; docs/design/real.md says how that was measured.
The same in figures, with the largest differences, is in the JSON file beside this page. Rows of 576 are held as q8_0 in \`q4_k\`: a third of the linear weights has 4.5 bits.`,
  ].join("\n\n")}\n`;
}

/** Finished work stays, until the native code changes. */
const done = fileURLToPath(new URL("../../.cache/real/matrix.json", import.meta.url));
const hash = createHash("sha256");
const folder = new URL("../../native/", import.meta.url);
for (const name of readdirSync(folder).sort())
  if (name.endsWith(".node")) hash.update(readFileSync(new URL(name, folder)));
const native = hash.digest("hex");

function before(): Row[] {
  if (!existsSync(done)) return [];
  const kept = JSON.parse(readFileSync(done, "utf8")) as { native: string; rows: Row[] };
  return kept.native === native ? kept.rows : [];
}

const rows = before();
// The cheap ones first, so that a run that is cut off has most of them.
const cheap = [...allCells].sort((a, b) => formats.indexOf(b.weights) - formats.indexOf(a.weights));
for (const cell of cheap) {
  if (rows.some(({ file, weights }) => file === cell.file && weights === cell.weights)) continue;
  rows.push(await measure(cell));
  process.stderr.write(`${JSON.stringify(rows.at(-1))}\n`);
  writeFileSync(done, JSON.stringify({ native, rows }));
}
const torch = Object.fromEntries(fileTypes.map((file) => [file, ppl(perplexity.logprobs[file])])) as Report["torch"];
const report: Report = { origin: await origin(), tokens: perplexity.tokens.length, torch, rows };
await keep("real", false, report, page(report));
