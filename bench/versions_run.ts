// One side of versions.ts: `versions_run.ts CHECKOUT` reads names of scenes from its input, a line each, and writes for each the
// milliseconds that the library of CHECKOUT took.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import type * as library from "../ts/index.ts";
import { mixedPrompt } from "./prompts.ts";
import { plain, randomModel } from "./random_model.ts";
import { type Scene, scenes } from "./versions_scenes.ts";

const [checkout = "."] = process.argv.slice(2);
const { load } = (await import(new URL("ts/index.ts", pathToFileURL(`${checkout}/`)).href)) as typeof library;
const folder = await randomModel("plain", plain, { dtype: "f32" });
const models = new Map<string, library.Model>();

async function model({ weights, requests }: Scene): Promise<library.Model> {
  const key = `${weights} ${requests}`;
  const loaded = models.get(key) ?? (await load(folder, { weights, threads: 2, batch: requests }));
  models.set(key, loaded);
  return loaded;
}

async function measure(scene: Scene): Promise<number> {
  const { context, steps, requests, cache } = scene;
  const prompt = mixedPrompt(context);
  const on = await model(scene);
  const all = Array.from({ length: requests }, () =>
    on.generate({ prompt, maxTokens: steps + 1, ignoreEos: true, ...(cache && { cache }) }),
  );
  const ran = await Promise.all(all);
  if (steps === 0) return ran.reduce((sum, { timings }) => sum + timings.prefill, 0) / requests;
  // Together from the last first token on; the one that was read last waited for nobody.
  return Math.min(...ran.map(({ timings }) => timings.decode)) / steps;
}

for await (const name of createInterface({ input: process.stdin })) {
  const scene = scenes.find((one) => one.name === name);
  if (!scene) throw new Error(`no scene ${name}`);
  process.stdout.write(`${await measure(scene)}\n`);
}
for (const loaded of models.values()) await loaded.dispose();
