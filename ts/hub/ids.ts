import { OptionError } from "../errors.ts";

/** A Hub model at a branch, tag or commit. */
export interface HubId {
  /** `org/name`. */
  id: string;
  revision: string;
}

const part = "[A-Za-z0-9_](?:[\\w.-]{0,94}[A-Za-z0-9_])?";
const pattern = new RegExp(`^(${part}/${part})(?:@(.+))?$`);

/** Reads `org/name` or `org/name@revision`; undefined for what can only be a path. */
export function parseHubId(source: string, revision: string | undefined): HubId | undefined {
  const [, id, own] = pattern.exec(source) ?? [];
  if (id === undefined || id.includes("--") || id.includes("..") || id.endsWith(".git")) return undefined;
  if (own !== undefined && revision !== undefined && own !== revision)
    throw new OptionError("option", `\`${source}\` names another revision than the option \`revision\`: ${revision}`, {
      option: "revision",
    });
  return { id, revision: checkRevision(own ?? revision ?? "main") };
}

/** Bytes of a file's name that the usual disks allow. */
export const maxName = 255;

/** A full commit hash, which never changes its meaning. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/** A revision becomes a path below `refs`: it must not lead out of it. */
function checkRevision(revision: string): string {
  const segments = revision.split("/");
  // Each becomes the name of a file or a folder.
  const long = segments.find((segment) => segment.length > maxName);
  if (long !== undefined)
    throw new OptionError(
      "option",
      `\`${revision.slice(0, 40)}...\` is no revision: a name of ${long.length} characters is longer than a disk allows (${maxName})`,
      {
        option: "revision",
      },
    );
  if (/^[\w.+-]+(\/[\w.+-]+)*$/.test(revision) && !/(^|\/)\.{1,2}(\/|$)/.test(revision)) return revision;
  throw new OptionError("option", `\`${revision}\` is no revision: give a branch, a tag or a commit`, {
    option: "revision",
  });
}

/** Whether a file name of a repository stays inside the folder that it is relative to. */
export function isSafeName(name: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is refused
  if (name === "" || /[\x00-\x1f\\:]/.test(name)) return false;
  return name.split("/").every((segment) => segment !== "" && segment !== "." && segment !== "..");
}
