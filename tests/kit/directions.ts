import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type DirectionsCalibration, image, type PromptInput } from "../../ts/index.ts";

const root = new URL("../../", import.meta.url);

interface Golden {
  samples: { image: string; prompt: string }[];
  files: DirectionsCalibration[];
}

const scene = (name: string) => image(fileURLToPath(new URL(`data/scenes/${name}`, root)));

/** A picture that no directions were found on. */
export const asked: PromptInput = {
  messages: [{ role: "user", content: [scene("scene-007.png"), "Describe the image in detail."] }],
};

/** The samples of a golden of directions, and the files that the reference has found on them. */
export function directionsGolden(name: string): { samples: PromptInput[]; files: DirectionsCalibration[] } {
  const { samples, files } = JSON.parse(
    readFileSync(new URL(`tests/golden/data/${name}.json`, root), "utf8"),
  ) as Golden;
  return { samples: samples.map(({ image, prompt }) => ({ prompt, images: [scene(image)] })), files };
}
