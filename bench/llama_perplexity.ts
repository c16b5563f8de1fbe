// How far this library and llama.cpp are from each other on the same file, and each from the file's numbers computed with in 32 bits.
import { readFile } from "node:fs/promises";
import { load } from "../ts/index.ts";
import type { Quality } from "./llama_page.ts";
import type { Child, Ran } from "./peers/child.ts";

/** Our process with weights as they are in the file or in 32 bits, and llama.cpp's. */
type Us = (file: string, threads: string, weights?: string) => Child;
type Them = (file: string, threads: string, attention: string) => Child;

const perplexity = (logprobs: readonly number[]): number =>
  Math.exp(-logprobs.reduce((sum, logprob) => sum + logprob, 0) / logprobs.length);

function apart(one: readonly number[], other: readonly number[]): { mean: number; error: number } {
  const off = one.map((logprob, token) => logprob - (other[token] ?? Number.NaN));
  const mean = off.reduce((sum, each) => sum + each, 0) / off.length;
  const spread = off.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (off.length - 1);
  return {
    mean: off.reduce((sum, each) => sum + Math.abs(each), 0) / off.length,
    error: Math.sqrt(spread / off.length),
  };
}

/** Of the committed text behind its first words, the same tokens for all. llama.cpp's binding makes a map over the vocabulary for each token. */
export async function perplexities(file: string, us: Us, them: Them, characters?: number): Promise<Quality> {
  const text = (await readFile(new URL("../tests/real/text.txt", import.meta.url), "utf8")).slice(0, characters);
  const at = text.indexOf(" ", 80);
  const model = await load(file);
  const ids = await model.tokenize(text.slice(0, at));
  await model.dispose();
  const scored = async (child: Child): Promise<Ran> => {
    await using side = child;
    await side.ready;
    return side.run({ prompt: text.slice(0, at), text: text.slice(at), steps: 0 });
  };
  const { logprobs: ours = [], tokens } = await scored(us(file, "2"));
  const { logprobs: exact = [] } = await scored(us(file, "2", "f32"));
  await using side = them(file, "2", "flash");
  await side.ready;
  const { logprobs: theirs = [] } = await side.run({ prompt: "", ids, answer: tokens, steps: 0 });
  return {
    tokens: tokens.length,
    ours: perplexity(ours),
    theirs: perplexity(theirs),
    exact: perplexity(exact),
    error: apart(ours, theirs).error,
    off: { between: apart(ours, theirs).mean, ours: apart(ours, exact).mean, theirs: apart(theirs, exact).mean },
  };
}
