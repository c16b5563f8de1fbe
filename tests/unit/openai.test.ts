import assert from "node:assert/strict";
import { test } from "node:test";
import type { WireEvent } from "../../ts/generated/wire.ts";
import { DeviceError, OptionError, prefixkv } from "../../ts/index.ts";
import type { OpenaiOptions } from "../../ts/openai/index.ts";
import { fakeModels, native } from "../kit/fake_model.ts";
import { type FakeNative, memory, timings, usage } from "../kit/fake_native.ts";
import { dataOf, type Failure, get, hello, post, refusal, serving } from "../kit/openai.ts";

const open = fakeModels();
const start = async (options: OpenaiOptions = {}, fake: FakeNative = native()) => ({
  fake,
  server: serving(await open(fake), options),
});
const until = async (met: () => boolean): Promise<void> => {
  for (let turn = 0; turn < 400 && !met(); turn++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(met());
};
const png = `data:image/png;base64,${Buffer.from([1, 2, 3]).toString("base64")}`;
const showing = (image_url: unknown) => ({
  ...hello,
  messages: [{ role: "user", content: [{ type: "image_url", image_url }] }],
});

test("fields become the library's options, and pictures come as objects and as bare strings", async () => {
  const { server, fake } = await start({ methods: ["prefixkv"] });
  const content = [
    { type: "text", text: "Two:" },
    { type: "image_url", image_url: { url: png, detail: "low" } },
    { type: "image_url", image_url: png },
  ];
  const response = await post(server, {
    ...hello,
    messages: [
      { role: "developer", content: "Be brief." },
      { role: "user", content },
    ],
    ...{ max_tokens: 7, max_completion_tokens: 5, temperature: 0.5, top_p: 0.9, top_k: -1, min_p: 0.1, seed: 3 },
    ...{ stop: "x", repetition_penalty: 1.1, ignore_eos: true, prefixkv: { method: "prefixkv", keep: 0.5 } },
  });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("x-prefixkv-ignored"), null);
  const [{ request, images } = assert.fail()] = fake.requests;
  assert.deepEqual(request, {
    op: "generate",
    messages: [
      { role: "system", content: "Be brief." },
      {
        role: "user",
        content: [
          { type: "text", text: "Two:" },
          { type: "image", index: 0 },
          { type: "image", index: 1 },
        ],
      },
    ],
    ...{ maxTokens: 5, temperature: 0.5, topP: 0.9, topK: 0, minP: 0.1, seed: 3 },
    ...{ stop: ["x"], repetitionPenalty: 1.1, ignoreEos: true, cache: { method: "prefixkv", keep: 0.5 } },
  });
  assert.deepEqual(
    images.map((image) => [...image]),
    [
      [1, 2, 3],
      [1, 2, 3],
    ],
  );
  const body = (await response.json()) as Record<string, unknown>;
  assert.match(String(body.id), /^chatcmpl-\w{32}$/);
  assert.deepEqual(body.usage, {
    prompt_tokens: 160,
    completion_tokens: 3,
    total_tokens: 163,
    prompt_tokens_details: { cached_tokens: 0, image_tokens: 144, text_tokens: 16 },
  });
  assert.equal((body.prefixkv as { method: string }).method, "prefixkv");
});

test("choices take one seed after the other, and the usage counts the prompt once", async () => {
  const { server, fake } = await start();
  const response = await post(server, { ...hello, n: 3, seed: 40, temperature: 1 });
  const body = (await response.json()) as { choices: { index: number }[]; usage: Record<string, unknown> };
  assert.deepEqual(
    body.choices.map(({ index }) => index),
    [0, 1, 2],
  );
  assert.deepEqual(
    fake.requests.map(({ request }) => (request as { seed?: number }).seed),
    [40, 41, 42],
  );
  assert.deepEqual([body.usage.prompt_tokens, body.usage.completion_tokens], [160, 9]);
});

