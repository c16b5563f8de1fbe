import { HubError } from "../errors.ts";
import type { Subject } from "./failures.ts";
import { matches } from "./glob.ts";
import { baseName, isGguf, isTower, partsOf } from "./names.ts";

const maxListed = 50;

/** A file of a language model in GGUF's format, by its name; vision towers are none. */
function isModel(name: string): boolean {
  return isGguf(name) && !isTower(name);
}

/** Those of the names that a pattern means, by the whole name or what follows its last slash. */
function matching(names: Iterable<string>, pattern: string): string[] {
  const found = [...names].filter(
    (name) => isGguf(name) && (matches(pattern, name) || matches(pattern, baseName(name))),
  );
  // `*` alone, or `*f16*`, is not meant to find a vision tower beside the model.
  const models = found.filter(isModel);
  return (models.length > 0 ? models : found).sort();
}

/** The GGUF files that may be meant: those that match `pattern`, or without one all of language models; of a model in several the first. */
export function candidates(names: Iterable<string>, pattern: string | undefined): string[] {
  const found = pattern === undefined ? [...names].filter(isModel) : matching(names, pattern);
  return [...new Set(found.map((name) => partsOf(name)[0] as string))].sort();
}

/** The one GGUF file of a repository that is meant, or the first of those of a model in several, which are all there. */
export function chosenGguf(names: ReadonlySet<string>, subject: Subject, pattern: string | undefined): string {
  const { id, revision } = subject;
  const found = candidates(names, pattern);
  const [only, another] = found;
  const refuse = (what: string, files: string[], cure: string): HubError => {
    const more = files.length > maxListed ? ` and ${files.length - maxListed} more` : "";
    const listed = files.slice(0, maxListed);
    const message = `${id} has ${what}${listed.length > 0 ? `: ${listed.join(", ")}${more}` : ""}${cure}`;
    return new HubError("hub-files", message, { id, revision, files: listed });
  };
  if (only !== undefined && another === undefined) {
    const missing = partsOf(only).filter((name) => !names.has(name));
    if (missing.length === 0) return only;
    throw refuse(`a model in ${partsOf(only).length} files without`, missing, "; load another file of it with `file`");
  }
  const all = [...names].filter(isGguf).sort();
  if (only === undefined) throw refuse(all.length > 0 ? `no GGUF file \`${pattern}\`, but` : "no GGUF file", all, "");
  const which = pattern === undefined ? "several GGUF files" : `several GGUF files \`${pattern}\``;
  throw refuse(which, found, '; name one with `file`, for instance `file: "*Q4_K_M*"`');
}
