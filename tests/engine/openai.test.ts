import assert from "node:assert/strict";
import { createServer } from "node:http";
import { connect } from "node:net";
import { after, test } from "node:test";
import OpenAI, { APIError } from "openai";
import { load, samplePicture } from "../../ts/index.ts";
import { nodeListener, type OpenaiOptions, type OpenaiServer, openai } from "../../ts/openai/index.ts";

const loaded = load(undefined, { batch: 2 });
after(async () => (await loaded).dispose());
const picture = async (): Promise<string> =>
  `data:image/png;base64,${Buffer.from(await samplePicture()).toString("base64")}`;
type Messages = OpenAI.ChatCompletionMessageParam[];
const asking = async (text: string): Promise<Messages> => [
  {
    role: "user",
    content: [
      { type: "image_url", image_url: { url: await picture() } },
      { type: "text", text },
    ],
  },
];

interface Door {
  address: string;
  close(): Promise<void>;
}

async function nodeDoor(handler: OpenaiServer): Promise<Door> {
  const server = createServer(nodeListener(handler));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const bound = server.address();
  assert.ok(typeof bound === "object" && bound !== null);
  const close = async (): Promise<void> => {
    await handler.close();
    await new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  };
  return { address: `http://127.0.0.1:${bound.port}`, close };
}

/** The runtime's own server, where there is one. */
type Own = {
  Bun?: { serve(options: object): { port: number; stop(now: boolean): Promise<void> } };
  Deno?: { serve(options: object): { addr: { port: number }; shutdown(): Promise<void> } };
};
const { Bun: bun, Deno: deno } = globalThis as Own;

async function ownDoor(handler: OpenaiServer): Promise<Door> {
  const settings = { hostname: "127.0.0.1", port: 0, fetch: handler.fetch, handler: handler.fetch, onListen: () => {} };
  const server = bun?.serve({ ...settings, idleTimeout: 0 }) ?? deno?.serve(settings);
  assert.ok(server);
  const address = `http://127.0.0.1:${"port" in server ? server.port : server.addr.port}`;
  const close = async (): Promise<void> => {
    await handler.close();
    await ("stop" in server ? server.stop(true) : server.shutdown());
  };
  return { address, close };
}

const doors: [name: string, open: (handler: OpenaiServer) => Promise<Door>][] = [["node:http", nodeDoor]];
if (bun !== undefined || deno !== undefined) doors.push(["the runtime's own server", ownDoor]);

