// Every code of docs/errors.md, provoked: the table holds what is raised, and nothing else.
import assert from "node:assert/strict";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import * as evaluation from "../../ts/eval/index.ts";
import * as api from "../../ts/index.ts";
import type { Native } from "../../ts/native/contract.ts";
import { errorFromWire } from "../../ts/native/errors.ts";
import { readAll } from "../contract/doors.ts";
import { fail, HubServer, smallFiles } from "../kit/hub_server.ts";
import { root } from "../runtimes/spawn.ts";

const { custom, image, load, prefixkv, streaming } = api;
const prompt = "USER: Hello ASSISTANT:";
let folder: string;
let model: api.Model;
let server: HubServer;
let caches = 0;
const classes = new Map<string, unknown>([...Object.entries(api), ...Object.entries(evaluation)]);

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "prefixkv-codes-"));
  model = await load();
  server = await new HubServer(smallFiles()).start();
});

after(async () => {
  await model.dispose();
  await server.stop();
  await rm(folder, { recursive: true });
});

/** A load from the server, which answers what `path` matches as told. */
async function download(path?: RegExp, status = 200, options: object = {}, code = ""): Promise<unknown> {
  server.hook = (_, response, seen) => {
    if (path?.test(seen.path) !== true) return false;
    fail(response, status, code);
    return true;
  };
  const cacheDir = join(folder, `cache-${caches++}`);
  return load("org/tiny", { endpoint: server.endpoint, cacheDir, token: false, ...options });
}

/** A load of a folder with this config.json. */
async function loadWith(config: string): Promise<unknown> {
  await writeFile(join(folder, "config.json"), config);
  return load(folder);
}

/** Writes other bytes to the beginning of a tensor of model.safetensors. */
async function overwrite(dir: string, tensor: string, bytes: number[]): Promise<void> {
  const path = join(dir, "model.safetensors");
  const data = await readFile(path);
  const length = Number(data.readBigUInt64LE(0));
  const header = JSON.parse(data.toString("utf8", 8, 8 + length));
  data.set(bytes, 8 + length + header[tensor].data_offsets[0]);
  await writeFile(path, data);
}

/** Ways to provoke each code, through the public API. */
const cases: Record<string, () => Promise<unknown>> = {
  "model-not-found": () => load(join(folder, "nothing")),
  "model-file": () => loadWith("{"),
  "unsupported-model": () => loadWith('{ "architectures": ["OtherForCausalLM"] }'),
  numbers: async () => {
    const wide = join(folder, "wide");
    await cp(join(root, "tests", "golden", "fixtures", "llava-head128"), wide, { recursive: true });
    await overwrite(wide, "language_model.model.layers.0.mlp.down_proj.weight", [0xc3, 0x47]);
    return load(wide, { weights: "f16" });
  },
  image: () => model.generate({ messages: [{ role: "user", content: [image(new Uint8Array([1, 2, 3])), "?"] }] }),
  option: () => model.generate({ prompt, temperature: -1 }),
  prompt: () => model.generate({ prompt: "<image>\nWhat is it?" }),
  "context-overflow": () => model.generate({ prompt, maxTokens: 100_000 }),
  "out-of-memory": async () => {
    const small = await load(undefined, { cacheLimit: 1000 });
    return small.generate({ prompt }).finally(() => small.dispose());
  },
  budget: () => model.generate({ prompt, cache: streaming({ keep: { tokens: 2 } }) }),
  calibration: () => model.generate({ prompt, cache: prefixkv({ keep: 0.5, calibration: "llava-1.5-7b" }) }),
  plan: () => model.generate({ prompt, cache: custom({ plan: () => [[3, 1]] }) }),
  snapshot: () => model.restore(join(folder, "nothing.prefix")),
  // More than a machine has.
  device: () => load(undefined, { device: "cuda:999" }),
  aborted: () => model.generate({ prompt, signal: AbortSignal.abort() }),
  disposed: async () => {
    const gone = await load();
    await gone.dispose();
    return gone.tokenize("a");
  },
  // No input is known that makes the engine panic; this addon has a model that does.
  internal: async () => {
    const native = createRequire(import.meta.url)(join(root, ".cache", "panics.node")) as Native;
    const engine = native.open(JSON.stringify({ source: root }));
    await readAll(engine.loading());
    const event = (await readAll(engine.submit('{"op":"generate","prompt":"panic"}', []))).at(-1);
    await readAll(engine.close());
    throw event?.type === "error" ? errorFromWire(event.error) : new Error("no error");
  },
  consumed: async () => {
    const generation = model.generate({ prompt, maxTokens: 1 });
    for await (const _ of generation);
    for await (const _ of generation);
  },
  // The library in a folder without an addon.
  "native-missing": async () => {
    await cp(join(root, "ts"), join(folder, "ts"), { recursive: true });
    await writeFile(join(folder, "package.json"), '{ "type": "module" }');
    const alone = (await import(pathToFileURL(join(folder, "ts", "index.ts")).href)) as typeof api;
    return alone.about();
  },
  "hub-not-found": () => download(/nothing/, 200, { revision: "v9" }),
  "hub-unauthorized": () => download(/api/, 403, {}, "GatedRepo"),
  "hub-rate-limited": async () => {
    const busy = download();
    server.hook = (_, response) => Boolean(response.writeHead(429, { "retry-after": "3600" }).end());
    return busy;
  },
  "hub-network": () => download(/api/, 500),
  "hub-response": () => download(/api/, 418),
  "hub-integrity": () => {
    server.wrong.set("config.json", new TextEncoder().encode("{}"));
    return download();
  },
  "hub-files": () => {
    server.files = new Map([["README.md", new Uint8Array(1)]]);
    return download();
  },
  "hub-offline": () => download(undefined, 200, { offline: true }),
  "hub-disk": async () => {
    const file = join(folder, "a-file");
    await writeFile(file, "");
    return download(undefined, 200, { cacheDir: file });
  },
  fit: () => model.generate({ prompt, cache: "no-such-fit.json" }),
  "eval-data": async () => {
    const file = join(folder, "samples.jsonl");
    await writeFile(file, "{}\n");
    return evaluation.openData(file);
  },
  "eval-files": () => evaluation.readResults(folder),
};

