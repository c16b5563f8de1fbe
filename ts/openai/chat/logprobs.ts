import type { TokenLogprobs } from "../../generated/wire.ts";

const decoder = new TextDecoder();

/** The probabilities of tokens as OpenAI has them; a part of a character shows as U+FFFD, and its bytes say which. */
export function logprobsOf(tokens: readonly TokenLogprobs[]): { content: object[]; refusal: null } {
  const one = ({ logprob, bytes }: { logprob: number; bytes: readonly number[] }) => ({
    token: decoder.decode(Uint8Array.from(bytes)),
    logprob,
    bytes,
  });
  return { content: tokens.map((token) => ({ ...one(token), top_logprobs: token.top.map(one) })), refusal: null };
}
