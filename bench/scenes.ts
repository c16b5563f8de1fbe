// The embedded model on the 60 held-out scenes: `npm run scenes`. Writes bench/results/scenes.json and prints a summary.
//
// An object counts as described right when one sentence of the greedy description gives its place, colour and shape together.
// The perplexity is measured on the reference descriptions, token-weighted over all scenes, beside what Hugging Face transformers
// computes on the same files (tests/golden/data/scenes.json).
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { describes, scenes } from "../ts/eval/data/scenes.ts";
import type { EvalSample } from "../ts/eval/samples.ts";
import { image, load, type Message, type Model } from "../ts/index.ts";

interface Golden {
  /** `greedy` ends with the end-of-sequence token, which our tokens leave out. */
  scenes: { image: string; tokens: number[]; logprobs: number[]; greedy: number[] }[];
  overall: { ppl: number };
}

/** A scene of the package, whose objects are known. */
type Sample = EvalSample & Required<Pick<EvalSample, "objects">>;

async function readSamples(): Promise<Sample[]> {
  return (await scenes()).samples.map((sample) => ({ ...sample, objects: sample.objects ?? [] }));
}

/** The picture of a scene and the question about it. */
function ask(sample: Sample): Message[] {
  return [{ role: "user", content: [image(sample.image), sample.question] }];
}

async function measure(model: Model): Promise<void> {
  const samples = await readSamples();
  const golden: Golden = JSON.parse(
    await readFile(new URL("../tests/golden/data/scenes.json", import.meta.url), "utf8"),
  );
  const reference = new Map(golden.scenes.map((scene) => [scene.image, scene]));

  const result = { objects: 0, right: 0, exact: 0, sameText: 0, worstLogprob: 0, nll: 0, tokens: 0 };
  for (const sample of samples) {
    const messages = ask(sample);
    const described = await model.generate({ messages, maxTokens: 256 });
    const right = sample.objects.filter((object) => describes(described.text, object)).length;
    result.objects += sample.objects.length;
    result.right += right;
    if (described.text.trim() === sample.answer) result.exact += 1;

    const scored = await model.score({ messages, answer: sample.answer });
    result.nll -= scored.logprobs.reduce((a, b) => a + b, 0);
    result.tokens += scored.tokens.length;

    const want = reference.get(`${sample.id}.png`);
    if (!want) throw new Error(`tests/golden/data/scenes.json has no ${sample.id}`);
    if (want.tokens.join() !== scored.tokens.join())
      throw new Error(`${sample.id}: other answer tokens than transformers`);
    want.logprobs.forEach((logprob, i) => {
      result.worstLogprob = Math.max(result.worstLogprob, Math.abs(logprob - (scored.logprobs[i] ?? Number.NaN)));
    });
    if (want.greedy.slice(0, -1).join() === described.tokens.join()) result.sameText += 1;
    process.stderr.write(`\r${sample.id}: ${right}/${sample.objects.length} objects right`);
  }
  process.stderr.write("\n");

  const ppl = Math.exp(result.nll / result.tokens);
  const report = {
    scenes: samples.length,
    objects: result.objects,
    objectsRight: result.right,
    objectsRightShare: result.right / result.objects,
    referenceTextExact: result.exact,
    answerTokens: result.tokens,
    ppl,
    pplTransformers: golden.overall.ppl,
    pplRelativeDifference: Math.abs(ppl / golden.overall.ppl - 1),
    largestLogprobDifference: result.worstLogprob,
    greedyTextsEqualToTransformers: result.sameText,
    weights: model.info.weights,
    machine: `${cpus().length} cores, ${cpus()[0]?.model ?? "unknown"}`,
  };
  await mkdir(new URL("results/", import.meta.url), { recursive: true });
  await writeFile(new URL("results/scenes.json", import.meta.url), `${JSON.stringify(report, null, 2)}\n`);
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
}

// Node 22 reads this file in the tests and has no `await using`.
if (import.meta.main) {
  const model = await load();
  await measure(model).finally(() => model.dispose());
}