test("fields without effect are named, and refused where that is asked for", async () => {
  const { server } = await start();
  const neutral = {
    ...{
      user: "u",
      store: true,
      logprobs: false,
      frequency_penalty: 0,
      logit_bias: {},
      tools: [],
      tool_choice: "auto",
    },
    ...{ modalities: ["text"], response_format: { type: "text" }, something: 1, stop: null, top_logprobs: null },
  };
  const response = await post(server, { ...hello, ...neutral, "bad\r\nname": 1 });
  assert.equal(response.status, 200);
  assert.equal(
    response.headers.get("x-prefixkv-ignored"),
    "user, store, logit_bias, modalities, response_format, something, (an odd name)",
  );
  const strict = (await start({ strict: true })).server;
  assert.equal((await post(strict, { ...hello, user: "u" })).status, 200);
  assert.deepEqual(await refusal(post(strict, { ...hello, odd: 1 })), [400, "unsupported_parameter", "odd"]);
});

test("fields that would change the answer are refused", async () => {
  const { server, fake } = await start();
  for (const [param, value] of Object.entries({
    ...{ logit_bias: { 5: 1 }, tool_choice: "required", functions: [{}], function_call: { name: "f" } },
    ...{ response_format: { type: "json_object" }, modalities: ["text", "audio"], audio: {}, web_search_options: {} },
    ...{ moderation: {}, chat_template: "{{ x }}", chat_template_kwargs: { a: 1 }, guided_json: {} },
  })) {
    const found = await refusal(post(server, { ...hello, [param]: value }));
    assert.deepEqual(found, [400, "unsupported_parameter", param]);
  }
  for (const part of [{ type: "input_audio" }, { type: "file" }, { type: "video_url", video_url: { url: png } }]) {
    const [status, code] = await refusal(post(server, { ...hello, messages: [{ role: "user", content: [part] }] }));
    assert.deepEqual([status, code], [400, "unsupported_parameter"]);
  }
  assert.equal(fake.requests.length, 0);
});

test("hostile numbers, texts and messages are refused before any work", async () => {
  const { server, fake } = await start();
  const raw = (field: string) => `{"model":"prefixkv","messages":[{"role":"user","content":"Hi"}],${field}}`;
  for (const field of [
    ...['"temperature":1e999', '"temperature":-1', '"temperature":"NaN"', '"temperature":[]', '"top_p":-1e999'],
    ...['"n":1000', '"n":0', '"n":1.5', '"n":9', '"max_tokens":0', '"max_tokens":-1', '"max_tokens":1e30'],
    ...['"seed":-1', '"seed":1.5', '"seed":9007199254740993', '"top_k":-2', '"top_k":0.5', '"min_p":2', '"min_p":{}'],
    ...['"stop":["","a"]', '"stop":[1]', '"stop":["a","b","c","d","e"]', `"stop":"${"s".repeat(257)}"`],
    ...['"stream":"yes"', '"stream_options":{"include_usage":true}', '"stream":true,"stream_options":[]'],
    ...['"frequency_penalty":2.5', '"presence_penalty":-2.5', '"logprobs":1', '"logprobs":true,"top_logprobs":21'],
    ...['"top_logprobs":2', '"tools":{}', '"tools":[{"type":"web_search"}]', '"tools":[{"type":"function"}]'],
    ...[
      '"tools":[{"type":"function","function":{"name":"a b"}}]',
      `"tools":[${'{"type":"function","function":{"name":"f"}},'.repeat(128)}{"type":"function","function":{"name":"f"}}]`,
    ],
    `"tools":[{"type":"function","function":{"name":"f","parameters":{"x":"${"x".repeat(70_000)}"}}}]`,
    ...['"prefixkv":"prefixkv"', '"prefixkv":[]', '"prefixkv":{"method":"/etc/passwd"}', '"prefixkv":{}'],
    '"prefixkv":{"method":"prefixkv","keep":0.5,"calibration":"/etc/passwd"}',
  ]) {
    const [status, code] = await refusal(post(server, raw(field)));
    assert.deepEqual([field, status, code], [field, 400, "invalid_value"]);
  }
  for (const messages of [
    ...[undefined, [], {}, "Hi", [null], ["Hi"], [{ role: "user" }], [{ role: "user", content: null }]],
    ...[[{ role: "root", content: "Hi" }], [{ role: "user", content: [] }], [{ role: "user", content: [1] }]],
    [{ role: "user", content: [{ type: "text", text: 5 }] }],
    [{ role: "assistant", tool_calls: [{}] }],
    [{ role: "assistant", tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: "{" } }] }],
    [{ role: "assistant", tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: "[]" } }] }],
    [{ role: "user", content: [{ type: "image_url", image_url: 5 }] }],
  ]) {
    const [status, code] = await refusal(post(server, { ...hello, messages }));
    assert.deepEqual([status, code], [400, "invalid_value"], JSON.stringify(messages));
  }
  assert.equal((await post(server, raw('"temperature":-0'))).status, 200);
  assert.equal(fake.requests.length, 1);
});

