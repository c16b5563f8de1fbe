import { stat } from "node:fs/promises";
import { OptionError } from "../errors.ts";
import { readingReason, readRegularText } from "../regular_file.ts";

/** The variable that holds a key, or several with commas between them. */
export const keyVariable = "PREFIXKV_API_KEY";

/** The keys of the environment and of a file with one per line; `warn` hears of a file that others can read. Throws an OptionError. */
export async function readKeys(
  environment: Readonly<Record<string, string | undefined>>,
  file: string | undefined,
  warn: (text: string) => void,
): Promise<string[]> {
  const keys = split(environment[keyVariable] ?? "", /,/);
  if (file === undefined) return keys;
  let text: string;
  try {
    text = await readRegularText(file, 1 << 20);
    if (process.platform !== "win32" && ((await stat(file)).mode & 0o077) !== 0) {
      warn("others on this machine can read the file of keys; `chmod 600` keeps it to you\n");
    }
  } catch (error) {
    const message = `cannot read the file of keys: ${readingReason(error, file)}`;
    throw new OptionError("option", message, { option: "keyFile", suggestion: null });
  }
  const found = split(text, /\r?\n/).filter((line) => !line.startsWith("#"));
  if (found.length === 0) {
    throw new OptionError("option", "the file of keys has none; write one per line", {
      ...{ option: "keyFile", suggestion: null },
    });
  }
  return [...keys, ...found];
}

const split = (text: string, between: RegExp): string[] =>
  text
    .split(between)
    .map((key) => key.trim())
    .filter((key) => key !== "");
