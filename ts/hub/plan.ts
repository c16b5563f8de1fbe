import { HubError } from "../errors.ts";
import { answerError, type Subject } from "./failures.ts";
import { candidates, chosenGguf } from "./gguf.ts";
import { partsOf } from "./names.ts";
import { type Asked, chosenTower } from "./towers.ts";

/** Without these nothing can be loaded. */
export const required: readonly string[] = ["config.json"];

export const tokenizer = "tokenizer.json";

/** In place of it, of tokenizers that the engine makes of these. */
export const vocabulary: readonly string[] = ["vocab.json", "merges.txt"];

/** These are read if they are there. */
export const optional: readonly string[] = [
  "tokenizer_config.json",
  "special_tokens_map.json",
  "generation_config.json",
  "preprocessor_config.json",
  "video_preprocessor_config.json",
  "processor_config.json",
  "chat_template.json",
  "chat_template.jinja",
];

export const single = "model.safetensors";
export const index = "model.safetensors.index.json";

/** The files of a LoRA adapter. */
export const adapterFiles: readonly string[] = ["adapter_config.json", "adapter_model.safetensors"];

export const maxIndexBytes: number = 64 * 1024 * 1024;
const maxShards = 2_000;
const maxListed = 50;

/**
 * The files of a repository that the engine reads. As in transformers, a single file wins over an index, which may be left from
 * an earlier save; the index names the shards. Of GGUF files it is one, which `file` means or the only one, or all of one model that is split,
 * with the vision tower that goes with it, and nothing else.
 */
export function neededFiles(names: ReadonlySet<string>, subject: Subject, file?: string, vision?: Asked): string[] {
  const bare = !names.has(single) && !names.has(index) && candidates(names, undefined).length > 0;
  if (file !== undefined || bare) {
    const text = chosenGguf(names, subject, file);
    const tower = chosenTower(names, subject, text, vision);
    return [...partsOf(text), ...(tower === undefined ? [] : [tower])];
  }
  const lacks = (what: string): HubError => lacking(names, subject, what, instead(names));
  if (names.has("projector/config.json"))
    throw lacks("is a LLaVA in the layout of XTuner, with its projector in a folder of its own");
  const weights = names.has(single) ? single : index;
  if (!names.has("config.json")) throw lacks("has no config.json");
  if (!names.has(weights)) throw lacks(`has neither ${single} nor ${index}`);
  const slow = !names.has(tokenizer) && vocabulary.every((name) => names.has(name));
  if (!names.has(tokenizer) && !slow) throw lacks(`has no ${tokenizer}`);
  return [...required, ...(slow ? vocabulary : [tokenizer]), ...optional.filter((name) => names.has(name)), weights];
}

/** The files of an adapter, all of which must be there. */
export function neededOfAdapter(names: ReadonlySet<string>, subject: Subject): readonly string[] {
  const missing = adapterFiles.find((name) => !names.has(name));
  if (missing === undefined) return adapterFiles;
  const pickled = names.has("adapter_model.bin")
    ? ". Pickled weights are not read: save the adapter with safetensors"
    : "";
  throw lacking(names, subject, `has no ${missing}, so it is no LoRA adapter that is read`, pickled);
}

function lacking(names: ReadonlySet<string>, { id, revision }: Subject, what: string, cure: string): HubError {
  const files = [...names].sort().slice(0, maxListed);
  const more = names.size > files.length ? ` and ${names.size - files.length} more` : "";
  const message = `${id} ${what}; it has ${files.length > 0 ? files.join(", ") : "no files"}${more}${cure}`;
  return new HubError("hub-files", message, { id, revision, files });
}

/** Explains what a repository without a usable model contains, and what to do. */
function instead(names: ReadonlySet<string>): string {
  const has = (pattern: RegExp) => [...names].some((name) => pattern.test(name));
  if (names.has("projector/config.json"))
    return ". That is not read: load the repository whose name ends in -transformers or -hf";
  if (names.has("adapter_config.json"))
    return ". It is an adapter (LoRA): load the model that it was made for, with this one as `adapter`";
  if (names.has("mm_projector.bin"))
    return '. It is a LLaVA in the layout of its own code, which is not read: load its conversion, for instance "llava-hf/llava-1.5-7b-hf"';
  if (has(/^(pytorch_model|consolidated).*\.(bin|pth)$/))
    return ". Pickled weights are not read: convert it to safetensors";
  return "";
}

/** The shards that an index names, each once. */
export function shardNames(text: string, subject: Subject, url: string): string[] {
  const bad = (why: string) => answerError("hub-response", { ...subject, file: index }, url, why);
  const names = new Set<unknown>(Object.values(weightMap(text) ?? {}));
  if (names.size === 0) throw bad("it is not a weight index");
  if (names.size > maxShards) throw bad(`it names more than ${maxShards} files`);
  return [...names].map((name) => {
    if (typeof name === "string" && /^[\w-][\w.-]*\.safetensors$/.test(name)) return name;
    throw bad(`it names the file \`${String(name)}\`, which is not a plain name of a .safetensors file`);
  });
}

function weightMap(text: string): object | undefined {
  try {
    const map: unknown = (JSON.parse(text) as { weight_map?: unknown } | null)?.weight_map;
    return typeof map === "object" && map !== null ? map : undefined;
  } catch {
    return undefined;
  }
}