test("pictures come as data URLs only", async () => {
  const { server, fake } = await start({ images: 2 });
  for (const url of [
    ...[
      "https://example.com/a.png",
      "http://127.0.0.1/",
      "file:///etc/passwd",
      "/etc/passwd",
      "a.png",
      "",
      "ftp://x/y",
    ],
    ...[
      "data:text/html;base64,AAAA",
      "data:image/png,AAAA",
      "data:,",
      "data:image/png;base64",
      "DATA:",
      " ".repeat(600),
    ],
    ...["data:image/png;base64,????", "data:image/png;base64,A", "data:image/png;base64,"],
  ]) {
    const [status, code] = await refusal(post(server, showing({ url })));
    assert.deepEqual([url, status, code], [url, 400, "invalid_image"]);
  }
  const three = { role: "user", content: Array(3).fill({ type: "image_url", image_url: png }) };
  assert.equal((await post(server, { ...hello, messages: [three] })).status, 413);
  assert.equal(fake.requests.length, 0);
});

test("every error of the library has its status, and unknown ones say nothing", async () => {
  for (const [code, status, name] of [
    ...[["option", 400, "invalid_option"] as const, ["prompt", 400, "invalid_prompt"] as const],
    ...[["image", 400, "invalid_image"] as const, ["budget", 400, "invalid_budget"] as const],
    ...[["calibration", 400, "invalid_calibration"] as const, ["out-of-memory", 400, "out_of_memory"] as const],
    ...[["context-overflow", 400, "context_length_exceeded"] as const, ["device", 503, "device"] as const],
    ...[["disposed", 503, "model_unloaded"] as const, ["internal", 500, "internal"] as const],
  ]) {
    const details = { needed: 900, available: 800, imageTokens: 576 };
    for (const stream of [false, true]) {
      const requestError = { code, message: `secret of ${code}`, details };
      const { server } = await start({}, native({ requestError }));
      const response = await post(server, { ...hello, stream });
      const { error } = (await response.json()) as Failure;
      assert.deepEqual([code, response.status, error.code], [code, status, name]);
      if (code === "context-overflow") assert.match(error.message, /900 .* 800; 576 /);
      if (status >= 500) assert.doesNotMatch(error.message, /secret/);
      assert.equal(response.headers.get("retry-after"), status === 503 ? "30" : null);
      assert.equal(response.headers.get("x-should-retry"), status === 500 ? "false" : null);
      const ready = await get(server, "/ready");
      assert.equal(ready.status, code === "disposed" ? 503 : 200);
      await server.close();
    }
  }
  const odd = await start({}, native({ submitError: new DeviceError("device", "secret") }));
  assert.deepEqual(await refusal(post(odd.server, hello)), [503, "device", null]);
});

