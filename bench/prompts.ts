import { readFile } from "node:fs/promises";
import { random } from "../ts/eval/bootstrap.ts";
import { load } from "../ts/index.ts";

/** A text of exactly `n` tokens: the tokenizer of the embedded model adds one at the start and takes " a" as one. */
export function promptOf(n: number): string {
  return " a".repeat(n - 1);
}

const words = [
  "a",
  "red",
  "blue",
  "green",
  "black",
  "star",
  "ring",
  "heart",
  "circle",
  "image",
  "left",
  "right",
  "top",
];

/** Like {@link promptOf} with different words, the same each time: entries that differ are scored and freed as in real prompts. */
export function mixedPrompt(n: number): string {
  const draw = random(1);
  return Array.from({ length: n - 1 }, () => ` ${words[Math.floor(draw() * words.length)]}`).join("");
}

/** A passage of the text of the tests with real weights that is exactly `n` tokens of a model, special ones included. */
export async function promptOfText(source: string, n: number): Promise<{ prompt: string; ids: number[] }> {
  const text = await readFile(new URL("../tests/real/text.txt", import.meta.url), "utf8");
  const model = await load(source);
  try {
    const special = (await model.tokenize("")).length;
    const tokens = await model.tokenize(text, { addSpecialTokens: false });
    for (let start = 0; start + n - special <= tokens.length; start += 1) {
      const prompt = await model.detokenize(tokens.slice(start, start + n - special));
      const ids = await model.tokenize(prompt);
      if (ids.length === n) return { prompt, ids };
    }
  } finally {
    // Node 22 reads this file in the tests and has no `await using`.
    await model.dispose();
  }
  throw new Error(`no ${n} tokens of the text stand for themselves`);
}
