import { createHash } from "node:crypto";
import { realpath } from "node:fs/promises";
import { sep } from "node:path";
import { fileURLToPath } from "node:url";
import { type ImageInput, image } from "../media.ts";
import type { PromptInput } from "../messages.ts";
import { readRegularFile } from "../regular_file.ts";
import { type VideoInput, type VideoOptions, video } from "../video.ts";
import { badData, reasonOf } from "./errors.ts";

/**
 * One thing in a drawn scene: its place in a grid of three by three, its colour and its shape.
 *
 * @example
 * ```ts
 * import { describes, type SceneObject } from "prefixkv/eval";
 *
 * const star: SceneObject = { row: 0, col: 2, color: "green", shape: "star" };
 * console.log(describes("In the top right there is a small green star.", star));
 * ```
 */
export interface SceneObject {
  /** 0 is the top. */
  row: number;
  /** 0 is the left. */
  col: number;
  /** Its colour. */
  color: string;
  /** Its shape. */
  shape: string;
}

/**
 * One question about one picture, or about one video.
 *
 * @example
 * ```ts
 * import { dataOf, type EvalSample, evaluate } from "prefixkv/eval";
 *
 * const samples: EvalSample[] = [{ id: "mine", image: "scene.png", question: "Which shapes are there?", answer: "A star." }];
 * const summary = await evaluate({ data: dataOf("mine", samples), methods: ["h2o"], keeps: [0.5], out: "results-of-mine" });
 * console.log(summary.cells.map(({ method, ppl }) => [method, ppl?.value]));
 * ```
 */
export interface EvalSample {
  /** Names the sample in the results; different from the others. */
  id: string;
  /** The picture's file; of a sample with a `video` a picture that stands for it, which the model does not see. */
  image: string | URL;
  /** The question is about a video: the files of its frames, and when they are shown, as `video` takes it. */
  video?: VideoOptions & { frames: readonly (string | URL)[] };
  /** A folder that the picture or the frames must lie inside, links followed; readers of data that others wrote set it. */
  within?: string;
  /** The question, for the model's chat template; with `raw` the whole prompt, the picture's place being the model's placeholder (`<image>`). */
  question: string;
  /** The question is the whole prompt. */
  raw?: boolean;
  /** The text whose perplexity is measured after the prompt. */
  answer: string;
  /** Accepted answers, where the accuracy of short answers is measured; four or more count as that many people's, as in VQA. */
  answers?: readonly string[];
  /** The objects in the picture, where descriptions are checked. */
  objects?: readonly SceneObject[];
}

/**
 * Samples with a name.
 *
 * @example
 * ```ts
 * import { type EvalData, openData } from "prefixkv/eval";
 *
 * const data: EvalData = await openData("scenes");
 * console.log(data.name, data.samples.length);
 * ```
 */
export interface EvalData {
  /** Names the data in the results. */
  name: string;
  /** In the order in which they are run. */
  samples: readonly EvalSample[];
}

/** Most samples of a data set. */
export const maxSamples = 1_000_000;

/**
 * Samples under a name, checked: every sample needs an id of its own, a question and an answer.
 *
 * @example
 * ```ts
 * import { dataOf } from "prefixkv/eval";
 *
 * const data = dataOf("mine", [{ id: "one", image: "scene.png", question: "What is it?", answer: "A star." }]);
 * console.log(data.samples.length);
 * ```
 */
export function dataOf(name: string, samples: readonly EvalSample[]): EvalData {
  if (samples.length === 0) throw badData(name, undefined, "it has no samples");
  if (samples.length > maxSamples)
    throw badData(name, undefined, `it has ${samples.length} samples, at most ${maxSamples} are read`);
  const ids = new Set<string>();
  for (const { id, question, answer } of samples) {
    if (ids.has(id)) throw badData(name, undefined, `the sample \`${id}\` is there twice; give each an id of its own`);
    ids.add(id);
    if (question === "" || answer === "") throw badData(name, undefined, `the sample \`${id}\` has an empty text`);
  }
  return { name, samples };
}

/** The prompt of a sample. */
export function promptOf(sample: EvalSample): PromptInput {
  const shown = shownOf(sample);
  if (sample.raw) return { prompt: sample.question, images: [shown] };
  return { messages: [{ role: "user", content: [shown, sample.question] }] };
}

function shownOf({ image: picture, video: film }: EvalSample): ImageInput | VideoInput {
  if (film === undefined) return image(picture);
  const { frames, ...timing } = film;
  return video(
    frames.map((frame) => image(frame)),
    timing,
  );
}

/** A hash over the texts of samples and the bytes of their pictures, but not over where these lie. */
export async function hashOf(samples: readonly EvalSample[]): Promise<string> {
  const hash = createHash("sha256");
  const pictures = new Map<string, string>();
  for (const sample of samples) {
    const digest = async (source: string | URL): Promise<string> => {
      const place = `${source}\0${sample.within}`;
      let picture = pictures.get(place);
      if (picture === undefined) {
        picture = createHash("sha256")
          .update(await pictureOf(sample, source))
          .digest("hex");
        pictures.set(place, picture);
      }
      return picture;
    };
    const { id, question, raw, answer, answers, objects, image: still, video: film } = sample;
    const { frames = [], fps = null, times = null } = film ?? {};
    const digests: string[] = [];
    for (const frame of frames) digests.push(await digest(frame));
    const shown = film === undefined ? await digest(still) : [digests, fps, times];
    hash.update(`${JSON.stringify([id, shown, question, raw ?? false, answer, answers ?? null, objects ?? null])}\n`);
  }
  return hash.digest("hex");
}

/** Most bytes of a picture. */
const maxPictureBytes = 64 * 1024 * 1024;

async function pictureOf({ id, within }: EvalSample, source: string | URL): Promise<Uint8Array> {
  const given = String(source);
  const file = given.startsWith("file:") ? fileURLToPath(given) : given;
  const bad = (reason: string): Error => badData(id, undefined, `its picture ${given} cannot be read: ${reason}`);
  try {
    if (within !== undefined && !(await liesInside(within, file)))
      throw new Error(
        `with its links followed it lies outside of ${within}; copy it there, or name its folder as the folder of the pictures`,
      );
    return await readRegularFile(file, maxPictureBytes);
  } catch (error) {
    throw bad(reasonOf(error));
  }
}

async function liesInside(folder: string, file: string): Promise<boolean> {
  const [real, base] = await Promise.all([realpath(file), realpath(folder)]);
  return real.startsWith(base.endsWith(sep) ? base : `${base}${sep}`);
}