test("bodies: content type, JSON, size by header and while reading", async () => {
  const { server } = await start({ bodyBytes: 1000 });
  const typed = (type: string) => post(server, hello, { headers: { "content-type": type } });
  assert.equal((await typed("text/plain")).status, 415);
  assert.equal((await typed("application/jsonp")).status, 415);
  assert.equal((await typed("application/json; charset=utf-8")).status, 200);
  for (const body of ["", "{", "[]", "null", "5", `${"[".repeat(900)}`, '{"a":1}x']) {
    assert.deepEqual(await refusal(post(server, body)), [400, "invalid_json", null]);
  }
  assert.deepEqual(await refusal(post(server, "x".repeat(1001))), [413, "request_too_large", null]);
  let pulled = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      pulled += 1;
      controller.enqueue(new Uint8Array(600));
    },
  });
  const headers = { "content-type": "application/json" };
  const endless = new Request("http://localhost/v1/chat/completions", {
    ...{ method: "POST", headers, body, duplex: "half" },
  } as RequestInit);
  assert.deepEqual(await refusal(server.fetch(endless)), [413, "request_too_large", null]);
  assert.ok(pulled < 10);
  const late = (await start({ bodyTime: 20 })).server;
  const silent = new Request("http://localhost/v1/chat/completions", {
    ...{ method: "POST", headers, body: new ReadableStream(), duplex: "half" },
  } as RequestInit);
  assert.deepEqual(await refusal(late.fetch(silent)), [408, "timeout", null]);
});

test("every route but /health needs a key, however its path is written", async () => {
  const { server, fake } = await start({ keys: ["one", "two"] });
  assert.equal((await get(server, "/health")).status, 200);
  for (const path of [
    ...[
      "/v1/models",
      "/v1/models/x",
      "/metrics",
      "/ready",
      "/nothing",
      "//v1/models",
      "/health/",
      "/health/../metrics",
    ],
    ...["//health", "/HEALTH", "/%68ealth", "/health%2f..%2fmetrics", "/health/%2e%2e/metrics", "/v1/%2e%2e/metrics"],
    ...["/health;/../metrics", "/.//metrics", "/metrics?/health", "/metrics#/health", "/health\\..\\metrics"],
  ]) {
    assert.deepEqual(await refusal(get(server, path)), [401, "invalid_api_key", null], path);
  }
  for (const headers of [
    ...[{}, { authorization: "Bearer three" }, { authorization: "Bearer " }, { authorization: "one" }],
    ...[{ "x-api-key": "" }, { "x-api-key": "onetwo" }, { authorization: "Basic one" }],
  ] as Record<string, string>[]) {
    for (const path of ["/v1/chat/completions", "//v1/chat/completions", "/v1/../v1/chat/completions"]) {
      assert.equal((await post(server, hello, { headers, path })).status, 401);
    }
  }
  assert.equal(fake.requests.length, 0);
  for (const headers of [{ authorization: "Bearer one" }, { authorization: "bearer two" }, { "x-api-key": "two" }])
    assert.equal((await post(server, hello, { headers: headers as Record<string, string> })).status, 200);
});

test("entries that methods have freed, and tokens that were not read again, are counted", async () => {
  const half = { ...memory, full: 100 * 15_360, keptPerLayer: [50, 25] };
  const { server } = await start({}, native({ memory: half }));
  for (let round = 0; round < 2; round++) assert.equal((await post(server, hello)).status, 200);
  const metrics = await (await get(server, "/metrics")).text();
  assert.match(metrics, /prefixkv_finished_cache_entries_total\{[^}]*kind="kept"\} 150\n/);
  assert.match(metrics, /prefixkv_finished_cache_entries_total\{[^}]*kind="freed"\} 250\n/);
  assert.match(metrics, /vllm:prefix_cache_queries_total\{[^}]*\} 320\n/);
  assert.match(metrics, /vllm:prefix_cache_hits_total\{[^}]*\} 0\n/);
});

test("gateways learn what the server is", async () => {
  const { server } = await start({ id: "org/tiny", concurrency: 3, keys: ["k"] });
  assert.equal((await get(server, "/server_info")).status, 401);
  const ask = async (path: string) =>
    (await get(server, path, { "x-api-key": "k" })).json() as Promise<Record<string, unknown>>;
  const { version } = await ask("/version");
  assert.match(String(version), /^\d+\.\d+\.\d+/);
  const about = {
    model_id: "org/tiny",
    served_model_name: "org/tiny",
    version,
    context_length: 2048,
    max_running_requests: 3,
  };
  assert.deepEqual(await ask("/server_info"), about);
  assert.deepEqual(await ask("/get_server_info"), about);
  assert.deepEqual(await ask("/model_info"), { is_generation: true, has_image_understanding: true });
});

