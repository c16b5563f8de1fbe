import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { dataOf, EvaluationError, openData } from "../../ts/eval/index.ts";
import { hashOf } from "../../ts/eval/samples.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const fixtures = fileURLToPath(new URL("../fixtures/eval/", import.meta.url));
const system =
  "A chat between a curious user and an artificial intelligence assistant. " +
  "The assistant gives helpful, detailed, and polite answers to the user's questions. ";
const folder = temporaryFolder("data");

test("the shipped scenes are read", async () => {
  const { name, samples } = await openData();
  assert.equal(name, "scenes");
  assert.equal(samples.length, 60);
  assert.equal(samples[7]?.id, "scene-007");
  assert.ok(samples.every(({ image, objects }) => existsSync(image) && (objects?.length ?? 0) >= 3));
});

test("LLaVA-Description has the prompts of the published script", async () => {
  for (const source of ["llava-description", "llava-description/detail_1k.json"]) {
    const { name, samples } = await openData(join(fixtures, source));
    assert.equal(name, "llava-description");
    assert.deepEqual(
      samples.map(({ id, question, raw, answer }) => [id, question, raw, answer]),
      [
        [
          "one",
          `${system}USER: <image>\nDescribe the following image. ASSISTANT:`,
          true,
          " There are four objects on a pale blue background.",
        ],
        [
          "two",
          `${system}USER: What do you see happening in this image?\n<image> ASSISTANT:`,
          true,
          " Nothing happens; some shapes lie there.",
        ],
      ],
    );
    assert.ok(samples.every(({ image }) => existsSync(image)));
  }
  const elsewhere = await openData(join(fixtures, "llava-description"), { images: join(fixtures, "mm-vet") });
  assert.equal(elsewhere.samples[0]?.image, join(fixtures, "mm-vet", "000000000001.png"));
});

test("MM-Vet is read as published and as the scripts have it", async () => {
  const { name, samples } = await openData(join(fixtures, "mm-vet"));
  assert.equal(name, "mm-vet");
  assert.deepEqual(
    samples.map(({ id, question, answer }) => [id, question, answer]),
    [
      ["v1_0", `${system}USER: How many shapes are there?\n<image> ASSISTANT:`, " three"],
      ["v1_1", `${system}USER: Is there a ring?\n<image> ASSISTANT:`, " yes<OR>one"],
    ],
  );
  assert.equal(samples[0]?.image, join(fixtures, "mm-vet", "images", "v1_0.png"));
  const file = join(folder, "mm-vet.json");
  await writeFile(file, JSON.stringify([{ image: "a.jpg", question: "Q?", answer: "A" }]));
  assert.deepEqual((await openData(file)).samples[0]?.image, join(folder, "images", "a.jpg"));
});

test("JSON Lines of one's own", async () => {
  const { name, samples } = await openData(join(fixtures, "lines"));
  assert.equal(name, "samples.jsonl");
  assert.deepEqual(
    samples.map(({ image: _, within: _folder, ...sample }) => sample),
    [
      { id: "line-1", question: "What is in the picture?", answer: "Some shapes." },
      { id: "counted", question: "How many shapes are there?", answer: "3", answers: ["3", "three"] },
      { id: "line-3", question: "USER: <image>\nWhat is it? ASSISTANT:", raw: true, answer: " A drawing." },
    ],
  );
});

test("a sample of JSON Lines may be about a video", async () => {
  const file = join(folder, "films.jsonl");
  const sample = { frames: ["a.png", "b.png"], times: [0, 0.5], question: "q", answer: "a" };
  await writeFile(file, `${JSON.stringify(sample)}\n`);
  await Promise.all(["a.png", "b.png"].map((name) => writeFile(join(folder, name), name)));
  const { samples } = await openData(file);
  const frames = ["a.png", "b.png"].map((name) => join(folder, name));
  assert.deepEqual([samples[0]?.image, samples[0]?.video], [frames[0], { frames, times: [0, 0.5] }]);
  const hash = await hashOf(samples);
  assert.equal(hash, await hashOf((await openData(file)).samples));
  await writeFile(file, `${JSON.stringify({ ...sample, times: [0, 1] })}\n`);
  assert.notEqual(hash, await hashOf((await openData(file)).samples));
  await writeFile(file, `${JSON.stringify(sample)}\n`);
  await writeFile(join(folder, "b.png"), "another");
  assert.notEqual(hash, await hashOf((await openData(file)).samples));
});

