import { leastRounds } from "../eval/records.ts";
import { formatCount } from "../format.ts";
import { Place } from "../options/place.ts";
import { text } from "../options/rules.ts";
import type { Chart, Report } from "./chart.ts";
import { type Bar, barChart } from "./charts/bars.ts";
import { keptPerLayer } from "./charts/layers.ts";
import { type Metric, type QualityPoint, qualityChart } from "./charts/quality.ts";
import { type Pen, pen, standalone } from "./draw.ts";
import { page, type Section } from "./page.ts";
import { type Look, look } from "./palette.ts";
import { type EvalFolder, readEval, type SummaryRow } from "./read.ts";

/** Settings shared by all charts of an evaluation, so that a method looks the same in each. */
interface Drawn {
  own: Pen;
  rows: readonly SummaryRow[];
  lookOf: (method: string) => Look;
}

type Quality = "ppl" | "rougeL" | "agreement" | "kl" | "accuracy" | "right";

const metrics: readonly (Metric & { field: Quality })[] = [
  {
    field: "ppl",
    id: "quality-ppl",
    title: "Perplexity",
    about: "Of the reference answers, exp of the mean negative log-probability of a token. Lower is better.",
    label: "perplexity",
    log: true,
  },
  {
    field: "rougeL",
    id: "quality-rouge",
    title: "ROUGE-L",
    about: "Longest common subsequence of the greedy answer and the full cache's, as an F-measure. Higher is better.",
    label: "ROUGE-L",
    low: 0,
    high: 1,
    log: false,
  },
  {
    field: "agreement",
    id: "quality-agreement",
    title: "Agreement with the full cache",
    about: "Share of the greedy answer's tokens that are those of the full cache's answer. Higher is better.",
    label: "agreement",
    high: 1,
    log: false,
  },
  {
    field: "kl",
    id: "quality-kl",
    title: "Divergence from the full cache",
    about:
      "Mean Kullback-Leibler divergence of the next-token distributions from those of the full cache, in nats. Lower is better.",
    label: "KL divergence (nats)",
    log: true,
  },
  {
    field: "accuracy",
    id: "quality-accuracy",
    title: "Accuracy",
    about: "Share of questions that are answered right. Higher is better.",
    label: "accuracy",
    low: 0,
    high: 1,
    log: false,
  },
  {
    field: "right",
    id: "quality-right",
    title: "Objects described right",
    about: "Share of the objects of a scene whose colour, shape and place the answer names. Higher is better.",
    label: "objects right",
    low: 0,
    high: 1,
    log: false,
  },
];

/** Makes the report of an evaluation from its folder, which `prefixkv eval` writes. Throws an OptionError for another folder. */
export async function evalReport(folder: string): Promise<Report> {
  const place = new Place("evalReport", "folder");
  if (text(folder, place) === "") throw place.invalid("is empty");
  const found = await readEval(folder);
  const own = await pen();
  const names = [...new Set(found.rows.map(({ method }) => method))];
  const drawn: Drawn = { own, rows: found.rows, lookOf: (method) => look(Math.max(0, names.indexOf(method))) };
  const sections = [quality(drawn), kept(drawn), speed(drawn)].filter(({ charts }) => charts.length > 0);
  const { run, rows } = found;
  const notes = [...refused(rows), ...unmeasured(found)];
  const html = page(
    {
      title: `Evaluation on ${run.data.name}`,
      subtitle: subtitle(found),
      facts: facts(found),
      texts: notes,
      shared: "",
    },
    sections,
  );
  const charts = sections.flatMap((section) =>
    section.charts.map(({ id, wide }) => ({ name: `${id}.svg`, svg: standalone(wide) })),
  );
  return { html, charts };
}

function subtitle({ run }: EvalFolder): string {
  const name = run.model.source.split(/[\\/]/).filter(Boolean).at(-1) ?? run.model.architecture;
  // The full cache is always there, so nobody has asked for it.
  const asked = run.methods.filter(({ id }) => id !== "full").length;
  const grid =
    asked === 0
      ? "the full cache alone"
      : `${count(asked, "method")} at ${count(run.keeps?.length ?? 0, "size")} beside the full cache`;
  return `${name}, ${grid}, ${count(run.data.samples, "sample")}`;
}

function count(number: number, what: string): string {
  return `${formatCount(number)} ${what}${number === 1 ? "" : "s"}`;
}

