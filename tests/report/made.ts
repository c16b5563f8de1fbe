// The reports that the tests look at, made from the embedded model and from the fixture of an evaluation.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { h2o, image, load, prefixkv } from "../../ts/index.ts";
import { type DescribeInput, describeReport, evalReport, type Report } from "../../ts/report/index.ts";

const scene = fileURLToPath(new URL("../../data/scenes/scene-001.png", import.meta.url));

export const evalFolder: string = fileURLToPath(new URL("../fixtures/eval-run", import.meta.url));

let described: Promise<{ input: DescribeInput; report: Report }> | undefined;

/** The report of a scene with two methods, once. */
export function describeScene(): Promise<{ input: DescribeInput; report: Report }> {
  described ??= make();
  return described;
}

async function make(): Promise<{ input: DescribeInput; report: Report }> {
  const model = await load();
  const prompt = "Describe the image in detail.";
  const messages = [{ role: "user", content: [image(scene), prompt] }];
  const runs = [];
  for (const cache of [prefixkv({ keep: 0.5 }), h2o({ keep: 0.5 })]) {
    runs.push({ label: cache.method, trace: await model.trace({ messages, cache, maxTokens: 12, ignoreEos: true }) });
  }
  await model.dispose();
  const pictures = [{ name: "scene-001.png", bytes: new Uint8Array(readFileSync(scene)) }];
  const input = { info: model.info, prompt, runs, pictures };
  return { input, report: await describeReport(input) };
}

let evaluated: Promise<Report> | undefined;

/** The report of the fixture, once. */
export function evaluation(): Promise<Report> {
  evaluated ??= evalReport(evalFolder);
  return evaluated;
}
