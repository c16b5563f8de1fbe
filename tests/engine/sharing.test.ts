// The search for layers that share, on models, against the maps of an independent search (tests/golden/sharing.py).
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  AbortError,
  type CalibrateSharingOptions,
  CalibrationError,
  image,
  kvsharer,
  load,
  type Model,
  OptionError,
  type Progress,
  type PromptInput,
  prefixkv,
} from "../../ts/index.ts";
import { shared } from "../kit/turns.ts";

const root = new URL("../../", import.meta.url);
const folderOf = (path: string): string => fileURLToPath(new URL(path, root));

interface Golden {
  name: string;
  model: string;
  samples: (string | { image: string; question: string })[];
  layers: number;
  threshold: number;
  variant: "paper" | "official";
  ranking: [number, number][];
  pairs: { layer: number; source: number; distance: number; similarity: number }[];
  tried: number;
}

const { searches } = JSON.parse(readFileSync(new URL("tests/golden/data/sharing.json", root), "utf8")) as {
  searches: Golden[];
};

function prompt(sample: Golden["samples"][number]): PromptInput {
  if (typeof sample === "string") return { prompt: sample };
  const content = [image(folderOf(`data/scenes/${sample.image}`)), sample.question];
  return { messages: [{ role: "user", content }] };
}

let model: Model;
let folder: string;
before(async () => {
  model = await load();
  folder = await mkdtemp(join(tmpdir(), "prefixkv-sharing-"));
});
after(async () => {
  await model.dispose();
  await rm(folder, { recursive: true });
});

const near = (a: number | undefined, b: number, by: number): boolean => Math.abs((a ?? Number.NaN) - b) <= by;

for (const golden of searches) {
  test(`the map of ${golden.name} is the reference's`, async (t) => {
    const searched = await load(folderOf(golden.model));
    t.after(() => searched.dispose());
    const steps: Progress[] = [];
    const { layers, threshold, variant } = golden;
    const found = await searched.calibrateSharing({
      samples: golden.samples.map(prompt),
      layers,
      threshold,
      variant,
      onProgress: (step) => steps.push(step),
    });
    assert.deepEqual(
      found.pairs.map(({ layer, source }) => [layer, source]),
      golden.pairs.map(({ layer, source }) => [layer, source]),
    );
    for (const [index, { distance, similarity }] of golden.pairs.entries()) {
      const pair = found.pairs[index];
      assert.ok(near(pair?.distance, distance, 1e-5 * distance), `${pair?.distance} for ${distance}`);
      assert.ok(near(pair?.similarity, similarity, 1e-4), `${pair?.similarity} for ${similarity}`);
    }
    const trials = steps.filter(({ stage }) => stage === "layers").length - 1;
    assert.equal(trials, golden.tried);
    const { model: of, samples, threshold: said, variant: how } = found;
    assert.deepEqual(
      [of.layers, of.fingerprint, samples, said, how],
      [searched.info.layers, searched.info.fingerprint, golden.samples.length, threshold, variant],
    );
    assert.equal(found.format, "prefixkv-sharing");
  });
}

const [scenes] = searches;
const search = (): CalibrateSharingOptions => ({ samples: (scenes?.samples ?? []).map(prompt), layers: 3 });

shared("a search goes on where it was stopped, to more layers as well", async () => {
  const [whole, resume, file] = [search(), join(folder, "search.json"), join(folder, "map.json")];
  const want = await model.calibrateSharing(whole);
  const abort = new AbortController();
  const stopped = model.calibrateSharing({
    ...search(),
    resume,
    signal: abort.signal,
    onProgress: ({ stage, done }) => stage === "layers" && done === 1 && abort.abort(),
  });
  await assert.rejects(stopped, AbortError);
  const saved = JSON.parse(await readFile(resume, "utf8")) as { tried: object[] };
  assert.equal(saved.tried.length, 1);
  let trials = 0;
  const onProgress = ({ stage }: Progress): void => {
    trials += stage === "layers" ? 1 : 0;
  };
  const two = await model.calibrateSharing({ ...search(), layers: 2, resume, onProgress });
  assert.equal(trials, 2, "one was tried before");
  const three = await model.calibrateSharing({ ...search(), resume, file });
  assert.deepEqual(three, want);
  assert.deepEqual(two.pairs, want.pairs.slice(0, 2));
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), want);
  trials = 0;
  await model.calibrateSharing({ ...search(), resume, onProgress });
  assert.equal(trials, 1, "nothing was left to try");
  const others = search();
  for (const changed of [{ threshold: 0.6 }, { variant: "official" as const }]) {
    const other = model.calibrateSharing({ ...search(), resume, ...changed });
    await assert.rejects(other, (error) => error instanceof CalibrationError && /another search/.test(error.message));
  }
  const samples = [...(others.samples as PromptInput[])].reverse().slice(1);
  samples.push({ prompt: "USER: Hello there ASSISTANT:" });
  const wrong = model.calibrateSharing({ ...others, samples, resume });
  await assert.rejects(wrong, (error) => error instanceof CalibrationError && /other samples/.test(error.message));

  // The file is used: its first pairs, and a method behind them.
  const [sample] = search().samples as PromptInput[];
  for (const layers of [1, 2, 3]) {
    const cache = kvsharer({ calibration: file, layers });
    const { memory } = await model.generate({ ...sample, cache, maxTokens: 4 });
    assert.equal(memory.keptPerLayer.filter((kept) => kept === 0).length, layers);
    assert.equal(memory.payload, (memory.full * (10 - layers)) / 10);
    const both = await model.generate({ ...sample, cache: [cache, prefixkv({ keep: 0.5 })], maxTokens: 4 });
    assert.ok(both.memory.resident < 0.6 * memory.resident);
  }
  const more = model.generate({ ...sample, cache: kvsharer({ calibration: file, layers: 4 }) });
  await assert.rejects(
    async () => more,
    (error) => error instanceof CalibrationError && /calibrate more/.test(error.message),
  );
});

test("searches that cannot be are refused", async () => {
  const refuse = async (options: Partial<CalibrateSharingOptions>, text: RegExp): Promise<void> => {
    const asked = model.calibrateSharing({ samples: [{ prompt: "USER: Hello ASSISTANT:" }], ...options });
    await assert.rejects(asked, (error) => error instanceof OptionError && text.test(error.message));
  };
  await refuse({}, /need one of `layers` and `share`/);
  await refuse({ layers: 2, share: 0.2 }, /need one of `layers` and `share`/);
  await refuse({ layers: 0 }, /1 to 9 of the model's 10 layers/);
  await refuse({ layers: 10 }, /1 to 9 of the model's 10 layers/);
  await refuse({ share: 0.01 }, /1 to 9 of the model's 10 layers/);
  await refuse({ share: 1 }, /above 0 and below 1/);
  await refuse({ layers: 1, threshold: 2 }, /from -1 to 1/);
  await refuse({ layers: 1, samples: [] }, /is empty/);
  await refuse({ layers: 1, variant: "other" as "paper" }, /paper/);
});
