// The provider through the AI SDK itself, over a fake engine that answers with given texts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createProviderRegistry, generateText, jsonSchema, Output, streamText, tool, wrapLanguageModel } from "ai";
import { createPrefixkv } from "../../ts/ai-sdk/index.ts";
import { fakeModels, native } from "../kit/fake_model.ts";
import type { FakeNative } from "../kit/fake_native.ts";

const open = fakeModels();

async function talking(behaviour: Partial<FakeNative> = {}) {
  const fake = native(behaviour);
  return { fake, prefixkv: createPrefixkv({ tiny: await open(fake) }) };
}

/** The request of that number, as the engine got it. */
function asked(fake: FakeNative, index: number): Record<string, unknown> {
  const found = fake.requests.at(index)?.request;
  assert.ok(found?.op === "generate");
  return { ...found };
}

const png = Uint8Array.from([1, 2, 3]);

test("options, pictures in every form and the method of the cache reach the engine", async () => {
  const { prefixkv, fake } = await talking();
  const base64 = Buffer.from(png).toString("base64");
  const forms = [png, base64, `data:image/png;base64,${base64}`, new URL(`data:image/png;base64,${base64}`)];
  const { text, usage, finishReason, warnings, providerMetadata } = await generateText({
    model: prefixkv("tiny"),
    system: "Be brief.",
    messages: [
      {
        role: "user",
        content: [
          { type: "text", text: "Look." },
          ...forms.map((data) => ({ type: "file" as const, mediaType: "image/png", data })),
        ],
      },
    ],
    ...{ maxOutputTokens: 5, temperature: 0.5, topP: 0.9, topK: 3, seed: 7, stopSequences: ["x"] },
    ...{ frequencyPenalty: 0.5, presencePenalty: -0.5 },
    providerOptions: { prefixkv: { cache: { method: "prefixkv", keep: 0.5 }, minP: 0.1, repetitionPenalty: 1.1 } },
  });
  assert.deepEqual([text, finishReason, warnings], ["There is a star.", "stop", []]);
  assert.deepEqual([usage.inputTokens, usage.outputTokens], [160, 3]);
  assert.equal(providerMetadata?.prefixkv?.imageTokens, 144);
  const { messages, ...rest } = asked(fake, 0);
  assert.deepEqual(rest, {
    op: "generate",
    ...{ maxTokens: 5, temperature: 0.5, topP: 0.9, topK: 3, seed: 7, stop: ["x"], minP: 0.1, repetitionPenalty: 1.1 },
    ...{ frequencyPenalty: 0.5, presencePenalty: -0.5, cache: { method: "prefixkv", keep: 0.5 } },
  });
  assert.equal((messages as { role: string }[])[0]?.role, "system");
  assert.deepEqual(
    fake.requests[0]?.images.map((image) => [...image]),
    forms.map(() => [...png]),
  );
});

