import { formatRuns } from "../../format.ts";
import type { TraceImage } from "../../generated/wire.ts";
import { type Chart, escapeText } from "../chart.ts";
import {
  follows,
  frames,
  keptEntries,
  keptPatches,
  patchesOf,
  promptLength,
  type Scene,
  scoreText,
  short,
} from "../runs.ts";

/** Levels of the heat map. */
const levels = 8;

/** The id under which a page shares a picture. */
export function pictureId(source: number): string {
  return `picture-${source}`;
}

/** The patches that stay, drawn over picture number `image` of the prompt. */
export function keptChart(scene: Scene, image: number): Chart | undefined {
  return patchChart(scene, image, {
    id: "kept-patches",
    title: "Kept patches",
    about:
      "Light patches stay in the cache of the layer after the prompt; dark ones are freed, less dark where only some heads free them.",
    head: ["method", "layer", "kept entries", "kept patches", "patches kept by all heads (from 0, by rows)"],
    part: veil,
  });
}

/** The importance of the patches of picture number `image`. */
export function importanceChart(scene: Scene, image: number): Chart | undefined {
  const scores = [...new Set(scene.runs.map(({ trace }) => scoreText(trace)))].join("; ");
  return patchChart(scene, image, {
    id: "importance-patches",
    title: "Importance of patches",
    about: `The more colour, the more important: ${scores}. Colours go from the least to the 98th percentile of the layer's patches.`,
    head: ["method", "layer", "least", "median", "most", "most important patches (row, column)"],
    part: heat,
    gray: true,
  });
}

/** How a chart over a picture differs from the others. */
interface PatchChart {
  id: string;
  title: string;
  about: string;
  head: string[];
  /** Draws one frame. */
  part: (scene: Scene, place: Place, picture: TraceImage) => Omit<Part, "frame">;
  /** Whether the picture is shown without its colours. */
  gray?: boolean;
}

function patchChart(scene: Scene, image: number, chart: PatchChart): Chart | undefined {
  const picture = pictureOf(scene, image);
  if (picture === undefined) return undefined;
  const title = `${chart.title}${suffix(scene, image)}`;
  const about = `${chart.about}${margins(picture)}`;
  const every = frames(scene).map(({ run, layer, frame }) => ({
    frame,
    ...chart.part(scene, { run, layer, image }, picture),
  }));
  const svg = draw(picture, title, about, every, chart.gray);
  return {
    id: `${chart.id}${image === 0 ? "" : `-${image}`}`,
    title,
    about,
    wide: svg,
    narrow: svg,
    follows: follows(scene),
    captions: every.map(({ frame, caption }) => ({ frame, text: caption })),
    table: { head: chart.head, rows: every.map(({ row }) => row) },
  };
}

interface Place {
  run: number;
  layer: number;
  image: number;
}

interface Part {
  frame: string;
  svg: string;
  caption: string;
  row: (string | number)[];
}

function pictureOf({ runs, pictures }: Scene, image: number): TraceImage | undefined {
  const picture = runs[0]?.trace.images[image];
  return picture && pictures[picture.source] ? picture : undefined;
}

/** Whether the patches cover the picture and no more. */
function isWhole({ width, height, area }: Pick<TraceImage, "width" | "height" | "area">): boolean {
  // The sides of tiles are fractions.
  const same = (a: number, b: number): boolean => Math.abs(a - b) < 1e-6;
  return area.x === 0 && area.y === 0 && same(area.width, width) && same(area.height, height);
}

/** The note for a picture that the model sees cropped or padded. */
function margins(picture: TraceImage): string {
  return isWhole(picture)
    ? ""
    : " The model sees what is inside the frame; grey is cut off, or added to make a square.";
}

function suffix({ runs }: Scene, image: number): string {
  const images = runs[0]?.trace.images ?? [];
  const { index = 0, tiles = 1 } = images[image] ?? {};
  if (images.length < 2) return "";
  const cut = images.some((other) => other.index === index && other.tiles > 1);
  return ` of picture ${index + 1}${tiles > 1 ? ` in ${tiles} tiles` : cut ? " as a whole" : ""}`;
}

function veil({ runs }: Scene, { run, layer, image }: Place, picture: TraceImage): Omit<Part, "frame"> {
  const { label = "", trace } = runs[run] ?? {};
  if (trace === undefined) return { svg: "", caption: "", row: [] };
  const shares = keptPatches(trace, layer, image);
  const groups = new Map<number, number[]>();
  for (const [patch, share] of shares.entries()) {
    const gone = Math.round(100 * (1 - share)) / 100;
    if (gone > 0) groups.set(gone, [...(groups.get(gone) ?? []), patch]);
  }
  const dark = [...groups].map(
    ([gone, patches]) =>
      `<path d="${path(patches, picture)}" fill="#0b0e12" fill-opacity="${(0.8 * gone).toFixed(2)}"/>`,
  );
  const whole = shares.flatMap((share, patch) => (share > 0.999 ? [patch] : []));
  const edges = `<path d="${path(whole, picture)}" fill="none" stroke="#fff" stroke-opacity="0.55" stroke-width="${(picture.area.width / picture.columns / 18).toFixed(2)}"/>`;
  const patches = shares.reduce((sum, share) => sum + share, 0);
  const entries = keptEntries(trace, layer);
  const of = `${short(patches)} of ${shares.length} patches`;
  return {
    svg: `<g data-patches="${whole.join(" ")}">${dark.join("")}${edges}</g>`,
    caption: `${label}, layer ${layer}: ${short(entries)} of ${promptLength(trace)} entries stay, ${of}`,
    row: [label, layer, short(entries), short(patches), formatRuns(whole)],
  };
}

