import { random } from "../ts/eval/bootstrap.ts";

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
