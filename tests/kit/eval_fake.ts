// A small evaluation over the contract in memory: two samples, the full cache and two methods at one size.
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { dataOf, type EvalData, type EvaluateOptions, evaluate, type Summary } from "../../ts/eval/index.ts";
import { openModel } from "../../ts/load.ts";
import { FakeNative } from "./fake_native.ts";

export const picture: string = fileURLToPath(new URL("../../data/scenes/scene-024.png", import.meta.url));
export const data: EvalData = dataOf("two", [
  { id: "a", image: picture, question: "What?", answer: "There is a star.", answers: ["There is a star."] },
  { id: "b", image: picture, question: "Where?", answer: "Here." },
]);

const folder = mkdtempSync(join(tmpdir(), "prefixkv-eval-"));
let count = 0;

/** A folder for results that is not there yet. */
export const fresh = (): string => join(folder, `out-${count++}`);

/** Removes all of them. */
export const clean = (): void => rmSync(folder, { recursive: true });

export const read = (out: string, name = "quality.jsonl"): Promise<string> => readFile(join(out, name), "utf8");

export async function run(
  out: string,
  options: Partial<EvaluateOptions> = {},
  fake: FakeNative = new FakeNative(),
): Promise<Summary> {
  const model = await openModel(fake, ".");
  try {
    return await evaluate({ model, data, methods: ["h2o", "snapkv:window=4"], keeps: [0.5], out, ...options });
  } finally {
    await model.dispose();
  }
}
