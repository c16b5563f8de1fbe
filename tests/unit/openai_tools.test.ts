// Calls of tools and responses through the official client, over a fake engine that answers with given texts.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { CallReader, type ToolCall } from "../../ts/tool_calls.ts";
import { fakeModels, native } from "../kit/fake_model.ts";
import type { FakeNative } from "../kit/fake_native.ts";
import { serving } from "../kit/openai.ts";

const open = fakeModels();

/** A client of a server whose model answers with these pieces. */
async function talking(...pieces: string[]): Promise<{ client: OpenAI; fake: FakeNative }> {
  const fake = native({ pieces });
  const server = serving(await open(fake));
  const fetch = (url: string | URL | Request, init?: RequestInit) => server.fetch(new Request(url, init));
  return { client: new OpenAI({ baseURL: "http://localhost/v1", apiKey: "none", maxRetries: 0, fetch }), fake };
}

/** The messages and tools that the engine got with a request. */
function asked(fake: FakeNative, index: number): { messages: unknown; tools?: unknown } {
  const found = fake.requests.at(index)?.request;
  assert.ok(found?.op === "generate");
  return { messages: found.messages, tools: found.tools };
}

const tool = {
  type: "function" as const,
  function: {
    name: "look",
    description: "Looks at a place.",
    parameters: { type: "object", properties: { at: { enum: ["a", null] } } },
  },
};
const messages = [{ role: "user" as const, content: "Look." }];
const block = '<tool_call>\n{"name": "look", "arguments": {"at": "a", "deep": {"x": [1]}}}\n</tool_call>';

/** The pieces of an answer that comes in parts of so many characters. */
function read(text: string, size: number): { text: string; calls: Omit<ToolCall, "id">[] } {
  const reader = new CallReader();
  const pieces = [];
  for (let at = 0; at < text.length; at += size) pieces.push(...reader.push(text.slice(at, at + size)));
  pieces.push(...reader.finish());
  return {
    text: pieces.map((piece) => ("text" in piece ? piece.text : "")).join(""),
    calls: pieces.flatMap((piece) => ("call" in piece ? [piece.call] : [])).map(({ id: _, ...call }) => call),
  };
}

test("calls are found however the answer is cut, and what is none stays text", () => {
  const call = { name: "look", arguments: '{"at":"a","deep":{"x":[1]}}' };
  const none = { name: "f", arguments: "{}" };
  for (const [text, expected] of [
    ["Hello <tool", { text: "Hello <tool", calls: [] }],
    ["a < b <tool_cal", { text: "a < b <tool_cal", calls: [] }],
    [`Sure.\n${block}`, { text: "Sure.\n", calls: [call] }],
    [`${block}\n${block}\n`, { text: "", calls: [call, call] }],
    ['<tool_call>{"name":"f"}</tool_call> done', { text: " done", calls: [none] }],
    // The model stopped at once behind the object, or in its middle.
    ['<tool_call>{"name":"f","arguments":{}}', { text: "", calls: [none] }],
    ['<tool_call>{"name":"f","arg', { text: '<tool_call>{"name":"f","arg', calls: [] }],
    ...["{", "[]", "null", '{"name":5}', '{"name":""}', '{"name":"f","arguments":"x"}', "<function=f>"].map(
      (body) => [`<tool_call>${body}</tool_call>`, { text: `<tool_call>${body}</tool_call>`, calls: [] }] as const,
    ),
  ] as const) {
    for (const size of [1, 2, 3, 7, 1000]) assert.deepEqual(read(text, size), expected, `${size}: ${text}`);
  }
});

test("the tools reach the template, and calls come back as the client wants them", async () => {
  const pieces = [
    "Let me",
    " look.<tool",
    '_call>\n{"name": "look", ',
    '"arguments": {"at": null}}\n</tool_',
    "call>",
    block,
  ];
  const { client, fake } = await talking(...pieces);
  const plain = await client.chat.completions.create({ model: "prefixkv", messages, tools: [tool] });
  const [choice] = plain.choices;
  assert.equal(choice?.finish_reason, "tool_calls");
  assert.equal(choice?.message.content, "Let me look.");
  const functions = choice?.message.tool_calls?.map((call) => call.type === "function" && call.function);
  assert.deepEqual(functions, [
    { name: "look", arguments: '{"at":null}' },
    { name: "look", arguments: '{"at":"a","deep":{"x":[1]}}' },
  ]);
  assert.deepEqual(asked(fake, 0).tools, [tool]);

  const stream = client.chat.completions.stream({ model: "prefixkv", messages, tools: [tool] });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0]?.finish_reason, "tool_calls");
  assert.deepEqual(
    final.choices[0]?.message.tool_calls?.map((call) => call.type === "function" && call.function.arguments),
    functions?.map((call) => (call ? call.arguments : undefined)),
  );
  const ids = final.choices[0]?.message.tool_calls?.map(({ id }) => id) ?? [];
  assert.equal(new Set(ids).size, 2);

  // Without tools, or with none to be called, the same text is text.
  for (const more of [{}, { tools: [tool], tool_choice: "none" as const }]) {
    const said = await client.chat.completions.create({ model: "prefixkv", messages, ...more });
    assert.equal(said.choices[0]?.message.content, pieces.join(""));
    assert.equal(said.choices[0]?.finish_reason, "stop");
    assert.equal(asked(fake, -1).tools, undefined);
  }
});

