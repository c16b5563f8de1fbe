import { HubError } from "../errors.ts";
import type { Subject } from "./failures.ts";
import { matches } from "./glob.ts";
import { baseName, isGguf, isTower } from "./names.ts";

/** The vision tower to load: a name or a pattern, false for none; undefined leaves the choice to {@link chosenTower}. */
export type Asked = string | false | undefined;

/** A name that notes carry of a commit without a vision tower. */
export const noTower = "mmproj.gguf";

/** The formats of towers, the better one first: a tower is small, and in F16 it is what every tool reads. */
const kinds = ["f16", "bf16", "f32", "q8_0"];

const maxListed = 50;

function isKind(name: string, kind: string): boolean {
  return new RegExp(`(?<![a-z0-9])${kind}(?![a-z0-9])`, "i").test(baseName(name));
}

/** Whether no other tower of a repository would be taken before this one, whatever it has. */
export function isBest(name: string): boolean {
  return isKind(name, kinds[0] as string);
}

/**
 * The vision tower that goes with a language model: the one that is asked for, else the only one of its folder, or of the repository, or of
 * several the only one in F16, else in BF16, F32 or Q8_0. Undefined where there is none.
 */
export function chosenTower(names: Iterable<string>, subject: Subject, text: string, asked: Asked): string | undefined {
  if (asked === false || isTower(text)) return undefined;
  const files = [...names].filter((name) => isGguf(name) && name !== text).sort();
  const towers = files.filter(isTower);
  const refuse = (what: string, found: string[], cure: string): HubError => {
    const { id, revision } = subject;
    const more = found.length > maxListed ? ` and ${found.length - maxListed} more` : "";
    const listed = found.slice(0, maxListed);
    const message = `${id} has ${what}${listed.length > 0 ? `: ${listed.join(", ")}${more}` : ""}${cure}`;
    return new HubError("hub-files", message, { id, revision, files: listed });
  };
  const cure = '; name one with `vision`, for instance `vision: "*f16*"`, or leave them out with `vision: false`';
  if (asked !== undefined) {
    const found = files.filter((name) => matches(asked, name) || matches(asked, baseName(name)));
    // `*f16*` is not meant to find another language model.
    const meant = found.some(isTower) ? found.filter(isTower) : found;
    if (meant.length > 1) throw refuse(`several files \`${asked}\``, meant, "; name one with `vision`");
    if (meant[0] === undefined)
      throw refuse(`no GGUF file \`${asked}\` for \`vision\`${towers.length > 0 ? ", but" : ""}`, towers, "");
    return meant[0];
  }
  const folder = text.slice(0, text.length - baseName(text).length);
  const beside = towers.filter((name) => name === folder + baseName(name));
  const near = beside.length > 0 ? beside : towers;
  if (near.length <= 1) return near[0];
  for (const kind of kinds) {
    const found = near.filter((name) => isKind(name, kind));
    if (found.length === 1) return found[0];
    if (found.length > 1) throw refuse("several vision towers", found, cure);
  }
  throw refuse("several vision towers", near, cure);
}
