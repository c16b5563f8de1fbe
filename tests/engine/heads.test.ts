// The scores of attention heads on models, against an independent measure (tests/golden/heads.py), and the sizes that follow from them.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  AbortError,
  type CalibrateHeadsOptions,
  type HeadsCalibration,
  type HeadsSample,
  headKv,
  image,
  load,
  type Model,
  OptionError,
  type Progress,
  sparseMm,
} from "../../ts/index.ts";
import { cli } from "../kit/command_line.ts";
import { native } from "../kit/fake_model.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";
import { shared } from "../kit/turns.ts";
import { scenes } from "./scenes.ts";

const root = new URL("../../", import.meta.url);
const folder = temporaryFolder("heads");

interface Golden {
  queries: number;
  measured: {
    model: string;
    scenes?: number[];
    prompt?: string;
    found: { measure: HeadsCalibration["measure"]; positions: number; scores: number[][] }[];
  }[];
}

const golden = JSON.parse(readFileSync(new URL("tests/golden/data/heads.json", root), "utf8")) as Golden;

const answered = (number: number): HeadsSample => {
  const { image: scene, question, answer } = scenes[number] as (typeof scenes)[number];
  return { messages: [{ role: "user", content: [image(scene), question] }], answer };
};

let model: Model;
before(async () => {
  model = await load();
});
after(() => model.dispose());

for (const { model: name, scenes: numbers, prompt = "", found } of golden.measured) {
  const samples = numbers?.map(answered) ?? [{ prompt }];
  for (const { measure, positions, scores } of found)
    shared(`${measure} on ${name} are the reference's`, async () => {
      const steps: Progress[] = [];
      const own = numbers === undefined ? await load(fileURLToPath(new URL(name, root))) : undefined;
      const used = own ?? model;
      const options = { samples, measure, onProgress: (step: Progress) => steps.push(step) };
      const calibration = await used.calibrateHeads(options);
      await own?.dispose();
      assert.equal(calibration.scores.length, scores.length);
      for (const [layer, heads] of scores.entries()) {
        assert.equal(calibration.scores[layer]?.length, heads.length);
        for (const [head, want] of heads.entries()) {
          const got = calibration.scores[layer]?.[head] ?? -1;
          // Three digits.
          assert.ok(Math.abs(got - want) <= 0.006 * want + 1e-6, `layer ${layer}, head ${head}: ${got} for ${want}`);
        }
      }
      const { queries, samples: count, model: bound } = calibration;
      assert.deepEqual([queries, count, calibration.positions], [golden.queries, samples.length, positions]);
      assert.deepEqual([bound.layers, bound.fingerprint], [scores.length, used.info.fingerprint]);
      assert.deepEqual(steps.at(-1), { stage: "samples", done: samples.length, total: samples.length });
    });
}

shared("a file is read, and heads keep more the higher their score", async () => {
  const file = join(folder, "heads.json");
  const samples = [answered(0), answered(1)];
  const found = await model.calibrateHeads({ samples, file });
  assert.deepEqual(JSON.parse(await readFile(file, "utf8")), found);
  const [{ messages = [] }] = samples as [HeadsSample];
  const asked = { messages, answer: "green", kept: true as const };
  const { kept, memory } = await model.score({ ...asked, cache: sparseMm({ keep: 0.3, calibration: file }) });
  const sizes = kept.flatMap((lanes) => lanes.map(({ positions }) => positions.length));
  const scores = found.scores.flat();
  const [best, worst] = [scores.indexOf(Math.max(...scores)), scores.indexOf(Math.min(...scores))];
  assert.ok((sizes[best] ?? 0) > 2 * (sizes[worst] ?? 1), `${sizes[best]} and ${sizes[worst]}`);
  assert.ok(memory.payload < 0.35 * memory.full, JSON.stringify(memory));
  const alike = await model.score({ ...asked, cache: headKv({ keep: 0.3, calibration: found, beta: 1000 }) });
  const even = alike.kept.flatMap((lanes) => lanes.map(({ positions }) => positions.length));
  assert.ok(Math.max(...even) - Math.min(...even) <= 2, even.join(" "));
});

