// The grids of docs/results.md: a row for each method, a column for each size.
import type { Metric } from "../../ts/eval/records.ts";
import { percent, table } from "../stats.ts";
import { answerOf, interval, isSized, number, titleOf } from "./statements.ts";
import type { Cell, Evaluated } from "./summary.ts";

/** All grids of one data set. */
export function grids(report: Evaluated, title: string): string {
  const answer = answerOf(report);
  const right = answer === "right" ? "Objects right" : "Answers right";
  const quality = [
    `## ${title}: quality`,
    ...part("Perplexity", grid(report, metric("ppl"))),
    ...part(
      "Perplexity over the full cache's",
      grid(report, ({ overFull }) => overFull && interval(overFull)),
    ),
    ...part("Divergence KL, nats", grid(report, metric("kl"))),
    ...(answer ? part(right, grid(report, metric(answer, percent))) : []),
    ...part("ROUGE-L", grid(report, metric("rougeL", two))),
    ...part("Agreement", grid(report, metric("agreement", two))),
  ];
  return [...quality, `## ${title}: memory`, ...memory(report)].join("\n\n");
}

function memory(report: Evaluated): string[] {
  const bits = [...new Set(report.cells.flatMap(({ effectiveBits }) => effectiveBits ?? []))];
  return [
    `Kept entries over positions times layers, and bytes with all bookkeeping over those of a full cache of the same positions without any;
*kept at the end*, *resident* and *peak* are at and up to the end of the reference answer. The prompt alone is ${percent(report.promptShare)} of these
positions: a method that must see the whole prompt before it frees anything peaks there.${isMet(report) ? " After the prompt every cell of an asked size keeps exactly that share." : ""}${bits.length === 1 ? ` A number of a key or value takes ${bits[0]} bits.` : ""}`,
    ...(isMet(report) ? [] : part("Kept after the prompt", grid(report, share("keptShareAfterPrompt")))),
    ...part("Kept at the end", grid(report, share("keptShare"))),
    ...ofKinds(report),
    ...part("Resident", grid(report, share("residentShare"))),
    ...part("Peak", grid(report, share("peakShare"))),
    ...(bits.length > 1 ? part("Bits of a number", grid(report, share("effectiveBits"))) : []),
  ];
}

/** How much is left of text, image and answer at the end, in one grid. */
function ofKinds(report: Evaluated): string[] {
  if (report.cells.every(({ keptOfImages }) => keptOfImages === undefined)) return [];
  const shown = ({ keptOfText, keptOfImages, keptOfAnswer }: Cell): string =>
    [keptOfText, keptOfImages, keptOfAnswer].map((share) => (share === undefined ? "" : two(share))).join(" / ");
  return part("Kept at the end of the prompt's text / of the image / of the answer", grid(report, shown));
}

/** Whether every cell with a size keeps exactly the asked share after the prompt, in which case its grid says nothing. */
function isMet({ cells }: Evaluated): boolean {
  const sized = cells.filter(({ method }) => !outcome(method, cells));
  return sized.every(({ keep, keptShareAfterPrompt: share = keep }) => number(share) === number(keep));
}

const part = (name: string, grid: string): string[] => [`**${name}**`, grid];

/** A row per method, the full cache first with one value for all sizes. */
function grid({ run, cells }: Evaluated, of: (cell: Cell) => string | undefined): string {
  const { keeps, methods } = run;
  const shown = (cell: Cell | undefined): string => {
    if (!cell) return "";
    if (cell.samples === 0) return `refused${typeof cell.least === "number" ? `, least ${number(cell.least)}` : ""}`;
    return `${of(cell) ?? ""}${cell.refused > 0 ? ` of ${cell.samples} samples` : ""}`;
  };
  const rows = methods.map(({ id }) => {
    const own = outcome(id, cells);
    const all = own || id === "full" ? [1, ...keeps.slice(1)] : keeps;
    const name = own ? `${titleOf(id)} (${number(own.keptShare ?? Number.NaN)} kept at the end)` : titleOf(id);
    return [name, ...all.map((keep) => shown(cells.find((cell) => cell.method === id && cell.keep === keep)))];
  });
  // The full cache is not set beside itself.
  const told = rows.filter((row, index) => methods[index]?.id !== "full" || row[1] !== "");
  return table([["method", ...keeps.map((keep) => `keep ${keep}`)], ...told]);
}

/** The one cell of a method that finds its size by itself. */
function outcome(id: string, cells: readonly Cell[]): Cell | undefined {
  return id === "full" || isSized(id) ? undefined : cells.find(({ method }) => method === id);
}

/** Shares of a full cache at which methods are compared, whatever they were asked to keep. */
const shares = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2];

/**
 * Methods at equal numbers of entries: those that keep all they generate end with more than they were asked to keep, and so are not to be compared
 * with the others by that. Nothing where answers are too short to make a difference.
 */