test("easy-VQA is read from its data folder and from the folder of its package", async () => {
  const data = join(fixtures, "easy-vqa");
  const { name, samples } = await openData(data);
  assert.equal(name, "easy-vqa");
  assert.ok(samples.length > 3);
  assert.equal(samples[0]?.question, "what is the red shape?\nAnswer the question using a single word or phrase.");
  assert.deepEqual(samples[0]?.answers, ["triangle"]);
  assert.ok(samples.every(({ image }) => existsSync(image)));
  const installed = join(folder, "installed", "easy_vqa", "data", "test");
  await mkdir(installed, { recursive: true });
  await writeFile(join(installed, "..", "answers.txt"), "yes\nno\n");
  await writeFile(join(installed, "questions.json"), JSON.stringify([["is it?", "yes", 3]]));
  const [sample] = (await openData(join(folder, "installed"))).samples;
  assert.equal(sample?.image, join(installed, "images", "3.png"));
});

const malformed: [name: string, content: string, pattern: RegExp, line?: number][] = [
  ["detail_1k.json", "{", /is not JSON/],
  ["detail_1k.json", "{}", /is no array of conversations/],
  ["detail_1k.json", "[]", /has no samples/],
  ["detail_1k.json", '[{"id":"a"}]', /sample 0 needs `conversations`/],
  ["detail_1k.json", '[{"image":"a","conversations":[{"value":"no picture"},{"value":"b"}]}]', /needs one <image>/],
  [
    "detail_1k.json",
    '[{"image":"../../etc/a","conversations":[{"value":"<image>"},{"value":"b"}]}]',
    /lies outside of/,
  ],
  [
    "detail_1k.json",
    '[{"image":3,"conversations":[{"value":"<image>"},{"value":"b"}]}]',
    /needs a text `image`, found 3/,
  ],
  ["mm-vet.json", '{"v1_0":{"imagename":"a.png","question":"q"}}', /sample v1_0 needs a text `answer`, found nothing/],
  ["mm-vet.json", '{"v1_0":[]}', /sample v1_0 is an array, not an object/],
  ["a.jsonl", '{"image":"a","question":"q","answer":"b"}\nnonsense\n', /line 2: it is not JSON/, 2],
  ["a.jsonl", '\n{"image":"a","question":"q"}\n', /line 2: the sample needs a text `answer`/, 2],
  ["a.jsonl", '{"image":"a","question":"q","answer":"b","anwsers":[]}\n', /unknown field `anwsers`/, 1],
  ["a.jsonl", '{"image":"a","question":"q","answer":"b","answers":"b"}\n', /no array of texts/, 1],
  ["a.jsonl", '{"image":"a","question":"q","answer":"b","raw":true}\n', /needs one <image>/, 1],
  ["a.jsonl", '{"frames":[],"question":"q","answer":"b"}\n', /`frames` that are no array of files/, 1],
  ["a.jsonl", '{"frames":["/etc/a"],"question":"q","answer":"b"}\n', /lies outside of/, 1],
  ["a.jsonl", '{"frames":["a"],"image":"a","question":"q","answer":"b"}\n', /about one of them/, 1],
  ["a.jsonl", '{"frames":["a"],"times":["0"],"question":"q","answer":"b"}\n', /no array of seconds/, 1],
  ["a.jsonl", '{"image":"/etc/a","question":"q","answer":"b"}\n', /lies outside of/, 1],
  ["a.jsonl", '{"id":"x","image":"a","question":"q","answer":"b"}\n'.repeat(2), /`x` is there twice/],
  ["a.jsonl", "\n\n", /has no samples/],
  ["samples.json", '[{"image":"a.png","question":"q","answer":"b","objects":[{"row":3,"col":0}]}]', /row and col/],
  ["other.txt", "", /its name is none of/],
];

for (const [name, content, pattern, line] of malformed) {
  test(`${name} with ${pattern.source} is refused`, async () => {
    const file = join(folder, name);
    await writeFile(file, content);
    const error = await openData(name === "samples.json" ? folder : file).catch((error: unknown) => error);
    await rm(file);
    assert.ok(error instanceof EvaluationError, String(error));
    assert.equal(error.code, "eval-data");
    assert.match(error.message, pattern);
    if (line !== undefined) assert.equal(error.details.line, line);
  });
}