for (const [name, open] of doors) {
  const within = async (options: OpenaiOptions, run: (client: OpenAI, address: string) => Promise<void>) => {
    const door = await open(openai(await loaded, { keys: ["secret"], concurrency: 2, ...options }));
    try {
      const client = new OpenAI({ baseURL: `${door.address}/v1`, apiKey: "secret", maxRetries: 0 });
      await run(client, door.address);
    } finally {
      await door.close();
    }
  };

  test(`${name}: OpenAI's client gets what the library answers, plain and streamed`, () =>
    within({}, async (client) => {
      const messages = await asking("What color is the star?");
      const { data: plain, response } = await client.chat.completions
        .create({ model: "prefixkv", messages, max_tokens: 24, user: "me" })
        .withResponse();
      assert.equal(response.headers.get("x-prefixkv-ignored"), "user");
      const { image } = await import("../../ts/index.ts");
      const own = await (await loaded).generate({
        messages: [{ role: "user", content: [image(await picture()), "What color is the star?"] }],
        maxTokens: 24,
      });
      assert.equal(plain.choices[0]?.message.content, own.text);
      assert.match(own.text, /green/);
      assert.equal(plain.usage?.prompt_tokens, own.usage.promptTokens);
      assert.equal(plain.usage?.completion_tokens, own.usage.completionTokens);
      const details = plain.usage?.prompt_tokens_details as { image_tokens?: number };
      assert.equal(details.image_tokens, own.usage.imageTokens);
      const facts = (plain as unknown as { prefixkv: { kept: number; method: null } }).prefixkv;
      assert.deepEqual([facts.kept, facts.method], [1, null]);

      const stream = client.chat.completions.stream({
        ...{ model: "prefixkv", messages, max_tokens: 24, n: 2 },
        stream_options: { include_usage: true },
      });
      const final = await stream.finalChatCompletion();
      assert.deepEqual(
        final.choices.map(({ message, finish_reason }) => [message.content, finish_reason]),
        [own, own].map(({ text }) => [text, plain.choices[0]?.finish_reason]),
      );
      assert.equal(final.usage?.completion_tokens, 2 * own.usage.completionTokens);
    }));

  test(`${name}: a method of the request shrinks the cache, and the answer says by how much`, () =>
    within({ methods: ["streaming"] }, async (client) => {
      const messages = await asking("Describe the image in detail.");
      const request = { model: "prefixkv", messages, max_tokens: 16, ignore_eos: true };
      const body = { ...request, prefixkv: { method: "streaming", keep: 0.5 } };
      const answer = (await client.chat.completions.create(body)) as unknown as {
        choices: { finish_reason: string }[];
        prefixkv: { method: string; kept: number; resident_bytes: number; full_bytes: number; ttft_ms: number };
      };
      const { method, kept, resident_bytes, full_bytes, ttft_ms } = answer.prefixkv;
      assert.deepEqual([method, answer.choices[0]?.finish_reason], ["streaming", "length"]);
      assert.ok(Math.abs(kept - 0.5) < 0.02, `${kept}`);
      assert.ok(resident_bytes < 0.6 * full_bytes);
      assert.ok(ttft_ms > 0);
      const other = { ...request, prefixkv: { method: "h2o", keep: 0.5 } };
      await assert.rejects(client.chat.completions.create(other), { status: 400, code: "invalid_value" });
    }));

  test(`${name}: probabilities are those of \`score\`, plain and streamed, and their bytes are the text`, () =>
    within({}, async (client) => {
      const messages = await asking("Describe the image in detail.");
      const request = { model: "prefixkv", messages, max_tokens: 8, logprobs: true, top_logprobs: 3 };
      const plain = await client.chat.completions.create(request);
      const [choice] = plain.choices;
      const tokens = choice?.logprobs?.content ?? [];
      assert.equal(tokens.length, plain.usage?.completion_tokens);
      const text = Buffer.concat(tokens.map(({ bytes }) => Buffer.from(bytes ?? []))).toString();
      assert.equal(text.trimStart(), choice?.message.content);
      const { image } = await import("../../ts/index.ts");
      const score = await (await loaded).score({
        messages: [{ role: "user", content: [image(await picture()), "Describe the image in detail."] }],
        answer: choice?.message.content ?? "",
      });
      for (const [index, { logprob, top_logprobs }] of tokens.entries()) {
        assert.ok(
          Math.abs(logprob - (score.logprobs[index] ?? 0)) < 1e-3,
          `${index}: ${logprob} ${score.logprobs[index]}`,
        );
        // At temperature 0 the likeliest token comes.
        assert.equal(top_logprobs[0]?.logprob, logprob);
        assert.deepEqual(
          top_logprobs.map((top) => top.logprob),
          top_logprobs.map((top) => top.logprob).sort((a, b) => b - a),
        );
        assert.equal(top_logprobs.length, 3);
      }
      const stream = client.chat.completions.stream(request);
      const streamed = await stream.finalChatCompletion();
      assert.deepEqual(streamed.choices[0]?.logprobs?.content, tokens);
    }));

  test(`${name}: a response has the text of a chat completion, plain and streamed`, () =>
    within({ cache: { method: "streaming", keep: 0.6 } }, async (client) => {
      const chat = await client.chat.completions.create({
        ...{ model: "prefixkv", messages: await asking("Describe the image in detail."), max_tokens: 150 },
      });
      const content = [
        { type: "input_image" as const, image_url: await picture(), detail: "auto" as const },
        { type: "input_text" as const, text: "Describe the image in detail." },
      ];
      const request = { model: "prefixkv", input: [{ role: "user" as const, content }], max_output_tokens: 150 };
      const plain = await client.responses.create(request);
      assert.deepEqual([plain.output_text, plain.status], [chat.choices[0]?.message.content, "completed"]);
      assert.equal(plain.usage?.input_tokens, chat.usage?.prompt_tokens);
      const facts = (plain as unknown as { prefixkv: { kept: number; image_tokens: number } }).prefixkv;
      assert.ok(Math.abs(facts.kept - 0.6) < 0.03 && facts.image_tokens > 0);
      const stream = client.responses.stream(request);
      const kinds: string[] = [];
      for await (const { type } of stream) if (kinds.at(-1) !== type) kinds.push(type);
      assert.deepEqual(kinds, [
        ...["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"],
        ...["response.output_text.delta", "response.output_text.done", "response.content_part.done"],
        ...["response.output_item.done", "response.completed"],
      ]);
      assert.equal((await stream.finalResponse()).output_text, plain.output_text);
      const short = await client.responses.create({ ...request, max_output_tokens: 2 });
      assert.deepEqual([short.status, short.incomplete_details], ["incomplete", { reason: "max_output_tokens" }]);
      await assert.rejects(client.responses.create({ ...request, previous_response_id: "resp_1" }), {
        ...{ status: 400, code: "unsupported_parameter", param: "previous_response_id" },
      });
    }));

  test(`${name}: errors are the client's own`, () =>
    within({ bodyBytes: 200_000 }, async (client, address) => {
      const messages = await asking("Hello");
      const ask = (more: object) => client.chat.completions.create({ model: "prefixkv", messages, ...more });
      await assert.rejects(ask({ model: "gpt" }), { status: 404, code: "model_not_found", param: "model" });
      await assert.rejects(ask({ logit_bias: { 5: 1 } }), {
        status: 400,
        code: "unsupported_parameter",
        param: "logit_bias",
      });
      // This model's template knows no tools.
      const tools = [{ type: "function", function: { name: "look" } }];
      await assert.rejects(ask({ tools }), { status: 400, code: "invalid_prompt", message: /knows no tools/ });
      const broken = { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } };
      for (const stream of [false, true]) {
        const content = [broken];
        await assert.rejects(ask({ messages: [{ role: "user", content }], stream }), {
          ...{ status: 400, code: "invalid_image" },
        });
        const long = { messages: [{ role: "user", content: "star ".repeat(5000) }], stream };
        await assert.rejects(ask(long), { status: 400, code: "context_length_exceeded" });
      }
      const large = { messages: [{ role: "user", content: "x".repeat(300_000) }] };
      await assert.rejects(ask(large), (error) => error instanceof APIError);
      const stranger = new OpenAI({ baseURL: `${address}/v1`, apiKey: "guess", maxRetries: 0 });
      await assert.rejects(stranger.models.list(), { status: 401, code: "invalid_api_key" });
      assert.deepEqual(
        (await client.models.list()).data.map(({ id }) => id),
        ["prefixkv"],
      );
      assert.equal((await client.models.retrieve("prefixkv")).id, "prefixkv");
    }));

  test(`${name}: no way of writing a path gets past the key`, () =>
    within({}, async (_client, address) => {
      const port = Number(new URL(address).port);
      for (const target of [
        ...[
          "//v1/models",
          "/v1/../metrics",
          "/health/../metrics",
          "/health/%2e%2e/metrics",
          "/%2e/metrics",
          "//health",
        ],
        ...[`http://127.0.0.1:${port}/metrics`, "http://health/metrics", "/health?/../metrics#", "/metrics?x=/health"],
      ]) {
        const answer = await raw(port, `GET ${target} HTTP/1.1\r\nhost: health\r\nconnection: close\r\n\r\n`);
        const healthy = target.startsWith("/health?");
        const status = healthy ? /^HTTP\/1\.1 (200|400|401) / : /^HTTP\/1\.1 (400|401|404) /;
        assert.match(answer, status, target);
        assert.doesNotMatch(answer, /vllm:|owned_by/, target);
      }
    }));

  test(`${name}: leaving a stream ends its work at once`, () =>
    within({ concurrency: 1 }, async (client, address) => {
      const request = { model: "prefixkv", messages: await asking("Describe the image."), ignore_eos: true };
      const stream = await client.chat.completions.create({ ...request, max_tokens: 1500, stream: true });
      let chunks = 0;
      for await (const _ of stream) if (++chunks === 3) break;
      const began = performance.now();
      // The one turn is free again.
      await client.chat.completions.create({ ...request, max_tokens: 1 });
      assert.ok(performance.now() - began < 5000);
      const metrics = await (await fetch(`${address}/metrics`, { headers: { "x-api-key": "secret" } })).text();
      assert.match(metrics, /prefixkv_disconnects_total\{[^}]*\} 1\n/);
      assert.match(metrics, /vllm:request_success_total\{[^}]*finished_reason="length"\} 1\n/);
    }));
}

function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(text));
    let answer = "";
    socket.on("data", (data) => {
      answer += data;
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(answer));
  });
}
