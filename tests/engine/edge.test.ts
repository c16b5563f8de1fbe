import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { AbortError, about, h2o, image, load, MediaError, type Model, OptionError, prefixkv } from "../../ts/index.ts";
import { root, runScript } from "../runtimes/spawn.ts";
import { scene } from "./scenes.ts";

let model: Model;
const picture = readFileSync(scene.image);

before(async () => {
  model = await load();
});

after(() => model.dispose());

const ask = (...content: (string | ReturnType<typeof image>)[]) => ({
  messages: [{ role: "user", content }],
  maxTokens: 4,
});

test("no body ends a process that catches what calls reject with", async () => {
  const { code, out, err } = await runScript(join(root, "tests", "engine", "edge_child.ts"));
  assert.equal(code, 0, err);
  assert.match(out, /^\d+ true$/m);
  assert.ok(Number(out.split(" ")[0]) > 80, out);
  assert.equal(err.replace(/^.*Warning.*$/gm, "").trim(), "");
});

test("a picture has one answer, whatever it comes as", async () => {
  const foreign = runInContext("Uint8Array", createContext({})) as typeof Uint8Array;
  const base64 = picture.toString("base64");
  const { tokens } = await model.generate(ask(image(scene.image), "What is there?"));
  for (const source of [
    picture,
    new DataView(picture.buffer, picture.byteOffset, picture.length),
    foreign.from(picture),
    foreign.from(picture).buffer,
    `data:image/png;base64, ${base64}`,
    `DATA:;BASE64,${encodeURIComponent(base64)}#x`,
    new Blob([picture]),
  ]) {
    const found = await model.generate(ask(image(source), "What is there?"));
    assert.deepEqual(found.tokens, tokens, image(source).name);
  }
});

test("half a surrogate pair is U+FFFD in every text", async () => {
  const cut = "Hello \ud83d";
  const whole = "Hello \ufffd";
  assert.deepEqual(await model.tokenize(cut), await model.tokenize(whole));
  const same = async (run: (text: string) => Promise<{ tokens: number[] }>): Promise<void> => {
    assert.deepEqual((await run(cut)).tokens, (await run(whole)).tokens);
  };
  await same(async (text) => model.generate(ask(text)));
  await same(async (text) => model.generate(ask(image(picture), text)));
  await same(async (prompt) => model.generate({ prompt, maxTokens: 3 }));
  await same(async (text) => model.generate({ ...ask("Hi"), stop: [text] }));
  await same((answer) => model.score({ ...ask("Hi"), maxTokens: undefined, answer } as never));
  await same(async (text) => model.chat().send(text, { maxTokens: 3 }));
  for (const half of ["\udc00", "a\udc00b", "\ud83d\ud83d", "\udc00\ud83d"]) {
    assert.deepEqual(await model.tokenize(half), await model.tokenize(half.toWellFormed()));
  }
});

test("an error of decoding names the image, its source and its number, and quotes nothing", async () => {
  const heic = new TextEncoder().encode(`\0\0\0\x18ftypheic\0\0\0\0mif1heic${"\0".repeat(64)}`);
  const secret = new TextEncoder().encode("SECRETUSER:x:0:0:root:/root:/bin/bash");
  const html = new TextEncoder().encode("<!doctype html><title>SECRET</title>");
  const refused = async (bad: ReturnType<typeof image>, pattern: RegExp): Promise<void> => {
    const error = await model.generate(ask(image(picture), bad, "What?")).then(
      () => undefined,
      (error: unknown) => error,
    );
    assert.ok(error instanceof MediaError, String(error));
    assert.match(error.message, pattern);
    assert.deepEqual([error.details.index, error.details.source], [1, bad.name]);
    assert.doesNotMatch(`${error.message} ${JSON.stringify(error.details)} ${String(error.cause)}`, /SECRET/);
    for (const call of [
      () => model.score({ messages: ask(bad).messages, answer: "a" }),
      () => model.trace(ask(bad)),
      () => model.chat().send([bad, "What?"]),
      () => model.calibrate({ method: prefixkv(), samples: [{ messages: ask(bad).messages }] }),
    ]) {
      await assert.rejects(call, (error) => error instanceof MediaError && error.details.source === bad.name);
    }
  };
  await refused(image(heic), /^cannot use image 1 \(bytes\): HEIC images are not supported; use PNG/);
  await refused(image(secret), /not an image but a text; use PNG/);
  await refused(image(html), /not an image but an HTML page/);
  await refused(image(new File([secret], "photo.png")), /cannot use image 1 \(photo\.png\)/);
  await refused(image(join(root, "package.json")), /not an image but a JSON text/);
  await refused(
    image(`data:image/png;base64,${Buffer.from(secret).toString("base64")}`),
    /\(data:image\/png;base64,\.\.\.\)/,
  );
});

