import type { Chart } from "../chart.ts";
import { both, legend, type Pen } from "../draw.ts";
import type { Look } from "../palette.ts";
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

/** The name of a metric and how to read it. */
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
export function qualityChart(
  pen: Pen,
  metric: Metric,
  points: readonly QualityPoint[],
  lookOf: (method: string) => Look,
): Chart {
  const { plot } = pen;
  const methods = [...new Set(points.map(({ method }) => method))];
  const lowest = Math.min(...points.map(({ low }) => low));
  const highest = Math.max(...points.map(({ high }) => high));
  const positive = points.filter(({ value }) => value > 0);
  const floor = Math.min(...positive.map(({ value, low }) => (low > 0 ? low : value)));
  const log = metric.log && positive.length > 0 && highest / floor > far;
  // A log scale has no zero: what is there stands at its lower end. Logarithms are taken here, because the log scale of the
  // library leaves out labels.
  const place = (value: number): number => (log ? Math.log10(Math.max(value, floor)) : value);
  const placed = points.map((point) => ({
    ...point,
    x: 100 * point.share,
    y: place(point.value),
    y1: place(point.low),
    y2: place(point.high),
  }));
  const domain = log
    ? [place(floor), place(highest)]
    : [metric.low === undefined ? lowest : Math.min(metric.low, lowest), metric.high ?? highest];
  const right = Math.max(100, ...placed.map(({ x }) => x));
  const pictures = both(({ width, height }) => {
    const entries = methods.map((name) => ({ name, ...lookOf(name) }));
    const names = legend(pen, entries, width - 70);
    return pen.draw(metric.title, metric.about, {
      width,
      height: height + names.margin - 30,
      marginTop: names.margin,
      marginLeft: 52,
      marginRight: 18,
      marginBottom: 40,
      x: {
        label: "resident cache at the end (% of the full cache)",
        labelAnchor: "center",
        labelArrow: "none",
        domain: [0, right],
        ticks: 6,
        grid: false,
      },
      y: {
        label: `${metric.label}${log ? ", log scale" : ""}`,
        labelArrow: "none",
        domain,
        nice: !log,
        grid: true,
        ticks: log ? logTicks(floor, highest).map(Math.log10) : 6,
        ...(log && { tickFormat: (value: number) => short(Number((10 ** value).toPrecision(3))) }),
      },
      marks: [
        // The full cache is what all others are held against.
        plot.ruleY(
          placed.filter(({ keep }) => keep === null),
          { y: "y", stroke: "var(--muted)", strokeDasharray: "2 3" },
        ),
        ...methods.flatMap((method) => {
          const { color, symbol, dash } = lookOf(method);
          const own = placed.filter((point) => point.method === method).sort((a, b) => a.x - b.x);
          return [
            plot.ruleX(own, { x: "x", y1: "y1", y2: "y2", stroke: color, strokeWidth: 1.5, strokeOpacity: 0.6 }),
            plot.line(own, {
              x: "x",
              y: "y",
              stroke: color,
              strokeWidth: 2,
              ...(dash !== "none" && { strokeDasharray: dash }),
            }),
            plot.dot(own, {
              x: "x",
              y: "y",
              symbol,
              fill: color,
              stroke: "var(--page)",
              strokeWidth: 0.7,
              r: 4.5,
              title: (d: QualityPoint) =>
                `${d.method}${d.keep === null ? "" : ` at keep ${d.keep}`}: ${short(d.value)} (${short(d.low)} to ${short(d.high)})`,
            }),
          ];
        }),
        plot.text(
          apart(placed, {
            x: (width - 70) / right,
            y: height / Math.max(1e-12, Math.abs((domain[1] ?? 1) - (domain[0] ?? 0))),
          }),
          {
            x: "x",
            y: "y",
            text: ({ keep }: QualityPoint) => String(keep),
            dx: 7,
            dy: -7,
            textAnchor: "start",
            fontSize: 9,
            fill: "var(--muted)",
            stroke: "var(--page)",
            strokeWidth: 2,
          },
        ),
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
    about:
      log && positive.length < points.length
        ? `${metric.about} Zero stands at the lower end of the log scale.`
        : metric.about,
    ...pictures,
    table: { head: ["method", "keep", "resident", metric.label, "interval", "samples"], rows },
  };
}

/** The points whose size labels fit without overlapping; `pixels` is the number of pixels per unit. */
function apart<T extends { keep: number | null; x: number; y: number }>(
  points: readonly T[],
  pixels: { x: number; y: number },
): T[] {
  const shown: T[] = [];
  for (const point of points) {
    const near = shown.some(
      ({ x, y }) => pixels.x * Math.abs(x - point.x) < 24 && pixels.y * Math.abs(y - point.y) < 12,
    );
    if (point.keep !== null && !near) shown.push(point);
  }
  return shown;
}

/** One, two and five of every power of ten; only powers where those are too many. */
function logTicks(low: number, high: number): number[] {
  const powers = Array.from({ length: 40 }, (_, index) => index - 20);
  const within = (factors: readonly number[]): number[] =>
    powers
      .flatMap((power) => factors.map((factor) => Number(`${factor}e${power}`)))
      .filter((value) => value >= low && value <= high);
  const fine = within([1, 2, 5]);
  return fine.length <= 8 ? fine : within([1]);
}
