// Statements read off the figures of bench/results/eval-*.json, whatever they are: every sentence with a number is made from them.
import type { Interval } from "../../ts/eval/bootstrap.ts";
import type { Difference, Metric } from "../../ts/eval/records.ts";
import { methods } from "../../ts/generated/method_table.ts";
import { digits, percent } from "../stats.ts";
import type { Cell, Evaluated } from "./summary.ts";

/** A cache counts as free of cost when its perplexity is at most this many times the full cache's. */
export const near = 1.05;
/** A share of bytes counts as the requested one when it is at most this much above it. */
export const slack = 0.05;
/** Answers are said to be kept when at most this share of all is lost. */
export const lost = 0.05;

const titles = new Map<string, string>([
  ...methods.map(({ name, title }) => [name, title] as const),
  ["full", "full cache"],
]);

/** A method by its id, which may have options behind its name. */
export function titleOf(id: string): string {
  const [name = "", options] = id.split(":");
  return `${titles.get(name) ?? name}${options === "variant=paper" ? " as published" : options ? `, ${options}` : ""}`;
}

/** Numbers near one with their place behind the point, large ones with three digits. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  return Math.abs(value) < 100 ? value.toFixed(3) : String(Number(digits(value)));
}

export function interval({ value, low, high }: Interval, text: (value: number) => string = number): string {
  return `${text(value)} (${text(low)} to ${text(high)})`;
}

/** The metric that tells right answers, where samples have short answers or known objects. */
export function answerOf({ cells }: Evaluated): "accuracy" | "right" | undefined {
  return (["right", "accuracy"] as const).find((metric) => cells.some((cell) => cell[metric]));
}

/** Whether the full cache knows more answers than one who does not look; without that nothing can be lost. */
export function canTell(report: Evaluated): boolean {
  const { cells, blind } = report;
  const full = cells.find(({ method }) => method === "full");
  return blind === undefined || (full?.accuracy?.low ?? 0) > blind.byKind;
}

/** Whether a method is asked for a size; of one that finds its size by itself nothing is said beside those of a size. */
export function isSized(id: string): boolean {
  const facts = methods.find(({ name }) => name === id.split(":")[0]);
  return facts?.budget !== "outcome";
}

const measuredCells = ({ cells }: Evaluated): Cell[] =>
  cells.filter(({ method, samples }) => isSized(method) && samples > 0);

const list = (parts: readonly string[]): string => parts.join("; ");

/** Each of the cells that hold, or, where all of many do, the one that holds least. */
function holding(
  all: readonly Cell[],
  holds: (cell: Cell) => boolean,
  text: (cell: Cell) => string,
  loss: (cell: Cell) => number,
): string {
  const found = all.filter(holds);
  if (found.length < all.length || found.length < 6) return list(found.map(text));
  return `every method, at the worst ${text(found.reduce((worst, cell) => (loss(cell) > loss(worst) ? cell : worst)))}`;
}

/** One line per size that has something to say. */
function bySize(report: Evaluated, of: (cells: Cell[]) => string): string[] {
  return report.run.keeps.flatMap((keep) => {
    const said = of(measuredCells(report).filter((cell) => cell.keep === keep));
    return said === "" ? [] : [`  - keep ${keep}: ${said}`];
  });
}

function point(head: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [`- ${head}`, ...lines];
}

/** The method, and what it keeps in the end where that is not what was asked: its figures are those of a larger cache. */
function name({ method, keep, keptShare = keep }: Cell): string {
  return `${titleOf(method)}${keptShare > keep + slack ? ` (${keptShare.toFixed(2)} kept at the end)` : ""}`;
}

const over = (cell: Cell): string => `${name(cell)} ${cell.overFull ? interval(cell.overFull) : ""}`;
const isNear = ({ overFull }: Cell): boolean => overFull !== undefined && overFull.value <= near;
const isWhollyNear = ({ overFull }: Cell): boolean => overFull !== undefined && overFull.high <= near;