test("questions of easy-VQA that cannot be are refused", async () => {
  const data = join(folder, "vqa");
  await mkdir(join(data, "test"), { recursive: true });
  await writeFile(join(data, "answers.txt"), "yes\nno\n");
  for (const [question, pattern] of [
    [["is it?", "maybe", 0], /"maybe", which is not in answers.txt/],
    [["is it?", "yes"], /not \[question, answer, number of the image\]/],
    [["is it?", "yes", -1], /has -1 as number/],
    [["", "yes", 1], /has the text "" as question/],
  ] as const) {
    await writeFile(join(data, "test", "questions.json"), JSON.stringify([question]));
    await assert.rejects(
      openData(data),
      (error: Error) => error instanceof EvaluationError && pattern.test(error.message),
    );
  }
});

test("missing data are named", async () => {
  await assert.rejects(openData("no/such"), /no such file or folder/);
  await mkdir(join(folder, "empty"));
  await assert.rejects(openData(join(folder, "empty")), /holds none of detail_1k.json/);
  assert.throws(() => dataOf("mine", []), /has no samples/);
  assert.throws(() => dataOf("mine", [{ id: "a", image: "a", question: "", answer: "b" }]), /empty text/);
});

test("the hash of samples is made of texts and pictures, not of places", async () => {
  const { samples } = await openData(join(fixtures, "lines"));
  const copy = join(folder, "copy.png");
  const { readFile } = await import("node:fs/promises");
  await writeFile(copy, await readFile(join(fixtures, "lines", "picture.png")));
  const moved = samples.map(({ within: _, ...sample }) => ({ ...sample, image: copy }));
  assert.equal(await hashOf(moved), await hashOf(samples));
  const reworded = samples.map((sample, index) => (index === 1 ? { ...sample, answer: "4" } : sample));
  assert.notEqual(await hashOf(reworded), await hashOf(samples));
  await writeFile(copy, "other");
  assert.notEqual(await hashOf(moved), await hashOf(samples));
  await rm(copy);
  await assert.rejects(hashOf(moved), /its picture .* cannot be read: there is no such file/);
});

test("a picture lies inside its folder, whatever names it", { skip: process.platform === "win32" }, async () => {
  const home = join(folder, "inside");
  await mkdir(join(home, "data", "deep"), { recursive: true });
  const picture = join(home, "data", "deep", "p.png");
  const secret = join(home, "secret.png");
  for (const file of [picture, secret]) await writeFile(file, file);
  await symlink("deep/p.png", join(home, "data", "near.png"));
  await symlink("../secret.png", join(home, "data", "far.png"));
  await symlink("..", join(home, "data", "up"));
  await symlink("data", join(home, "linked"));
  spawnSync("mkfifo", [join(home, "data", "pipe.png")]);
  await symlink("/dev/zero", join(home, "data", "zero.png"));
  const before = process.cwd();
  const use = async (image: string, source: string): Promise<string> => {
    await writeFile(
      join(home, "data", "samples.jsonl"),
      JSON.stringify({ image, question: "q", answer: "a" }).concat("\n"),
    );
    return hashOf((await openData(source)).samples);
  };
  // By a relative path as well: names were once joined to it as they are.
  process.chdir(join(home, "data"));
  try {
    for (const source of [
      "samples.jsonl",
      "./samples.jsonl",
      "../linked/samples.jsonl",
      join(home, "data"),
      join(home, "linked", "samples.jsonl"),
    ]) {
      for (const image of ["deep/p.png", "./deep/../deep/p.png", "near.png", "deep/..//near.png"])
        assert.match(await use(image, source), /^[0-9a-f]{64}$/, `${image} of ${source}`);
      for (const image of [
        "../secret.png",
        "deep/../../secret.png",
        secret,
        pathToFileURL(secret).href,
        `file:${secret}`,
        "FILE:../secret.png",
        "data:image/png;base64,AAAA",
        "http://localhost/p.png",
        "far.png",
        "up/secret.png",
        "pipe.png",
        "zero.png",
        "deep",
        "p\0.png",
        "none.png",
      ]) {
        const error = await use(image, source).catch((error: unknown) => error);
        assert.ok(error instanceof EvaluationError, `${image} of ${source}: ${error}`);
        assert.match(error.message, /lies outside of|is a pipe|is a device|is a folder|no such file/);
      }
    }
  } finally {
    process.chdir(before);
  }
});

test("data that are no plain file are refused", { skip: process.platform === "win32" }, async () => {
  spawnSync("mkfifo", [join(folder, "pipe.jsonl")]);
  await symlink("/dev/zero", join(folder, "zero.jsonl"));
  for (const name of ["pipe.jsonl", "zero.jsonl"])
    await assert.rejects(openData(join(folder, name)), (error: Error) => {
      return error instanceof EvaluationError && /is a (?:pipe|device), not a file/.test(error.message);
    });
});
