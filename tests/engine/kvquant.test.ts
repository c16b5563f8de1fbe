// Codebooks of kvquant, found on models and used by them.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  AbortError,
  type CacheOption,
  CalibrationError,
  type CodebookCalibration,
  image,
  kvquant,
  load,
  type Model,
  OptionError,
  type Progress,
  type PromptInput,
  prefixkv,
} from "../../ts/index.ts";

const root = new URL("../../", import.meta.url);
const scene = (name: string): PromptInput => {
  const content = [image(fileURLToPath(new URL(`data/scenes/${name}.png`, root))), "Describe the image."];
  return { messages: [{ role: "user", content }] };
};
const samples = ["scene-002", "scene-003", "scene-004"].map(scene);
const asked = scene("scene-001");

let model: Model;
let folder: string;
before(async () => {
  model = await load();
  folder = await mkdtemp(join(tmpdir(), "prefixkv-kvquant-"));
});
after(async () => {
  await model.dispose();
  await rm(folder, { recursive: true });
});

/** How far the next-token distributions of an answer lie from those of the full cache. */
async function divergence(cache: CacheOption): Promise<number> {
  const { text } = await model.generate({ ...asked, maxTokens: 60 });
  const { kl = [] } = await model.score({ ...asked, answer: text, cache, kl: true });
  assert.ok(kl.length > 20);
  return kl.reduce((sum, one) => sum + one, 0) / kl.length;
}

test("codebooks are found, written, read and bound to the model", async () => {
  const file = join(folder, "codebooks.json");
  const seen: Progress[] = [];
  const calibration = await model.calibrateKvquant({ samples, file, onProgress: (progress) => seen.push(progress) });
  assert.deepEqual(seen.at(-1), { stage: "samples", done: 3, total: 3 });
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), calibration);
  const { layers, model: bound, bits, outliers, positions = 0 } = calibration;
  assert.deepEqual([layers.length, bits, outliers, bound.fingerprint], [10, 4, 0.01, model.info.fingerprint]);
  assert.ok(positions > 300 && positions <= 2048);
  for (const { keys, values, scales, zeros } of layers) {
    assert.deepEqual([keys.length, values.length, scales.length, zeros.length], [16, 16, 192, 192]);
    for (const levels of [keys, values]) {
      assert.ok(levels.every((level, index) => index === 0 || level > (levels[index - 1] ?? level)));
      assert.ok(levels.every((level) => level >= -1 && level <= 1));
    }
  }
  const { text, memory } = await model.generate({ ...asked, maxTokens: 40, cache: kvquant({ calibration: file }) });
  const full = await model.generate({ ...asked, maxTokens: 40 });
  assert.equal(text, full.text);
  assert.ok(memory.resident < 0.35 * full.memory.resident, `${memory.resident} of ${full.memory.resident}`);
  const other: CodebookCalibration = { ...calibration, model: { ...bound, fingerprint: "another" } };
  await assert.rejects(model.generate({ ...asked, cache: kvquant({ calibration: other }) }), CalibrationError);
  await assert.rejects(model.generate({ ...asked, cache: kvquant() }), OptionError);
});

test("four bits stay near the full cache, two go farther, and both stand behind a method", async () => {
  const found: number[] = [];
  for (const bits of [4, 2]) {
    const calibration = await model.calibrateKvquant({ samples, bits });
    found.push(await divergence(kvquant({ calibration })));
    const cache = [prefixkv({ keep: 0.4 }), kvquant({ calibration, window: 16 })];
    const { text, memory } = await model.generate({ ...asked, maxTokens: 20, cache });
    assert.ok(text.length > 0 && memory.window > 0);
  }
  const [four = 1, two = 0] = found;
  assert.ok(four < 1e-3 && four < two, `${found}`);
});

test("what cannot be is refused before any work", async () => {
  const refuse = async (options: object, reason: RegExp) =>
    assert.rejects(model.calibrateKvquant({ samples, ...options }), (error: Error) => {
      assert.ok(error instanceof OptionError);
      assert.match(error.message, reason);
      return true;
    });
  await refuse({ bits: 3 }, /bits/);
  await refuse({ outliers: 0.3 }, /outliers/);
  await refuse({ samples: [] }, /samples/);
  await refuse({ levels: 4 }, /levels/);
  const stop = new AbortController();
  stop.abort();
  await assert.rejects(model.calibrateKvquant({ samples, signal: stop.signal }), AbortError);
});