test("a size has one grammar, and a terabyte is one", async () => {
  const large = await load(undefined, { cacheLimit: "1TiB" });
  await large.dispose();
  const cache = h2o({ keep: { bytes: "1TiB" } });
  assert.equal((await model.generate({ ...ask("Hi"), cache })).tokens.length, 4);
  await assert.rejects(load(undefined, { cacheLimit: "1PiB" }), OptionError);
});

test("a calibration of another score is refused", async () => {
  const samples = [{ prompt: "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:" }];
  const calibration = await model.calibrate({ method: prefixkv({ score: "window" }), samples, keeps: [0.6] });
  const request = { prompt: "USER: Which shapes are there? ASSISTANT:", maxTokens: 2 };
  const right = prefixkv({ keep: 0.6, score: "window", calibration });
  assert.equal((await model.generate({ ...request, cache: right })).tokens.length, 2);
  for (const [cache, pattern] of [
    [
      prefixkv({ keep: 0.6, score: "columns", calibration }),
      /come from `score: "window"`, and the method ranks by "columns"/,
    ],
    [prefixkv({ keep: 0.6, calibration: { ...calibration, score: "colums" } }), /`score` is "colums"; known are/],
  ] as const) {
    await assert.rejects(
      model.generate({ ...request, cache }),
      (error) => (error as Error).name === "CalibrationError" && pattern.test((error as Error).message),
    );
  }
});

test("after an AbortError a chat's messages are what its cache holds", async () => {
  for (let round = 0; round < 12; round++) {
    const chat = model.chat();
    const controller = new AbortController();
    const turn = chat.send("Tell me of shapes.", { ignoreEos: true, maxTokens: 200, signal: controller.signal });
    setTimeout(() => controller.abort(), round * 4);
    const start = performance.now();
    const error = await turn.then(
      () => undefined,
      (error: unknown) => error,
    );
    const messages = [...chat.messages];
    assert.ok(error instanceof AbortError, String(error));
    assert.ok(performance.now() - start < 5000);
    const next = await chat.send("And?", { maxTokens: 2 });
    assert.deepEqual(chat.messages.slice(0, -2), messages);
    const fresh = await model.generate({ messages: [...messages, { role: "user", content: "And?" }], maxTokens: 2 });
    assert.deepEqual(next.tokens, fresh.tokens, `round ${round}`);
    await chat.dispose();
  }
});

test("a refused request reaches nobody else's chat and leaves nothing behind", async () => {
  const chat = model.chat();
  await chat.send("Hi", { maxTokens: 2 });
  const { live } = await about();
  for (const body of [
    { session: 1, ...ask("What did I say?") },
    { session: "1", ...ask("What did I say?") },
    { op: "close-session", session: 1 },
    { op: "score", ...ask("Hi") },
    JSON.parse('{"__proto__": {"session": 1}, "prompt": "Hi"}'),
  ]) {
    for (const call of [
      () => model.generate({ ...body }),
      () => model.trace({ ...body }),
      () => model.score({ answer: "a", ...body }),
      () => chat.send("Hi", { ...body }),
    ]) {
      await assert.rejects(call, OptionError);
    }
  }
  assert.equal((await about()).live.sessions, live.sessions);
  assert.ok((await chat.send("And?", { maxTokens: 2 })).usage.cachedTokens > 0);
  await chat.dispose();
});
