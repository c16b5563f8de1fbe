import { formatBytes, formatCount, formatShare, formatTime } from "../format.ts";
import type { ModelInfo } from "../generated/wire.ts";
import { Place } from "../options/place.ts";
import { own as ownFields } from "../options/rules.ts";
import type { Chart, Report } from "./chart.ts";
import { cumulativeChart, noMass } from "./charts/cumulative.ts";
import { keptOfScene } from "./charts/layers.ts";
import { livesChart } from "./charts/lives.ts";
import { memoryChart } from "./charts/memory.ts";
import { importanceChart, keptChart, pictureId } from "./charts/patches.ts";
import { type Pen, pen, standalone } from "./draw.ts";
import { type Control, page, type Section } from "./page.ts";
import { frameOf, type Picture, promptLength, type Run, type Scene, scoreText } from "./runs.ts";

/** The input of a report on one prompt. */
export interface DescribeInput {
  /** The model that was asked. */
  info: ModelInfo;
  /** The question. */
  prompt: string;
  /** Traces of the same prompt, the one that matters first. */
  runs: readonly Run[];
  /** The pictures as they were given, in the order of the request. */
  pictures: readonly Picture[];
}

/** Makes the report of one prompt: what stayed, what mattered, what it took. */
export async function describeReport(input: DescribeInput): Promise<Report> {
  const place = new Place("describeReport");
  ownFields(input, place);
  for (const name of ["runs", "pictures"] as const) {
    if (!Array.isArray(input[name])) throw place.field(name).refuse("an array", input[name]);
  }
  const [first] = input.runs;
  if (first === undefined) throw place.field("runs").invalid("is empty; give at least one");
  const own = await pen();
  const scene: Scene = input;
  const sections = [layerSection(own, scene), memorySection(own, scene)];
  const shared = input.pictures.map((picture, source) => sharedPicture(scene, picture, source));
  const { trace } = first;
  const html = page(
    {
      title: `${first.label}: what stays of ${input.pictures.map(({ name }) => name).join(", ") || "the prompt"}`,
      subtitle: `“${input.prompt}”`,
      facts: [
        ["model", input.info.source.split(/[\\/]/).filter(Boolean).at(-1) ?? input.info.architecture],
        [
          "prompt",
          `${formatCount(trace.usage.promptTokens)} positions, ${formatCount(trace.usage.imageTokens)} of images`,
        ],
        [
          "answer",
          `${formatCount(trace.usage.completionTokens)} ${trace.usage.completionTokens === 1 ? "token" : "tokens"} (${trace.finish})`,
        ],
        [
          "cache at the end of the answer",
          `${formatBytes(trace.memory.resident)} of ${formatBytes(trace.memory.full)} (${formatShare(trace.memory.resident / Math.max(1, trace.memory.full))})`,
        ],
        ["ranked by", scoreText(trace)],
        ...(trace.threshold === null ? [] : [["threshold", formatShare(trace.threshold)] as const]),
        ["first token", formatTime(trace.timings.firstToken)],
      ],
      texts: input.runs.map((run) => (input.runs.length > 1 ? `${run.label}: ${run.trace.text}` : run.trace.text)),
      shared: `<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>${shared.join("")}</defs></svg>\n`,
    },
    sections,
  );
  return { html, charts: files(own, scene, sections, shared) };
}

function layerSection(own: Pen, scene: Scene): Section {
  const { trace } = scene.runs[0] ?? {};
  const images = (trace?.images ?? []).map((_, index) => index);
  const charts = [
    ...images.flatMap((image) => [keptChart(scene, image), importanceChart(scene, image)]),
    cumulativeChart(own, scene),
    keptOfScene(own, scene),
    livesChart(own, scene),
  ].filter((chart): chart is Chart => chart !== undefined);
  const without = charts.some(({ id }) => id === "cumulative")
    ? ""
    : scene.runs.map(({ label, trace }) => ` ${noMass(label, trace)}.`).join("");
  return {
    title: "Layer by layer",
    text: `Which of the ${trace === undefined ? 0 : promptLength(trace)} entries of the prompt stay after it, and how important they are. Move the slider to go through the layers.${without}`,
    controls: controls(scene),
    charts,
  };
}

function controls({ runs }: Scene): Control[] {
  const layers = runs[0]?.trace.layers.length ?? 0;
  const numbers = Array.from({ length: layers }, (_, layer) => String(layer));
  const layer: Control = {
    name: "layer",
    label: "Layer",
    values: numbers,
    texts: numbers.map((number) => `${number} (0 to ${layers - 1})`),
    start: 0,
  };
  if (runs.length < 2) return [layer];
  const values = runs.map((_, index) => String(index));
  return [{ name: "run", label: "Method", values, texts: runs.map(({ label }) => label), start: 0 }, layer];
}

/** Speeds are not among the charts: a single run of each method says more of the machine than of the methods. */
function memorySection(own: Pen, scene: Scene): Section {
  return { title: "Memory", charts: [memoryChart(own, scene)] };
}

function sharedPicture({ runs }: Scene, { bytes }: Picture, source: number): string {
  const seen = runs[0]?.trace.images.find((image) => image.source === source);
  const data = `data:${mediaType(bytes)};base64,${Buffer.from(bytes).toString("base64")}`;
  return `<image id="${pictureId(source)}" width="${seen?.width ?? 1}" height="${seen?.height ?? 1}" preserveAspectRatio="none" href="${data}"/>`;
}

function mediaType(bytes: Uint8Array): string {
  if (bytes[0] === 0xff) return "image/jpeg";
  if (bytes[0] === 0x47) return "image/gif";
  return bytes[0] === 0x52 ? "image/webp" : "image/png";
}

/** Charts as files: those that follow a layer once per run and layer. */
function files(own: Pen, scene: Scene, sections: readonly Section[], shared: readonly string[]): Report["charts"] {
  const alone = (svg: string): string =>
    svg.replace(/<use href="#picture-(\d+)"\/>/g, (_, source) => shared[Number(source)] ?? "");
  return sections.flatMap(({ charts }) =>
    charts.flatMap(({ id, wide, follows }) =>
      follows === undefined
        ? [{ name: `${id}.svg`, svg: standalone(wide) }]
        : scene.runs.flatMap(({ trace }, run) =>
            trace.layers.map((_, layer) => ({
              name: `${id}${scene.runs.length > 1 ? `-${run}` : ""}-layer-${String(layer).padStart(2, "0")}.svg`,
              svg: standalone(alone(own.only(wide, frameOf(scene, run, layer)))),
            })),
          ),
    ),
  );
}