function heat({ runs }: Scene, { run, layer, image }: Place, picture: TraceImage): Omit<Part, "frame"> {
  const { label = "", trace } = runs[run] ?? {};
  if (trace === undefined) return { svg: "", caption: "", row: [] };
  const importance = trace.layers[layer]?.importance ?? [];
  const values = patchesOf(trace, image).map((position) => importance[position] ?? 0);
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
  const [least, high] = [at(0), at(0.98)];
  const groups = Array.from({ length: levels + 1 }, (): number[] => []);
  for (const [patch, value] of values.entries()) {
    const level = high > least ? Math.round(levels * Math.min(1, (value - least) / (high - least))) : 0;
    groups[level]?.push(patch);
  }
  const paths = groups.map((patches, level) =>
    level === 0 || patches.length === 0
      ? ""
      : `<path d="${path(patches, picture)}" fill="var(--heat)" fill-opacity="${((0.85 * level) / levels).toFixed(2)}"/>`,
  );
  const best = [...values.keys()].sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0)).slice(0, 5);
  const names = best.map((patch) => `(${Math.floor(patch / picture.columns)}, ${patch % picture.columns})`);
  return {
    svg: paths.join(""),
    caption: `${label}, layer ${layer}: from ${short(at(0))} to ${short(at(1))}, median ${short(at(0.5))}`,
    row: [label, layer, short(at(0)), short(at(0.5)), short(at(1)), names.join(" ")],
  };
}

/** Squares of patches in one path. */
function path(patches: readonly number[], { rows, columns, area }: TraceImage): string {
  const [width, height] = [area.width / columns, area.height / rows];
  const n = (value: number): string => String(Number(value.toFixed(2)));
  return patches
    .map((patch) => {
      const x = area.x + (patch % columns) * width;
      const y = area.y + Math.floor(patch / columns) * height;
      return `M${n(x)} ${n(y)}h${n(width)}v${n(height)}h${n(-width)}z`;
    })
    .join("");
}

function draw(
  { source, width, height, area }: TraceImage,
  title: string,
  about: string,
  every: readonly Part[],
  heat = false,
): string {
  const left = Math.min(0, area.x);
  const top = Math.min(0, area.y);
  const right = Math.max(width, area.x + area.width);
  const bottom = Math.max(height, area.y + area.height);
  const box = [left, top, right - left, bottom - top].map((value) => Number(value.toFixed(2)));
  // The part that the model never sees surrounds the patches, or the picture where it is padded.
  const edge = Number((box[2] ?? 0) / 200).toFixed(2);
  const outside = isWhole({ width, height, area })
    ? ""
    : `<path fill-rule="evenodd" d="M0 0h${width}v${height}h${-width}zM${area.x} ${area.y}h${area.width}v${area.height}h${-area.width}z" fill="#808080" fill-opacity="0.85"/><rect x="${area.x}" y="${area.y}" width="${area.width}" height="${area.height}" fill="none" stroke="var(--accent)" stroke-width="${edge}"/>`;
  const groups = every.map(({ frame, svg }) => `<g data-frame="${frame}">${svg}</g>`);
  const strip = heat ? scale(left, bottom, right - left) : { svg: "", height: 0 };
  const whole = [box[0], box[1], box[2], Number((bottom - top + strip.height).toFixed(2))];
  return `<svg viewBox="${whole.join(" ")}" role="img" aria-label="${escapeText(title)}"><title>${escapeText(title)}</title><desc>${escapeText(about)}</desc><rect x="${box[0]}" y="${box[1]}" width="${box[2]}" height="${box[3]}" fill="var(--panel)"/><g${heat ? ' style="filter:grayscale(1)"' : ""}><use href="#${pictureId(source)}"/></g>${outside}${groups.join("")}${strip.svg}</svg>`;
}

/** The colours of the heat map under a picture, and what they take of the height. */
function scale(x: number, y: number, width: number): { svg: string; height: number } {
  const side = width / 28;
  const n = (value: number): string => String(Number(value.toFixed(2)));
  const top = y + side * 0.6;
  const squares = Array.from({ length: levels + 1 }, (_, level) => {
    const opacity = ((0.85 * level) / levels).toFixed(2);
    return `<rect x="${n(x + side * (4 + level))}" y="${n(top)}" width="${n(side)}" height="${n(side)}" fill="var(--heat)" fill-opacity="${opacity}" stroke="var(--line)" stroke-width="${n(side / 30)}"/>`;
  });
  const text = (at: number, anchor: string, words: string): string =>
    `<text x="${n(x + side * at)}" y="${n(top + side * 0.75)}" font-family="system-ui, sans-serif" font-size="${n(side * 0.85)}" text-anchor="${anchor}" fill="var(--ink)">${words}</text>`;
  const words = text(3.7, "end", "least") + text(levels + 5.3, "start", "98th percentile and above");
  return { svg: `<g>${squares.join("")}${words}</g>`, height: side * 1.8 };
}
