// Properties that hold whatever the numbers are, with real weights: seeds, chats with a small cache, requests together.
import assert from "node:assert/strict";
import { test } from "node:test";
import { h2o, prefixkv, snapkv } from "../../ts/index.ts";
import { cellsOf, named, quick, withModel } from "./cells.ts";
import { chats, runs, text } from "./goldens.ts";

const questions = ["Who was the first keeper?", "How did the lens work?", "Thank you. Say goodbye in one sentence."];

for (const cell of cellsOf("behaviour")) {
  test(`${named(cell)}: the same seed gives the same text, another seed another one`, async () => {
    await withModel(cell, async (model) => {
      const request = { messages: [{ role: "user", content: "Write a poem about the sea." }], maxTokens: 32 } as const;
      const ask = async (seed: number) =>
        (await model.generate({ ...request, temperature: 0.9, topP: 0.95, seed })).tokens;
      const first = await ask(7);
      assert.deepEqual(await ask(7), first);
      assert.notDeepEqual(await ask(8), first);
      const [greedy, cold] = [await model.generate(request), await model.generate({ ...request, temperature: 0 })];
      assert.deepEqual(cold.tokens, greedy.tokens);
    });
  });

  test(`${named(cell)}: three turns over a page with a small cache`, async () => {
    await withModel(cell, async (model) => {
      const methods = [prefixkv({ keep: 0.3 }), h2o({ keep: 0.3 }), snapkv({ keep: 0.3 })];
      for (const cache of quick ? methods.slice(0, 1) : methods) {
        const chat = model.chat({ cache });
        for (const [turn, question] of questions.entries()) {
          const content = turn === 0 ? `${text.slice(0, 2600)}\n\n${question}` : question;
          const { usage, memory, text: answer } = await chat.send(content, { maxTokens: 24 });
          assert.ok(answer.trim().length > 0, `${cache.method}, turn ${turn}`);
          assert.equal(usage.cachedTokens > 0, turn > 0);
          assert.ok(memory.resident < 0.5 * memory.full, `${cache.method}: ${memory.resident} of ${memory.full}`);
        }
        assert.equal(chat.messages.length, 2 * questions.length);
        await chat.dispose();
      }
    });
  });

  test(`${named(cell)}: four requests together give what each gives alone`, async () => {
    const requests = [
      ...runs.slice(0, 2).map(({ prompt }) => ({ prompt, maxTokens: 24 })),
      { messages: chats.cases[0]?.messages ?? [], maxTokens: 24, cache: prefixkv({ keep: 0.5 }) },
      { prompt: text.slice(0, 1200), maxTokens: 24, cache: h2o({ keep: 0.3 }) },
    ];
    const alone = await withModel(cell, async (model) => {
      const answers: number[][] = [];
      for (const request of requests) answers.push((await model.generate(request)).tokens);
      return answers;
    });
    const ask = async (model: Parameters<Parameters<typeof withModel>[1]>[0]) =>
      Promise.all(requests.map(async (request) => (await model.generate(request)).tokens));
    assert.deepEqual(await withModel(cell, ask, 4), alone);
  });
}
