// Plans say all that becomes of entries: what they add up to is what the engine counts.
import assert from "node:assert/strict";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  adakv,
  type CacheOption,
  custom,
  fastv,
  full,
  h2o,
  image,
  knorm,
  load,
  merge,
  prefixkv,
  pyramidInfer,
  snapkv,
  streaming,
  visionZip,
} from "../../ts/index.ts";
import { type Life, livesOf } from "../../ts/report/lives.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const scene = fileURLToPath(new URL("../../data/scenes/scene-002.png", import.meta.url));
const model = await load();
after(() => model.dispose());

const methods: Record<string, CacheOption> = {
  full: full(),
  prefixkv: prefixkv({ keep: 0.3 }),
  fastv: fastv(),
  pyramidInfer: pyramidInfer({ share: 0.6, recent: 0.02, block: 3 }),
  visionZip: visionZip({ images: 0.2 }),
  "adakv at a cap": adakv({ keep: { tokens: 50 } }),
  "prefixkv evicting by distance": prefixkv({ keep: 0.3, decode: "distance" }),
  "h2o at a cap": h2o({ keep: { tokens: 60 } }),
  snapkv: snapkv({ keep: 0.4 }),
  streaming: streaming({ keep: { tokens: 40 } }),
  "knorm, lowest score, merged": [knorm({ keep: 0.3, decode: "lowest-score" }), merge()],
  "ragged heads": custom({ keep: 0.3, score: "text", budget: "ada", lanes: "head" }),
  "a function": custom({
    needs: { moments: ["prompt", "step"], every: 2 },
    plan: ({ lanes }) =>
      lanes.map(({ positions }) => [...positions.keys()].filter((at) => at === 0 || at > positions.length / 3)),
  }),
};

for (const [name, cache] of Object.entries(methods)) {
  test(`${name}: entries that plans leave are the entries that are held`, { timeout: 120_000 }, async () => {
    const content = [image(scene), "Describe the image in detail."];
    const trace = await model.trace({ messages: [{ role: "user", content }], cache, maxTokens: 9, ignoreEos: true });
    const layers = trace.layers.map((_, layer) => livesOf(trace, layer)).filter((lives) => lives !== undefined);
    assert.equal(layers.length, trace.layers.length);
    for (const [column, { kept }] of trace.steps.entries()) {
      const mean = layers.reduce((sum, { held }) => sum + (held[column] ?? Number.NaN), 0) / layers.length;
      assert.ok(Math.abs(mean - kept) < 1e-6, `column ${column}: ${mean} by the plans, ${kept} held`);
    }
    for (const [layer, { lives, held, freed, merged }] of layers.entries()) {
      const area = lives.reduce((sum, life) => sum + areaOf(life), 0);
      const all = held.reduce((sum, entries) => sum + entries, 0);
      assert.ok(Math.abs(area - all) < 1e-6, `layer ${layer}: the chart's ${area} of ${all}`);
      assert.ok(merged <= freed.prompt + 1e-9);
      assert.equal(merged > 0, name.endsWith("merged"), `layer ${layer}: ${merged} merged`);
    }
  });
}

test("layers that read those of others live as those do, and windows are left out", async () => {
  const folder = temporaryFolder("lives");
  await cp(fileURLToPath(new URL("../golden/fixtures/qwen2-mixed", import.meta.url)), folder, { recursive: true });
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, kv_sources: [0, 0, 2, 2] }));
  const shared = await load(folder);
  const prompt = "There is a green star at the top left and a blue ring at the bottom. ".repeat(4);
  const trace = await shared.trace({ prompt, cache: h2o({ keep: 0.5 }), maxTokens: 9, ignoreEos: true });
  await shared.dispose();
  assert.deepEqual(
    trace.layers.map(({ source }) => source),
    [0, 0, 2, 2],
  );
  const [own, reader, ...windows] = trace.layers.map((_, layer) => livesOf(trace, layer));
  assert.deepEqual(reader, own);
  assert.ok((own?.freed.later ?? 0) > 0);
  assert.deepEqual(windows, [undefined, undefined]);
  const kept = (trace.layers[1]?.kept ?? []).map(
    ({ heads: [first, end], positions }) => (end - first) * positions.length,
  );
  const heads = Math.max(...(trace.layers[1]?.kept ?? []).map((lane) => lane.heads[1]));
  assert.ok(Math.abs((own?.held[0] ?? 0) - kept.reduce((sum, entries) => sum + entries, 0) / heads) < 1e-6);
});

/** Entries times columns, those while the prompt is read left out. */
function areaOf({ first, end, from, to, share }: Life): number {
  return (end - first) * (to - Math.max(0, from)) * share;
}
