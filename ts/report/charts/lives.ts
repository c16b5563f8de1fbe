import type { Chart } from "../chart.ts";
import { both, type Pen } from "../draw.ts";
import { type Life, livesOf } from "../lives.ts";
import { look } from "../palette.ts";
import { follows, frames, promptLength, type Scene, short } from "../runs.ts";

/** How long each entry stays: what the method's plans let go, after the prompt and while generating. */
export function livesChart(pen: Pen, scene: Scene): Chart {
  const { plot } = pen;
  const title = "How long entries stay";
  const about =
    "Each position's entry from the moment it is read until a plan of the method lets it go, per layer; paler where only some heads still hold it. Left of 0 the prompt is being read.";
  const every = frames(scene).flatMap(({ run, layer, frame }) => {
    const { label = "", trace } = scene.runs[run] ?? {};
    const lives = trace && livesOf(trace, layer);
    return lives === undefined ? [] : [{ run, layer, frame, label, ...lives }];
  });
  const without = frames(scene).filter(({ frame }) => every.every((other) => other.frame !== frame));
  const columns = Math.max(1, ...scene.runs.map(({ trace }) => trace.steps.length));
  const positions = Math.max(1, ...scene.runs.map(({ trace }) => promptLength(trace) + trace.steps.length - 1));
  const pictures = both(({ width, height }) =>
    pen.draw(title, about, {
      width,
      height,
      marginTop: 30,
      marginLeft: 48,
      marginBottom: 40,
      x: {
        label: "tokens generated",
        labelAnchor: "center",
        labelArrow: "none",
        domain: [-1, columns],
        ticks: Math.min(6, columns),
        tickFormat: "d",
      },
      y: { label: "position", labelArrow: "none", domain: [0, positions], reverse: true, ticks: 6, tickFormat: "d" },
      marks: [
        ...every.map(({ run, frame, lives }) =>
          plot.rect(lives, {
            x1: "from",
            x2: "to",
            y1: "first",
            y2: "end",
            fill: look(run).color,
            fillOpacity: (life: Life) => 0.15 + 0.75 * life.share,
            shapeRendering: "crispEdges",
            ariaDescription: `frame ${frame}`,
          }),
        ),
        ...without.map(({ layer, frame }) =>
          plot.text([`layer ${layer} keeps a window of its own, whatever the method`], {
            frameAnchor: "middle",
            text: (d: string) => d,
            lineWidth: 24,
            fill: "var(--ink)",
            ariaDescription: `frame ${frame}`,
          }),
        ),
        plot.ruleX([0], { stroke: "var(--ink)", strokeDasharray: "2 3" }),
      ],
    }),
  );
  const head = ["method", "layer", "freed after the prompt", "merged", "freed while generating", "held at the end"];
  const rows = every.map(({ label, layer, freed, merged, held }) =>
    [label, layer, freed.prompt, merged, freed.later, held.at(-1) ?? 0].map((cell) =>
      typeof cell === "number" ? short(cell) : cell,
    ),
  );
  return { id: "lives", title, about, ...pictures, follows: follows(scene), table: { head, rows } };
}
