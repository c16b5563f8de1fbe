import { existsSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { Place } from "../../options/place.ts";
import { fields, readText, text } from "../../options/rules.ts";
import { badData } from "../errors.ts";
import type { EvalData } from "../samples.ts";
import { easyVqa } from "./easy_vqa.ts";
import { jsonLines } from "./json_lines.ts";
import { llavaDescription } from "./llava_description.ts";
import { mmVet } from "./mm_vet.ts";
import { scenes } from "./scenes.ts";

const readImages = fields({ images: text });

/**
 * Data by name or path: `scenes` are the 60 drawn scenes that come with the package; otherwise a `.jsonl` file, a `detail_1k.json`, an
 * `mm-vet.json`, or a folder that holds one of these or the data of easy-VQA. docs/eval.md has the formats. `images` is the folder of the
 * pictures where it is not the usual one.
 *
 * @example
 * ```ts
 * import { openData } from "prefixkv/eval";
 *
 * const { name, samples } = await openData("scenes");
 * console.log(name, samples[0]?.question);
 * ```
 */
export async function openData(source = "scenes", options: { images?: string } = {}): Promise<EvalData> {
  readText(source, "openData", "source");
  const { images } = readImages(options, new Place("openData"));
  if (source === "scenes") return scenes();
  if (!existsSync(source))
    throw badData(source, undefined, "there is no such file or folder, and the only data with a name are `scenes`");
  const file = statSync(source).isDirectory() ? held(source) : source;
  if (file === undefined) return easyVqa(source);
  const name = basename(file);
  if (name.endsWith(".jsonl")) return jsonLines(file);
  if (name === "samples.json") return scenes(source);
  if (/^mm-?vet.*\.json$/i.test(name)) return mmVet(file, images);
  if (/^detail_\w+\.json$/.test(name)) return llavaDescription(file, images);
  throw badData(
    source,
    undefined,
    "its name is none of *.jsonl, detail_*.json and mm-vet*.json, and it is no folder with such a file",
  );
}

/** The file of a folder that says what it is; undefined for easy-VQA, whose data are several files. */
function held(folder: string): string | undefined {
  const names = ["detail_1k.json", "mm-vet.json", "samples.json", "samples.jsonl"];
  const found = names.map((name) => join(folder, name)).find((file) => existsSync(file));
  if (found !== undefined) return found;
  if ([folder, join(folder, "easy_vqa", "data")].some((data) => existsSync(join(data, "answers.txt"))))
    return undefined;
  throw badData(folder, undefined, `it holds none of ${names.join(", ")} and no data of easy-VQA (answers.txt, test/)`);
}
