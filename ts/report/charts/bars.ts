import type { Chart } from "../chart.ts";
import { both, legend, type Pen } from "../draw.ts";
import type { Look } from "../palette.ts";
import { short } from "../runs.ts";

/** One bar: `series` is the method, `group` what it is beside others of it. */
export interface Bar {
  series: string;
  group: string;
  value: number;
}

/** What bars are called, and the value that they are seen beside. */
export interface BarOptions {
  id: string;
  title: string;
  about: string;
  unit: string;
  reference?: Bar | undefined;
}

/** Bars from zero with their numbers, grouped. */
export function barChart(
  pen: Pen,
  bars: readonly Bar[],
  { id, title, about, unit, reference }: BarOptions,
  lookOf: (series: string) => Look,
): Chart {
  const { plot } = pen;
  const series = [...new Set(bars.map((bar) => bar.series))];
  const groups = [...new Set(bars.map((bar) => bar.group))];
  const most = Math.max(reference?.value ?? 0, ...bars.map(({ value }) => value));
  const pictures = both(({ width }) => {
    const entries = [
      ...series.map((name) => ({ name, color: lookOf(name).color, symbol: "square" })),
      ...(reference
        ? [{ name: `${reference.series}: ${rounded(reference)} (dashed)`, color: "var(--ink)", symbol: "square" }]
        : []),
    ];
    const names = legend(pen, entries, width - 90);
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
        plot.barX(bars, { x: "value", y: "series", fy: "group", fill: (bar: Bar) => lookOf(bar.series).color }),
        plot.text(bars, {
          x: "value",
          y: "series",
          fy: "group",
          text: rounded,
          dx: 4,
          textAnchor: "start",
          fill: "var(--ink)",
        }),
        ...(reference ? [plot.ruleX([reference.value], { stroke: "var(--ink)", strokeDasharray: "4 3" })] : []),
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
      head: ["method", "size", unit],
      rows: [...(reference ? [reference] : []), ...bars].map(({ series, group, value }) => [
        series,
        group,
        short(value),
      ]),
    },
  };
}

function rounded({ value }: Bar): string {
  return short(Number(value.toPrecision(3)));
}
