// The page at `/`: its headers, its script without a document, and the kept patches that it draws.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { OpenaiOptions } from "../../ts/openai/index.ts";
import { script } from "../../ts/openai/page/script.ts";
import { fakeModels, native } from "../kit/fake_model.ts";
import { trace } from "../kit/fake_native.ts";
import { get, hello, post, refusal, serving } from "../kit/openai.ts";

const open = fakeModels();
const start = async (options: OpenaiOptions = {}) => serving(await open(native()), { page: true, ...options });

interface Functions {
  takeEvents(buffer: string): { events: unknown[]; rest: string };
  bytes(n: number): string;
  bodyOf(model: string, picture: string | null, question: string, method: string, keep: number, tokens: number): object;
  facts(cache: object, tokens: number, seconds: number): [string, string][];
  keptShare(cells: number[]): number;
}
const functions = new Function(`${script}\nreturn { takeEvents, bytes, bodyOf, facts, keptShare };`)() as Functions;

test("the page is one file whose policy lets it ask its own server and run its own script only", async () => {
  const server = await start({ keys: ["secret"] });
  const response = await get(server, "/");
  assert.equal(response.status, 200);
  const html = await response.text();
  assert.doesNotMatch(html, /https?:|\/\/\w+\.|@import|url\(/);
  assert.ok(html.length < 24_000, `${html.length}`);
  const policy = response.headers.get("content-security-policy") ?? "";
  for (const kind of ["script", "style"]) {
    const [, text = ""] = new RegExp(`<${kind}>(.*?)</${kind}>`, "s").exec(html) ?? [];
    assert.ok(text.length > 500);
    const hash = createHash("sha256").update(text).digest("base64");
    assert.ok(policy.includes(`${kind}-src 'sha256-${hash}'`), kind);
  }
  assert.match(policy, /default-src 'none'.*connect-src 'self'/);
  // Text of a model becomes text nodes, and no handler is in the markup.
  assert.doesNotMatch(script, /innerHTML|outerHTML|insertAdjacent|document\.write|eval\(/);
  assert.doesNotMatch(html, / on\w+=/);
  assert.doesNotMatch(html, /secret/);
});

test("every control of the page has a name, and every id that the script asks for is there", async () => {
  const html = await (await get(await start(), "/")).text();
  const ids = new Set([...html.matchAll(/ id="(\w+)"/g)].map(([, id]) => id));
  for (const [, id] of script.matchAll(/\$\("(\w+)"\)/g)) assert.ok(ids.has(id), id);
  for (const [, id] of html.matchAll(/<(?:input|select|textarea)[^>]* id="(\w+)"/g)) {
    assert.ok(html.includes(`for="${id}"`), `${id} has no label`);
  }
  assert.match(html, /<html lang="en">/);
  assert.match(html, /role="status"/);
  const names = [...html.matchAll(/<option value="(\w+)">/g)].map(([, name]) => name);
  // Both choices have every method.
  assert.equal(names.length, 2 * new Set(names).size);
  assert.ok(names.includes("prefixkv") && names.includes("h2o") && !names.includes("int8"), names.join());
  const few = await (await get(await start({ methods: ["h2o", "int8"] }), "/")).text();
  assert.deepEqual(
    [...few.matchAll(/<option value="(\w+)">/g)].map(([, name]) => name),
    ["h2o", "h2o"],
  );
});

test("without the option there is no page and no kept patches", async () => {
  const server = await start({ page: false });
  assert.deepEqual(await refusal(get(server, "/")), [404, "not_found", null]);
  assert.deepEqual(await refusal(post(server, hello, { path: "/v1/kept" })), [404, "not_found", null]);
});

test("the script reads the server's own stream, however it is cut", async () => {
  const server = await start();
  const body = functions.bodyOf("prefixkv", "data:image/png;base64,AAAA", "What?", "prefixkv", 0.5, 7) as Record<
    string,
    unknown
  >;
  const response = await post(server, { ...body, stream: true, stream_options: { include_usage: true } });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  for (const size of [1, 5, 64, 10_000]) {
    let [buffer, said] = ["", ""];
    let last: { usage?: { completion_tokens: number }; prefixkv?: { method: string } } = {};
    for (let at = 0; at < text.length; at += size) {
      const { events, rest } = functions.takeEvents(buffer + text.slice(at, at + size));
      buffer = rest;
      for (const event of events as { choices: { delta: { content?: string } }[] }[]) {
        said += event.choices[0]?.delta.content ?? "";
        last = event as typeof last;
      }
    }
    assert.deepEqual([said, last.usage?.completion_tokens, last.prefixkv?.method], ["There is a star.", 3, "prefixkv"]);
  }
  assert.equal((functions.bodyOf("m", null, "x", "", 1, 5) as { prefixkv?: unknown }).prefixkv, undefined);
  assert.deepEqual(functions.takeEvents(": waiting\n\ndata: [DONE]\n\n"), { events: [], rest: "" });
});

test("the script shows bytes, speeds and shares", () => {
  assert.deepEqual([0, 1023, 1024, 3 * 2 ** 20, 5 * 2 ** 40].map(functions.bytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "3.0 MiB",
    "5120.0 GiB",
  ]);
  const cache = { ttft_ms: 12.4, resident_bytes: 512, full_bytes: 2048, kept: 0.25 };
  assert.deepEqual(functions.facts(cache, 11, 2), [
    ["first token", "12 ms"],
    ["speed", "5.0 tokens/s"],
    ["cache", "512 B of 2.0 KiB"],
    ["memory saved", "75 %"],
    ["entries kept", "25 %"],
  ]);
  assert.deepEqual([functions.keptShare([1, 0, 0.5, 0.5]), functions.keptShare([])], [0.5, 0]);
});

test("the kept patches of each layer are those of the trace, and wait for their turn", async () => {
  const server = await start({ keys: ["k"] });
  assert.equal((await post(server, hello, { path: "/v1/kept" })).status, 401);
  const response = await post(
    server,
    { ...hello, prefixkv: { method: "prefixkv", keep: 0.5 } },
    {
      ...{ path: "/v1/kept", headers: { "x-api-key": "k" } },
    },
  );
  const kept = (await response.json()) as {
    text: string;
    images: { rows: number; columns: number; layers: number[][] }[];
  };
  assert.equal(kept.text, trace.text);
  const [image = assert.fail()] = kept.images;
  assert.deepEqual([image.rows, image.columns, image.layers.length], [12, 12, 2]);
  // The picture begins at position 5: the first layer keeps even positions, the second the first hundred.
  assert.deepEqual(
    image.layers[0],
    Array.from({ length: 144 }, (_, cell) => ((cell + 5) % 2 === 0 ? 1 : 0)),
  );
  assert.deepEqual(
    image.layers[1],
    Array.from({ length: 144 }, (_, cell) => (cell + 5 < 100 ? 1 : 0)),
  );
  assert.deepEqual(
    await refusal(post(server, { ...hello, n: "x" }, { path: "/v1/kept", headers: { "x-api-key": "k" } })),
    [...[400, "invalid_value", "n"]],
  );
});
