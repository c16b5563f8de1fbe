import type { Chart } from "../chart.ts";
import { both, legend, type Pen } from "../draw.ts";
import { look } from "../palette.ts";
import { short } from "../runs.ts";

/** A value with its bootstrap interval. */
export interface Interval {
  value: number;
  low: number;
  high: number;
}

/** The quality of a method at one size. */
export interface QualityPoint extends Interval {
  method: string;
  keep: number | null;
  /** Resident bytes as a share of the full cache's. */
  share: number;
  samples: number;
}

/** What a quality is called and how it is read. */
export interface Metric {
  id: string;
  title: string;
  about: string;
  /** On the axis. */
  label: string;
  /** Ends of the scale where it has natural ones. */
  low?: number;
  high?: number;
  /** Whether a log scale is right once values are far apart. */
  log: boolean;
}

/** How far apart values must be for a log scale. */
const far = 8;

/** Quality against memory: a line per method over its sizes, with intervals. */
export function qualityChart(pen: Pen, metric: Metric, points: readonly QualityPoint[]): Chart {
  const { plot } = pen;
  const methods = [...new Set(points.map(({ method }) => method))];
  const lowest = Math.min(...points.map(({ low }) => low));
  const highest = Math.max(...points.map(({ high }) => high));
  const positive = points.filter(({ value }) => value > 0);
  const floor = Math.min(...positive.map(({ value, low }) => (low > 0 ? low : value)));
  const log = metric.log && positive.length > 0 && highest / floor > far;
  // A log scale has no zero: what is there stands at its lower end.
  const clamp = (value: number): number => (log ? Math.max(value, floor) : value);
  const placed = points.map((point) => ({
    ...point,
    x: 100 * point.share,
    value: clamp(point.value),
    low: clamp(point.low),
    high: clamp(point.high),
  }));
  const domain = log
    ? [floor, highest]
    : [metric.low === undefined ? lowest : Math.min(metric.low, lowest), metric.high ?? highest];
  const right = Math.max(100, ...placed.map(({ x }) => x));
  const pictures = both(({ width, height }) => {
    const entries = methods.map((name, index) => ({ name, ...look(index) }));
    const names = legend(pen, entries, width - 70);
    return pen.draw(metric.title, metric.about, {
      width,
      height: height + names.margin - 30,
      marginTop: names.margin,
      marginLeft: 52,
      marginRight: 18,
      marginBottom: 40,
      x: { label: "resident cache (% of the full cache)", labelAnchor: "center", labelArrow: "none", domain: [0, right], ticks: 6, grid: false },
      y: { type: log ? "log" : "linear", label: `${metric.label}${log ? ", log scale" : ""}`, labelArrow: "none", domain, nice: !log, grid: true, ticks: 6, ...(log && { tickFormat: (value: number) => short(value) }) },
      marks: [
        ...methods.flatMap((method, index) => {
          const { color, symbol, dash } = look(index);
          const own = placed.filter((point) => point.method === method).sort((a, b) => a.x - b.x);
          return [
            plot.ruleX(own, { x: "x", y1: "low", y2: "high", stroke: color, strokeWidth: 1.5, strokeOpacity: 0.6 }),
            plot.line(own, { x: "x", y: "value", stroke: color, strokeWidth: 2, ...(dash !== "none" && { strokeDasharray: dash }) }),
            plot.dot(own, { x: "x", y: "value", symbol, fill: color, stroke: "var(--page)", strokeWidth: 0.7, r: 4.5, title: (d: QualityPoint) => `${d.method}${d.keep === null ? "" : ` at keep ${d.keep}`}: ${short(d.value)} (${short(d.low)} to ${short(d.high)})` }),
          ];
        }),
        ...names.marks,
      ],
    });
  });
  const rows = points.map(({ method, keep, share, value, low, high, samples }) => [
    method,
    keep ?? "-",
    `${(100 * share).toFixed(1)} %`,
    short(value),
    `${short(low)} to ${short(high)}`,
    samples,
  ]);
  return {
    id: metric.id,
    title: metric.title,
    about: metric.about,
    ...pictures,
    table: { head: ["method", "keep", "resident", metric.label, "interval", "samples"], rows },
  };
}
