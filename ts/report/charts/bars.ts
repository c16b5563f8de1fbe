import type { Chart } from "../chart.ts";
import { both, legend, type Pen } from "../draw.ts";
import { look } from "../palette.ts";
import { short } from "../runs.ts";

/** One bar: `series` is the method, `group` what it is beside others of it. */
export interface Bar {
  series: string;
  group: string;
  value: number;
}

/** Bars from zero with their numbers, grouped. */
export function barChart(
  pen: Pen,
  bars: readonly Bar[],
  { id, title, about, unit }: { id: string; title: string; about: string; unit: string },
): Chart {
  const { plot } = pen;
  const series = [...new Set(bars.map((bar) => bar.series))];
  const groups = [...new Set(bars.map((bar) => bar.group))];
  const most = Math.max(0, ...bars.map(({ value }) => value));
  const pictures = both(({ width }) => {
    const entries = series.map((name, index) => ({ name, color: look(index).color, symbol: "square" }));
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
        plot.barX(bars, { x: "value", y: "series", fy: "group", fill: (bar: Bar) => look(series.indexOf(bar.series)).color }),
        plot.text(bars, { x: "value", y: "series", fy: "group", text: (bar: Bar) => short(Number(bar.value.toPrecision(3))), dx: 4, textAnchor: "start", fill: "var(--ink)" }),
        ...names.marks,
      ],
    });
  });
  return { id, title, about, ...pictures, table: { head: ["method", "size", unit], rows: bars.map(({ series, group, value }) => [series, group, short(value)]) } };
}
