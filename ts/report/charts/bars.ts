import type { Spread } from "../../eval/records.ts";
import type { Chart } from "../chart.ts";
import { both, legend, type Pen } from "../draw.ts";
import type { Look } from "../palette.ts";
import { short } from "../runs.ts";

/** One bar: `series` is the method, `group` its size. */
export interface Bar extends Spread {
  series: string;
  group: string;
}

/** The labels of the bars, and the value they are compared with. */
export interface BarOptions {
  id: string;
  title: string;
  about: string;
  unit: string;
  reference?: Bar | undefined;
}

/** Medians as bars from zero with their numbers, and their quartiles as lines, grouped. */
export function barChart(
  pen: Pen,
  bars: readonly Bar[],
  { id, title, about, unit, reference }: BarOptions,
  lookOf: (series: string) => Look,
): Chart {
  const { plot } = pen;
  const series = [...new Set(bars.map((bar) => bar.series))];
  const groups = [...new Set(bars.map((bar) => bar.group))];
  const most = Math.max(reference?.high ?? 0, ...bars.map(({ high }) => high));
  const pictures = both(({ width }) => {
    const entries = [
      ...series.map((name) => ({ name, color: lookOf(name).color, symbol: "square" })),
      ...(reference
        ? [
            {
              name: `${reference.series}: ${rounded(reference.median)} (dashed)`,
              color: "var(--ink)",
              symbol: "square",
            },
          ]
        : []),
    ];
    const names = legend(pen, entries, width - 90);
    const place = { y: "series", fy: "group" } as const;
    return pen.draw(title, about, {
      width,
      height: names.margin + bars.length * 19 + groups.length * 10 + 44,
      marginTop: names.margin,
      marginLeft: 72,
      marginRight: 16,
      marginBottom: 40,
      fy: { label: null, padding: 0.12, domain: groups, axis: "left" },
      y: { axis: null, domain: series, padding: 0.1 },
      x: { label: unit, labelAnchor: "center", labelArrow: "none", domain: [0, most * 1.14], ticks: 5, grid: true },
      marks: [
        plot.barX(bars, {
          ...place,
          x: "median",
          fill: (bar: Bar) => lookOf(bar.series).color,
          title: (bar: Bar) => `${bar.series} at ${bar.group}: ${range(bar)}, over ${bar.rounds} rounds`,
        }),
        plot.ruleY(bars, { ...place, x1: "low", x2: "high", stroke: "var(--page)", strokeWidth: 5 }),
        plot.ruleY(bars, { ...place, x1: "low", x2: "high", stroke: "var(--ink)", strokeWidth: 1.5 }),
        plot.text(bars, {
          ...place,
          x: "high",
          text: (bar: Bar) => rounded(bar.median),
          dx: 5,
          textAnchor: "start",
          fill: "var(--ink)",
        }),
        ...(reference ? [plot.ruleX([reference.median], { stroke: "var(--ink)", strokeDasharray: "4 3" })] : []),
        ...names.marks,
      ],
    });
  });
  return {
    id,
    title,
    about,
    ...pictures,
    table: {
      head: ["method", "size", `${unit}, median`, "quartiles", "rounds"],
      rows: [...(reference ? [reference] : []), ...bars].map((bar) => [
        bar.series,
        bar.group,
        short(bar.median),
        `${rounded(bar.low)} to ${rounded(bar.high)}`,
        bar.rounds,
      ]),
    },
  };
}

function range({ median, low, high }: Bar): string {
  return `${rounded(median)} (quartiles ${rounded(low)} to ${rounded(high)})`;
}

function rounded(value: number): string {
  return short(Number(value.toPrecision(3)));
}
