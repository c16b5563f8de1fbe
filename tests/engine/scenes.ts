// The scenes in data/scenes: pictures with their objects.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Scene {
  image: string;
  question: string;
  answer: string;
  objects: { row: number; col: number; size: string; color: string; shape: string }[];
}

/** All scenes; `image` is an absolute path. */
export const scenes: Scene[] = (
  JSON.parse(readFileSync(new URL("../../data/scenes/samples.json", import.meta.url), "utf8")) as Scene[]
).map((scene) => ({
  ...scene,
  image: fileURLToPath(new URL(`../../data/scenes/${scene.image}`, import.meta.url)),
}));

/** The first scene. */
export const scene: Scene = ((): Scene => {
  const [first] = scenes;
  if (!first) throw new Error("data/scenes is empty");
  return first;
})();

const rows = ["top", "middle", "bottom"];
const columns = ["left", "center", "right"];

/** The objects of a scene that a description does not name with place, colour and shape in one sentence. */
export function missingObjects({ objects }: Scene, description: string): string[] {
  const sentences = description.split(".");
  return objects
    .map(({ row, col, color, shape }) => ({ place: `${rows[row]} ${columns[col]}`, name: `${color} ${shape}` }))
    .filter(({ place, name }) => !sentences.some((sentence) => sentence.includes(place) && sentence.includes(name)))
    .map(({ place, name }) => `${name} in the ${place}`);
}
