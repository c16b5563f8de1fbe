// The log-probabilities of the whole text, as four requests that are decoded together: each has all that stands before its part as its
// prompt, so that reading prompts, decoding and decoding together are all in the numbers.
import type { Model } from "../../ts/index.ts";
import { perplexity, text } from "./goldens.ts";

/** How the parts start; about as long as each other. */
const starts = ["\n\nThe lens alone", "\n\nIf the sensor fails", "\n\nThere are four questions"];

export const requestsTogether: number = starts.length + 1;

/** `parts` of them, from the start. */
export async function scoreText(model: Model, parts: number = requestsTogether): Promise<number[]> {
  const ends = [...starts.map((start) => text.indexOf(start)), text.length].slice(0, parts);
  let from = perplexity.prompt.length;
  const requests = ends.map((end) => {
    const request = { prompt: text.slice(0, from), answer: text.slice(from, end) };
    from = end;
    return request;
  });
  const scores = await Promise.all(requests.map((request) => model.score(request)));
  const tokens = scores.flatMap((score) => score.tokens);
  if (tokens.join() !== perplexity.tokens.slice(0, tokens.length).join())
    throw new Error("the text has other tokens than the golden has");
  return scores.flatMap((score) => score.logprobs);
}
