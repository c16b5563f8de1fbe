import { HubError } from "../errors.ts";
import { answerError, type Subject } from "./failures.ts";

/** Without these nothing can be loaded. */
export const required: readonly string[] = ["config.json", "tokenizer.json"];

/** These are read if they are there. */
export const optional: readonly string[] = [
  "tokenizer_config.json",
  "special_tokens_map.json",
  "generation_config.json",
  "preprocessor_config.json",
  "processor_config.json",
  "chat_template.json",
  "chat_template.jinja",
];

export const single = "model.safetensors";
export const index = "model.safetensors.index.json";

export const maxIndexBytes: number = 64 * 1024 * 1024;
const maxShards = 2_000;
const maxListed = 50;

/** What of a repository the engine reads; the shards are named by the index, which goes before the single file. */
export function neededFiles(names: ReadonlySet<string>, subject: Subject): string[] {
  const { id, revision } = subject;
  const lacks = (what: string): HubError => {
    const files = [...names].sort().slice(0, maxListed);
    const more = names.size > files.length ? ` and ${names.size - files.length} more` : "";
    const message = `${id} ${what}; it has ${files.length > 0 ? files.join(", ") : "no files"}${more}`;
    return new HubError("hub-files", message, { id, revision, files });
  };
  const weights = names.has(index) ? index : single;
  if (!names.has("config.json")) throw lacks("has no config.json");
  if (!names.has(weights)) throw lacks(`has neither ${single} nor ${index}`);
  if (!names.has("tokenizer.json")) throw lacks("has no tokenizer.json");
  return [...required, ...optional.filter((name) => names.has(name)), weights];
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