test("what cannot be is refused, and says what to do", async () => {
  const prompt = "USER: Hello ASSISTANT:";
  const asked = (cache: Parameters<Model["generate"]>[0]["cache"]) =>
    model.generate({ prompt, maxTokens: 1, ...(cache && { cache }) });
  const refused = (work: Promise<unknown>, text: RegExp, code = "option"): Promise<void> =>
    assert.rejects(work, (error) => {
      assert.ok(error instanceof OptionError || code === "calibration", String(error));
      return (error as { code?: string }).code === code && text.test((error as Error).message);
    });
  await refused(asked(sparseMm({ keep: 0.5 })), /sparseMm needs `calibration`.*calibrateHeads.*image-hits/);
  await refused(asked(headKv({ keep: 0.5 })), /headKv needs `calibration`.*calibrateHeads.*copies/);
  const missing = join(folder, "none.json");
  await refused(asked(sparseMm({ keep: 0.5, calibration: missing })), /none\.json/, "calibration");
  const found = await model.calibrateHeads({ samples: [answered(0)] });
  const other = join(folder, "other.json");
  await writeFile(other, JSON.stringify({ ...found, model: { ...found.model, fingerprint: "sha256:0" } }));
  await refused(asked(headKv({ keep: 0.5, calibration: other })), /another model: fingerprint/, "calibration");
  const fewer = { ...found, scores: found.scores.slice(1), model: { ...found.model, layers: 9 } };
  await refused(asked(headKv({ keep: 0.5, calibration: fewer })), /layers 9 there, 10 here/, "calibration");
  const newer = { ...found, version: 2 };
  await refused(
    asked(headKv({ keep: 0.5, calibration: newer })),
    /`version` is 2, this library reads 1/,
    "calibration",
  );
  const calibrate = (options: Partial<CalibrateHeadsOptions>) =>
    model.calibrateHeads({ samples: [answered(0)], ...options });
  await refused(calibrate({ samples: [] }), /is empty/);
  await refused(calibrate({ queries: 0 }), /from 1 to 512/);
  await refused(calibrate({ queries: 513 }), /from 1 to 512/);
  await refused(calibrate({ samples: [{ ...answered(0), answer: "" }] }), /answer` of calibrateHeads is empty/);
  await refused(calibrate({ measure: "boxes" as "copies" }), /image-hits/);
  await refused(calibrate({ samples: [{ prompt }] }), /no sample has text behind an image/);
  await refused(calibrate({ samples: [{ prompt: "a" }], measure: "copies" }), /nothing is copied/);
  await assert.rejects(calibrate({ signal: AbortSignal.abort() }), AbortError);
});

test("calibrate writes the file of each method, and shows the heads with the highest scores", async () => {
  const picture = join(folder, "a.png");
  await writeFile(picture, "png");
  for (const [method, measure, more] of [
    ["sparseMm", "image-hits", []],
    ["sparseMm", "image-mass", ["--measure", "image-mass", "--queries", "8"]],
    ["headKv", "copies", []],
  ] as const) {
    const fake = native({
      heads: [
        [0.25, 0],
        [0.5, 0.25],
      ],
    });
    const file = join(folder, `${method}.json`);
    const { code, out, err } = await cli(["calibrate", picture, "--method", method, ...more, "--out", file], { fake });
    assert.equal(code, 0, err);
    assert.match(out, new RegExp(`${measure} +of all\n1 +0 +0\\.500 +50\\.0 %\n0 +0 +0\\.250 +25\\.0 %`));
    assert.match(out, /\nwrote .*\.json\n$/);
    const [asked] = fake.requests.map(({ request }) => request).filter(({ op }) => op === "heads");
    assert.ok(asked?.op === "heads");
    assert.deepEqual([asked.measure, asked.queries], [measure, more.length > 0 ? 8 : 32]);
    const found = JSON.parse(await readFile(file, "utf8")) as HeadsCalibration;
    assert.deepEqual([found.measure, found.model.layers, found.samples], [measure, 2, 1]);
  }
  for (const [args, text] of [
    [["--method", "sparseMm", "--measure", "boxes"], /--measure is image-hits, image-mass or copies/],
    [["--method", "headKv", "--set", "beta=2"], /--set does not go with --method headKv/],
    [["--method", "skvq", "--measure", "copies"], /--measure goes with --method sparseMm or headKv/],
  ] as const) {
    const misuse = await cli(["calibrate", picture, ...args, "--out", join(folder, "x.json")], { fake: native() });
    assert.ok(misuse.code === 2 && text.test(misuse.err), misuse.err);
  }
});
