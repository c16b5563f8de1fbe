import { readFile } from "node:fs/promises";
import { packageFile } from "./package_files.ts";

/** The version in package.json. */
export async function packageVersion(): Promise<string> {
  const text = await readFile(await packageFile("package.json"), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
