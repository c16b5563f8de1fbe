import assert from "node:assert/strict";
import { mkdir, readdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { run } from "../../ts/cli/run.ts";
import { matches } from "../../ts/hub/glob.ts";
import { AbortError, HubError, inspect, load, ModelError, OptionError, type Progress } from "../../ts/index.ts";
import { openModel } from "../../ts/load.ts";
import { FakeNative } from "../kit/fake_native.ts";
import { testHub } from "../kit/hub.ts";
import { commit, etagOf, smallFiles, tinyFiles } from "../kit/hub_server.ts";

const { server, freshCache } = testHub("hub");

/** Options with a new cache, so that no test sees another's. */
const fresh = () => ({ endpoint: server.endpoint, cacheDir: freshCache(), token: false as const });
const model = (cacheDir: string): string => join(cacheDir, "models--org--tiny");
const files = async (options: object, name = "org/tiny"): Promise<{ source: string; vision?: string | false }> => {
  const fake = new FakeNative();
  const opened = await openModel(fake, name, options);
  await opened.dispose();
  const [request = { source: "" }] = fake.loads;
  const { source, vision, ...others } = request;
  assert.deepEqual(others, {}, "options of the hub do not reach the engine");
  return vision === undefined ? { source } : { source, vision };
};
const source = async (options: object, name?: string): Promise<string> => (await files(options, name)).source;
const code = (expected: string, pattern?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof HubError && error instanceof ModelError, String(error));
  assert.equal(error.code, expected, error.message);
  if (pattern) assert.match(error.message, pattern);
  return true;
};

test("a Hub model is downloaded, loads, describes, and loads again offline", { timeout: 60_000 }, async () => {
  server.files = tinyFiles();
  const options = fresh();
  const seen: Progress[] = [];
  const first = await load("org/tiny", { ...options, onProgress: (progress) => seen.push(progress) });
  const { text } = await first.generate({ prompt: "USER: Hello ASSISTANT:", maxTokens: 4 });
  assert.notEqual(text, "");
  assert.equal(first.info.source, join(model(options.cacheDir), "snapshots", commit));
  await first.dispose();
  const download = seen.filter(({ stage }) => stage === "download");
  const bytes = [...server.files]
    .filter(([name]) => !/CARD|pytorch/.test(name))
    .reduce((sum, [, { length }]) => sum + length, 0);
  assert.deepEqual(download.at(-1), { stage: "download", done: bytes, total: bytes });
  for (const [at, { done }] of download.entries()) assert.ok(done >= (download[at - 1]?.done ?? 0));
  assert.ok(!server.fetched.some((path) => /CARD|pytorch/.test(path)), "only the needed files");

  server.seen = [];
  assert.equal((await inspect("org/tiny", { ...options, offline: true })).layers, 10);
  assert.deepEqual(server.seen, []);
});

test("an adapter is two files of another repository, which load again offline", async () => {
  const options = fresh();
  server.files = new Map([
    ["adapter_config.json", Buffer.from("{}")],
    ["adapter_model.safetensors", Buffer.from("weights")],
    ["tokenizer.json", Buffer.from("{}")],
    ["README.md", Buffer.from("CARD")],
  ]);
  const adapters = async (adapter: string | string[], more: object = {}): Promise<unknown> => {
    const fake = new FakeNative();
    await (await openModel(fake, "/m", { ...options, ...more, adapter })).dispose();
    return (fake.loads[0] as { adapters?: unknown } | undefined)?.adapters;
  };
  const folder = join(options.cacheDir, "models--org--tiny", "snapshots", commit);
  assert.deepEqual(await adapters("org/tiny"), [folder]);
  assert.deepEqual((await readdir(folder)).sort(), ["adapter_config.json", "adapter_model.safetensors"]);
  server.seen = [];
  assert.deepEqual(await adapters(`org/tiny@${commit}`), [folder]);
  assert.deepEqual(await adapters(["./one", "org/tiny"], { offline: true }), [resolve("one"), folder]);
  assert.deepEqual(server.seen, []);
  await assert.rejects(adapters("org/tiny", { ...fresh(), offline: true }), code("hub-offline"));

  server.files = new Map([["adapter_model.bin", Buffer.from("x")]]);
  const lost = code("hub-files", /org\/tiny has no adapter_config\.json.*it has adapter_model\.bin\. Pickled/);
  await assert.rejects(adapters("org/tiny", fresh()), lost);
  server.files = smallFiles();
});

