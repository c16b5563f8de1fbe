import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { createContext, runInContext } from "node:vm";
import { checkThrough } from "../../ts/check_device.ts";
import * as evaluation from "../../ts/eval/index.ts";
import { about, checkDevice, inspect, load, OptionError, PrefixKvError, prefixkv } from "../../ts/index.ts";
import { inspectModel, openModel } from "../../ts/load.ts";
import { describeReport, evalReport } from "../../ts/report/index.ts";
import { FakeNative } from "../kit/fake_native.ts";
import { hostileValues } from "../kit/hostile_values.ts";

type Options = Record<string, unknown>;

interface Call {
  /** Options that are right. */
  base: Options;
  /** Every option that there is, and under which name the engine gets it, if it does. */
  options: readonly string[];
  run(fake: FakeNative, options: unknown): Promise<unknown>;
  /** The request that was sent for this call. */
  sent(fake: FakeNative): readonly object[];
}

const sampling = [
  "specialTokens",
  "maxTokens",
  "temperature",
  "topK",
  "topP",
  "minP",
  "repetitionPenalty",
  "seed",
  "stop",
  "ignoreEos",
];
const prompt = ["messages", "specialTokens", "prompt", "images"];
const requests = (fake: FakeNative): readonly object[] =>
  fake.requests.map(({ request }) => request).filter(({ op }) => op !== "close-session");

