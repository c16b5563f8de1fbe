// Our side of the comparison: `ours.ts FOLDER WEIGHTS THREADS`, then one Run per line (see child.ts).
import { createInterface } from "node:readline";
import { about, full, type LoadOptions, load } from "../../ts/index.ts";
import type { Ran, Ready, Run } from "./child.ts";

const [folder = "", weights = "f32", threads = "2"] = process.argv.slice(2);
const say = (answer: Ready | Ran): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);

await using model = await load(folder, {
  weights: weights as NonNullable<LoadOptions["weights"]>,
  threads: Number(threads),
});
const held = Object.keys(model.info.weightFormats).join(" + ");
say({ ready: held, versions: { prefixkv: (await about()).version } });
for await (const line of createInterface({ input: process.stdin })) {
  const { prompt, steps, cache = full() }: Run = JSON.parse(line);
  const ran = await model.generate({ prompt, cache, maxTokens: steps + 1, ignoreEos: true });
  const { prefill, decode } = ran.timings;
  say({ promptTokens: ran.usage.promptTokens, tokens: ran.tokens, prefill, decode, resident: ran.memory.resident });
}
