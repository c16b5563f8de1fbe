import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, test } from "node:test";
import { UsageError } from "../../ts/cli/args.ts";
import type { Context } from "../../ts/cli/command.ts";
import { whatFits } from "../../ts/cli/commands/inspect.ts";
import { commands } from "../../ts/cli/commands.ts";
import { ProgressBar, progressLine } from "../../ts/cli/progress_bar.ts";
import { DeviceError } from "../../ts/errors.ts";
import {
  formatBars,
  formatBytes,
  formatCount,
  formatRuns,
  formatShare,
  formatTable,
  formatTime,
  parseBytes,
} from "../../ts/format.ts";
import { methods } from "../../ts/generated/method_table.ts";
import { missingAddon } from "../../ts/native/napi.ts";
import { distance, nearest } from "../../ts/suggest.ts";
import { cli } from "../kit/command_line.ts";
import { FakeNative, memory } from "../kit/fake_native.ts";
import { temporaryFolder } from "../kit/temporary_folder.ts";

const folder = temporaryFolder("cli");
const picture = join(folder, "scene.png");
before(() => writeFile(picture, "png"));

test("describe streams the answer to standard output and a table to standard error", async () => {
  const { code, out, err, fake } = await cli([
    "describe",
    picture,
    "--prompt",
    "What?",
    "--max-tokens",
    "7",
    "--stop",
    "a",
    "--stop",
    "b",
  ]);
  assert.equal(code, 0);
  assert.equal(out, "There is a star.\n");
  assert.match(
    err,
    /tokens +3 \(eos\), prompt 160 \(144 image\)\nfirst token +6\.0 ms\ndecoding +500\.0 tokens\/s\nkv cache +1\.9 MiB/,
  );
  assert.deepEqual(fake.requests[0]?.request, {
    op: "generate",
    maxTokens: 7,
    stop: ["a", "b"],
    messages: [
      {
        role: "user",
        content: [
          { type: "image", index: 0 },
          { type: "text", text: "What?" },
        ],
      },
    ],
  });
  assert.equal(fake.closes, 1);
});

test("describe --json prints one object and nothing else", async () => {
  const { code, out, err, fake } = await cli([
    "describe",
    picture,
    "--json",
    "--weights",
    "q8_0",
    "--rotate-values",
    "--model",
    "/m",
    "--adapter",
    "/one",
    "--adapter",
    "/two",
  ]);
  assert.deepEqual([code, err], [0, ""]);
  assert.equal(out.trimEnd().split("\n").length, 1);
  const printed = JSON.parse(out);
  assert.deepEqual(Object.keys(printed), [
    "model",
    "images",
    "prompt",
    "text",
    "tokens",
    "finish",
    "usage",
    "timings",
    "memory",
  ]);
  assert.equal(printed.memory.full, 2_000_000);
  assert.deepEqual(fake.loads, [{ source: "/m", adapters: ["/one", "/two"], weights: "q8_0", rotateValues: true }]);
});

test("a vision tower is a path, or none", async () => {
  for (const [flag, vision] of [
    ["/m/mmproj.gguf", "/m/mmproj.gguf"],
    ["none", false],
  ] as const) {
    const { code, fake } = await cli(["describe", picture, "--json", "--vision", flag, "--model", "/m/a.gguf"]);
    assert.equal(code, 0);
    assert.deepEqual(fake.loads, [{ source: "/m/a.gguf", vision }]);
  }
});

test("score prints a table or one object", async () => {
  const args = ["score", "--image", picture, "--prompt", "What?", "--answer", "A star."];
  const text = await cli(args);
  assert.match(text.out, /perplexity +2\.7183\nlog-probability +-2\.0000\ntokens +2\n/);
  const json = JSON.parse((await cli([...args, "--json"])).out);
  assert.deepEqual([json.tokens, json.logprobs, json.answer], [[5, 6], [-0.5, -1.5], "A star."]);
});