test("unknown paths, methods and models; ids of requests", async () => {
  const { server } = await start({ id: "org/tiny" });
  assert.deepEqual(await refusal(get(server, "/v1/completions")), [404, "not_found", null]);
  const wrong = await get(server, "/v1/chat/completions");
  assert.deepEqual([wrong.status, wrong.headers.get("allow")], [405, "POST"]);
  assert.deepEqual(await refusal(post(server, hello)), [404, "model_not_found", "model"]);
  assert.equal((await post(server, { ...hello, model: "org/tiny" })).status, 200);
  const found = (await (await get(server, "/v1/models/org%2Ftiny")).json()) as Record<string, unknown>;
  assert.deepEqual([found.id, found.max_model_len, found.modalities], ["org/tiny", 2048, ["text", "image"]]);
  assert.deepEqual(await refusal(get(server, "/v1/models/%E0%A4%A")), [404, "model_not_found", "model"]);
  const named = await get(server, "/health", { "x-request-id": "a.b-c_1" });
  assert.equal(named.headers.get("x-request-id"), "a.b-c_1");
  const odd = await get(server, "/health", { "x-request-id": "a b<script>" });
  assert.match(odd.headers.get("x-request-id") ?? "", /^[0-9a-f-]{36}$/);
  const any = (await start({ anyModel: true })).server;
  const answered = await post(any, { ...hello, model: "gpt" });
  assert.equal(((await answered.json()) as { model: string }).model, "gpt");
});

test("streams: roles, text, ends, usage and facts in order", async () => {
  const { server } = await start({ cache: prefixkv({ keep: 0.5 }) });
  const response = await post(server, { ...hello, stream: true, n: 2, stream_options: { include_usage: true } });
  assert.match(response.headers.get("content-type") ?? "", /^text\/event-stream/);
  const data = dataOf(await response.text());
  assert.equal(data.pop(), "[DONE]");
  const chunks = data.map((text) => JSON.parse(text));
  assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
  const said = chunks.map(({ choices: [choice] }) =>
    choice === undefined ? "usage" : [choice.index, choice.finish_reason ?? choice.delta.role ?? choice.delta.content],
  );
  const choice = (index: number) => ["assistant", "There", " is", " a star.", "stop"].map((text) => [index, text]);
  assert.deepEqual(said, [...choice(0), ...choice(1), "usage"]);
  const last = chunks.at(-1);
  assert.deepEqual([last.usage.completion_tokens, last.prefixkv.method], [6, "prefixkv"]);
  assert.ok(chunks.slice(0, -1).every(({ usage }) => usage === null));
});

test("a client that goes ends its work at once, in the queue and while it is answered", async () => {
  for (const stream of [true, false]) {
    const { server, fake } = await start({}, native({ stallAfter: 1 }));
    const first = new AbortController();
    const answered = post(server, { ...hello, stream }, { signal: first.signal });
    await until(() => fake.tickets.length === 1);
    const second = new AbortController();
    const waiting = post(server, hello, { signal: second.signal });
    await new Promise((resolve) => setTimeout(resolve, 10));
    second.abort();
    assert.equal((await waiting).status, 499);
    if (stream) await (await answered).body?.cancel();
    else first.abort();
    await until(() => fake.tickets[0]?.cancelled === true);
    assert.equal(fake.tickets.length, 1);
    const metrics = await (await get(server, "/metrics")).text();
    assert.match(metrics, /prefixkv_disconnects_total\{[^}]*\} 2/);
    await server.close();
  }
});