function facts({ run }: EvalFolder): [string, string][] {
  return [
    ["model", `${run.model.architecture}, ${run.model.layers} layers, ${run.model.weights}`],
    ["full cache", `${formatCount(run.model.kvBytesPerToken)} bytes per position`],
    ["data", `${run.data.name}, ${count(run.data.samples, "sample")}`],
    ...(run.threads === undefined ? [] : [["threads", String(run.threads)] as [string, string]]),
    ...(run.seed === undefined ? [] : [["seed", String(run.seed)] as [string, string]]),
  ];
}

function refused(rows: readonly SummaryRow[]): string[] {
  const some = rows.filter((row) => row.refused > 0);
  if (some.length === 0) return [];
  const list = some.map(({ method, keep, refused: count }) => `${method} at ${keep ?? "its size"} (${count})`);
  return [`Refused because the size does not hold what is protected: ${list.join(", ")}.`];
}

/** Why there is no speed, where there is none. */
function unmeasured({ run, rows }: EvalFolder): string[] {
  if (run.version === 1)
    return ["Speeds are not shown: an earlier release measured them, each method in one stretch of time."];
  if (run.batch !== undefined) return [`Speeds are not shown: ${run.batch} lines at once shared their steps.`];
  const rounds = Math.max(0, ...rows.map(({ firstTokenMs }) => firstTokenMs?.rounds ?? 0));
  return rounds >= leastRounds
    ? []
    : [`Speeds are not shown: they need ${leastRounds} rounds or more, found ${rounds}.`];
}

function quality({ own, rows, lookOf }: Drawn): Section {
  const charts = metrics.flatMap(({ field, ...metric }): Chart[] => {
    const points = rows.flatMap((row): QualityPoint[] => {
      const interval = row[field];
      const { method, keep, samples, residentShare: share } = row;
      return interval === undefined ? [] : [{ ...interval, method, keep, samples, share }];
    });
    return points.length === 0 ? [] : [qualityChart(own, metric, points, lookOf)];
  });
  const text =
    "One mark per size, which is the number beside it, or beside one close to it, and shows when it is pointed at; lines join the sizes of a method, bars are 95 % bootstrap intervals over the samples. To the left is less memory: bytes at the end of the reference answer, over those of a full cache.";
  return { title: "Quality against memory", text, charts };
}

function kept({ own, rows, lookOf }: Drawn): Section {
  const keeps = [...new Set(rows.flatMap(({ keep }) => (keep === null || keep >= 1 ? [] : [keep])))].sort(
    (a, b) => a - b,
  );
  const charts = keeps.flatMap((keep): Chart[] => {
    const lines = rows
      .filter((row) => row.keep === keep && row.keptPerLayer.length > 0)
      .map((row) => ({ label: row.method, kept: row.keptPerLayer, look: lookOf(row.method) }));
    if (lines.length === 0) return [];
    const title = `Kept entries per layer at keep ${keep}`;
    return [
      keptPerLayer(own, lines, {
        id: `kept-${keep}`,
        title,
        about:
          "At the end of the reference answer, what was added after the prompt included; the mean over the samples and over the heads of a layer.",
      }),
    ];
  });
  return { title: "What each layer keeps", charts };
}

function speed({ own, rows, lookOf }: Drawn): Section {
  const bars = (field: "tokensPerSecond" | "speedup" | "firstTokenMs"): Bar[] =>
    rows.flatMap((row) => {
      const value = row[field];
      const group = row.keep === null ? "all" : `keep ${row.keep}`;
      return value === undefined || value.rounds < leastRounds ? [] : [{ series: row.method, group, ...value }];
    });
  const parts = [
    {
      field: "tokensPerSecond",
      id: "speed-decode",
      title: "Decoding speed",
      about: "Tokens per second after the first. Higher is better.",
      unit: "tokens per second",
    },
    {
      field: "speedup",
      id: "speed-ratio",
      title: "Decoding speed beside the full cache",
      about: "Tokens per second over those of the full cache in the same round. Above 1 is faster.",
      unit: "times the full cache",
    },
    {
      field: "firstTokenMs",
      id: "speed-first-token",
      title: "Time to the first token",
      about: "From the request to the first token, images included. Lower is better.",
      unit: "milliseconds",
    },
  ] as const;
  const charts = parts.flatMap(({ field, ...part }) => {
    const found = bars(field);
    // A method without sizes, the full cache, is a line that all others stand beside.
    const reference = found.find(({ group }) => group === "all");
    const sized = found.filter((bar) => bar !== reference);
    return sized.length === 0 ? [] : [barChart(own, sized, { ...part, reference }, lookOf)];
  });
  const text =
    "Bars are medians over rounds, lines their quartiles. A round is one sample: each method at each size once, in an order that moves on from round to round.";
  return { title: "Speed", text, charts };
}
