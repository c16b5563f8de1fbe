import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { OptionError } from "../errors.ts";
import { replaceFile, requireWritable, writeFailure } from "../files/write.ts";
import type { Report } from "./chart.ts";

/** Refuses a file, or a folder of charts, that cannot be written before the work for it is done. */
export async function requirePlace(file: string, folder?: string): Promise<void> {
  await requireWritable(file).catch((cause: unknown) => refuse(file, cause));
  const info = folder === undefined ? undefined : await stat(folder).catch(() => undefined);
  if (folder !== undefined && info && !info.isDirectory()) refuse(folder, new Error("it is no folder"));
}

/** Writes the page, and its charts into a folder of their own when one is named. */
export async function writeReport({ html, charts }: Report, file: string, folder?: string): Promise<void> {
  await write(file, html);
  if (folder === undefined) return;
  await mkdir(folder, { recursive: true }).catch((cause: unknown) => refuse(folder, cause));
  for (const { name, svg } of charts) await write(join(folder, name), svg);
}

function write(file: string, text: string): Promise<void> {
  return replaceFile(file, text).catch((cause: unknown) => refuse(file, cause));
}

function refuse(file: string, cause: unknown): never {
  throw new OptionError("option", `cannot write ${file}: ${writeFailure(cause)}`, { file }, { cause });
}