async function withModel<T>(fake: FakeNative, use: (model: Awaited<ReturnType<typeof openModel>>) => Promise<T>) {
  const model = await openModel(fake);
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

const calls: Record<string, Call> = {
  generate: {
    base: { prompt: "Hi" },
    options: [...prompt, ...sampling, "cache", "signal"],
    run: (fake, options) => withModel(fake, async (model) => model.generate(options as never)),
    sent: requests,
  },
  "generate by iteration": {
    base: { prompt: "Hi" },
    options: [...prompt, ...sampling, "cache", "signal"],
    run: (fake, options) => withModel(fake, (model) => Array.fromAsync(model.generate(options as never))),
    sent: requests,
  },
  trace: {
    base: { prompt: "Hi" },
    options: [...prompt, ...sampling, "cache", "signal"],
    run: (fake, options) => withModel(fake, (model) => model.trace(options as never)),
    sent: requests,
  },
  score: {
    base: { prompt: "Hi", answer: "Ho" },
    options: [...prompt, "answer", "cache", "kept", "kl", "signal"],
    run: (fake, options) => withModel(fake, (model) => model.score(options as never)),
    sent: requests,
  },
  chat: {
    base: {},
    options: [...sampling, "cache"],
    run: (fake, options) =>
      withModel(fake, async (model) => {
        const chat = model.chat(options as never);
        await chat.send("Hi");
      }),
    sent: requests,
  },
  send: {
    base: {},
    options: [...sampling, "signal"],
    run: (fake, options) => withModel(fake, async (model) => model.chat().send("Hi", options as never)),
    sent: (fake) => requests(fake).filter((request) => (request as { op?: string }).op === "turn"),
  },
  calibrate: {
    base: { method: prefixkv(), samples: [{ prompt: "Hi" }], keeps: [0.5] },
    options: ["method", "samples", "keeps", "file", "onProgress", "signal"],
    run: (fake, options) => withModel(fake, (model) => model.calibrate(options as never)),
    sent: requests,
  },
  tokenize: {
    base: {},
    options: ["addSpecialTokens"],
    run: (fake, options) => withModel(fake, (model) => model.tokenize("Hi", options as never)),
    sent: requests,
  },
  detokenize: {
    base: {},
    options: ["skipSpecialTokens"],
    run: (fake, options) => withModel(fake, (model) => model.detokenize([1], options as never)),
    sent: requests,
  },
  load: {
    base: {},
    options: [
      "device",
      "adapter",
      "weights",
      "map",
      "vision",
      "threads",
      "batch",
      "prefillChunk",
      "cacheLimit",
      "prefixCache",
      "rotateValues",
      "images",
      "revision",
      "token",
      "offline",
    ].concat(["cacheDir", "endpoint", "signal", "onProgress"]),
    run: async (fake, options) => (await openModel(fake, "/m", options as never)).dispose(),
    // A path reaches the engine whole.
    sent: (fake) =>
      fake.loads.map(({ vision, ...load }) => ({
        ...load,
        ...(vision !== undefined && { vision: vision && relative(process.cwd(), vision) }),
      })),
  },
  inspect: {
    base: {},
    options: ["revision", "token", "offline", "cacheDir", "endpoint", "signal", "onProgress"],
    run: (fake, options) => inspectModel(fake, "/m", options as never),
    sent: () => [],
  },
  checkDevice: {
    base: {},
    options: ["ceilings", "onProgress", "signal"],
    run: (fake, options) => checkThrough(fake, "cuda", options as never),
    sent: (fake) => fake.checks,
  },
};

/** The outcome of a call, and the request that reached the engine. */
async function outcome(call: Call, options: unknown): Promise<{ error?: unknown; sent: readonly object[] }> {
  const fake = new FakeNative();
  try {
    await call.run(fake, options);
    return { sent: call.sent(fake) };
  } catch (error) {
    return { error, sent: call.sent(fake) };
  }
}

function checkRefusal(error: unknown, what: string): asserts error is PrefixKvError {
  assert.ok(error instanceof PrefixKvError, `${what}: ${String(error)}`);
  assert.match(error.code, /^(option|prompt|image|calibration)$/, `${what}: ${error.message}`);
  assert.ok(error.message.length < 500, `${what}: ${error.message.length} characters`);
  assert.ok(JSON.stringify(error.details).length < 500, what);
}

/** The calls' own names and forms for what they are given. */
const internal: Record<string, string> = { samples: "prompt", method: "cache" };
/** Options that never reach the engine. */
const local = /^(signal|onProgress|file|revision|token|offline|cacheDir|endpoint|images|samples|adapter)$/;

for (const [name, call] of Object.entries(calls)) {
  test(`${name}: no value of any option is dropped or changed on the way`, async () => {
    for (const option of call.options) {
      for (const [kind, make] of Object.entries(hostileValues)) {
        const what = `${name}({ ${option}: ${kind} })`;
        const value = make();
        // A path is written to, and a class is as good a function as any until it is called.
        if (
          (option === "file" && typeof value === "string" && value !== "") ||
          (option === "onProgress" && kind === "class")
        )
          continue;
        const base = option === "messages" ? { ...call.base, prompt: undefined } : call.base;
        const { error, sent } = await outcome(call, { ...base, [option]: value });
        if (error === undefined) {
          if (local.test(option)) continue;
          // Every option that was taken must have been sent, and say the same.
          const got = sent.map((request) => (request as Options)[internal[option] ?? option]);
          const expected = value === "\ud83d" ? "\ufffd" : value;
          const same = got.some((found) => isDeepStrictEqual(found, expected) || found === expected || found === 0);
          const cache = option === "method" && got.length > 0;
          assert.ok(same || cache, `${what} became ${JSON.stringify(got)}`);
        } else {
          checkRefusal(error, what);
          if (error.code === "option" && option !== "messages") {
            assert.ok(error.message.includes(option), `${what}: ${error.message}`);
          }
          assert.deepEqual(
            sent.filter((request) => (request as Options).op !== "open-session"),
            [],
            what,
          );
        }
      }
      // A field that is there but undefined is as good as absent.
      if (Object.hasOwn(call.base, option)) continue;
      const { error, sent } = await outcome(call, { ...call.base, [option]: undefined });
      assert.equal(error, undefined, `${name}({ ${option}: undefined }): ${String(error)}`);
      for (const request of sent) assert.ok(!Object.hasOwn(request, option), `${name}: ${option}`);
    }
  });

  test(`${name}: what is no plain object of options is refused`, async () => {
    for (const [kind, make] of Object.entries(hostileValues)) {
      const { error, sent } = await outcome(call, make());
      if (kind === "empty object" && error === undefined) continue;
      if (error === undefined) assert.fail(`${name}(${kind}) was taken`);
      if (kind !== "empty object" || !/needs/.test(String(error))) checkRefusal(error, `${name}(${kind})`);
      assert.deepEqual(
        sent.filter((request) => (request as Options).op !== "open-session"),
        [],
        kind,
      );
    }
  });

  test(`${name}: no field of the engine can be set, by name, by prototype or by spread`, async () => {
    const fields = [
      "op",
      "session",
      "source",
      "closeWithThread",
      "keeps",
      "tokens",
      "text",
      "type",
      "index",
      "device",
      "id",
    ];
    for (const field of fields.filter((field) => !call.options.includes(field))) {
      for (const value of [1, "generate", "close-session", true, {}, null]) {
        const what = `${name}({ ${field}: ${JSON.stringify(value)} })`;
        const body = JSON.parse(JSON.stringify({ ...call.base, [field]: value })) as object;
        const { error, sent } = await outcome(call, { ...body, ...call.base });
        assert.ok(error instanceof OptionError, `${what}: ${String(error)}`);
        assert.match(error.message, new RegExp(`has no \`${field}\``), what);
        assert.deepEqual(
          sent.filter((request) => (request as Options).op !== "open-session"),
          [],
          what,
        );
      }
    }
    const own = JSON.parse('{"__proto__": {"session": 1}, "constructor": {"prototype": {"op": "score"}}}') as object;
    const { error } = await outcome(call, Object.defineProperties({}, Object.getOwnPropertyDescriptors(own)));
    assert.ok(error instanceof OptionError, `${name}: ${String(error)}`);
  });
}

test("fields of the engine on Object.prototype are not options", async () => {
  const polluted = Object.prototype as unknown as Options;
  for (const field of ["session", "op", "closeWithThread", "cache"]) polluted[field] = field === "cache" ? 5 : 1;
  try {
    for (const [name, call] of Object.entries(calls)) {
      const { error, sent } = await outcome(call, call.base);
      assert.equal(error, undefined, `${name}: ${String(error)}`);
      for (const request of sent) {
        if (name !== "send" && name !== "chat") assert.ok(!Object.hasOwn(request, "session"), name);
        if (!/calibrate/.test(name)) assert.ok(!Object.hasOwn(request, "cache"), name);
      }
    }
  } finally {
    for (const field of ["session", "op", "closeWithThread", "cache"]) delete polluted[field];
  }
});

test("the calls outside of a model refuse the same", async () => {
  for (const [kind, make] of Object.entries(hostileValues)) {
    if (kind === "empty object") continue;
    for (const [name, run] of Object.entries({
      load: () => load("/none/such", make() as never),
      inspect: () => inspect("/none/such", make() as never),
      about: () => about(make() as never),
      checkDevice: () => checkDevice("cuda", make() as never),
    })) {
      checkRefusal(
        await run().then(
          () => undefined,
          (error: unknown) => error,
        ),
        `${name}(${kind})`,
      );
    }
    if (typeof make() === "string") continue;
    for (const run of [load, inspect] as ((source: never) => Promise<unknown>)[]) {
      checkRefusal(
        await run(make() as never).then(
          () => undefined,
          (error: unknown) => error,
        ),
        `${run.name}(${kind})`,
      );
    }
  }
});

test("evaluations and reports refuse what they cannot mean, before they write anything", async () => {
  const never = Object.entries(hostileValues).filter(
    ([kind]) => !/text|number|true|false|surrogate|^empty (array|object)|zero/.test(kind),
  );
  const refused = async (what: string, run: () => Promise<unknown>): Promise<void> => {
    const error = await run().then(
      () => undefined,
      (error: unknown) => error,
    );
    assert.ok(error instanceof PrefixKvError, `${what}: ${String(error)}`);
    assert.ok(error.message.length < 500, what);
  };
  const fake = new FakeNative();
  const model = await openModel(fake);
  const out = join(tmpdir(), `prefixkv-options-${process.pid}`);
  const base = { model, data: { name: "d", samples: [] }, methods: ["h2o"], keeps: [0.5], out };
  const options = [
    "model",
    "source",
    "load",
    "data",
    "methods",
    "keeps",
    "out",
    "limit",
    "baseline",
    "generate",
    "maxTokens",
  ];
  for (const [kind, make] of never) {
    await refused(`evaluate(${kind})`, async () => evaluation.evaluate(make() as never));
    await refused(`reproduce(${kind})`, async () => evaluation.reproduce(make() as never));
    await refused(`openData(${kind})`, async () => evaluation.openData(make() as never));
    await refused(`openData("scenes", ${kind})`, async () => evaluation.openData("scenes", make() as never));
    await refused(`readResults(${kind})`, async () => evaluation.readResults(make() as never));
    await refused(`parseMethod(${kind})`, async () => evaluation.parseMethod(make() as never));
    await refused(`evalReport(${kind})`, async () => evalReport(make() as never));
    await refused(`describeReport(${kind})`, async () => describeReport(make() as never));
    for (const option of [...options, "kl", "seed", "signal", "onProgress"]) {
      if (option === "onProgress" && /function|class/.test(kind)) continue;
      const asked = { ...base, [option]: make() } as never;
      await refused(`evaluate({ ${option}: ${kind} })`, async () => evaluation.evaluate(asked));
    }
  }
  await refused("an unknown option", async () => evaluation.evaluate({ ...base, keep: 0.5 } as never));
  assert.equal(existsSync(out), false);
  assert.deepEqual(fake.requests, []);
  await model.dispose();
});

test("the methods' constructors refuse at once what they could not send", async () => {
  const api = (await import("../../ts/index.ts")) as unknown as Record<string, (options: unknown) => object>;
  const { methods } = await import("../../ts/generated/method_table.ts");
  for (const { name, options } of methods.filter(({ name }) => name !== "full")) {
    for (const [kind, make] of Object.entries(hostileValues)) {
      if (!/^(empty object|own __proto__)$/.test(kind))
        assert.throws(() => api[name]?.(make()), OptionError, `${name}(${kind})`);
      for (const option of ["keep", ...options.map(({ name }) => name)]) {
        const what = `${name}({ ${option}: ${kind} })`;
        const value = make();
        let made: Options;
        try {
          made = api[name]?.({ [option]: value }) as Options;
        } catch (error) {
          checkRefusal(error, what);
          assert.ok(error.message.includes(option), `${what}: ${error.message}`);
          continue;
        }
        const expected = value === "\ud83d" ? "\ufffd" : Object.is(value, -0) ? 0 : value;
        assert.ok(isDeepStrictEqual(made[option], expected), what);
        assert.deepEqual(structuredClone(made), made, what);
      }
    }
  }
});

test("a method that was not called, its name, a signal's controller: the error says what was meant", async () => {
  const api = (await import("../../ts/index.ts")) as unknown as Record<string, unknown>;
  const { methods } = await import("../../ts/generated/method_table.ts");
  const refused = async (options: object, pattern: RegExp, suggestion?: string): Promise<void> => {
    const { error, sent } = await outcome(calls.generate as Call, { prompt: "Hi", ...options });
    assert.ok(error instanceof OptionError, String(error));
    assert.match(error.message, pattern);
    if (suggestion !== undefined) assert.equal(error.details.suggestion, suggestion);
    assert.deepEqual(sent, []);
  };
  for (const { name, budget } of methods) {
    const call = budget === "outcome" ? `${name}\\(\\)` : `${name}\\(\\{ keep: 0\\.5 \\}\\)`;
    await refused(
      { cache: api[name] },
      new RegExp(`\`cache\` of generate is the function ${name} itself; call it: ${call}$`),
      name,
    );
    await refused({ cache: [api[name]] }, new RegExp(`\`cache\\[0\\]\` of generate .*call it: ${call}$`), name);
    await refused({ cache: name }, new RegExp(`name of a method; call the method: ${call}$`), name);
  }
  await refused({ signal: new AbortController() }, /pass controller\.signal, not the controller/);
  await refused({ images: "scene.png" }, /write images: \[image\(source\)\]/);
  await refused({ seed: 5n }, /`seed` of generate must be a whole number, found 5n, a BigInt; write a number/);
  await refused({ stop: "end" }, /`stop` of generate must be an array of strings, found "end"/);
  await refused({ stop: ["a", "b", 3] }, /`stop\[2\]` of generate must be a string, found 3/);
  await refused({ max_tokens: 3 }, /did you mean `maxTokens`/, "maxTokens");
  await refused(
    { cache: { method: "h2o", keep: Math.random } },
    /`cache\.keep` of generate must be a share.*found the function random/,
  );
  await refused({ cache: { method: "h2o", keep: "0.5" } }, /`cache\.keep` of generate must be a share.*, found "0\.5"/);
  await refused(
    { cache: { method: "h2o", keep: 1, sinks: "4" } },
    /`cache\.sinks` .* a whole number from 0.*, found "4"/,
  );
  await refused(
    { cache: [{ method: "snapkv", keep: 1, pool: 5 }] },
    /`cache\[0\]\.pool` .* one of "max", "mean", "none", found 5/,
  );
  await refused(
    { cache: { method: "h2o", keep: 1, protectText: 1 } },
    /`cache\.protectText` .* true or false, found 1/,
  );
  await refused(
    { cache: { method: "h2o", keep: { tokens: Number.NaN } } },
    /`cache\.keep\.tokens` of generate must be a finite number, found NaN/,
  );
});

test("options of another realm are as good as our own", async () => {
  const realm = createContext({});
  for (const code of [
    '({ prompt: "Hi", stop: ["a"], cache: { method: "h2o", keep: { tokens: 7 } } })',
    'Object.assign(Object.create(null), { prompt: "Hi", stop: ["a"], cache: [{ method: "h2o", keep: { tokens: 7 } }] })',
    'JSON.parse(\'{"messages": [{"role": "user", "content": ["Hi"]}], "stop": ["a"], "cache": {"method": "h2o", "keep": 0.5}}\')',
  ]) {
    const { error, sent } = await outcome(calls.generate as Call, runInContext(code, realm));
    assert.equal(error, undefined, String(error));
    const [request] = sent as Options[];
    assert.deepEqual(request?.stop, ["a"]);
    assert.ok(request?.cache !== undefined);
  }
  const frozen = Object.freeze({ prompt: "Hi", stop: Object.freeze(["a"]) });
  assert.equal((await outcome(calls.generate as Call, new Proxy(frozen, {}))).error, undefined);
});

test("a text that no request can hold is refused before it is copied", async () => {
  const huge = "x".repeat(300_000_000);
  const before = process.memoryUsage().rss;
  for (const options of [
    { prompt: huge },
    { messages: [{ role: "user", content: huge }] },
    { messages: [{ role: "user", content: [huge] }] },
    { prompt: "Hi", stop: [huge] },
  ]) {
    const { error } = await outcome(calls.generate as Call, options);
    assert.ok(error instanceof OptionError && /300000000 characters/.test(error.message), String(error));
  }
  assert.ok(process.memoryUsage().rss - before < 100e6, String(process.memoryUsage().rss - before));
  const many = Array.from({ length: 100 }, () => ({ role: "user", content: "x".repeat(100_000) }));
  const { error } = await outcome(calls.generate as Call, { messages: many });
  assert.ok(error instanceof OptionError && /`messages\[83\]\.content`/.test(error.message), String(error));
});
