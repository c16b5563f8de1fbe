// Collects the TypeScript of the documentation: code blocks of the pages, `@example`s of the sources, and the examples.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../runtimes/spawn.ts";

export interface Snippet {
  /** Where it stands: file and line. */
  name: string;
  code: string;
  /** Why it is only type-checked: the text after `no-run` in the code block's first line. */
  noRun: string | undefined;
  /** An example is run from the repository, everything else from a folder with a picture. */
  example: boolean;
}

/** Every snippet, in the order of the files. Those of the reference are the sources' own. */
export function collectSnippets(): Snippet[] {
  const written = list("docs", ".md").filter((file) => !file.startsWith(join("docs", "reference")));
  const pages = ["README.md", ...written].flatMap((file) => blocks(file, read(file)));
  const sources = list("ts", ".ts").flatMap((file) => blocks(file, read(file).replace(/^ *\* ?/gm, "")));
  const examples = list("examples", ".ts").map((file) => ({
    name: file,
    code: read(file),
    noRun: undefined,
    example: true,
  }));
  return [...pages, ...sources, ...examples];
}

function list(folder: string, extension: string): string[] {
  const names = readdirSync(join(root, folder), { recursive: true }).map(String).sort();
  return names.filter((name) => name.endsWith(extension)).map((name) => join(folder, name));
}

function read(file: string): string {
  try {
    return readFileSync(join(root, file), "utf8");
  } catch {
    return "";
  }
}

function blocks(file: string, text: string): Snippet[] {
  return [...text.matchAll(/^```ts(?: +no-run:? *([^\n]*))?\n(.*?)^```$/gms)].map((match) => ({
    name: `${file}:${text.slice(0, match.index).split("\n").length}`,
    code: match[2] ?? "",
    noRun: match[1],
    example: false,
  }));
}
