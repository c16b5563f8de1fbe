// docs/kept-patches.svg: the patches of one scene that six methods keep, side by side; `npm run results -- --pictures`.
import { readFile, writeFile } from "node:fs/promises";
import { openData } from "../../ts/eval/data/open.ts";
import { promptOf } from "../../ts/eval/samples.ts";
import { type CacheOption, load, type Trace } from "../../ts/index.ts";
import { escapeText } from "../../ts/report/chart.ts";
import { keptPatches } from "../../ts/report/runs.ts";
import { titleOf } from "./statements.ts";

/** Of the 60 scenes; an even one, since odd ones chose defaults. */
const scene = 2;
const keep = 0.2;
const shown = ["prefixkv", "snapkv", "h2o", "pyramidkv", "keydiff", "streaming"] as const;
const side = 200;
const gap = 12;
const caption = 34;

export const file: URL = new URL("../../docs/kept-patches.svg", import.meta.url);

/** The caption of the picture. */
export const about: string = `Six methods at keep ${keep} after the prompt of scene ${scene}: the darker a patch, the fewer layers and heads hold it; under each picture the share of the patches that is held.`;

/** Draws the picture anew. */
export async function draw(): Promise<void> {
  const sample = (await openData()).samples[scene];
  if (!sample) throw new RangeError(`there is no scene ${scene}`);
  const bytes = await readFile(sample.image);
  const panels: string[] = [];
  const model = await load(undefined, { threads: 1 });
  try {
    for (const [index, method] of shown.entries()) {
      const trace = await model.trace({ ...promptOf(sample), cache: { method, keep } as CacheOption, maxTokens: 1 });
      panels.push(panel(trace, titleOf(method), (index % 3) * (side + gap), Math.floor(index / 3) * (side + caption)));
    }
  } finally {
    // Node 22 reads this file in the tests and has no `await using`.
    await model.dispose();
  }
  const [width, height] = [3 * side + 2 * gap, 2 * (side + caption)];
  const picture = `<image id="picture" width="${side}" height="${side}" href="data:image/png;base64,${bytes.toString("base64")}"/>`;
  await writeFile(
    file,
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img"><title>${escapeText(about)}</title><defs>${picture}</defs>
<rect width="${width}" height="${height}" fill="#fff"/>
${panels.join("\n")}
</svg>
`,
  );
}

function panel(trace: Trace, title: string, x: number, y: number): string {
  const [image] = trace.images;
  if (!image) throw new RangeError("the prompt has no picture");
  const layers = trace.layers.map((_, layer) => keptPatches(trace, layer, 0));
  const shares = Array.from({ length: image.rows * image.columns }, (_, patch) => {
    const all = layers.map((layer) => layer[patch] ?? 0);
    return all.reduce((sum, share) => sum + share, 0) / all.length;
  });
  const [width, height] = [side / image.columns, side / image.rows];
  const n = (value: number): string => String(Number(value.toFixed(2)));
  // Patches that are as dark as each other are one path.
  const dark = new Map<number, number[]>();
  for (const [patch, share] of shares.entries()) {
    const level = Math.round(20 * (1 - share));
    if (level > 0) dark.set(level, [...(dark.get(level) ?? []), patch]);
  }
  const paths = [...dark].map(([level, patches]) => {
    const square = (patch: number): string =>
      `M${n((patch % image.columns) * width)} ${n(Math.floor(patch / image.columns) * height)}h${n(width)}v${n(height)}h${n(-width)}z`;
    return `<path d="${patches.map(square).join("")}" fill-opacity="${n((0.92 * level) / 20)}"/>`;
  });
  const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
  const words = `${title}, ${(100 * mean).toFixed(0)} %`;
  return `<g transform="translate(${x} ${y})"><use href="#picture"/><g fill="#0b0e12">${paths.join("")}</g><text x="${side / 2}" y="${side + 20}" font-family="system-ui, sans-serif" font-size="13" text-anchor="middle">${escapeText(words)}</text></g>`;
}