test("the flags of the cache become its option", async () => {
  const cacheOf = async (...flags: string[]) => {
    const { code, err, fake } = await cli(["describe", picture, ...flags]);
    assert.equal(code, 0, err);
    return (fake.requests[0]?.request as { cache?: unknown } | undefined)?.cache;
  };
  assert.equal(await cacheOf(), undefined);
  assert.deepEqual(await cacheOf("--method", "full"), { method: "full" });
  assert.deepEqual(await cacheOf("--method", "h2o", "--keep", "0.5", "--set", "sinks=4", "--set", "decode=none"), {
    method: "h2o",
    keep: 0.5,
    sinks: 4,
    decode: "none",
  });
  assert.deepEqual(await cacheOf("--method", "streaming", "--keep", "256tokens", "--set", "positions=true"), {
    method: "streaming",
    keep: { tokens: 256 },
    positions: "true",
  });
  assert.deepEqual(await cacheOf("--method", "knorm", "--keep", "64MiB", "--set", "protectText=true"), {
    method: "knorm",
    keep: { bytes: 2 ** 26 },
    protectText: true,
  });
  const stages = ["--stage", "merge,weight=0.5", "--stage", "int4,window=64"];
  assert.deepEqual(await cacheOf("--method", "snapkv", "--keep", "0.4", ...stages), [
    { method: "snapkv", keep: 0.4 },
    { method: "merge", weight: 0.5 },
    { method: "int4", window: 64 },
  ]);
  assert.deepEqual(await cacheOf("--method", "int8", "--set", "rotate=true"), { method: "int8", rotate: true });
  // Layers that share come before the method, wherever they are named.
  const map = { format: "prefixkv-sharing", version: 1, model: { layers: 10 }, pairs: [{ layer: 6, source: 2 }] };
  const file = join(folder, "layers.json");
  await writeFile(file, JSON.stringify(map));
  const shares = ["--stage", "int4", "--stage", `kvsharer,calibration=${file},layers=1`];
  assert.deepEqual(await cacheOf("--method", "snapkv", "--keep", "0.4", ...shares), [
    { method: "kvsharer", calibration: map, layers: 1 },
    { method: "snapkv", keep: 0.4 },
    { method: "int4" },
  ]);
  const calibrated = await cacheOf("--method", "prefixkv", "--keep", "0.3", "--calibration", "llava-1.5-7b");
  assert.equal((calibrated as { calibration?: { version?: number } }).calibration?.version, 1);
});

test("the closing tables show what is kept", async () => {
  const short = { ...memory, full: 200 * 15_360, keptPerLayer: [200, 100, 50, 25] };
  const fake = new FakeNative();
  fake.memory = short;
  const { err } = await cli(["describe", picture], { fake });
  assert.match(err, /kept at end +█▄▂▁ 46\.9 %\n$/);
  const { out } = await cli(["score", "--prompt", "a", "--answer", "b", "--kept"], { fake });
  assert.match(
    out,
    /kept at end +█▄▂▁ 46\.9 %\n\ntext, 0-1 +50\.0 %\nimage 1, 2-5 +25\.0 %\ntext, 6-11 +75\.0 %\n\nlayer 0 +0 2\nlayer 1 +0-1\n$/,
  );
});

