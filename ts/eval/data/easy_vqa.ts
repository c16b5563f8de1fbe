// easy-VQA (the Python package `easy-vqa`): a folder with answers.txt and test/questions.json, a list of [question, answer, image number],
// beside test/images/NUMBER.png. `npm run fetch:easy-vqa` puts it in .cache/data/easy-vqa.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { dataOf, type EvalData, type EvalSample } from "../samples.ts";
import { kind, Place, readJson, readText } from "./json.ts";

/** The instruction with which LLaVA-1.5 was trained to answer in a word (Liu et al. 2023, arXiv 2310.03744). */
const short = "Answer the question using a single word or phrase.";

/** The test questions of a folder: its data folder, or the folder into which the package was installed. */
export async function easyVqa(folder: string): Promise<EvalData> {
  const inner = join(folder, "easy_vqa", "data");
  const data = existsSync(inner) ? inner : folder;
  const known = new Set(
    (await readText(join(data, "answers.txt")))
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== ""),
  );
  const file = join(data, "test", "questions.json");
  const list = await readJson(file);
  if (!Array.isArray(list)) return new Place(file, "the file").fail("is no array of questions");
  const samples = list.map((value: unknown, index): EvalSample => {
    const place = new Place(file, `question ${index}`);
    if (!Array.isArray(value) || value.length !== 3)
      return place.fail(`is ${kind(value)}, not [question, answer, number of the image]`);
    const [question, answer, number] = value as unknown[];
    if (typeof question !== "string" || question === "") return place.fail(`has ${kind(question)} as question`);
    if (typeof answer !== "string" || !known.has(answer))
      return place.fail(`has the answer ${kind(answer)}, which is not in answers.txt`);
    if (!Number.isSafeInteger(number) || Number(number) < 0)
      return place.fail(`has ${kind(number)} as number of its image`);
    return {
      id: `test-${index}`,
      ...place.inside(join(data, "test", "images"), `${String(number)}.png`),
      question: `${question}\n${short}`,
      answer,
      answers: [answer],
    };
  });
  return dataOf("easy-vqa", samples);
}
