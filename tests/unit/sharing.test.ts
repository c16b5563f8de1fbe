// The search for layers that share, over a fake engine: what is asked, tried, written down and taken up again.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { CalibrationError, image, type Progress } from "../../ts/index.ts";
import { cli } from "../kit/command_line.ts";
import { fakeModels, native } from "../kit/fake_model.ts";
import type { FakeNative } from "../kit/fake_native.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const folder = temporaryFolder("sharing");
const open = fakeModels();

/** Of the first four layers. */
const pairs = [
  { layer: 3, source: 2, distance: 9 },
  { layer: 3, source: 1, distance: 8 },
  { layer: 2, source: 1, distance: 7 },
  { layer: 2, source: 0, distance: 6 },
  { layer: 1, source: 0, distance: 5 },
];

/** An engine whose trials end so, in turn: of two samples each. */
const engine = (...similarities: number[]): FakeNative => native({ pairs, similarities });

const bytes = new Uint8Array([1]);
const samples = [{ prompt: "<image> a", images: [image(bytes)] }, { messages: [{ role: "user", content: "b" }] }];

test("pairs are tried from the most different on, and kept while results stay alike", async () => {
  const fake = engine(0.4, 0.5, 0.9, 0.8, 0.6, 0.7);
  const model = await open(fake);
  const seen: Progress[] = [];
  const found = await model.calibrateSharing({ samples, layers: 2, onProgress: (step) => seen.push(step) });
  const asked = fake.requests.map(({ request }) => request);
  assert.deepEqual(asked[0], {
    op: "distances",
    variant: "paper",
    prompts: [
      { prompt: "<image> a", images: 1 },
      { messages: [{ role: "user", content: "b" }], images: 0 },
    ],
  });
  assert.deepEqual(
    fake.requests.map(({ images }) => images.length),
    [1, 1, 0, 1, 0, 1, 0],
  );
  const tried = asked.slice(1).map((request) => ("cache" in request ? request.cache : undefined));
  const map = (sources: object) => ({ method: "kvsharer", sources });
  assert.deepEqual(tried, [
    map({ 3: 2 }),
    map({ 3: 2 }),
    map({ 3: 1 }),
    map({ 3: 1 }),
    map({ 2: 1, 3: 1 }),
    map({ 2: 1, 3: 1 }),
  ]);
  // 0.45 is not above 0.5, so the second pair of layer 3 is tried.
  assert.deepEqual(
    found.pairs.map(({ layer, source, distance, similarity }) => [layer, source, distance, similarity?.toFixed(2)]),
    [
      [3, 1, 8, "0.85"],
      [2, 1, 7, "0.65"],
    ],
  );
  const { pairs: _, ...head } = found;
  assert.deepEqual(head, {
    format: "prefixkv-sharing",
    version: 1,
    model: { name: "tiny-llava", layers: 10, kvHeads: 6, headDim: 32, fingerprint: "f00d" },
    samples: 2,
    variant: "paper",
    threshold: 0.5,
  });
  assert.deepEqual(
    seen.filter(({ stage }) => stage === "layers").map(({ done, total }) => `${done}/${total}`),
    ["0/2", "0/2", "1/2", "2/2"],
  );
});

test("a layer that shares is not tried again", async () => {
  const fake = engine();
  const model = await open(fake);
  const { pairs: found } = await model.calibrateSharing({ samples, layers: 3 });
  assert.deepEqual(
    found.map(({ layer, source }) => [layer, source]),
    [
      [3, 2],
      [2, 1],
      [1, 0],
    ],
  );
  assert.equal(fake.trials, 3 * samples.length);
});

test("there may be fewer pairs than were asked for", async () => {
  const model = await open(engine(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.9));
  const { pairs: found } = await model.calibrateSharing({ samples, share: 0.3, threshold: 0.2 });
  assert.deepEqual(
    found.map(({ layer, source }) => [layer, source]),
    [
      [2, 0],
      [1, 0],
    ],
  );
});

test("files that hold no search, or another one, are refused", async () => {
  const resume = join(folder, "resume.json");
  const model = await open(engine());
  const search = () => model.calibrateSharing({ samples, layers: 1, resume });
  const refused = async (content: string, text: RegExp): Promise<void> => {
    await writeFile(resume, content);
    await assert.rejects(search, (error) => error instanceof CalibrationError && text.test(error.message));
    assert.equal(await readFile(resume, "utf8"), content, "it is not written over");
  };
  const head = { format: "prefixkv-sharing-search", version: 1, fingerprint: "f00d", samples: 2, variant: "paper" };
  const ranking = pairs.map(({ layer, source, distance }) => [layer, source, distance]);
  const sound = { ...head, threshold: 0.5, ranking, tried: [{ layer: 3, source: 2, similarity: 0.1 }] };
  await refused("{", /not JSON/);
  for (const broken of [
    null,
    3,
    [],
    {},
    { ...sound, version: 2 },
    { ...sound, tried: [null] },
    { ...sound, ranking: [1] },
  ]) {
    await refused(JSON.stringify(broken), /holds no search/);
  }
  await refused(JSON.stringify({ ...sound, fingerprint: "other" }), /`fingerprint` is other there, f00d here/);
  await refused(JSON.stringify({ ...sound, samples: 3 }), /`samples` is 3 there, 2 here/);
  await refused(JSON.stringify({ ...sound, ranking: ranking.slice(1) }), /other samples/);
  await refused(JSON.stringify({ ...sound, tried: [{ layer: 1, source: 0, similarity: 1 }] }), /another order/);
  await writeFile(resume, JSON.stringify(sound));
  const { pairs: found } = await search();
  assert.deepEqual(found, [{ ...pairs[1], similarity: 0.9 }]);
  assert.equal((JSON.parse(await readFile(resume, "utf8")) as typeof sound).tried.length, 2);
});

test("calibrate --method kvsharer writes a map and shows it", async () => {
  const [file, picture] = [join(folder, "map.json"), join(folder, "a.png")];
  await writeFile(picture, "png");
  const args = ["calibrate", picture, "--method", "kvsharer", "--layers", "1", "--out", file];
  const { code, out, err } = await cli(args, { fake: engine(0.75) });
  assert.equal(code, 0, err);
  assert.match(out, /^layer 3 +reads 2, cosine 0\.7500\nwrote .*map\.json\n$/);
  const json = await cli([...args, "--threshold", "0.8", "--variant", "official", "--json"], {
    fake: engine(0.75, 0.85),
  });
  const { calibration } = JSON.parse(json.out) as { calibration: { variant: string; pairs: object[] } };
  assert.deepEqual(calibration, JSON.parse(await readFile(file, "utf8")));
  assert.deepEqual([calibration.variant, calibration.pairs], ["official", [{ ...pairs[1], similarity: 0.85 }]]);
  const misuse = async (more: string[], text: RegExp): Promise<void> => {
    const { code, err } = await cli([...args, ...more], { fake: engine() });
    assert.ok(code === 2 && text.test(err), err);
  };
  await misuse(["--keeps", "0.5"], /--keeps does not go with --method kvsharer/);
  await misuse(["--variant", "mine"], /paper or official/);
  const prefix = await cli(["calibrate", picture, "--layers", "1", "--out", file], { fake: engine() });
  assert.match(prefix.err, /--layers goes with --method kvsharer/);
});
