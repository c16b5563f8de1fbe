// JSON files and files of JSON lines, in a folder of results.
import { open, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile, writeFailure } from "../files/write.ts";
import { readRegularFile } from "../regular_file.ts";
import { badFiles, reasonOf } from "./errors.ts";

/** Most bytes of a file of results. */
const maxBytes = 2 ** 31;

/** The complete lines of a file, without what an interrupted write left after the last one. */
export interface Lines<T> {
  values: T[];
  /** Where each line ends, in bytes. */
  ends: number[];
}

/** The object of a JSON file; undefined where there is no file. */
export async function readObject<T>(file: string): Promise<T | undefined> {
  const bytes = await readIfThere(file);
  if (bytes === undefined) return undefined;
  const value = parse(bytes.toString("utf8"));
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as T;
  throw badFiles(file, "it is no JSON object");
}

/** Reads lines; `check` makes the value of one, or says what is wrong with it. */
export async function readLines<T>(
  folder: string,
  name: string,
  check: (value: Record<string, unknown>) => T | string,
): Promise<Lines<T>> {
  const file = join(folder, name);
  const bytes = await readIfThere(file);
  const lines: Lines<T> = { values: [], ends: [] };
  for (let start = 0; bytes !== undefined; ) {
    const end = bytes.indexOf(10, start) + 1;
    if (end === 0) break;
    const value = parse(bytes.toString("utf8", start, end));
    const found =
      typeof value === "object" && value !== null && !Array.isArray(value)
        ? check(value as Record<string, unknown>)
        : "it is no JSON object";
    if (typeof found === "string") throw badLine(file, lines.values.length + 1, found);
    lines.values.push(found);
    lines.ends.push(end);
    start = end;
  }
  return lines;
}

/** A line that cannot be of the run whose folder it is in. */
export function badLine(file: string, line: number, found: string): Error {
  return badFiles(file, `line ${line}: ${found}; delete the folder to begin anew`, { line });
}

/** Shortens a file to its first lines. */
export async function cut<T>(folder: string, name: string, lines: Lines<T>, count: number): Promise<void> {
  const file = join(folder, name);
  lines.values.length = count;
  const length = lines.ends[count - 1] ?? 0;
  await attempt(file, async () => {
    const handle = await open(file, "a");
    try {
      if ((await handle.stat()).size > length) await truncate(file, length);
    } finally {
      await handle.close();
    }
  });
}

/** One write of one line, so that a kill leaves at most one line broken. */
export async function append(folder: string, name: string, value: object): Promise<void> {
  const file = join(folder, name);
  await attempt(file, () => writeFile(file, `${JSON.stringify(value)}\n`, { flag: "a" }));
}

/** Writes a JSON file so that a reader never sees half of it. */
export async function writeWhole(file: string, value: object): Promise<void> {
  await attempt(file, () => replaceFile(file, `${JSON.stringify(value, null, 2)}\n`));
}

/** Turns what the system says while a file is written into an EvaluationError. */
export async function attempt<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw badFiles(file, writeFailure(error), {}, { cause: error });
  }
}

async function readIfThere(file: string): Promise<Buffer | undefined> {
  try {
    const bytes = await readRegularFile(file, maxBytes);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw badFiles(file, reasonOf(error), {}, { cause: error });
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}
