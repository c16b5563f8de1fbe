// Messages: the rendered template, its tokens, and a conversation of three turns, against transformers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { DECIDED, EXACT, MEAN, rounding } from "./bounds.ts";
import { cellsOf, named, withModel } from "./cells.ts";
import { agreeing, distance } from "./compare.ts";
import { chats } from "./goldens.ts";

for (const cell of cellsOf("chats")) {
  test(`${named(cell)}: messages are rendered and split as transformers does it`, async () => {
    await withModel(cell, async (model) => {
      for (const { messages, add_generation_prompt, text, tokens } of chats.cases) {
        assert.deepEqual(await model.tokenize(text, { addSpecialTokens: false }), tokens);
        assert.equal(await model.detokenize(tokens, { skipSpecialTokens: false }), text);
        if (!add_generation_prompt) continue;
        const [rendered, raw] = await Promise.all([
          model.generate({ messages, maxTokens: 4, ignoreEos: true }),
          model.generate({ prompt: text, maxTokens: 4, ignoreEos: true }),
        ]);
        assert.equal(rendered.usage.promptTokens, tokens.length, text);
        assert.deepEqual(rendered.tokens, raw.tokens, text);
      }
    });
  });

  test(`${named(cell)}: an answer to messages, its end token included`, async () => {
    const { messages, answer, tokens, logprobs } = chats.score;
    const score = await withModel(cell, (model) => model.score({ messages, answer }));
    assert.deepEqual(score.tokens, tokens);
    const { mean, worst } = distance(score.logprobs, logprobs);
    // Six tokens have a mean of their own.
    assert.ok(mean <= 5 * MEAN[rounding(cell)], `off by ${mean} on average`);
    if (rounding(cell) === "f32") assert.ok(worst <= EXACT, `off by ${worst}`);
  });

  test(`${named(cell)}: three turns of a chat`, async () => {
    await withModel(cell, async (model) => {
      const chat = model.chat();
      for (const turn of chats.turns) {
        const made = await chat.send(turn.content, { maxTokens: 40 });
        assert.equal(made.usage.promptTokens, turn.prompt_tokens);
        const same = agreeing(made, turn.tokens);
        if (same < turn.tokens.length) {
          const gap = turn.gaps[same] ?? Number.POSITIVE_INFINITY;
          assert.ok(gap <= DECIDED[rounding(cell)], `token ${same} of ${JSON.stringify(turn.text)}, decided by ${gap}`);
          // The turns behind it answer to another conversation.
          return;
        }
        assert.equal(made.text, turn.text);
      }
    });
  });
}