/** Statements about quality that hold where the answers can tell. */
export function works(report: Evaluated): string[] {
  const answer = answerOf(report);
  const nearly = bySize(report, (cells) =>
    holding(
      cells,
      isNear,
      (cell) => `${over(cell)}${isWhollyNear(cell) ? "" : `, the interval passing ${near}`}`,
      ({ overFull }) => overFull?.high ?? 0,
    ),
  );
  const answers =
    answer &&
    bySize(report, (cells) =>
      holding(
        cells,
        ({ versus }) => (versus?.[answer]?.low ?? -1) >= -lost,
        (cell) => `${name(cell)} ${cell[answer] ? interval(cell[answer], percent) : ""}`,
        (cell) => -(cell[answer]?.low ?? 0),
      ),
    );
  const better = bySize(report, (cells) =>
    list(cells.filter((cell) => sideOf(cell, "ppl") === "better").map(againstRandom("ppl"))),
  );
  return [
    ...point(`Perplexity within ${near} times the full cache's, with the paired interval of the ratio:`, nearly),
    ...point(
      `${answer === "right" ? "Objects" : "Answers"} right, at most ${percent(lost)} of all lost against the full cache (the whole paired interval):`,
      answers ?? [],
    ),
    ...generating(report),
    ...point(
      "Perplexity below Random's at the same size, the paired interval of the difference being wholly below 0:",
      better,
    ),
  ];
}

/** The same method with and without freeing while it generates. */
function generating(report: Evaluated): string[] {
  const cells = measuredCells(report);
  const [without] = report.run.methods.filter(({ id }) => id.endsWith(":decode=none"));
  const id = without?.id.replace(/:decode=none$/, "");
  const pairs = report.run.keeps.flatMap((keep) => {
    const of = (method: string | undefined): string | undefined =>
      cells.find((cell) => cell.method === method && cell.keep === keep)?.ppl?.value.toFixed(3);
    const [none, some] = [of(without?.id), of(id)];
    return none && some && none !== some ? [`${none} and ${some} at ${keep}`] : [];
  });
  if (id === undefined || pairs.length === 0) return [];
  return [
    `- Entries freed while generating count by themselves. ${titleOf(id)} without and with it, the same after the prompt, has the perplexities ${pairs.join(", ")}.`,
  ];
}

export function worksNot(report: Evaluated): string[] {
  const answer = answerOf(report);
  const far = report.run.keeps.filter(
    (keep) => !measuredCells(report).some((cell) => cell.keep === keep && isNear(cell)),
  );
  const best = far.flatMap((keep) => {
    const sorted = measuredCells(report)
      .filter((cell) => cell.keep === keep && cell.overFull)
      .sort((a, b) => (a.overFull?.value ?? 0) - (b.overFull?.value ?? 0));
    return sorted[0] ? [`  - keep ${keep}: the least is ${over(sorted[0])}`] : [];
  });
  const never = report.run.methods
    .map(({ id }) => id)
    .filter((id) => isSized(id) && !measuredCells(report).some((cell) => cell.method === id && isNear(cell)));
  const half =
    answer &&
    bySize(report, (cells) => {
      const full = report.cells.find(({ method }) => method === "full")?.[answer]?.value ?? 0;
      const fallen = cells.filter((cell) => (cell[answer]?.value ?? full) < full / 2);
      return list(fallen.map((cell) => `${name(cell)} ${cell[answer] ? percent(cell[answer].value) : ""}`));
    });
  const unlike = (side: "worse" | "unclear", head: string): string[] =>
    point(
      head,
      bySize(report, (cells) => list(cells.filter((cell) => sideOf(cell, "ppl") === side).map(againstRandom("ppl")))),
    );
  return [
    ...point(`At these sizes no method stays within ${near} times the full cache's perplexity:`, best),
    ...(never.length > 0 ? [`- Within ${near} at none of the sizes: ${list(never.map(titleOf))}.`] : []),
    ...unlike(
      "worse",
      "Worse than Random at the same size, the paired interval of the perplexities being wholly above 0:",
    ),
    ...unlike("unclear", "Not told apart from Random at the same size, the paired interval holding 0:"),
    ...point(
      `Less than half of the ${answer === "right" ? "objects" : "answers"} that are right with the full cache:`,
      half ?? [],
    ),
    ...refused(report),
  ];
}

