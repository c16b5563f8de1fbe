/** A text of exactly `n` tokens: the tokenizer of the embedded model adds one at the start and takes " a" as one. */
export function promptOf(n: number): string {
  return " a".repeat(n - 1);
}
