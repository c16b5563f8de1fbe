import { formatShare } from "../../format.ts";
import type { Chart } from "../chart.ts";
import { both, type Entry, legend, type Pen } from "../draw.ts";
import { type Look, look } from "../palette.ts";
import { follows, frames, keptEntries, promptLength, type Scene, short } from "../runs.ts";

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
    about: `Entries that each layer keeps of the ${positions} of the prompt; the mean over its heads.`,
    of: positions,
  });
}

/** Points of a curve; more are not seen. */
const resolution = 100;

/** The share of a layer's importance that its best entries hold, with what was kept. Undefined without attention scores. */
export function cumulativeChart(pen: Pen, scene: Scene): Chart | undefined {
  const { plot } = pen;
  const curves = frames(scene).flatMap(({ run, layer, frame }) => {
    const { label = "", trace } = scene.runs[run] ?? {};
    const found = trace?.layers[layer];
    if (trace === undefined || !found?.cumulative || found.retained === null) return [];
    const { from, shares } = found.cumulative;
    const all = promptLength(trace);
    const step = Math.max(1, Math.floor(shares.length / resolution));
    const points = shares.flatMap((share, index) =>
      index % step === 0 || index === shares.length - 1 ? [{ entries: (from + index) / all, share }] : [],
    );
    const kept = { entries: keptEntries(trace, layer) / all, share: found.retained };
    return [{ run, layer, frame, label, points, kept, threshold: trace.threshold, from }];
  });
  if (curves.length === 0) return undefined;
  const title = "Cumulative importance";
  const lines =
    scene.runs.length > 1
      ? "The mark is what the layer keeps"
      : "Thin lines are all layers, the thick one is the chosen layer, its mark what it keeps";
  const about = `The share of a layer's importance that its best entries hold, those first that are always kept. ${lines}${curves.some(({ threshold }) => threshold !== null) ? "; PrefixKV looks for the dashed threshold that all layers reach" : ""}.`;
  const pictures = both(({ width, height }) =>
    pen.draw(title, about, {
      width,
      height,
      marginTop: 30,
      marginLeft: 48,
      marginRight: 24,
      marginBottom: 40,
      x: {
        label: "entries kept (% of the prompt)",
        labelAnchor: "center",
        labelArrow: "none",
        domain: [0, 1],
        ticks: 5,
        tickFormat: percent,
      },
      y: {
        label: "share of importance (%)",
        labelArrow: "none",
        domain: [0, 1],
        grid: true,
        ticks: 5,
        tickFormat: percent,
      },
      marks: [
        ...(scene.runs.length > 1 ? [] : curves).map(({ points }) =>
          plot.line(points, { x: "entries", y: "share", stroke: "var(--muted)", strokeOpacity: 0.35, strokeWidth: 1 }),
        ),
        ...curves.flatMap(({ run, layer, frame, points, kept, threshold }) => [
          plot.line(points, {
            x: "entries",
            y: "share",
            stroke: look(run).color,
            strokeWidth: 2.5,
            ariaDescription: `frame ${frame}`,
          }),
          plot.ruleX([kept.entries], {
            y1: 0,
            y2: kept.share,
            stroke: look(run).color,
            strokeDasharray: "2 3",
            ariaDescription: `frame ${frame}`,
          }),
          plot.dot([kept], {
            x: "entries",
            y: "share",
            r: 5,
            fill: look(run).color,
            stroke: "var(--page)",
            strokeWidth: 1.5,
            symbol: look(run).symbol,
            ariaDescription: `frame ${frame}`,
          }),
          plot.text([`layer ${layer}: ${(100 * kept.entries).toFixed(1)} % hold ${(100 * kept.share).toFixed(1)} %`], {
            frameAnchor: "bottom-right",
            dx: -6,
            dy: -8,
            text: (d: string) => d,
            fontWeight: "bold",
            fill: look(run).color,
            stroke: "var(--page)",
            strokeWidth: 4,
            ariaDescription: `frame ${frame}`,
          }),
          ...(threshold === null
            ? []
            : [
                plot.ruleY([threshold], {
                  stroke: "var(--ink)",
                  strokeDasharray: "6 4",
                  ariaDescription: `frame ${frame}`,
                }),
                plot.text([`threshold ${(100 * threshold).toFixed(1)} %`], {
                  x: 1,
                  y: threshold,
                  dy: 12,
                  text: (d: string) => d,
                  textAnchor: "end",
                  fill: "var(--ink)",
                  stroke: "var(--page)",
                  strokeWidth: 4,
                  ariaDescription: `frame ${frame}`,
                }),
              ]),
        ]),
      ],
    }),
  );
  const head = [
    "method",
    "layer",
    "threshold",
    "kept entries (share)",
    "retained importance",
    "entries for 50 %",
    "for 90 %",
    "for 99 %",
  ];
  const rows = curves.map(({ label, run, layer, kept, threshold }) => {
    const { from = 0, shares = [] } = scene.runs[run]?.trace.layers[layer]?.cumulative ?? {};
    const reach = (share: number): number => from + shares.findIndex((value) => value >= share - 1e-12);
    return [
      label,
      layer,
      threshold === null ? "-" : formatShare(threshold),
      formatShare(kept.entries),
      formatShare(kept.share),
      reach(0.5),
      reach(0.9),
      reach(0.99),
    ];
  });
  return { id: "cumulative", title, about, ...pictures, follows: follows(scene), table: { head, rows } };
}

function percent(share: number): string {
  return String(Math.round(100 * share));
}