/** The rows of the page: class and fields by code. */
async function table(): Promise<Map<string, { name: string; cells: string[]; fields: string[] }>> {
  const page = await readFile(join(root, "docs", "errors.md"), "utf8");
  const rows = [...page.matchAll(/^\| `([a-z-]+)` \| `(\w+)` \| (.+) \| (.+) \| (.+) \|$/gm)];
  return new Map(
    rows.map(([, code = "", name = "", cause = "", cure = "", details = ""]) => {
      const fields = [...details.matchAll(/(?:^|; )`(\w+)`:/g)].map(([, field = ""]) => field);
      return [code, { name, cells: [cause, cure], fields }];
    }),
  );
}

test("the table has a case for every code, and every code that the sources name", async () => {
  const codes = [...(await table()).keys()];
  assert.deepEqual(codes.toSorted(), Object.keys(cases).toSorted());
  const files = (await readdir(join(root, "ts"), { recursive: true })).filter((file) => file.endsWith(".ts"));
  const text = (await Promise.all(files.map((file) => readFile(join(root, "ts", file), "utf8")))).join("\n");
  const code = /\bnew \w+Error\(\s*"([a-z-]+)"|"((?:hub|native|eval)-[a-z-]+)"/g;
  const named = new Set([...text.matchAll(code)].map(([, first, second]) => first ?? second ?? ""));
  assert.ok(named.size > 12);
  assert.deepEqual([...named].filter((name) => !codes.includes(name)).toSorted(), []);
});

for (const [code, provoke] of Object.entries(cases)) {
  test(`${code} is raised as the table says`, async () => {
    server.reset();
    server.files = smallFiles();
    const error = await provoke().then(
      () => assert.fail("no error"),
      (thrown: unknown) => thrown as api.PrefixKvError,
    );
    const row = (await table()).get(code);
    assert.ok(row);
    assert.deepEqual([error.code, error.name], [code, row.name], error.message);
    assert.ok(error.message.length > 10 && row.cells.every((cell) => /^[A-Z].*\.$/.test(cell)));
    // A copy of the library has classes of its own.
    if (code !== "native-missing") assert.ok(error instanceof (classes.get(row.name) as typeof Error));
    const hub = code.startsWith("hub-") ? ["id", "revision", "url"] : [];
    assert.deepEqual(
      Object.keys(error.details).filter((field) => ![...row.fields, ...hub].includes(field)),
      [],
    );
  });
}
