import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The absolute path of a file that a caller names by path or `file:` URL; undefined for any other URL. */
export function filePath(source: string | URL): string | undefined {
  if (!(source instanceof URL) && !/^file:/i.test(source)) return resolve(source);
  const url = new URL(source);
  return url.protocol === "file:" ? fileURLToPath(url) : undefined;
}
