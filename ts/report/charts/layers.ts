import type { Chart } from "../chart.ts";
import { both, type Entry, legend, type Pen } from "../draw.ts";
import { type Look, look } from "../palette.ts";
import { keptEntries, promptLength, type Scene, short } from "../runs.ts";

/** Kept entries per layer of one method. */
export interface KeptLine {
  label: string;
  kept: readonly number[];
  look: Look;
}

/** Entries that each layer keeps, with the same number in every layer beside it. */
export function keptPerLayer(
  pen: Pen,
  lines: readonly KeptLine[],
  { id, title, about, of }: { id: string; title: string; about: string; of?: number },
): Chart {
  const { plot } = pen;
  const layers = Math.max(0, ...lines.map(({ kept }) => kept.length));
  const drawn = joined(lines);
  const points = drawn.flatMap(({ label, kept }) => kept.map((entries, layer) => ({ label, layer, entries })));
  const mean = lines[0] === undefined ? 0 : lines[0].kept.reduce((sum, value) => sum + value, 0) / Math.max(1, layers);
  const entries: Entry[] = drawn.map(({ label, look: own }) => ({ name: label, ...own }));
  const most = Math.max(of ?? 0, ...points.map((point) => point.entries));
  const pictures = both(({ width, height }) => {
    const names = legend(pen, entries, width - 60);
    return pen.draw(title, about, {
      width,
      height: height + names.margin - 30,
      marginTop: names.margin,
      marginLeft: 48,
      marginBottom: 40,
      x: {
        label: "layer",
        labelAnchor: "center",
        labelArrow: "none",
        domain: [0, Math.max(1, layers - 1)],
        ticks: Math.min(layers, 8),
        tickFormat: "d",
      },
      y: { label: "entries", labelArrow: "none", domain: [0, most], nice: true, grid: true },
      marks: [
        ...(lines.length === 1 ? uniformMarks(pen, mean, layers) : []),
        ...(of === undefined
          ? []
          : [
              plot.ruleY([of], { stroke: "var(--muted)", strokeDasharray: "2 3" }),
              plot.text(["all"], {
                x: layers - 1,
                y: of,
                dy: 9,
                text: (d: string) => d,
                textAnchor: "end",
                fill: "var(--muted)",
              }),
            ]),
        ...drawn.map(({ label, look: { color, dash } }) => {
          return plot.line(
            points.filter((point) => point.label === label),
            {
              x: "layer",
              y: "entries",
              stroke: color,
              strokeWidth: 2,
              ...(dash !== "none" && { strokeDasharray: dash }),
            },
          );
        }),
        ...drawn.map(({ label, look: { color, symbol } }) => {
          return plot.dot(
            points.filter((point) => point.label === label),
            {
              x: "layer",
              y: "entries",
              fill: color,
              symbol,
              r: 3.5,
              title: (d: (typeof points)[number]) => `${d.label}, layer ${d.layer}: ${short(d.entries)} entries`,
            },
          );
        }),
        ...names.marks,
      ],
    });
  });
  const rows = Array.from({ length: layers }, (_, layer) => [
    layer,
    ...lines.map(({ kept }) => short(kept[layer] ?? 0)),
  ]);
  return { id, title, about, ...pictures, table: { head: ["layer", ...lines.map(({ label }) => label)], rows } };
}

/** Lines that lie on each other as one with all their names. */
function joined(lines: readonly KeptLine[]): KeptLine[] {
  const drawn: KeptLine[] = [];
  for (const line of lines) {
    const same = drawn.findIndex(({ kept }) =>
      kept.every((entries, at) => Math.abs(entries - (line.kept[at] ?? 0)) < 0.5),
    );
    const found = drawn[same];
    if (found === undefined) drawn.push(line);
    else drawn[same] = { ...found, label: `${found.label}, ${line.label}` };
  }
  return drawn;
}

function uniformMarks({ plot }: Pen, mean: number, layers: number) {
  return [
    plot.ruleY([mean], { stroke: "var(--muted)", strokeWidth: 1.5, strokeDasharray: "6 4" }),
    plot.text([`the same in every layer: ${short(mean)}`], {
      x: layers - 1,
      y: mean,
      dy: -8,
      text: (d: string) => d,
      textAnchor: "end",
      fill: "var(--muted)",
      stroke: "var(--page)",
      strokeWidth: 3,
    }),
  ];
}

/** {@link keptPerLayer} of one prompt. */
export function keptOfScene(pen: Pen, { runs }: Scene): Chart {
  const lines = runs.map(({ label, trace }, run) => ({
    label,
    look: look(run),
    kept: trace.layers.map((_, layer) => keptEntries(trace, layer)),
  }));
  const positions = runs[0] === undefined ? 0 : promptLength(runs[0].trace);
  return keptPerLayer(pen, lines, {
    id: "kept-per-layer",
    title: "Kept entries per layer",
    about: `Entries that each layer keeps after the prompt, of its ${positions}; the mean over its heads.`,
    of: positions,
  });
}