test("calls and results of a conversation go to the template", async () => {
  const { client, fake } = await talking("Nothing.");
  await client.chat.completions.create({
    model: "prefixkv",
    tools: [tool],
    messages: [
      ...messages,
      {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "1", type: "function", function: { name: "look", arguments: '{"at":null}' } }],
      },
      { role: "tool", tool_call_id: "1", content: "a star" },
    ],
  });
  const expected = [
    { role: "user", content: "Look." },
    { role: "assistant", content: "", toolCalls: [{ name: "look", arguments: { at: null } }] },
    { role: "tool", content: "a star" },
  ];
  assert.deepEqual(asked(fake, 0).messages, expected);
  await client.responses.create({
    model: "prefixkv",
    input: [
      { role: "user", content: "Look." },
      { type: "reasoning", id: "r", summary: [] },
      { type: "function_call", call_id: "1", name: "look", arguments: '{"at":null}' },
      { type: "function_call_output", call_id: "1", output: "a star" },
    ],
    tools: [{ type: "function", strict: false, ...tool.function }, { type: "web_search" }],
  });
  assert.deepEqual(asked(fake, 1).messages, expected);
  assert.deepEqual(asked(fake, 1).tools, [tool]);
});

test("responses: calls between texts, in one piece and as the client's stream", async () => {
  const { client } = await talking("First ", "text.", block, " Then", " more.");
  const tools = [{ type: "function" as const, strict: false, ...tool.function }];
  const request = { model: "prefixkv", input: "Look.", instructions: "Be brief.", tools };
  const plain = await client.responses.create(request);
  const kinds = ["message", "function_call", "message"];
  assert.deepEqual(
    plain.output.map(({ type }) => type),
    kinds,
  );
  assert.equal(plain.output_text, "First text. Then more.");
  const final = await client.responses.stream(request).finalResponse();
  assert.deepEqual(
    final.output.map(({ type }) => type),
    kinds,
  );
  assert.equal(final.output_text, plain.output_text);
  const [, call] = final.output;
  assert.ok(call?.type === "function_call" && call.arguments === '{"at":"a","deep":{"x":[1]}}');
  assert.equal(final.instructions, "Be brief.");
});

test("responses: what cannot be had is refused by name", async () => {
  const { client, fake } = await talking("x");
  const ask = (more: object) => client.responses.create({ model: "prefixkv", input: "Hi", ...more });
  for (const [param, value] of Object.entries({
    ...{ previous_response_id: "r", conversation: "c", background: true, prompt: { id: "p" }, truncation: "auto" },
    ...{ text: { format: { type: "json_object" } }, top_logprobs: 2, tool_choice: "required" },
  })) {
    await assert.rejects(ask({ [param]: value }), { status: 400, code: "unsupported_parameter", param });
  }
  for (const input of [
    5,
    [],
    [null],
    [{ role: "root", content: "x" }],
    [{ type: "function_call", name: "f", arguments: "{" }],
  ]) {
    await assert.rejects(ask({ input }), { status: 400, code: "invalid_value" });
  }
  await assert.rejects(ask({ input: [{ type: "item_reference", id: "x" }] }), { code: "unsupported_parameter" });
  const image = (image_url: string) => [{ role: "user", content: [{ type: "input_image", image_url }] }];
  await assert.rejects(ask({ input: image("https://example.com/a.png") }), { status: 400, code: "invalid_image" });
  assert.equal(fake.requests.length, 0);
});

test("responses: a failure in the middle ends the stream as the client hears it", async () => {
  const { client, fake } = await talking("There", " is");
  fake.stallAfter = 1;
  const stream = client.responses.stream({ model: "prefixkv", input: "Look." });
  const seen: string[] = [];
  const done = (async () => {
    for await (const event of stream) {
      seen.push(event.type);
      if (event.type === "response.output_text.delta")
        fake.tickets[0]?.fail({ code: "internal", message: "secret", details: {} });
    }
  })();
  await done.catch(() => {});
  assert.equal(seen.at(-1), "response.failed");
  assert.equal(seen[0], "response.created");
});
