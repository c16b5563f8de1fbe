// MM-Vet (Yu et al. 2023, arXiv 2308.02490): `mm-vet.json`, an object { "v1_0": { imagename, question, answer, ... }, ... } as published,
// or the list of { image, question, answer } that PrefixKV's scripts read, and a folder `images`.
import { dirname, join } from "node:path";
import { dataOf, type EvalData, type EvalSample } from "../samples.ts";
import { Place, readJson } from "./json.ts";
import { picture, vicunaPrompt } from "./vicuna.ts";

/** The samples of an `mm-vet.json`; the picture comes after the question, as in PrefixKV's scripts. */
export async function mmVet(file: string, images: string = join(dirname(file), "images")): Promise<EvalData> {
  const whole = await readJson(file);
  const named: [string, unknown][] = Array.isArray(whole)
    ? whole.map((value: unknown, index) => [`v1_${index}`, value])
    : Object.entries(new Place(file, "the file").object(whole));
  const samples = named.map(([id, value]): EvalSample => {
    const place = new Place(file, `sample ${id}`);
    const sample = place.object(value);
    const name = place.text(sample, "image" in sample ? "image" : "imagename");
    return {
      id,
      ...place.inside(images, name),
      question: vicunaPrompt(`${place.text(sample, "question")}\n${picture}`),
      raw: true,
      answer: ` ${place.text(sample, "answer")}`,
    };
  });
  return dataOf("mm-vet", samples);
}
