import { readFile } from "node:fs/promises";

const whole = (): Promise<string> => readFile(new URL("../tests/real/text.txt", import.meta.url), "utf8");

/** Beginnings of the committed text that a model goes on with, each longer than the one before; the first is the prompt of {@link passage}. */
export async function beginnings(quick: boolean): Promise<string[]> {
  const text = await whole();
  const shares = quick ? [0.05, 0.06] : [0.6, 0.66, 0.72, 0.78, 0.84];
  return shares.map((share) => text.slice(0, text.indexOf(" ", Math.floor(text.length * share))));
}

/** A passage of the committed text: what is read as the prompt, and what is then read token by token; a short one with `quick`. */
export async function passage(quick: boolean): Promise<{ prompt: string; answer: string }> {
  const text = await whole();
  // Cut where a word begins: the answer is what is read token by token, with the cache as the store keeps it.
  const at = text.indexOf(" ", Math.floor(text.length * (quick ? 0.05 : 0.6)));
  const end = text.indexOf(" ", Math.floor(text.length * (quick ? 0.07 : 0.68)));
  return { prompt: text.slice(0, at), answer: text.slice(at, end) };
}
