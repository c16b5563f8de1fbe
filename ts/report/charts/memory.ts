import { formatBytes } from "../../format.ts";
import type { Chart } from "../chart.ts";
import { both, legend, type Pen } from "../draw.ts";
import { look } from "../palette.ts";
import type { Scene } from "../runs.ts";

const units = [
  { name: "KiB", bytes: 1024 },
  { name: "MiB", bytes: 1024 ** 2 },
  { name: "GiB", bytes: 1024 ** 3 },
] as const;

/** Resident bytes of the cache after the prompt and after every token. */
export function memoryChart(pen: Pen, { runs }: Scene): Chart {
  const { plot } = pen;
  const title = "Memory over time";
  const about =
    "Bytes that the key-value cache takes after the prompt and after each token: entries, their positions and slack. Full is a cache that keeps everything.";
  const longest = runs.reduce(
    (most, run) => (run.trace.steps.length > most.length ? run.trace.steps : most),
    runs[0]?.trace.steps ?? [],
  );
  const top = Math.max(
    1,
    ...runs.flatMap(({ trace }) => trace.steps.map(({ resident, full }) => Math.max(resident, full))),
  );
  const unit = units.findLast(({ bytes }) => top >= bytes) ?? units[0];
  const full = longest.map((step, token) => ({ token, size: step.full / unit.bytes }));
  const lines = runs.map(({ label, trace }, index) => ({
    ...look(index),
    label,
    points: trace.steps.map(({ resident }, token) => ({ token, size: resident / unit.bytes })),
  }));
  const pictures = both(({ width, height }) => {
    const names = legend(
      pen,
      [
        { name: "full (dashed)", color: "var(--muted)" },
        ...lines.map(({ label, color, symbol }) => ({ name: label, color, symbol })),
      ],
      width - 70,
    );
    return pen.draw(title, about, {
      width,
      height: height + names.margin - 30,
      marginTop: names.margin,
      marginLeft: 48,
      marginBottom: 40,
      x: {
        label: "tokens generated",
        labelAnchor: "center",
        labelArrow: "none",
        ticks: Math.min(6, Math.max(1, longest.length - 1)),
        tickFormat: "d",
      },
      y: {
        label: `resident (${unit.name})`,
        labelArrow: "none",
        domain: [0, top / unit.bytes],
        nice: true,
        grid: true,
        ticks: 6,
      },
      marks: [
        plot.line(full, { x: "token", y: "size", stroke: "var(--muted)", strokeWidth: 1.5, strokeDasharray: "6 4" }),
        ...lines.flatMap(({ label, points, color, symbol, dash }) => [
          plot.line(points, {
            x: "token",
            y: "size",
            stroke: color,
            strokeWidth: 2,
            ...(dash !== "none" && { strokeDasharray: dash }),
          }),
          plot.dot(
            points.filter((_, index) => index === 0 || index === points.length - 1),
            {
              x: "token",
              y: "size",
              fill: color,
              symbol,
              r: 4,
              title: (point: { token: number; size: number }) =>
                `${label}, ${point.token === 0 ? "after the prompt" : `at token ${point.token}`}: ${formatBytes(point.size * unit.bytes)}`,
            },
          ),
        ]),
        ...names.marks,
      ],
    });
  });
  const rows = longest.map((step, token) => [
    token,
    step.positions,
    formatBytes(step.full),
    ...runs.map(({ trace }) => {
      const at = trace.steps[token];
      return at === undefined ? "-" : formatBytes(at.resident);
    }),
  ]);
  return {
    id: "memory",
    title,
    about,
    ...pictures,
    table: { head: ["token", "positions", "full", ...runs.map(({ label }) => label)], rows },
  };
}
