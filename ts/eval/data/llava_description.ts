// LLaVA-Description: `detail_1k.json`, a list of { id, image, conversations: [{ from, value }, { from, value }] } whose first value holds
// `<image>`, and a folder with the COCO pictures. Prompt and answer as in the published `eval_ppl.py` of PrefixKV.
import { dirname } from "node:path";
import { dataOf, type EvalData, type EvalSample } from "../samples.ts";
import { Place, readJson } from "./json.ts";
import { picture, vicunaPrompt } from "./vicuna.ts";

/** The samples of a `detail_1k.json`; pictures lie beside it, or in `images`. */
export async function llavaDescription(file: string, images: string = dirname(file)): Promise<EvalData> {
  const list = await readJson(file);
  if (!Array.isArray(list)) return new Place(file, "the file").fail("is no array of conversations");
  const samples = list.map((value: unknown, index): EvalSample => {
    const place = new Place(file, `sample ${index}`);
    const sample = place.object(value);
    const turns = sample.conversations;
    if (!Array.isArray(turns) || turns.length < 2)
      return place.fail("needs `conversations` with a question and an answer");
    const question = place.text(place.object(turns[0]), "value");
    if (question.split(picture).length !== 2) return place.fail(`needs one ${picture} in its question`);
    return {
      id: typeof sample.id === "string" && sample.id !== "" ? sample.id : `sample-${index}`,
      ...place.inside(images, place.text(sample, "image")),
      question: vicunaPrompt(question),
      raw: true,
      // The scripts tokenize the answer by itself, which puts a space before its first word.
      answer: ` ${place.text(place.object(turns[1]), "value")}`,
    };
  });
  return dataOf("llava-description", samples);
}
