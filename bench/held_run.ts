// One process of held.ts: `held_run.ts MODEL WEIGHTS METHOD KEEP CHATS TOKENS` holds chats and looks at the memory of the process, and
// prints JSON. Linux only.
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { type CacheMethod, type Chat, load } from "../ts/index.ts";
import { mixedPrompt } from "./prompts.ts";
import { randomModel, type Shape, smol } from "./random_model.ts";

export interface HeldRun {
  /** Resident bytes of the process before the chats, with all of them, and after the last is closed. */
  before: number;
  held: number;
  after: number;
  /** Sum of the chats' reports, and the size of full caches of the same positions. */
  reported: number;
  full: number;
  /** Milliseconds of each prompt, and per token after it. */
  prefill: number[];
  decode: number[];
}

/** Small, and its cache is not: 24 KiB a position in f32. */
const little: Shape = { ...smol, hidden: 192, intermediate: 256, layers: 12, heads: 4, kvHeads: 4, vocabulary: 1024 };

const [name, weights, method, keep, chats, tokens] = process.argv.slice(2) as [
  string,
  "f32" | "f16",
  string,
  string,
  string,
  string,
];
const template =
  "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
const folder = await randomModel(name === "little" ? "held-little" : "smol-135m", name === "little" ? little : smol);
await writeFile(`${folder}/chat_template.jinja`, template);

const settle = async (): Promise<number> => {
  for (let round = 0; round < 3; round++) {
    (globalThis as { gc?: () => void }).gc?.();
    (globalThis as { Bun?: { gc(force: boolean): void } }).Bun?.gc(true);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return Number(readFileSync("/proc/self/statm", "utf8").split(" ")[1]) * 4096;
};

const cache = { method, ...(method === "full" ? {} : { keep: Number(keep) }) } as CacheMethod;
const model = await load(folder, { weights });
const prompt = mixedPrompt(Number(tokens));
const turn = { maxTokens: 16, ignoreEos: true };

// A first turn also sets up memory that is not the cache's.
const first = model.chat({ cache });
await first.send(prompt.slice(0, prompt.length / 4), turn);
await first.dispose();

const before = await settle();
const open: Chat[] = [];
const run: HeldRun = { before, held: 0, after: 0, reported: 0, full: 0, prefill: [], decode: [] };
for (let index = 0; index < Number(chats); index++) {
  const chat = model.chat({ cache });
  open.push(chat);
  const { memory, timings } = await chat.send(prompt, turn);
  run.reported += memory.resident;
  run.full += memory.full;
  run.prefill.push(timings.prefill);
  run.decode.push(timings.decode / (turn.maxTokens - 1));
}
run.held = await settle();
for (const chat of open) await chat.dispose();
run.after = await settle();
await model.dispose();
console.log(JSON.stringify(run));
