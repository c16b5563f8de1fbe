import { access, mkdir, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { OptionError } from "../errors.ts";
import type { Report } from "./chart.ts";

/** Refuses a file that cannot be written before the work for it is done. */
export async function requireFolder(file: string): Promise<void> {
  await access(dirname(resolve(file))).catch((cause: unknown) => refuse(file, cause));
}

/** Writes the page, and its charts into a folder of their own when one is named. */
export async function writeReport({ html, charts }: Report, file: string, folder?: string): Promise<void> {
  await writeFile(file, html).catch((cause: unknown) => refuse(file, cause));
  if (folder === undefined) return;
  await mkdir(folder, { recursive: true }).catch((cause: unknown) => refuse(folder, cause));
  for (const { name, svg } of charts) {
    const path = join(folder, name);
    await writeFile(path, svg).catch((cause: unknown) => refuse(path, cause));
  }
}

function refuse(file: string, cause: unknown): never {
  const missing = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
  const reason = missing ? "its folder does not exist" : String(cause);
  throw new OptionError("option", `cannot write ${file}: ${reason}`, { file }, { cause });
}
