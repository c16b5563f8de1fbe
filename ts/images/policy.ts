import { realpath } from "node:fs/promises";
import { isAbsolute, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import type { Place } from "../options/place.ts";
import { address, fields, items, type Rules } from "../options/rules.ts";
import { Unreadable } from "../regular_file.ts";

/** Which addresses images are fetched from; see {@link ImagePolicy.fetch}. */
export type FetchRule = "public" | "any" | "none";

/**
 * Which files and addresses a model may read for the images of a prompt. It does not concern bytes, blobs and `data:` URLs, which are
 * there already. See docs/images.md.
 *
 * @example
 * ```ts
 * import { type ImagePolicy, load } from "prefixkv";
 *
 * const images: ImagePolicy = {
 *   fetch: ({ hostname }) => (hostname === "images.example.com" ? "public" : "none"),
 *   files: "./uploads",
 * };
 * await using model = await load(undefined, { images });
 * console.log(model.info.image?.tokens);
 * ```
 */
export interface ImagePolicy {
  /**
   * Which `http:` and `https:` addresses may be fetched: `"public"`, the default, only public internet addresses, whatever name or
   * redirect leads to them; `"any"` also this machine and its networks; `"none"` nothing. A function decides for every URL, each
   * redirect included; true is `"any"` and false is `"none"`.
   */
  readonly fetch?: FetchRule | ((url: URL) => FetchRule | boolean | Promise<FetchRule | boolean>);
  /**
   * Which files may be read: `"any"`, `"none"`, or those in a folder or in several, links followed. Without it, those that
   * `image(path)` names, and none that a plain string or URL among the `images` of a request names.
   */
  readonly files?: "any" | "none" | (string & {}) | URL | readonly (string | URL)[];
}

/** The rights that apply to one image. */
export interface ImageRights {
  readonly fetch: NonNullable<ImagePolicy["fetch"]>;
  /** Folders as absolute paths. */
  readonly files: "any" | "none" | readonly string[];
}

const rules = {
  fetch: (value: unknown, place: Place): NonNullable<ImagePolicy["fetch"]> => {
    if (isRule(value)) return value;
    if (typeof value === "function") return value as (url: URL) => FetchRule;
    throw place.refuse('"public", "any", "none" or a function', value);
  },
  files: (value: unknown, place: Place): ImageRights["files"] => {
    if (value === "any" || value === "none") return value;
    return Array.isArray(value) ? items(value, place, folder) : [folder(value, place)];
  },
} satisfies Rules<ImagePolicy>;

/** A policy as it was given, its folders made absolute. */
export type ReadPolicy = Partial<ImageRights>;

/** Reads a policy; throws an OptionError. */
export const readPolicy = (value: unknown, place: Place): ReadPolicy => {
  const read = fields(rules)(value, place);
  return {
    ...(read.fetch !== undefined && { fetch: read.fetch }),
    ...(read.files !== undefined && { files: read.files }),
  };
};

function folder(value: unknown, place: Place): string {
  const found = address(value, place);
  if (found === "") throw place.invalid("is empty; name a folder");
  if (typeof found === "string" && !/^file:/i.test(found)) return resolve(found);
  const url = new URL(found);
  if (url.protocol !== "file:") throw place.invalid("must be a path or a file: URL");
  return fileURLToPath(url);
}

function isRule(value: unknown): value is FetchRule {
  return value === "public" || value === "any" || value === "none";
}

/** The rights for an image: from its own policy, else the model's, else the default. `trusted` sources were named by `image()`. */
export function rightsOf(own: ReadPolicy, model: ReadPolicy, trusted: boolean): ImageRights {
  return {
    fetch: own.fetch ?? model.fetch ?? "public",
    files: own.files ?? model.files ?? (trusted ? "any" : "none"),
  };
}

/** The rule for one URL. */
export async function fetchRule(fetch: ImageRights["fetch"], url: URL): Promise<FetchRule> {
  if (typeof fetch !== "function") return fetch;
  let answer: unknown;
  try {
    answer = await fetch(new URL(url));
  } catch {
    throw new Unreadable("the function `images.fetch` has thrown an error about it");
  }
  if (typeof answer === "boolean") return answer ? "any" : "none";
  if (isRule(answer)) return answer;
  throw new Unreadable('the function `images.fetch` gave neither "public", "any", "none" nor true or false');
}

/** The path to read, which may be another name of the same file; refuses what the rights do not cover. */
export async function allowedPath(path: string, files: ImageRights["files"]): Promise<string> {
  if (files === "any") return path;
  if (files === "none")
    throw new Unreadable(
      "files are not read for this prompt; name it with image(path), or allow its folder with `images.files` of load",
    );
  // A file that is not there is not told from one outside: a caller shall learn nothing of either.
  const real = await realpath(path).catch(() => undefined);
  for (const folder of files) {
    const base = await realpath(folder).catch(() => undefined);
    if (real === undefined || base === undefined) continue;
    const way = relative(base, real);
    if (way !== "" && way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way)) return real;
  }
  throw new Unreadable("it is in none of the folders that `images.files` of load allows");
}
