import { formatShare } from "../../format.ts";
import type { Trace } from "../../generated/wire.ts";
import type { Chart } from "../chart.ts";
import { both, type Pen } from "../draw.ts";
import { look } from "../palette.ts";
import { follows, frames, keptEntries, promptLength, type Scene } from "../runs.ts";

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
  // A frame without a curve says why, instead of being empty.
  const without = frames(scene).flatMap(({ run, frame, layer }) => {
    const { label = "", trace } = scene.runs[run] ?? {};
    if (trace === undefined || curves.some((curve) => curve.frame === frame)) return [];
    return [{ label, layer, frame, text: noMass(label, trace) }];
  });
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
        ...without.map(({ frame, text }) =>
          plot.text([text], {
            frameAnchor: "middle",
            text: (d: string) => d,
            lineWidth: 24,
            lineHeight: 1.4,
            fill: "var(--ink)",
            ariaDescription: `frame ${frame}`,
          }),
        ),
        ...(scene.runs.length > 1 ? [] : curves).map(({ points }) =>
          plot.line(points, { x: "entries", y: "share", stroke: "var(--muted)", strokeOpacity: 0.35, strokeWidth: 1 }),
        ),
        ...curves.flatMap(({ label, run, layer, frame, points, kept, threshold }) => [
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
            title: () =>
              `${label}, layer ${layer}: ${formatShare(kept.entries)} of the entries hold ${formatShare(kept.share)}`,
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
  const none = without.map(({ label, layer }) => [label, layer, "-", "-", "no attention", "-", "-", "-"]);
  const table = { head, rows: [...rows, ...none] };
  return { id: "cumulative", title, about, ...pictures, follows: follows(scene), table };
}

/** Why a method has no curve of importance. */
export function noMass(label: string, trace: Trace): string {
  return `${label} has no curve: it ranks entries by ${trace.ranking}, which is no attention and has no shares that add up`;
}

function percent(share: number): string {
  return String(Math.round(100 * share));
}