test("calibrate writes a file and shows its sizes", async () => {
  const file = join(folder, "mine.json");
  const args = ["calibrate", picture, picture, "--prompt", "What?", "--keeps", "0.2,0.5", "--out", file];
  const { code, out, err, fake } = await cli(args, { interactive: true });
  assert.equal(code, 0, err);
  assert.match(out, /^0\.20 {2}▂▂\n0\.50 {2}▄▄\nwrote .*mine\.json\n$/);
  assert.match(err, /samples \[#{12}\.{12}\] 50 %/);
  assert.deepEqual(
    fake.requests.map(({ request }) => request.op),
    ["profile", "profile"],
  );
  const { calibration } = JSON.parse((await cli([...args, "--method", "prefixkv", "--json"])).out);
  assert.deepEqual(calibration, JSON.parse(await readFile(file, "utf8")));
});

test("fit searches, writes a file and shows its curve, and a command takes the file", async () => {
  const file = join(folder, "fit.json");
  const choices = ["--methods", "h2o,prefixkv:decode=none", "--stores", "int4:window=16"];
  const search = [...choices, "--sharing", 'kvsharer:sources={"1":0}', "--out", file];
  const args = ["fit", "--bytes", "4MiB,2100000", "--limit", "2", ...search];
  const { code, out, err, fake } = await cli(args, { interactive: true });
  assert.equal(code, 0, err);
  assert.match(
    out,
    /^bytes +used +perplexity +cache\n2\.0 MiB +1\.9 MiB +[\d.]+ +\[.*\]\n4\.0 MiB +.*\nfull +1\.9 MiB/,
  );
  assert.match(out, /wrote .*fit\.json\n$/);
  assert.match(err, /samples \[#{12}\.{12}\] 50 %.*search \[/s);
  const asked = fake.requests.map(({ request }) => (request as { cache?: unknown }).cache);
  for (const cache of [
    { method: "full" },
    { method: "h2o" },
    { method: "prefixkv", decode: "none" },
    { method: "kvsharer" },
  ])
    assert.ok(
      asked.some((stages) => JSON.stringify(stages).includes(JSON.stringify(cache).slice(0, -1))),
      cache.method,
    );
  const { fit } = JSON.parse((await cli([...args, "--json"])).out);
  assert.deepEqual(fit, JSON.parse(await readFile(file, "utf8")));
  const used = await cli(["describe", picture, "--fit", file]);
  assert.deepEqual(
    used.fake.requests.map(({ request }) => (request as { cache?: unknown }).cache),
    [fit.cache],
  );
  const other = await cli(["describe", picture, "--fit", file, "--method", "h2o"]);
  assert.equal(other.code, 2);
  assert.match(other.err, /--fit says the whole of the cache; leave out --method/);
});

test("methods lists the methods and the options of one", async () => {
  const { code, out } = await cli(["methods"]);
  assert.equal(code, 0);
  for (const { name, summary } of methods) assert.match(out, new RegExp(`^${name} +${summary}$`, "m"));
  const one = await cli(["methods", "streaming"]);
  assert.match(one.out, /^StreamingLLM \(streaming\): .*\nXiao et al/);
  assert.match(one.out, /--set positions=\.\.\. +`cache` rotates .* \(one of "true", "cache"; default "true"\)/);
  assert.match((await cli(["methods", "prefixkv"])).out, /^--calibration FILE +sizes found before/m);
  assert.doesNotMatch((await cli(["methods", "full"])).out, /--keep/);
  assert.deepEqual(JSON.parse((await cli(["methods", "--json"])).out).methods, methods);
});

test("inspect counts the positions of a picture", async () => {
  assert.match((await cli(["inspect", "/m"])).out, /images +144 tokens each, 168 px, patches of 14 px/);
  const { out } = await cli(["inspect", "/m", "--picture", "1920x1080"]);
  assert.match(out, /images +tokens by size, any size, patches of 14 px/);
  assert.match(out, /1920 x 1080 +80 tokens in 20 pieces, and 9 of text around them/);
  const { image } = JSON.parse((await cli(["inspect", "/m", "--picture", "90x80", "--json"])).out);
  assert.equal(image.picture.tokens, 4);
  for (const size of ["1920", "1920 x 1080", "x", "-1x5", "1e3x2", "100000x1"]) {
    const { code, err } = await cli(["inspect", "/m", `--picture=${size}`]);
    assert.equal(code, 2);
    assert.match(err, /--picture needs a size in pixels such as 1920x1080/);
  }
});

test("inspect says what fits", async () => {
  const text = await cli(["inspect", "/m", "--memory", "8GiB"]);
  assert.match(text.out, /architecture +LlavaForConditionalGeneration\nparameters +5,520,000/);
  assert.match(text.out, /in 8\.0 GiB +8\.0 GiB for the cache\n +557,\d{3} positions, 272 whole sequences/);
  const json = JSON.parse((await cli(["inspect", "/m", "--memory", "8GiB", "--json"])).out);
  assert.equal(json.source, "/m");
  assert.equal(json.fits.sequences, 272);
  assert.equal(JSON.parse((await cli(["inspect", "/m", "--json"])).out).fits, undefined);
  assert.deepEqual(whatFits({ weightBytes: 100, kvBytesPerToken: 10, maxPositions: 4 }, 190), {
    memory: 190,
    cache: 90,
    positions: 9,
    sequences: 2,
  });
  assert.equal(whatFits({ weightBytes: 100, kvBytesPerToken: 10, maxPositions: 4 }, 50).sequences, 0);
});

test("--binding names the door, which the load does not hear of", async () => {
  const fake = new FakeNative();
  const asked: unknown[] = [];
  const door = async (binding?: string, gpu?: string) => {
    asked.push(gpu === undefined ? binding : [binding, gpu]);
    return { native: fake, file: "native/fake.node" };
  };
  const commands = [["describe", picture], ["score", "--prompt", "a", "--answer", "b"], ["inspect", "/m"], ["doctor"]];
  for (const args of commands) await cli([...args, "--binding", "ffi"], { door });
  await cli(["inspect", "/m"], { door });
  assert.deepEqual(asked, ["ffi", "ffi", "ffi", "ffi", ["ffi", "cuda"], undefined]);
  for (const request of fake.loads) assert.deepEqual(Object.keys(request), ["source"]);
});

test("--device leads to the addon for CUDA, as load does", async () => {
  const asked: unknown[] = [];
  const door = async (_binding?: string, gpu?: string) => {
    asked.push(gpu);
    return { native: new FakeNative(), file: "native/fake.node" };
  };
  await cli(["describe", picture, "--device", "cuda:1"], { door });
  await cli(["score", "--prompt", "a", "--answer", "b", "--device", "cpu"], { door });
  await cli(["describe", picture, "--device", "auto"], { door });
  assert.deepEqual(asked, ["cuda:1", undefined, "cuda", undefined]);
});

test("doctor describes the sample and fails when the description is wrong", async () => {
  const good = Object.assign(new FakeNative(), {
    pieces: [" blue triangle, gray ring,", " green star, purple triangle"],
  });
  const healthy = await cli(["doctor"], { fake: good });
  assert.equal(healthy.code, 0);
  assert.match(healthy.out, /native +native\/fake\.node 0\.1\.0\ncpu +avx2\nthreads +2\ndevices +cpu/);
  assert.match(healthy.out, /self test +ok/);
  assert.match(healthy.out, /gpus +none\ngpu self test +never run: there is no GPU here that could be used\n/);
  assert.match(healthy.out, /\nno GPU: no NVIDIA driver\n/);
  const ill = await cli(["doctor", "--json"]);
  assert.equal(ill.code, 1);
  assert.match(JSON.parse(ill.out).selfTest.error.message, /misses: blue triangle/);
});

test("doctor runs its self test on the GPU too, and fails when that does", async () => {
  const pieces = [" blue triangle, gray ring,", " green star, purple triangle"];
  const check = async (answer: string[], args: string[] = []) => {
    const gpu = Object.assign(new FakeNative(), { devices: ["cpu", "cuda:0", "cuda:1"], pieces: answer });
    const door = async (_binding?: string, name?: string) => {
      return name
        ? { native: gpu, file: "cuda.node" }
        : { native: Object.assign(new FakeNative(), { pieces }), file: "cpu.node" };
    };
    return { ...(await cli(["doctor", ...args], { door })), loads: gpu.loads };
  };
  const healthy = await check(pieces);
  assert.equal(healthy.code, 0);
  assert.deepEqual(
    healthy.loads.map(({ device }) => device),
    ["cuda:0"],
  );
  assert.match(healthy.out, /cuda build +cuda\.node 0\.1\.0\ngpus +cuda:0, cuda:1\ngpu self test +ok/);
  const ill = await check([" nothing"], ["--json"]);
  const { ok, selfTest, cuda } = JSON.parse(ill.out);
  assert.deepEqual([ill.code, ok, selfTest.ok, cuda.selfTest.ok, cuda.reason], [1, false, true, false, null]);
  assert.match((await check([" nothing"])).out, /gpu self test +FAILED\n(?:.|\n)*error\[self-test\]: on the GPU: /);
});

test("doctor says where it looked for the build for CUDA, which may be missing", async () => {
  const pieces = [" blue triangle, gray ring,", " green star, purple triangle"];
  const attempts = [{ file: "native/x.cuda.node", reason: "no such file" }];
  const door = async (_binding?: string, name?: string) => {
    if (name) throw new DeviceError("device", "not there; npm run build:cuda", { device: name, attempts });
    return { native: Object.assign(new FakeNative(), { pieces }), file: "cpu.node" };
  };
  const { code, out } = await cli(["doctor"], { door });
  assert.equal(code, 0);
  assert.match(
    out,
    /cuda build +none that loads, see below\ngpus +none\n(?:.|\n)*no GPU: not there; npm run build:cuda\n/,
  );
  const { cuda } = JSON.parse((await cli(["doctor", "--json"], { door })).out);
  const reason = "not there; npm run build:cuda";
  assert.deepEqual(cuda, { file: null, version: null, devices: [], reason, attempts, selfTest: null });
});

test("doctor without an addon names the cure", async () => {
  const door = async (): Promise<never> => {
    throw missingAddon("linux-x64", [{ file: "native/x.node", reason: "not found" }]);
  };
  const { code, out } = await cli(["doctor"], { door });
  assert.equal(code, 1);
  assert.match(out, /error\[native-missing\]: .*npm run build:native/);
});

test("misuse exits with 2 and suggests", async () => {
  const misuse = async (args: string[], pattern: RegExp) => {
    const { code, err } = await cli(args);
    assert.equal(code, 2, args.join(" "));
    assert.match(err, pattern);
  };
  await misuse([], /prefixkv COMMAND/);
  await misuse(["descibe", picture], /error\[usage\]: unknown command `descibe`; did you mean `describe`\?/);
  await misuse(["--verison"], /did you mean `--version`/);
  await misuse(["describe", picture, "--max-token", "3"], /has no flag --max-token; did you mean `--max-tokens`\?/);
  await misuse(["describe", picture, "--zzz"], /has no flag --zzz\n/);
  await misuse(["describe", picture, "-x"], /has no flag -x/);
  await misuse(["describe"], /describe needs IMAGE/);
  await misuse(["describe", picture, "--max-tokens", "many"], /--max-tokens needs a whole number, not `many`/);
  await misuse(["describe", picture, "--seed"], /--seed needs a value: N/);
  await misuse(["describe", picture, "--json=yes"], /--json takes no value/);
  await misuse(["score", "--prompt", "a"], /score needs --answer TEXT/);
  await misuse(["score", "a", "--prompt", "a", "--answer", "b"], /does not take `a`/);
  await misuse(["inspect", "/a", "/b"], /does not take `\/b`/);
  await misuse(["inspect", "/a", "--memory", "lots"], /needs a size such as 512MiB or 8GiB/);
  await misuse(["describe", picture, "--keep", "0.5"], /--keep needs --method NAME/);
  await misuse(["describe", picture, "--method", "snapvk"], /unknown method `snapvk`; .*; did you mean `snapkv`\?/);
  for (const keep of ["0", "1.5", "256", "half", "-3tokens"])
    await misuse(["describe", picture, "--method", "h2o", `--keep=${keep}`], /--keep needs a share above 0/);
  await misuse(["describe", picture, "--method", "h2o", "--set", "sink=4"], /no option `sink`.*did you mean `sinks`\?/);
  await misuse(["describe", picture, "--method", "h2o", "--set", "sinks"], /--set needs NAME=VALUE, not `sinks`/);
  await misuse(["describe", picture, "--stage", "int4"], /--stage needs --method NAME/);
  await misuse(
    ["describe", picture, "--method", "full", "--stage", "h2o"],
    /--stage needs a stage, and h2o is a method/,
  );
  await misuse(["calibrate", picture], /calibrate needs --out FILE/);
  await misuse(["calibrate", picture, "--out", "x.json", "--keeps", "0.1,,0.2"], /--keeps needs shares/);
  await misuse(["fit", "--out", "x.json"], /fit needs --bytes LIST/);
  await misuse(["fit", "--out", "x.json", "--bytes", "1MiB,"], /--bytes needs sizes such as 32MiB/);
  await misuse(["fit", "--out", "x.json", "--bytes", "1MiB", "--objective", "x"], /--objective is ppl or kl/);
  await misuse(["fit", "--out", "x.json", "--bytes", "1MiB", "--stores", "int5"], /there is no method `int5`/);
  await misuse(["fit", "--out", "x.json", "--bytes", "1MiB", "--limit", "0"], /--limit needs a whole number from 1/);
  await misuse(["methods", "h20"], /did you mean `h2o`\?/);
  await misuse(["methods", "h2o", "knorm"], /does not take `knorm`/);
  const json = await cli(["describe", "--json"]);
  assert.deepEqual(JSON.parse(json.out), {
    error: { code: "usage", message: "describe needs IMAGE", details: { suggestion: null } },
  });
  assert.ok(new UsageError("x", "y").message.endsWith("did you mean `y`?"));
});

test("errors exit with 1, on standard error and with --json on standard output", async () => {
  const refusal = { code: "model-not-found", message: "model not found: /m", details: { path: "/m" } };
  const fake = Object.assign(new FakeNative(), { loadError: refusal });
  const { code, out, err } = await cli(["describe", picture, "--json"], { fake });
  assert.equal(code, 1);
  assert.equal(err, "error[model-not-found]: model not found: /m\n");
  assert.deepEqual(JSON.parse(out), { error: refusal });
  const missing = await cli(["describe", join(folder, "none.png")]);
  assert.deepEqual([missing.code, missing.out], [1, ""]);
  assert.match(missing.err, /^error\[image\]: cannot read the image .*none\.png: there is no such file\n$/);
  assert.ok((await cli(["describe", "none.png"], { color: true })).err.startsWith("\x1b[31merror[image]\x1b[0m: "));
});

test("Ctrl-C exits with 130 and frees the model", async () => {
  const fake = Object.assign(new FakeNative(), { stallAfter: 1 });
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 20);
  const { code, out, err } = await cli(["describe", picture], { fake, signal: controller.signal });
  assert.deepEqual([code, out, fake.closes], [130, "There", 1]);
  assert.match(err, /error\[aborted\]/);
});

test("help and version", async () => {
  const help = await cli(["--help"]);
  assert.equal(help.code, 0);
  for (const { name, summary, flags } of commands) {
    assert.ok(help.out.includes(summary));
    const own = await cli([name, "--help"]);
    assert.equal(own.code, 0);
    for (const flag of [...flags.map((one) => one.name), "json", "help"]) assert.ok(own.out.includes(`--${flag}`));
    assert.equal((await cli([name, "-h"])).out, own.out);
    assert.equal((await cli(["help", name])).out, own.out);
  }
  assert.match((await cli(["--version"])).out, /^\d+\.\d+\.\d+\n$/);
});

test("the progress bar shows on a terminal only and wipes itself", async () => {
  assert.equal(progressLine({ stage: "weights", done: 1, total: 2 }), "weights [############............] 50 %");
  assert.equal(progressLine({ stage: "weights", done: 0, total: 0 }), "weights [........................] 0 %");
  const shown = await cli(["describe", picture], { interactive: true });
  assert.match(shown.err, /^\rweights \[#{12}\.{12}\] 50 %\r +\r/);
  assert.doesNotMatch((await cli(["describe", picture])).err, /weights \[/);
  let text = "";
  const err = (line: string): void => {
    text += line;
  };
  const bar = new ProgressBar({ interactive: true, rewrite: (line: string) => err(`\r${line}`) } as Context);
  bar.clear();
  assert.equal(text, "");
});

test("sizes, times, counts and tables", () => {
  assert.deepEqual([0, 1023, 1024, 15_360, 150 * 1024, 2 ** 33].map(formatBytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "15.0 KiB",
    "150 KiB",
    "8.0 GiB",
  ]);
  assert.deepEqual(["8GiB", "512 mib", "1.5k", "10", "3B", "x", "-1", "1 parsec"].map(parseBytes), [
    2 ** 33,
    2 ** 29,
    1500,
    10,
    3,
    undefined,
    undefined,
    undefined,
  ]);
  assert.deepEqual([0.25, 12.4, 850, 2310].map(formatTime), ["0.3 ms", "12 ms", "850 ms", "2.31 s"]);
  assert.deepEqual([7, 1000, 5_520_000].map(formatCount), ["7", "1,000", "5,520,000"]);
  assert.equal(
    formatTable([
      ["a", "1"],
      ["bcd", "2"],
    ]),
    "a    1\nbcd  2\n",
  );
});

test("bars, shares and runs", () => {
  assert.equal(formatBars([0, 0.1, 0.5, 0.74, 1, 1.2]), "▁▁▄▆██");
  assert.equal(formatShare(0.5034), "50.3 %");
  assert.equal(formatRuns([0, 1, 2, 7, 9, 10]), "0-2 7 9-10");
  assert.equal(formatRuns([]), "");
});

test("suggestions are near or none", () => {
  assert.equal(distance("describe", "decsribe"), 1);
  assert.equal(nearest("temprature", ["temperature", "threads"]), "temperature");
  assert.equal(nearest("temp", ["temperature", "threads"]), "temperature");
  assert.equal(nearest("xyz", ["temperature", "threads"]), undefined);
  assert.equal(nearest("max_tokens", ["maxTokens", "max-pixels"]), "maxTokens");
  assert.equal(nearest("Max-Pixel", ["maxTokens", "max-pixels"]), "max-pixels");
  assert.equal(nearest("t", ["temperature", "threads"]), undefined);
  assert.equal(nearest("t".repeat(65), ["t".repeat(64)]), undefined);
});

test("describe --report asks for traces and writes the page and its charts", async () => {
  const file = join(folder, "report.html");
  const svg = join(folder, "svg");
  const { code, out, err, fake } = await cli([
    ...["describe", picture, "--report", file, "--svg", svg, "--method", "prefixkv", "--keep", "0.3"],
    ...["--compare", "h2o", "--compare", "full", "--max-tokens", "3"],
  ]);
  assert.equal(code, 0, err);
  assert.equal(out, "There is a star.\n");
  assert.match(err, /wrote .*report\.html/);
  assert.deepEqual(
    fake.requests.map(({ request }) => ("cache" in request ? [request.op, request.cache] : [request.op])),
    [
      ["trace", { method: "prefixkv", keep: 0.3 }],
      ["trace", { method: "h2o", keep: 0.3 }],
      ["trace", { method: "full" }],
    ],
  );
  assert.match(await readFile(file, "utf8"), /<title>prefixkv 0\.3: what stays of scene\.png<\/title>/);
  assert.match(await readFile(join(svg, "kept-per-layer.svg"), "utf8"), /^<svg /);
  // Without a method the plain cache answers, and PrefixKV is shown.
  const plain = await cli(["describe", picture, "--report", file]);
  assert.deepEqual(
    plain.fake.requests.map(({ request }) => ("cache" in request ? request.cache : undefined)),
    [undefined, { method: "prefixkv", keep: 0.5 }],
  );
  assert.match(await readFile(file, "utf8"), /<title>prefixkv 0\.5: /);
});

test("reports refuse what they cannot do before any work", async () => {
  const alone = await cli(["describe", picture, "--svg", folder]);
  assert.deepEqual([alone.code, alone.fake.requests.length], [2, 0]);
  assert.match(alone.err, /--svg needs --report FILE/);
  const nowhere = await cli(["describe", picture, "--report", join(folder, "no", "report.html")]);
  assert.deepEqual([nowhere.code, nowhere.fake.requests.length], [1, 0]);
  assert.match(nowhere.err, /its folder does not exist/);
  const unknown = await cli(["describe", picture, "--report", join(folder, "a.html"), "--compare", "snapvk"]);
  assert.deepEqual([unknown.code, unknown.fake.requests.length], [2, 0]);
  const empty = await cli(["report", folder, "--out", join(folder, "a.html")]);
  assert.equal(empty.code, 1);
  assert.match(empty.err, /is no folder of an evaluation: run\.json is missing/);
});
