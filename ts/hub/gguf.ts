import { HubError } from "../errors.ts";
import type { Subject } from "./failures.ts";
import { matches } from "./glob.ts";
import { baseName, isGguf, isTower } from "./names.ts";

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

/** The GGUF files that may be meant: those that match `pattern`, or without one all of language models. */
export function candidates(names: Iterable<string>, pattern: string | undefined): string[] {
  return pattern === undefined ? [...names].filter(isModel).sort() : matching(names, pattern);
}

/** The one GGUF file of a repository that is meant. */
export function chosenGguf(names: ReadonlySet<string>, subject: Subject, pattern: string | undefined): string {
  const { id, revision } = subject;
  const found = candidates(names, pattern);
  const [only, another] = found;
  if (only !== undefined && another === undefined) return only;
  const refuse = (what: string, files: string[], cure: string): HubError => {
    const more = files.length > maxListed ? ` and ${files.length - maxListed} more` : "";
    const listed = files.slice(0, maxListed);
    const message = `${id} has ${what}${listed.length > 0 ? `: ${listed.join(", ")}${more}` : ""}${cure}`;
    return new HubError("hub-files", message, { id, revision, files: listed });
  };
  const all = [...names].filter(isGguf).sort();
  if (only === undefined) throw refuse(all.length > 0 ? `no GGUF file \`${pattern}\`, but` : "no GGUF file", all, "");
  if (found.every((name) => /-\d{5}-of-\d{5}\.gguf$/i.test(name)))
    throw refuse(
      "a model in several files",
      found,
      "; these are not read: take one that is whole, or join them with llama-gguf-split --merge",
    );
  const which = pattern === undefined ? "several GGUF files" : `several GGUF files \`${pattern}\``;
  throw refuse(which, found, '; name one with `file`, for instance `file: "*Q4_K_M*"`');
}
