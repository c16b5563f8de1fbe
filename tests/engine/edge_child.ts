// A server that spreads bodies of requests into calls and catches their rejections; ends with 0 if it lives.
import { load } from "../../ts/index.ts";

const model = await load();
const chat = model.chat();
let caught = 0;
for (const body of [
  null,
  undefined,
  5,
  "Hi",
  [],
  { signal: {} },
  { prompt: 5 },
  { prompt: "Hi", cache: () => {} },
] as never[]) {
  model.generate(body);
  for (const call of [
    () => model.generate(body),
    () => Array.fromAsync(model.generate(body)),
    () => model.trace(body),
    () => model.score(body),
    () => model.calibrate(body),
    () => chat.send(body),
    () => Array.fromAsync(chat.send(body)),
    () => chat.send("Hi", (Array.isArray(body) ? body : { stop: body ?? null }) as never),
    () => model.tokenize(body === "Hi" ? (7 as never) : body),
    () => model.detokenize((Array.isArray(body) ? [body] : body) as never),
    () => load(undefined, (body ?? null) as never),
  ]) {
    try {
      await call();
    } catch (error) {
      if ((error as { code?: unknown }).code === "option" || (error as { code?: unknown }).code === "prompt")
        caught += 1;
      else throw error;
    }
  }
  try {
    model.chat((body ?? null) as never);
  } catch {
    caught += 1;
  }
}
await new Promise((resolve) => setTimeout(resolve, 50));
await chat.dispose();
console.log(caught, (await model.tokenize("Hi")).length > 0);
await model.dispose();
