// The calibration of SKVQ on a model, against an independent one (tests/golden/skvq.py).
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  AbortError,
  type CacheMethod,
  type CalibrateChannelsOptions,
  type ChannelsCalibration,
  image,
  load,
  type Model,
  OptionError,
  type Progress,
  type PromptInput,
  prefixkv,
  skvq,
} from "../../ts/index.ts";
import { cli } from "../kit/command_line.ts";
import { native } from "../kit/fake_model.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";
import { shared } from "../kit/turns.ts";
import { scenes } from "./scenes.ts";

const root = new URL("../../", import.meta.url);
const folder = temporaryFolder("channels");

interface Side {
  order: number[][];
  clip2: number;
  clip4: number;
  firm2: boolean;
  firm4: boolean;
}

interface Golden {
  model: string;
  sinks: number;
  samples: { image: string; prompt: string }[];
  cases: { group: number; layers: { keys: Side; values: Side }[] }[];
}

const golden = JSON.parse(readFileSync(new URL("tests/golden/data/skvq.json", root), "utf8")) as Golden;

const samples = golden.samples.map(({ image: scene, prompt }): PromptInput => {
  return { prompt, images: [image(fileURLToPath(new URL(`data/scenes/${scene}`, root)))] };
});

let model: Model;
before(async () => {
  model = await load();
});
after(() => model.dispose());

for (const { group, layers } of golden.cases) {
  shared(`orders and clips of groups of ${group} are the reference's`, async () => {
    const steps: Progress[] = [];
    const options = { samples, group, sinks: golden.sinks, onProgress: (step: Progress) => steps.push(step) };
    const found = await model.calibrateChannels(options);
    for (const [index, layer] of layers.entries())
      for (const side of ["keys", "values"] as const) {
        const [got, want] = [found.layers[index]?.[side], layer[side]];
        assert.deepEqual(got?.order, want.order, `${side} of layer ${index}`);
        if (want.firm2) assert.equal(got?.clip2, want.clip2, `${side} of layer ${index}`);
        if (want.firm4) assert.equal(got?.clip4, want.clip4, `${side} of layer ${index}`);
      }
    assert.deepEqual([found.group, found.sinks, found.samples], [group, golden.sinks, samples.length]);
    assert.equal(found.model.fingerprint, model.info.fingerprint);
    assert.deepEqual(steps.at(-1), { stage: "samples", done: 2 * samples.length, total: 2 * samples.length });
  });
}

/** The divergence from the full cache on scenes that were not calibrated with. */
async function divergence(cache: CacheMethod): Promise<number> {
  let [sum, tokens] = [0, 0];
  for (const scene of scenes.slice(20, 28)) {
    const messages = [{ role: "user", content: [image(scene.image), scene.question] }];
    const { kl = [] } = await model.score({ messages, answer: scene.answer, cache, kl: true });
    sum += kl.reduce((all, each) => all + each, 0);
    tokens += kl.length;
  }
  return sum / tokens;
}

shared("a file is read, helps, and goes behind a method", async () => {
  const file = join(folder, "channels.json");
  const options = { samples, group: 8, file };
  const found: ChannelsCalibration = await model.calibrateChannels(options);
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), found);
  const size = { window: 16, bits: 2 };
  const [ordered, plain] = [
    await divergence(skvq({ ...size, calibration: file })),
    await divergence(skvq({ ...size, group: 8, clip: 1 })),
  ];
  assert.ok(ordered < 0.75 * plain, `${ordered} for ${plain}`);
  const [sample] = samples as [PromptInput];
  const asked = { ...sample, maxTokens: 8 };
  const alone = await model.generate({ ...asked, cache: skvq({ ...size, calibration: file }) });
  const cache = [prefixkv({ keep: 0.5 }), skvq({ ...size, calibration: found })];
  const both = await model.generate({ ...asked, cache });
  assert.ok(both.memory.resident < alone.memory.resident && alone.memory.resident < 0.4 * alone.memory.full);
});

test("files of another model, and what cannot be, are refused", async () => {
  const found = await model.calibrateChannels({ samples: samples.slice(0, 1), group: 8 });
  const refused = async (options: Parameters<typeof skvq>[0], text: RegExp, code = "calibration"): Promise<void> => {
    const asked = async () => model.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 1, cache: skvq(options) });
    await assert.rejects(
      asked,
      (error) => error instanceof OptionError && error.code === code && text.test(error.message),
    );
  };
  const other = join(folder, "other.json");
  await writeFile(other, JSON.stringify({ ...found, model: { ...found.model, fingerprint: "sha256:0" } }));
  await refused({ calibration: other }, /another model: fingerprint/);
  const short = found.layers.map(({ keys, values }) => ({ keys: { ...keys, order: [[0, 1]] }, values }));
  await refused({ calibration: { ...found, layers: short } }, /not of 6 KV heads of 32 channels/);
  await refused({ calibration: { ...found, layers: [] } }, /0 layers of 10/);
  await refused({ calibration: found, group: 16 }, /is for `group: 8`/, "option");
  await refused({ group: 12 }, /multiple of 8/, "option");
  await refused({ clip: 0.555 }, /in hundredths/, "option");
  await refused({ bits: 3 }, /must be 2 or 4/, "option");
  const refuse = async (options: Partial<CalibrateChannelsOptions>, text: RegExp): Promise<void> => {
    const asked = model.calibrateChannels({ samples, ...options });
    await assert.rejects(asked, (error) => error instanceof OptionError && text.test(error.message));
  };
  await refuse({ samples: [] }, /is empty/);
  await refuse({ group: 12 }, /multiple of 8/);
  await refuse({ group: 256 }, /multiple of 8 up to 128/);
  await refuse({ sinks: 5000 }, /no prompt is longer than the first 5000 positions/);
  await assert.rejects(model.calibrateChannels({ samples, signal: AbortSignal.abort() }), AbortError);
});

test("calibrate --method skvq writes the file and shows the clips", async () => {
  const side = { order: [[0]], clip2: 0.8, clip4: 1 };
  const fake = native({ channels: [{ keys: side, values: { ...side, clip4: 0.9 } }] });
  const [file, picture] = [join(folder, "cli.json"), join(folder, "a.png")];
  await writeFile(picture, "png");
  const args = ["calibrate", picture, "--method", "skvq", "--set", "group=16", "--out", file];
  const { code, out, err } = await cli(args, { fake });
  assert.equal(code, 0, err);
  assert.match(out, /\n0 +0\.80 +1\.00 +0\.80 +0\.90\nwrote .*cli\.json\n$/);
  const [asked] = fake.requests.map(({ request }) => request).filter(({ op }) => op === "channels");
  assert.deepEqual(asked && "group" in asked && [asked.group, asked.sinks], [16, 5]);
  const { group, layers } = JSON.parse(await readFile(file, "utf8")) as ChannelsCalibration;
  assert.deepEqual([group, layers.length], [16, 1]);
  const misuse = await cli([...args, "--set", "bits=4"], { fake: native() });
  assert.ok(misuse.code === 2 && /only group and sinks/.test(misuse.err), misuse.err);
});
