// Type-checked by `npm run check`, never run: what must and must not compile.
import { type Generation, type GenerationResult, image, load, type Model, type Part } from "prefixkv";

export async function mustCompile(): Promise<void> {
  await using model: Model = await load("models/tiny-llava", { device: "cuda:1", weights: "q4_k", threads: 2 });
  const out: Generation = model.generate({
    messages: [{ role: "user", content: [image("a.png"), "Hi"] }],
    images: ["b.png"],
  });
  for await (const part of out) part satisfies Part;
  const result: GenerationResult = await out;
  result.finish satisfies "eos" | "stop" | "length" | "aborted";
  await model.score({ prompt: "Hi", answer: "Ho" });
}

export async function mustNotCompile(model: Model): Promise<void> {
  // @ts-expect-error an unknown option
  model.generate({ prompt: "Hi", maxToken: 3 });
  // @ts-expect-error an unknown weight format
  await load(undefined, { weights: "q9" });
  // @ts-expect-error a score needs an answer
  await model.score({ prompt: "Hi" });
  // @ts-expect-error undefined is not the same as absent
  model.generate({ prompt: "Hi", maxTokens: undefined });
  // @ts-expect-error parts are text and images
  model.generate({ messages: [{ role: "user", content: [{ type: "text", text: "Hi" }] }] });
  // @ts-expect-error info is read-only
  model.info = await load();
}
