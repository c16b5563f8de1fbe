// Run as a program of its own: measures a small grid into the folder of its argument and says on standard output what it does.
import { writeSync } from "node:fs";
import { dataOf, evaluate, openData } from "../../ts/eval/index.ts";

const [out = ""] = process.argv.slice(2);
const { samples } = await openData("scenes");
// Short answers, so that there is something new to break off all the time.
const short = samples.slice(0, 3).map((sample) => ({ ...sample, answer: sample.answer.split(". ")[1] ?? "" }));
await evaluate({
  data: dataOf("short scenes", short),
  methods: ["prefixkv:score=text", "h2o"],
  keeps: [0.5, 0.3],
  out,
  maxTokens: 16,
  load: { threads: 1 },
  onProgress: ({ done }) => writeSync(1, `${done}\n`),
});
