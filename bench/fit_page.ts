// The part of docs/fit.md that has figures: everything in it is made from a report of fit.ts.
import type { Fit } from "../ts/index.ts";
import type { Origin } from "./machine.ts";
import { table } from "./stats.ts";

/** A fit with each of its points measured on the held-out half. */
export interface Measured extends Fit {
  heldOut: { resident: number; loss: number }[];
}

export const ways = ["both", "entries alone", "bits alone"] as const;

export type FitReport = {
  origin: Origin;
  /** How many scenes were fitted to and held out. */
  scenes: { fitted: number; heldOut: number };
  /** The options that `prefixkv()` stood for. */
  defaults: Record<string, unknown>;
  /** The stores that were tried, by their names. */
  stores: string[];
  /** The full cache on the held-out half. */
  full: { resident: number; loss: number };
} & Record<(typeof ways)[number], Measured>;

export const count = (value: number): string => String(value).replace(/\B(?=(\d{3})+$)/g, ",");
const perplexity = (loss: number): string => Math.exp(loss).toFixed(3);
const share = (value: number): string => `${(100 * value).toFixed(0)} %`;

/** Options as code has them. */
export function options(values: Record<string, unknown>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name}: ${JSON.stringify(value)}`)
    .join(", ");
}

const shown = (cache: unknown): string =>
  [cache]
    .flat()
    .map((stage) => {
      const { method, ...rest } = stage as { method: string };
      const list = options(rest);
      return list === "" ? `${method}()` : `${method}({ ${list} })`;
    })
    .join(" + ");

interface Place {
  bytes: number;
  /** Of each way that has a point there. */
  found: Map<string, { cache: unknown; resident: number; loss: number; heldOut: { resident: number; loss: number } }>;
}

function places(report: FitReport): Place[] {
  const all = [...new Set(ways.flatMap((way) => report[way].curve.map(({ bytes }) => bytes)))];
  return all
    .sort((a, b) => a - b)
    .map((bytes) => {
      const found: Place["found"] = new Map();
      for (const way of ways) {
        const { curve, heldOut } = report[way];
        const index = curve.findIndex((point) => point.bytes === bytes);
        const [point, other] = [curve[index], heldOut[index]];
        if (point && other) found.set(way, { ...point, heldOut: other });
      }
      return { bytes, found };
    });
}

/** A row for each number of bytes and way. */
export function figures(report: FitReport): string {
  const rows = places(report).flatMap(({ bytes, found }) =>
    ways.map((way, index) => {
      const point = found.get(way);
      const head = [index === 0 ? count(bytes) : "", way];
      if (!point) return [...head, "none fits", "", "", "", ""];
      const { cache, resident, loss, heldOut } = point;
      const other = [count(heldOut.resident), perplexity(heldOut.loss)];
      return [...head, `\`${shown(cache)}\``, count(resident), perplexity(loss), ...other];
    }),
  );
  const head = ["bytes", "choice of", "configuration", "bytes used", "perplexity"];
  return table([[...head, "held-out: bytes", "held-out: perplexity"], ...rows]);
}

/** Sentences that are made from the figures, whatever they are. */
export function statements(report: FitReport): string[] {
  const all = places(report);
  const against = (way: (typeof ways)[number], text: (ours: number, theirs: number) => string): string[] =>
    all.flatMap(({ bytes, found }) => {
      const [both, other] = [found.get("both"), found.get(way)];
      if (!both) return [];
      return [`${count(bytes)}: ${other ? text(both.loss, other.loss) : `${way} do not fit`}`];
    });
  const times = (ours: number, theirs: number): string => `${Math.exp(theirs - ours).toFixed(3)} times`;
  const beyond = all.flatMap(({ bytes, found }) => {
    const held = found.get("both")?.heldOut.resident ?? 0;
    return held > bytes ? [`${share(held / bytes - 1)} beyond ${count(bytes)}`] : [];
  });
  const apart = all.flatMap(({ found }) =>
    [...found.values()].map(({ loss, heldOut }) => Math.exp(Math.abs(heldOut.loss - loss)) - 1),
  );
  return [
    `- Perplexity of entries alone over the perplexity of both together, by bytes: ${against("entries alone", times).join("; ")}.`,
    `- Perplexity of bits alone over the same: ${against("bits alone", times).join("; ")}. Where it is 1.000, the search for both finds that nothing is left to gain by evicting.`,
    `- On the scenes that the fit has not seen, perplexities are up to ${share(Math.max(...apart))} away from those of the fit. ${
      beyond.length === 0
        ? "The bytes hold there too"
        : `Their descriptions are longer or shorter, and the cache of a share follows: it is ${beyond.join(", ")}`
    }.`,
  ];
}

const marks = ["<!-- Written by `npm run bench:fit`. -->", "<!-- end of bench:fit -->"] as const;

/** The block between the marks. */
export function block(report: FitReport): string {
  const { origin, scenes, defaults, stores, full, both } = report;
  const { cpu, cores } = origin.machine;
  return `Fits of the embedded model to several numbers of bytes, on ${scenes.fitted} of the scenes with odd numbers, with the default lists (the stores were ${stores.map((name) => `\`${name}\``).join(", ")}); beside them the same without stores, and without methods. Perplexity of the reference descriptions there, and on the ${scenes.heldOut} scenes with even numbers, which the fit has not seen. ${cpu}, ${cores} cores, one thread, commit ${origin.commit}${origin.changed ? " with changes" : ""}; \`npm run bench:fit\` repeats it and writes this part and [its page](../bench/results/${origin.machine.slug}-fit.md). The full cache takes ${count(both.full.resident)} bytes and has ${perplexity(both.full.loss)} on the odd scenes, ${count(full.resident)} and ${perplexity(full.loss)} on the even ones. \`prefixkv()\` stood for \`{ ${options(defaults)} }\`.

${figures(report)}

${statements(report).join("\n")}`;
}

/** A page with the block of a report in the place of its last one. */
export function withBlock(page: string, report: FitReport): string {
  const [start, end] = marks.map((mark) => page.indexOf(mark)) as [number, number];
  if (start < 0 || end < start) throw new Error(`the page has no part between \`${marks.join("` and `")}\``);
  return `${page.slice(0, start + marks[0].length)}\n\n${block(report)}\n\n${page.slice(end)}`;
}