test("the queue is bounded", async () => {
  const { server, fake } = await start({ queue: 2, drainTime: 20 }, native({ stallAfter: 0 }));
  const running = [post(server, hello), post(server, hello), post(server, hello)];
  await until(() => fake.tickets.length === 1);
  const full = await post(server, hello);
  assert.deepEqual([full.status, full.headers.get("retry-after")], [429, "1"]);
  const { error } = (await full.json()) as Failure;
  assert.deepEqual([error.type, error.code], ["rate_limit_exceeded", "queue_full"]);
  const metrics = await (await get(server, "/metrics")).text();
  assert.match(metrics, /vllm:num_requests_running\{[^}]*\} 1\n/);
  assert.match(metrics, /vllm:num_requests_waiting\{[^}]*\} 2\n/);
  assert.match(metrics, /vllm:admission_rejections_total\{[^}]*\} 1\n/);
  await server.close();
  for (const response of await Promise.all(running)) assert.equal(response.status, 503);
});

test("requests whose bodies are being read count, and close ends them too", async () => {
  const { server } = await start({ concurrency: 1, queue: 1, drainTime: 20 });
  const silent = (): Request => {
    const headers = { "content-type": "application/json" };
    const init = { method: "POST", headers, body: new ReadableStream(), duplex: "half" };
    return new Request("http://localhost/v1/chat/completions", init as RequestInit);
  };
  const reading = [server.fetch(silent()), server.fetch(silent())];
  assert.deepEqual(await refusal(post(server, hello)), [429, "queue_full", null]);
  await server.close();
  for (const response of reading) assert.deepEqual(await refusal(response), [503, "server_shutting_down", null]);
});

test("a waiting stream is opened, lives on comments, and ends with an event where it fails", async () => {
  const { server, fake } = await start({ openTime: 5, heartbeat: 10, drainTime: 60 }, native({ stallAfter: 0 }));
  const response = await post(server, { ...hello, stream: true });
  assert.equal(response.status, 200);
  const text = response.text();
  await until(() => fake.tickets.length === 1);
  await server.close();
  assert.match(await text, /^(: waiting\n\n)+event: error\ndata: \{"error":\{.*"code":"server_shutting_down"\}\}\n\n$/);
  assert.deepEqual(await refusal(post(server, hello)), [503, "server_shutting_down", null]);
  assert.equal((await get(server, "/ready")).status, 503);
  assert.equal((await get(server, "/health")).status, 200);
});

test("a stream that nobody reads is ended, and close does not wait for it", async () => {
  const pieces = Array.from({ length: 50 }, () => "word ");
  const { server, fake } = await start({ stallTime: 30 }, native({ pieces, stallAfter: 40 }));
  const response = await post(server, { ...hello, stream: true });
  assert.equal(response.status, 200);
  await until(() => fake.tickets[0]?.cancelled === true);
  const metrics = await (await get(server, "/metrics")).text();
  assert.match(metrics, /prefixkv_stalled_streams_total\{[^}]*\} 1\n/);
  assert.match(metrics, /vllm:num_requests_running\{[^}]*\} 0\n/);
  await server.close();
  await response.body?.cancel();
});

test("close lets running requests finish, and those that wait", async () => {
  const { server, fake } = await start({}, native({ stallAfter: 1 }));
  const answers = [post(server, hello), post(server, { ...hello, stream: true })];
  await until(() => fake.tickets.length === 1);
  const closed = server.close();
  assert.deepEqual(await refusal(post(server, hello)), [503, "server_shutting_down", null]);
  const done: WireEvent = { type: "done", text: "There", tokens: [0], finish: "length", usage, timings, memory };
  for (const index of [0, 1]) {
    await until(() => fake.tickets.length === index + 1);
    fake.tickets[index]?.end(done);
  }
  const [plain, stream] = await Promise.all(answers);
  const body = (await plain?.json()) as { choices: { finish_reason: string }[] };
  assert.equal(body.choices[0]?.finish_reason, "length");
  assert.equal(dataOf((await stream?.text()) ?? "").at(-1), "[DONE]");
  await closed;
});

test("options are checked", async () => {
  for (const options of [
    { ids: 1 },
    { id: "" },
    { keys: "one" },
    { keys: [""] },
    { queue: -1 },
    { temperature: 200 },
  ]) {
    await assert.rejects(start(options as OpenaiOptions), OptionError);
  }
  await assert.rejects(start({ heartbeat: Number.POSITIVE_INFINITY }), OptionError);
});