test("a LLaVA in another layout says what to load instead", async () => {
  const weights: [string, Buffer][] = [["model.safetensors", Buffer.from("x")]];
  const common: [string, Buffer][] = [
    ["config.json", Buffer.from("{}")],
    ["tokenizer.json", Buffer.from("{}")],
  ];
  server.files = new Map([...common, ...weights, ["projector/config.json", Buffer.from("{}")]]);
  await assert.rejects(source(fresh()), code("hub-files", /layout of XTuner.*ends in -transformers or -hf/));
  server.files = new Map([...common, ["mm_projector.bin", Buffer.from("x")], ["pytorch_model.bin", Buffer.from("x")]]);
  await assert.rejects(source(fresh()), code("hub-files", /load its conversion, for instance "llava-hf\//));
  server.files = smallFiles();
});

test("the cache is laid out like huggingface_hub's", async () => {
  const options = fresh();
  assert.equal(await source(options), join(model(options.cacheDir), "snapshots", commit));
  assert.equal(await readFile(join(model(options.cacheDir), "refs", "main"), "utf8"), commit);
  const names = [
    "config.json",
    "model-1.safetensors",
    "model-2.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
  ];
  assert.deepEqual((await readdir(join(model(options.cacheDir), "snapshots", commit))).sort(), names);
  const etags = names.map((name) => etagOf(name, server.files.get(name) as Uint8Array));
  assert.deepEqual((await readdir(join(model(options.cacheDir), "blobs"))).sort(), etags.toSorted());
  for (const [at, name] of names.entries()) {
    const path = join(model(options.cacheDir), "snapshots", commit, name);
    assert.equal(await readlink(path), join("..", "..", "blobs", etags[at] as string));
    assert.deepEqual(new Uint8Array(await readFile(path)), new Uint8Array(server.files.get(name) as Uint8Array));
  }
  assert.ok((await readdir(join(model(options.cacheDir), ".no_exist", commit))).includes("chat_template.json"));
  assert.deepEqual(await readdir(join(options.cacheDir, ".locks", "models--org--tiny")), []);
});

test("a second load asks the list only, a commit nothing at all", async () => {
  const options = fresh();
  await source(options);
  server.seen = [];
  await source(options);
  assert.deepEqual(
    server.seen.map(({ path }) => path),
    ["/api/models/org/tiny/revision/main"],
  );
  server.seen = [];
  await source(options, `org/tiny@${commit}`);
  await source({ ...options, revision: commit });
  await source({ ...options, offline: true });
  assert.deepEqual(server.seen, []);
});

test("a new commit brings only what has changed, and the old one stays", async () => {
  const options = fresh();
  await source(options);
  server.commit = "f".repeat(40);
  server.files.set("config.json", Buffer.from("{ }"));
  server.seen = [];
  assert.equal(await source(options), join(model(options.cacheDir), "snapshots", server.commit));
  assert.deepEqual(server.fetched, [`/org/tiny/resolve/${server.commit}/config.json`]);
  assert.equal(await source({ ...options, revision: commit }), join(model(options.cacheDir), "snapshots", commit));
});

test("a revision may have slashes", async () => {
  const options = fresh();
  await source(options, "org/tiny@refs/pr/1");
  assert.equal(await readFile(join(model(options.cacheDir), "refs", "refs", "pr", "1"), "utf8"), commit);
  await assert.rejects(source({ ...options, revision: "main" }, "org/tiny@other"), OptionError);
  await assert.rejects(source({ ...options, revision: "../../x" }), OptionError);
});

test("what huggingface_hub has cached is used without a download", async () => {
  const options = fresh();
  const root = model(options.cacheDir);
  for (const name of ["blobs", "refs", `snapshots/${commit}`]) await mkdir(join(root, name), { recursive: true });
  await writeFile(join(root, "refs", "main"), commit);
  for (const [name, content] of server.files) {
    await writeFile(join(root, "blobs", etagOf(name, content)), content);
    await symlink(`../../blobs/${etagOf(name, content)}`, join(root, "snapshots", commit, name));
  }
  const snapshot = join(root, "snapshots", commit);
  assert.equal(await source({ ...options, offline: true }), snapshot);
  assert.deepEqual(server.seen, []);
  assert.equal(await source(options), snapshot);
  assert.deepEqual(server.fetched, []);
});

test("the single file goes before an index, which may be left from an earlier save", async () => {
  const whole = new Uint8Array(1000);
  server.files.set("model.safetensors", whole);
  server.files.delete("model-2.safetensors");
  const options = fresh();
  const snapshot = await source(options);
  assert.deepEqual((await readdir(snapshot)).sort(), ["config.json", "model.safetensors", "tokenizer.json"]);
  assert.ok(!server.fetched.some((path) => /index|model-/.test(path)), String(server.fetched));
  server.seen = [];
  assert.equal(await source({ ...options, offline: true }), snapshot);
  assert.equal(await source({ ...options, revision: commit }), snapshot);
  assert.deepEqual(server.seen, []);
  // Also where an earlier version has brought the shards that the index names.
  server.files = smallFiles();
  const shards = fresh();
  await source(shards);
  server.files.set("model.safetensors", whole);
  server.seen = [];
  await source(shards);
  assert.ok(server.fetched.length > 0 && server.fetched.every((path) => path.endsWith("/model.safetensors")));
});

test("a vocabulary and its merges come where there is no tokenizer.json", async () => {
  const bytes = new Uint8Array(10);
  server.files = smallFiles();
  server.files.delete("tokenizer.json");
  for (const name of ["vocab.json", "merges.txt"]) server.files.set(name, bytes);
  const options = fresh();
  const snapshot = await source(options);
  assert.deepEqual(
    (await readdir(snapshot)).filter((name) => !name.startsWith("model")),
    ["config.json", "merges.txt", "vocab.json"],
  );
  server.seen = [];
  assert.equal(await source({ ...options, offline: true }), snapshot);
  assert.equal(await source({ ...options, revision: commit }), snapshot);
  assert.deepEqual(server.seen, []);
  // Beside a tokenizer.json they are not read.
  server.files.set("tokenizer.json", bytes);
  const both = await source(fresh());
  assert.ok(!(await readdir(both)).some((name) => name === "vocab.json" || name === "merges.txt"));
  server.files.delete("tokenizer.json");
  server.files.delete("merges.txt");
  await assert.rejects(source(fresh()), code("hub-files", /has no tokenizer\.json/));
});

test("a repository of another format says what it is and what to do", async () => {
  for (const [files, found, cure] of [
    [
      ["adapter_config.json", "adapter_model.safetensors"],
      /has no config\.json/,
      /adapter \(LoRA\): load the model .* as `adapter`/,
    ],
    [["config.json", "tokenizer.json", "pytorch_model.bin"], /neither/, /Pickled weights are not read/],
  ] as [string[], RegExp, RegExp][]) {
    server.files = new Map(files.map((name) => [name, new Uint8Array(10)]));
    const error = await source(fresh()).catch((error: unknown) => error);
    assert.ok(code("hub-files", found)(error) && code("hub-files", cure)(error));
    assert.equal(/pickle/i.test(String(error)), files.includes("pytorch_model.bin"));
  }
});

/** A repository of GGUF files, and the path that a load of it gives to the engine. */
const gguf = async (names: string[], options: object): Promise<string> => {
  server.files = new Map(names.map((name, at) => [name, new Uint8Array(10).fill(at)]));
  return source(options);
};

test("of GGUF files the one that is meant comes, and nothing else", async () => {
  const names = ["README.md", "config.json", "a-Q4_K_M.gguf", "a-Q4_K_S.gguf", "sub/a-Q8_0.gguf", "mmproj-a-f16.gguf"];
  for (const [file, want] of [
    ["*Q4_K_M*", "a-Q4_K_M.gguf"],
    ["a-Q4_K_S.gguf", "a-Q4_K_S.gguf"],
    ["a-Q8_?.gguf", "sub/a-Q8_0.gguf"],
    ["sub/*", "sub/a-Q8_0.gguf"],
    ["mmproj*", "mmproj-a-f16.gguf"],
  ] as [string, string][]) {
    server.seen = [];
    const options = { ...fresh(), file };
    const path = await gguf(names, options);
    assert.equal(path, join(model(options.cacheDir), "snapshots", commit, ...want.split("/")));
    // With the vision tower, unless that is what was asked for.
    const tower = "mmproj-a-f16.gguf";
    const wanted = [...new Set([want, tower])].map((name) => `/org/tiny/resolve/${commit}/${name}`);
    assert.deepEqual(server.fetched.toSorted(), wanted.toSorted());
    assert.deepEqual(
      (await readdir(model(options.cacheDir))).sort(),
      ["blobs", "refs", "snapshots"],
      "no notes of other files",
    );
    server.seen = [];
    assert.equal(await source({ ...options, offline: true }), path);
    assert.deepEqual(server.seen, []);
    server.seen = [];
    assert.equal(await source({ ...options, revision: commit }), path);
    // Only a name is known to be one file.
    assert.equal(server.seen.length, /[*?]/.test(file) || file !== want ? 1 : 0);
    assert.deepEqual(server.fetched, []);
  }
});

test("a vision tower comes with its language model, and only one", async () => {
  const all = ["BF16", "F16", "F32", "Q8_0"].map((kind) => `mmproj-a-${kind}.gguf`);
  for (const [towers, vision, want] of [
    [all, undefined, "mmproj-a-F16.gguf"],
    [all.filter((name) => !/-F16/.test(name)), undefined, "mmproj-a-BF16.gguf"],
    [["mmproj-a-F32.gguf", "mmproj-a-Q8_0.gguf"], undefined, "mmproj-a-F32.gguf"],
    [["mmproj-a-Q8_0.gguf", "mmproj-a-Q4_0.gguf"], undefined, "mmproj-a-Q8_0.gguf"],
    [["a-mmproj.gguf"], undefined, "a-mmproj.gguf"],
    [[], undefined, false],
    [all, false, false],
    [all, "*Q8_0*", "mmproj-a-Q8_0.gguf"],
    [all, "mmproj-a-BF16.gguf", "mmproj-a-BF16.gguf"],
    // Those of another folder belong to another model.
    [["x/mmproj-b-f16.gguf", "mmproj-a-q8_0.gguf"], undefined, "mmproj-a-q8_0.gguf"],
  ] as [string[], string | false | undefined, string | false][]) {
    const options = { ...fresh(), file: "a.gguf", ...(vision !== undefined && { vision }) };
    const place = (name: string) => join(model(options.cacheDir), "snapshots", commit, name);
    const expected = { source: place("a.gguf"), vision: want === false ? false : place(want) };
    server.seen = [];
    server.files = new Map(["a.gguf", ...towers].map((name, at) => [name, new Uint8Array(10).fill(at)]));
    assert.deepEqual(await files(options), expected);
    assert.equal(server.fetched.length, want === false ? 1 : 2);
    server.seen = [];
    assert.deepEqual(await files({ ...options, offline: true }), expected);
    assert.deepEqual(server.seen, []);
    assert.deepEqual(await files({ ...options, revision: commit }), expected);
    // Nobody is asked again where no other tower could be meant.
    const sure = want === false || want === vision || /-F16/.test(want);
    assert.equal(server.seen.length, sure ? 0 : 1, `${towers} ${vision}`);
  }
});

test("vision towers that are not one are listed", async () => {
  for (const [towers, vision, pattern] of [
    [
      ["mmproj-a-f16.gguf", "mmproj-b-f16.gguf"],
      undefined,
      /several vision towers: mmproj-a-f16\.gguf, mmproj-b-f16\.gguf; name one with `vision`/,
    ],
    [["mmproj-a.gguf", "mmproj-b.gguf"], undefined, /several vision towers: .*leave them out with `vision: false`/],
    [["mmproj-a-f16.gguf", "mmproj-b-f16.gguf"], "*f16*", /several files `\*f16\*`/],
    [["mmproj-a-f16.gguf"], "*q8*", /no GGUF file `\*q8\*` for `vision`, but: mmproj-a-f16\.gguf/],
    [[], "*q8*", /no GGUF file `\*q8\*` for `vision`$/],
  ] as [string[], string | undefined, RegExp][]) {
    server.files = new Map(["a.gguf", ...towers].map((name) => [name, new Uint8Array(10)]));
    server.seen = [];
    await assert.rejects(files({ ...fresh(), ...(vision && { vision }) }), code("hub-files", pattern));
    assert.deepEqual(server.fetched, []);
  }
  server.files = new Map(["a.gguf"].map((name) => [name, new Uint8Array(10)]));
  const options = fresh();
  await files(options);
  const missing = files({ ...options, offline: true, vision: "*f16*" });
  await assert.rejects(missing, code("hub-offline", /misses \*f16\* of it/));
});

test("the only GGUF file of a repository needs no name", async () => {
  const options = fresh();
  const path = await gguf(["config.json", "README.md", "a.gguf", "mmproj-a.gguf"], options);
  assert.equal(path, join(model(options.cacheDir), "snapshots", commit, "a.gguf"));
  assert.equal(await source({ ...options, offline: true }), path);
  // Safetensors go first.
  server.files = tinyFiles();
  server.files.set("a.gguf", new Uint8Array(10));
  const both = fresh();
  assert.equal(await source(both), join(model(both.cacheDir), "snapshots", commit));
});

test("all files of a model in several come, and no other", async () => {
  const parts = (kind: string, count: number) =>
    Array.from({ length: count }, (_, at) => `${kind}/a-${kind}-0000${at + 1}-of-0000${count}.gguf`);
  const [large, small] = [parts("Q8_0", 3), parts("Q4_K_M", 2)];
  const names = ["README.md", ...large, ...small, "a-Q2_K.gguf", "mmproj-a-f16.gguf"];
  for (const [file, vision, want] of [
    ["*Q8_0*", undefined, [...large, "mmproj-a-f16.gguf"]],
    ["*Q4_K_M*", false, small],
    [small[0], undefined, [...small, "mmproj-a-f16.gguf"]],
    // Any of its files means the set, and the engine is given the first.
    ["a-Q8_0-00002-of-00003.gguf", false, large],
    ["*Q2_K*", false, ["a-Q2_K.gguf"]],
  ] as [string, false | undefined, string[]][]) {
    server.seen = [];
    const options = { ...fresh(), file, ...(vision !== undefined && { vision }) };
    const path = await gguf(names, options);
    assert.equal(path, join(model(options.cacheDir), "snapshots", commit, ...(want[0] as string).split("/")));
    assert.deepEqual(server.fetched.toSorted(), want.map((name) => `/org/tiny/resolve/${commit}/${name}`).toSorted());
    server.seen = [];
    assert.equal(await source({ ...options, offline: true }), path);
    assert.deepEqual(server.seen, []);
    assert.equal(await source(options), path);
    assert.deepEqual(server.fetched, []);
  }
  // One set needs no name; a part that is not in the cache is said, and comes alone.
  const options = fresh();
  const path = await gguf(small, options);
  const gone = small[1] as string;
  await rm(join(path, "..", gone.split("/")[1] as string));
  await assert.rejects(source({ ...options, offline: true }), code("hub-offline", new RegExp(`misses ${gone} of it`)));
  server.seen = [];
  assert.equal(await source(options), path);
  assert.ok(await stat(join(path, "..", gone.split("/")[1] as string)));
});

test("GGUF files that are not one are listed", async () => {
  const parts = ["a-00001-of-00003.gguf", "a-00003-of-00003.gguf"];
  for (const [names, file, pattern] of [
    [["a.gguf", "b.gguf"], undefined, /org\/tiny has several GGUF files: a\.gguf, b\.gguf; name one with `file`/],
    [["a.gguf", "b.gguf", "c.gguf"], "[ab]*", /has no GGUF file `\[ab\]\*`, but: a\.gguf, b\.gguf, c\.gguf/],
    [["a-Q4_0.gguf", "a-Q4_1.gguf"], "*Q4*", /several GGUF files `\*Q4\*`: a-Q4_0\.gguf, a-Q4_1\.gguf/],
    [parts, undefined, /a model in 3 files without: a-00002-of-00003\.gguf; load another file/],
    [[...parts, "b.gguf"], undefined, /several GGUF files: a-00001-of-00003\.gguf, b\.gguf; name one/],
    [["config.json"], "*Q4*", /org\/tiny has no GGUF file$/],
  ] as [string[], string | undefined, RegExp][]) {
    server.seen = [];
    await assert.rejects(gguf(names, { ...fresh(), ...(file && { file }) }), code("hub-files", pattern));
    assert.deepEqual(server.fetched, []);
  }
  await assert.rejects(openModel(new FakeNative(), ".", { file: "a.gguf" }), OptionError);
  await assert.rejects(source({ ...fresh(), offline: true, file: "*Q4*" }), code("hub-offline", /does not have it/));
});

test("patterns match as in fnmatch, however many stars they have", () => {
  for (const [pattern, name, want] of [
    ["*", "a/b.gguf", true],
    ["a*b", "a/x/b", true],
    ["a?b", "a/b", true],
    ["a?b", "ab", false],
    ["*Q4*", "x-q4", false],
    ["**", "", true],
    ["a.c", "abc", false],
  ] as [string, string, boolean][])
    assert.equal(matches(pattern, name), want, `${pattern} ${name}`);
  const start = performance.now();
  assert.equal(matches("*a".repeat(100), "a".repeat(99)), false);
  assert.ok(performance.now() - start < 1000);
});

test("offline without a cache says what is missing", async () => {
  const options = { ...fresh(), offline: true };
  await assert.rejects(
    source(options),
    code("hub-offline", /cannot load org\/tiny at main: offline, and the cache .* does not have it/),
  );
  await mkdir(join(model(options.cacheDir), "snapshots", commit), { recursive: true });
  const error = await source({ ...options, revision: commit }).catch((error: unknown) => error);
  assert.ok(code("hub-offline", /misses config\.json, tokenizer\.json, model\.safetensors/)(error));
  assert.deepEqual((error as HubError).details.missing, ["config.json", "tokenizer.json", "model.safetensors"]);
  assert.deepEqual(server.seen, []);
});

test("without a hub that answers, the cache will do", async () => {
  const options = fresh();
  await source(options);
  server.hook = (request) => {
    request.socket.destroy();
    return true;
  };
  assert.equal(await source(options), join(model(options.cacheDir), "snapshots", commit));
});

test("a list without sizes and hashes is completed from the files", async () => {
  server.blobs = false;
  const options = fresh();
  await source(options);
  assert.ok(server.seen.some(({ method }) => method === "HEAD"));
  assert.equal((await readdir(join(model(options.cacheDir), "blobs"))).length, 5);
});

test("two loads at the same time share one download", async () => {
  const options = fresh();
  await Promise.all([source(options), source(options), source({ ...options, revision: commit })]);
  assert.deepEqual(server.fetched.toSorted(), [...new Set(server.fetched)].sort());
});

test("the lock of a process that has died is no obstacle", async () => {
  const options = fresh();
  const [name, content] = ["config.json", server.files.get("config.json") as Uint8Array];
  const locks = join(options.cacheDir, ".locks", "models--org--tiny");
  await mkdir(locks, { recursive: true });
  const { hostname } = await import("node:os");
  // No system gives out so high a number.
  const mark = JSON.stringify({ pid: 2 ** 30, host: hostname(), id: "x" });
  await writeFile(join(locks, `${etagOf(name, content)}.prefixkv`), mark);
  await source(options);
  assert.deepEqual(await readdir(locks), []);
});

test("the token goes to the hub and nowhere else", async () => {
  await source({ ...fresh(), token: "hf_secret" });
  assert.ok(server.seen.some(({ foreign }) => foreign));
  for (const { foreign, authorization } of server.seen)
    assert.equal(authorization, foreign ? undefined : "Bearer hf_secret");
});

test("an abort leaves only what can be resumed", async () => {
  const options = fresh();
  const controller = new AbortController();
  server.hook = (_request, response, { path }) => {
    const content = server.files.get("model-1.safetensors") as Uint8Array;
    if (path !== "/store/model-1.safetensors") return false;
    response.writeHead(200, { "content-length": content.length });
    response.write(content.subarray(0, 50_000), () => setTimeout(() => controller.abort(), 50));
    return true;
  };
  const started = performance.now();
  await assert.rejects(source({ ...options, signal: controller.signal }), AbortError);
  assert.ok(performance.now() - started < 5000);
  const etag = etagOf("model-1.safetensors", server.files.get("model-1.safetensors") as Uint8Array);
  const blobs = await readdir(join(model(options.cacheDir), "blobs"));
  assert.ok(blobs.includes(`${etag}.incomplete`) && !blobs.includes(etag));
  assert.deepEqual(await readdir(join(options.cacheDir, ".locks", "models--org--tiny")), []);
  await assert.rejects(source({ ...options, offline: true }), code("hub-offline"));

  server.reset();
  await source(options);
  const resumed = server.seen.find(({ path }) => path === "/store/model-1.safetensors");
  assert.deepEqual([resumed?.range, resumed?.sent], ["bytes=50000-", 150_000]);
});

test("an existing folder goes before a Hub model", async () => {
  const name = "tests/unit";
  assert.match(await source({ offline: true }, name), /tests[\\/]unit$/);
  await assert.rejects(source({ revision: "main" }, "./no/such"), OptionError);
  await assert.rejects(source({ revision: "main" }, name), OptionError);
});

test("the command line takes names of the hub, and its token from the environment only", async () => {
  const { endpoint, cacheDir } = fresh();
  const env = { HF_ENDPOINT: endpoint, HF_HUB_CACHE: cacheDir, HF_TOKEN: "hf_env" };
  const before = Object.keys(env).map((name) => [name, process.env[name]] as const);
  Object.assign(process.env, env);
  const fake = new FakeNative();
  let err = "";
  const cli = async (...args: string[]) => {
    const out: string[] = [];
    const typed = { ask: async () => undefined, onInterrupt: () => {} };
    const context = { ...typed, interactive: true, color: false, signal: new AbortController().signal };
    const door = async () => ({ native: fake, file: "native/fake.node" });
    const write = (text: string): void => {
      err += text;
    };
    const exit = await run([...args, "--json"], { ...context, door, err: write, out: (text) => void out.push(text) });
    return { exit, printed: JSON.parse(out.join("")) };
  };
  try {
    const snapshot = join(model(cacheDir), "snapshots", commit);
    const first = await cli("inspect", "org/tiny", "--revision", "main");
    assert.deepEqual([first.exit, first.printed.source], [0, snapshot]);
    assert.match(err, /^\rdownload \[[#.]+\] \d+ %/);
    assert.ok(server.seen.some(({ authorization }) => authorization === "Bearer hf_env"));
    server.seen = [];
    const score = ["score", "--prompt", "a", "--answer", "b"];
    assert.equal((await cli(...score, "--model", "org/tiny", "--offline")).printed.model, snapshot);
    assert.deepEqual([fake.loads, server.seen], [[{ source: snapshot }], []]);
    const missing = await cli(...score, "--model", "org/other", "--offline");
    assert.deepEqual([missing.exit, missing.printed.error.code], [1, "hub-offline"]);
    assert.equal((await cli(...score, "--model", "org/tiny", "--token", "x")).exit, 2);
  } finally {
    for (const [name, value] of before)
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  }
});