test("streams: text, usage, a slow reader, and two at once", async () => {
  const { prefixkv } = await talking();
  const ask = () => streamText({ model: prefixkv("tiny"), prompt: "Look." });
  const [first, second] = [ask(), ask()];
  let text = "";
  for await (const part of first.textStream) {
    text += part;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal(text, "There is a star.");
  assert.equal(await second.text, text);
  assert.deepEqual([await first.finishReason, (await first.usage).totalTokens], ["stop", 163]);
  const metadata = (await first.providerMetadata)?.prefixkv as { memory: { resident: number } };
  assert.ok(metadata.memory.resident > 0);
});

test("an abort in the middle stops the engine", async () => {
  const { prefixkv, fake } = await talking({ stallAfter: 1 });
  const control = new AbortController();
  const { textStream } = streamText({
    ...{ model: prefixkv("tiny"), prompt: "Look.", abortSignal: control.signal },
  });
  let text = "";
  for await (const part of textStream) {
    text += part;
    control.abort();
  }
  assert.equal(text, "There");
  assert.ok(fake.tickets[0]?.cancelled);
});

test("tools are called by the SDK, and their results go back", async () => {
  const pieces = ["Let me look. ", '<tool_call>{"name": "look", "arguments": {"at": "a"}}</tool_call>'];
  for (const streamed of [false, true]) {
    const { prefixkv, fake } = await talking({ pieces });
    const places: string[] = [];
    const look = tool({
      description: "Looks.",
      inputSchema: jsonSchema<{ at: string }>({ type: "object", properties: { at: { type: "string" } } }),
      execute: async ({ at }) => {
        places.push(at);
        fake.pieces = ["It is a star."];
        return { shape: "star" };
      },
    });
    const call = {
      model: prefixkv("tiny"),
      prompt: "Look.",
      tools: { look },
      stopWhen: ({ steps }: { steps: unknown[] }) => steps.length === 2,
    };
    const text = streamed ? await streamText(call).text : (await generateText(call)).text;
    assert.deepEqual([text, places], ["It is a star.", ["a"]]);
    const [first, second] = [asked(fake, 0), asked(fake, 1)];
    assert.equal((first.tools as { function: { name: string } }[])[0]?.function.name, "look");
    assert.deepEqual((second.messages as unknown[]).slice(1), [
      {
        role: "assistant",
        content: "Let me look. ",
        toolCalls: [{ name: "look", arguments: { at: "a" } }],
      },
      { role: "tool", content: '{"shape":"star"}' },
    ]);
  }
});

test("what cannot be had is refused, and what is left out is warned of", async () => {
  const { prefixkv, fake } = await talking();
  const model = prefixkv("tiny");
  const schema = jsonSchema<{ a: string }>({ type: "object", properties: { a: { type: "string" } } });
  const output = Output.object({ schema });
  await assert.rejects(generateText({ model, prompt: "x", output, maxRetries: 0 }), /JSON output/);
  const look = tool({ inputSchema: schema, execute: async () => "seen" });
  await assert.rejects(generateText({ model, prompt: "x", tools: { look }, toolChoice: "required" }), /toolChoice/);
  const pdf = { type: "file" as const, mediaType: "application/pdf", data: png };
  await assert.rejects(generateText({ model, messages: [{ role: "user", content: [pdf] }] }), /application\/pdf/);
  await assert.rejects(
    generateText({ model, prompt: "x", providerOptions: { prefixkv: { keep: 0.5 } } }),
    /providerOptions\.prefixkv/,
  );
  assert.equal(fake.requests.length, 0);
  const { warnings } = await model.doGenerate({
    ...{ prompt: [{ role: "user", content: [{ type: "text", text: "x" }] }], reasoning: "high" },
    tools: [{ type: "provider", id: "other.search", name: "search", args: {} }],
  });
  assert.deepEqual(
    warnings.map((warning) => warning.type === "unsupported" && warning.feature),
    ["reasoning", "the tool other.search"],
  );
  assert.throws(() => prefixkv("other"), { name: "AI_NoSuchModelError" });
  assert.throws(() => prefixkv.embeddingModel("tiny"), { name: "AI_NoSuchModelError" });
});

test("registries and wrappers take it", async () => {
  const { prefixkv } = await talking();
  const registry = createProviderRegistry({ prefixkv });
  const model = wrapLanguageModel({ model: registry.languageModel("prefixkv:tiny"), middleware: {} });
  assert.equal((await generateText({ model, prompt: "Look." })).text, "There is a star.");
});

test("errors of the engine are errors of the call, before a stream begins and after", async () => {
  const requestError = { code: "prompt", message: "no such thing", details: {} } as const;
  const { prefixkv } = await talking({ requestError });
  await assert.rejects(generateText({ model: prefixkv("tiny"), prompt: "x", maxRetries: 0 }), /no such thing/);
  await assert.rejects(
    async () => {
      await prefixkv("tiny").doStream({ prompt: [{ role: "user", content: [{ type: "text", text: "x" }] }] });
    },
    { name: "PromptError" },
  );
});