export function equalBytes(report: Evaluated, title: string): string[] {
  const { promptShare, run, cells } = report;
  if (promptShare > 0.9) return [];
  const atEnd = ({ keptShare = Number.NaN }: Cell): number => keptShare;
  // Lanes grow, or stay, in even steps.
  const onAverage = ({ keptShareAfterPrompt: after = Number.NaN, keptShare: end = Number.NaN }: Cell): number =>
    (after * promptShare + end) / (promptShare + 1);
  const full = cells.find(({ method }) => method === "full");
  const grid = (of: (cell: Cell) => number): string => {
    const rows = run.methods.flatMap(({ id }) => {
      const points = cells
        .filter((cell) => cell.ppl && (cell.method === id || cell === full))
        .map((cell): Point => ({ share: of(cell), loss: Math.log(cell.ppl?.value ?? Number.NaN) }));
      const found = shares.map((share) => between(points, share));
      return id === "full" || found.every((loss) => loss === undefined)
        ? []
        : [[titleOf(id), ...found.map((loss) => (loss === undefined ? "" : number(Math.exp(loss))))]];
    });
    return table([["method", ...shares.map(String)], ...rows]);
  };
  return [
    `## ${title}: at equal bytes`,
    `Perplexities where methods hold the same share of a full cache's entries, read off on a straight line between the logarithms of those measured on either side,
the full cache being the last. Empty where a method was not measured with as few.`,
    ...part("Share at the end of the answer", grid(atEnd)),
    ...part("Mean share while the answer is generated", grid(onAverage)),
  ];
}

interface Point {
  share: number;
  loss: number;
}

/** The loss at a share; undefined outside of the points. */
export function between(points: readonly Point[], share: number): number | undefined {
  const sorted = [...points].sort((a, b) => a.share - b.share);
  const right = sorted.findIndex((point) => point.share >= share);
  const [low, high] = [sorted[right - 1], sorted[right]];
  if (high?.share === share) return high.loss;
  if (!low || !high) return undefined;
  return low.loss + ((share - low.share) / (high.share - low.share)) * (high.loss - low.loss);
}

/** One table of how entries are stored: a row for each cache, a column for each measure. */
export function stores(report: Evaluated, title: string): string {
  const answer = answerOf(report);
  const bytes = (value: number | undefined): string => (value === undefined ? "" : number(value));
  const rows = report.run.methods
    .flatMap(({ id }) => report.cells.filter(({ method, samples }) => method === id && id !== "full" && samples > 0))
    .map((cell) => [
      titleOf(cell.method),
      cell.effectiveBits === undefined ? "" : cell.effectiveBits.toFixed(2),
      bytes(cell.residentShare),
      bytes(cell.peakShare),
      cell.overFull ? interval(cell.overFull) : "",
      metric("kl")(cell) ?? "",
      ...(answer ? [metric(answer, percent)(cell) ?? ""] : []),
      metric("rougeL", two)(cell) ?? "",
      metric("agreement", two)(cell) ?? "",
    ]);
  const right = answer === "right" ? "objects right" : "answers right";
  const head = ["cache", "bits", "resident", "peak", "perplexity over full", "divergence KL, nats"];
  return `## ${title}: how entries are stored

${table([[...head, ...(answer ? [right] : []), "ROUGE-L", "agreement"], ...rows])}`;
}

const two = (value: number): string => value.toFixed(2);

function metric(name: Metric, text: (value: number) => string = number): (cell: Cell) => string | undefined {
  return (cell) => cell[name] && interval(cell[name], text);
}

function share(
  name: "keptShareAfterPrompt" | "keptShare" | "residentShare" | "peakShare" | "effectiveBits",
): (cell: Cell) => string | undefined {
  return ({ [name]: value }) => (value === undefined ? undefined : number(value));
}

/** The defaults of PrefixKV on scenes that did not choose them, beside the other methods. */
export function unseen({ run, unseen }: Evaluated): string[] {
  if (!unseen) return [];
  const cellOf = (id: string, keep: number): string => {
    const cell = unseen.cells.find((cell) => cell.method === id && cell.keep === keep);
    return cell?.ppl && cell.right ? `${interval(cell.right, percent)}; ${cell.ppl.value.toFixed(3)}` : "";
  };
  const rows = run.methods
    .filter(({ id }) => id !== "full")
    .map(({ id }) => [titleOf(id), ...run.keeps.map((keep) => cellOf(id, keep))]);
  return [
    `## The defaults of PrefixKV, on scenes that did not choose them

The defaults of \`prefixkv\` were chosen on scenes with odd numbers and on training pictures of easy-VQA, in two searches: the first among scores, windows,
ways to join neighbours, what goes while generating and how many last entries are safe, the second [as registered](design/prefixkv.md), which
added a floor. Here are the ${unseen.samples} with even numbers: objects right, and perplexity.

${table([["method", ...run.keeps.map((keep) => `keep ${keep}`)], ...rows])}`,
  ];
}
