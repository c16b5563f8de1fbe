// Reading of files that others wrote: every complaint says the file, the place and what was found.
import { isAbsolute, relative, resolve } from "node:path";
import { readRegularText } from "../../regular_file.ts";
import { badData, reasonOf } from "../errors.ts";

/** Most bytes of a file of questions. */
export const maxBytes: number = 512 * 1024 * 1024;

/** The text of a file. */
export async function readText(file: string): Promise<string> {
  try {
    return await readRegularText(file, maxBytes);
  } catch (error) {
    throw badData(file, undefined, reasonOf(error));
  }
}

/** The JSON value of a file. */
export async function readJson(file: string): Promise<unknown> {
  const text = await readText(file);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw badData(file, undefined, `it is not JSON: ${reasonOf(error)}`);
  }
}

/** Where a value stands, and how to complain about it. */
export class Place {
  readonly file: string;
  readonly line: number | undefined;
  readonly name: string;

  constructor(file: string, name: string, line?: number) {
    this.file = file;
    this.name = name;
    this.line = line;
  }

  fail(found: string): never {
    throw badData(this.file, this.line, `${this.name} ${found}`);
  }

  /** The value as an object. */
  object(value: unknown): Record<string, unknown> {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    return this.fail(`is ${kind(value)}, not an object`);
  }

  /** A text of an object that is not empty. */
  text(value: Record<string, unknown>, field: string): string {
    const found = value[field];
    if (typeof found === "string" && found.trim() !== "") return found;
    return this.fail(found === "" ? `has an empty \`${field}\`` : `needs a text \`${field}\`, found ${kind(found)}`);
  }

  /**
   * The file that an object names inside a folder, as an absolute path; an address or a name that leads out of the folder is refused.
   * Links are followed when the picture is read.
   */
  inside(folder: string, name: string): Picture {
    const within = resolve(folder);
    const file = resolve(within, name);
    const way = relative(within, file);
    const leaves = isAbsolute(name) || way === ".." || /^\.\.[\\/]/.test(way) || isAbsolute(way);
    if (leaves || /^(?:[a-z][a-z\d+.-]*:\/\/|(?:file|data|blob):)/i.test(name) || name.includes("\0"))
      return this.fail(`names the picture \`${name}\`, which lies outside of ${folder}`);
    return { image: file, within };
  }
}

/** Where a picture lies, and the folder that it may not leave. */
export interface Picture {
  image: string;
  within: string;
}

export function kind(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "string") return `the text ${JSON.stringify(value.slice(0, 40))}`;
  return typeof value === "object" ? "an object" : `${String(value)}`;
}
