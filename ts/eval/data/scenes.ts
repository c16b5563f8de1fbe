// The 60 drawn scenes that come with the package: { image, question, answer, objects } each.
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { dataOf, type EvalData, type EvalSample, type SceneObject } from "../samples.ts";
import { Place, readJson } from "./json.ts";

const rows = ["top", "middle", "bottom"];
const columns = ["left", "center", "right"];
const shipped: URL = new URL("../../../data/scenes/", import.meta.url);

/** The scenes of a folder with `samples.json`; without one, the scenes of the package. */
export async function scenes(folder: string = fileURLToPath(shipped)): Promise<EvalData> {
  const file = join(folder, "samples.json");
  const list = await readJson(file);
  if (!Array.isArray(list)) return new Place(file, "the file").fail("is no array of scenes");
  const samples = list.map((value: unknown, index): EvalSample => {
    const place = new Place(file, `scene ${index}`);
    const scene = place.object(value);
    const name = place.text(scene, "image");
    return {
      id: name.replace(/\.[^.]*$/, ""),
      ...place.inside(folder, name),
      question: place.text(scene, "question"),
      answer: place.text(scene, "answer"),
      objects: objects(place, scene.objects),
    };
  });
  return dataOf("scenes", samples);
}

function objects(place: Place, value: unknown): SceneObject[] {
  if (!Array.isArray(value)) return place.fail("needs an array `objects`");
  return value.map((item: unknown) => {
    const { row, col, color, shape } = place.object(item);
    const inGrid = (at: unknown): at is number => at === 0 || at === 1 || at === 2;
    if (!inGrid(row) || !inGrid(col) || typeof color !== "string" || typeof shape !== "string")
      return place.fail("has an object without a row and col from 0 to 2, a color and a shape");
    return { row, col, color, shape };
  });
}

/**
 * Whether a sentence of a description gives the object's place, colour and shape. A sentence about several places says nothing certain
 * about which object is where, and does not count.
 *
 * @example
 * ```ts
 * import { describes } from "prefixkv/eval";
 *
 * console.log(describes("In the top left there is a red ring.", { row: 0, col: 0, color: "red", shape: "ring" }));
 * ```
 */
export function describes(text: string, object: SceneObject): boolean {
  const place = `${rows[object.row]} ${columns[object.col]}`;
  return text.split(/[.!?]/).some((sentence) => {
    const placed = sentence.includes(place) && sentence.includes(`${object.color} ${object.shape}`);
    return placed && [...sentence.matchAll(/\b(?:top|middle|bottom) (?:left|center|right)\b/g)].length === 1;
  });
}
