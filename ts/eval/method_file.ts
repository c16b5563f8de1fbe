import { OptionError } from "../errors.ts";
import { readText } from "../options/rules.ts";
import { Place, readJson } from "./data/json.ts";
import { type EvalMethod, parseMethod, type SizelessStage, splitMethods } from "./methods.ts";

/**
 * Reads a file of methods: a JSON array of strings as in `parseMethod`, or objects `{ id, cache }`. Throws an
 * EvaluationError that names the item.
 *
 * @example
 * ```ts
 * import { writeFile } from "node:fs/promises";
 * import { evaluate, readMethods } from "prefixkv/eval";
 *
 * const offline = { id: "offline", cache: { method: "prefixkv", calibration: { crossFit: 2 } } };
 * await writeFile("methods-of-mine.json", JSON.stringify(["prefixkv", offline]));
 * const methods = await readMethods("methods-of-mine.json");
 * const { cells } = await evaluate({ methods, keeps: [0.5], limit: 2, out: "results-of-a-file" });
 * console.log(cells.map(({ method, peakShare }) => [method, peakShare]));
 * ```
 */
export async function readMethods(file: string): Promise<EvalMethod[]> {
  readText(file, "readMethods", "file");
  const list = await readJson(file);
  if (!Array.isArray(list) || list.length === 0) return new Place(file, "the file").fail("is no array of methods");
  return list.map((item: unknown, index) => readMethod(item, new Place(file, `method ${index}`)));
}

/** Reads a list such as `h2o,prefixkv:score=text,mine.json`: methods, and files of methods. */
export async function readMethodList(text: string): Promise<EvalMethod[]> {
  const parts = splitMethods(text).map((part) => (isFile(part) ? readMethods(part) : [parseMethod(part)]));
  return (await Promise.all(parts)).flat();
}

/** A calibration can also be a file, but follows a `=`. */
function isFile(part: string): boolean {
  return part.endsWith(".json") && !part.includes("=");
}

function readMethod(item: unknown, place: Place): EvalMethod {
  if (typeof item === "string") {
    try {
      return parseMethod(item);
    } catch (error) {
      if (!(error instanceof OptionError)) throw error;
      return place.fail(`cannot be meant: ${error.message.replace(/^invalid option: /, "")}`);
    }
  }
  const { cache, ...rest } = place.object(item);
  const id = place.text(rest, "id");
  const other = Object.keys(rest).find((name) => name !== "id");
  if (other !== undefined) return place.fail(`has \`${other}\`; a method has \`id\` and \`cache\``);
  if (!Array.isArray(cache)) return { id, cache: readStage(cache, place) };
  return { id, cache: cache.map((stage: unknown) => readStage(stage, place)) };
}

function readStage(value: unknown, place: Place): SizelessStage {
  const stage = place.object(value);
  return { ...stage, method: place.text(stage, "method") };
}
