/** The text around a question in the published LLaVA-1.5 scripts: the `llava_v1` conversation (Vicuna v1). */
export function vicunaPrompt(question: string): string {
  return (
    "A chat between a curious user and an artificial intelligence assistant. " +
    "The assistant gives helpful, detailed, and polite answers to the user's questions. " +
    `USER: ${question} ASSISTANT:`
  );
}

/** The picture's place in a question. */
export const picture = "<image>";
