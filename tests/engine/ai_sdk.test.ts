// The provider with the embedded model: the AI SDK gets what the library answers.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { generateText, streamText } from "ai";
import { createPrefixkv } from "../../ts/ai-sdk/index.ts";
import { image, load, samplePicture, streaming } from "../../ts/index.ts";

const loaded = load(undefined, { batch: 2 });
after(async () => (await loaded).dispose());

test("a picture by the SDK, plain and streamed, is answered as by the library", async () => {
  const model = await loaded;
  const picture = await samplePicture();
  const question = "Describe the image in detail.";
  const own = await model.generate({
    messages: [{ role: "user", content: [image(picture), question] }],
    ...{ maxTokens: 24, cache: streaming({ keep: 0.6 }) },
  });
  const call = {
    model: createPrefixkv({ tiny: model })("tiny"),
    maxOutputTokens: 24,
    messages: [
      {
        role: "user" as const,
        content: [
          { type: "file" as const, mediaType: "image/png", data: picture },
          { type: "text" as const, text: question },
        ],
      },
    ],
    providerOptions: { prefixkv: { cache: { method: "streaming", keep: 0.6 } } },
  };
  const plain = await generateText(call);
  assert.equal(plain.text, own.text);
  assert.equal(plain.usage.inputTokens, own.usage.promptTokens);
  const streamed = streamText(call);
  assert.equal(await streamed.text, own.text);
  const metadata = await streamed.providerMetadata;
  const memory = metadata?.prefixkv?.memory as unknown as typeof own.memory;
  assert.deepEqual(memory.keptPerLayer, own.memory.keptPerLayer);
  const short = await generateText({ ...call, maxOutputTokens: 2 });
  assert.equal(short.finishReason, "length");
});