function refused(report: Evaluated): string[] {
  const cells = report.cells.filter((cell) => cell.refused > 0);
  const least = (cell: Cell): string => (typeof cell.least === "number" ? `, least ${number(cell.least)}` : "");
  return point(
    "Sizes that do not hold what the method protects:",
    cells.map((cell) => `  - ${titleOf(cell.method)} at keep ${cell.keep}: ${cell.refused} samples${least(cell)}`),
  );
}

function sideOf({ versusRandom }: Cell, metric: Metric): "better" | "worse" | "unclear" | undefined {
  const difference = versusRandom?.[metric];
  if (!difference) return undefined;
  if (difference.high < 0) return "better";
  return difference.low > 0 ? "worse" : "unclear";
}

function againstRandom(metric: Metric): (cell: Cell) => string {
  return (cell) => `${name(cell)} ${cell.versusRandom?.[metric] ? signed(cell.versusRandom[metric]) : ""}`;
}

export function signed({ difference, low, high }: Difference, text: (value: number) => string = number): string {
  const sign = (value: number): string => {
    // A value that rounds to zero has no sign.
    const size = text(Math.abs(value));
    return size === text(0) ? size : `${value > 0 ? "+" : "-"}${size}`;
  };
  return `${sign(difference)} (${sign(low)} to ${sign(high)})`;
}

/** Statements about entries and bytes, over the cells of all data sets. */
export function memory(reports: readonly Evaluated[]): { works: string[]; worksNot: string[] } {
  const cells = reports.flatMap(measuredCells);
  const ids = [...new Set(cells.map(({ method }) => method))];
  const layer = 1 / Math.min(...reports.map(({ run }) => run.model.layers));
  const excess = (id: string, of: (cell: Cell) => number | undefined): number =>
    Math.max(...cells.filter(({ method }) => method === id).map((cell) => (of(cell) ?? Number.NaN) - cell.keep));
  const resident = (id: string): number => excess(id, ({ residentShare }) => residentShare);
  const peak = (id: string): number => excess(id, ({ peakShare }) => peakShare);
  const held = ids.filter((id) => resident(id) <= slack);
  const low = ids.filter((id) => peak(id) <= slack + layer);
  const names = (found: readonly string[]): string => (found.length === 0 ? "no method" : list(found.map(titleOf)));
  const by = (found: readonly string[], of: (id: string) => number): string =>
    list(found.map((id) => `${titleOf(id)} by up to ${of(id).toFixed(2)}`));
  const grown = ids.filter((id) => !held.includes(id));
  const high = held.filter((id) => !low.includes(id));
  const apart = Math.max(...cells.map((cell) => Math.abs((cell.keptShareAfterPrompt ?? Number.NaN) - cell.keep)));
  return {
    works: [
      `- After the prompt the share of entries kept is the asked one in every cell of an asked size of every data set, ${apart < 1e-9 ? "exactly" : `within ${(Math.ceil(apart * 1e4) / 1e4).toFixed(4)}`}.`,
      `- Bytes fall by the asked share: at the end of the answer, resident is at most ${slack} above it in every cell with ${names(held)}.`,
      `- The peak falls too: it is at most ${slack} and one layer (${layer.toFixed(2)}) above the asked share in every cell with ${names(low)}.`,
    ],
    worksNot: [
      ...(grown.length === 0
        ? []
        : [
            `- Bytes that are above the asked share at the end of the answer: ${by(grown, resident)}. A method that frees nothing while generating grows with the answer.`,
          ]),
      ...(high.length === 0
        ? []
        : [
            `- A peak that is above the asked share although resident is not: ${by(high, peak)}. A method that compares layers holds the whole prompt until it knows their sizes; a [calibration](cache.md#calibration) saves that.`,
          ]),
    ],
  };
}
