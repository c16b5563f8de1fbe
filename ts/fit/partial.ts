// Measurements in a file that goes away once the fit is written: a line that says what they are of, and one for each.
import { rm, stat, writeFile } from "node:fs/promises";
import { type Held, tryLock } from "../files/lock.ts";
import { replaceFile, writeFailure } from "../files/write.ts";
import { shorten } from "../options/show.ts";
import { factsOf, readingReason, readRegularText } from "../regular_file.ts";

/** Most bytes of such a file. */
const maxBytes = 2 ** 30;

/** The error of a call whose measurements cannot be used. */
export type Fault = (message: string) => Error;

/** Values by key that outlive the process; without a file they do not. */
export class Measurements<T> {
  readonly #values: Map<string, T>;
  readonly #file: string | undefined;
  readonly #lock: Held | undefined;
  readonly #fault: Fault;

  private constructor(fault: Fault, values = new Map<string, T>(), file?: string, lock?: Held) {
    this.#fault = fault;
    this.#values = values;
    this.#file = file;
    this.#lock = lock;
  }

  /** Opens the file beside a result's; throws for measurements of another kind than `head` says, and where it is in use. */
  static async open<T>(
    result: string | undefined,
    fault: Fault,
    head: Readonly<Record<string, unknown>>,
  ): Promise<Measurements<T>> {
    if (result === undefined || !(await isPlain(result))) return new Measurements(fault);
    const file = `${result}.partial`;
    const lock = await tryLock(`${file}.lock`).catch((cause: unknown) => unusable(fault, file, writeFailure(cause)));
    if (!("release" in lock))
      return unusable(fault, file, `another call writes into it${lock.holder}; wait for its end`);
    try {
      return new Measurements(fault, await readLines<T>(fault, file, JSON.stringify(head)), file, lock);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** The value of a key, found by `make` if it is not there. */
  async of(key: string, make: () => Promise<T>): Promise<T> {
    const known = this.#values.get(key);
    if (known !== undefined) return known;
    const value = await make();
    this.#values.set(key, value);
    const file = this.#file;
    // One write of one line, so that a kill leaves at most one line broken.
    if (file !== undefined)
      await writeFile(file, `${JSON.stringify([key, value])}\n`, { flag: "a" }).catch((cause: unknown) =>
        unusable(this.#fault, file, writeFailure(cause)),
      );
    return value;
  }

  /** Removes the file. */
  async remove(): Promise<void> {
    if (this.#file !== undefined) await rm(this.#file, { force: true });
  }

  /** Lets others use the file. */
  async close(): Promise<void> {
    await this.#lock?.release();
  }
}

/** Whether a file is one, or will be: a pipe or a device has no place beside it. */
async function isPlain(file: string): Promise<boolean> {
  if (/^\/(dev|proc)\//.test(file)) return false;
  const found = await stat(file).catch(() => undefined);
  return found === undefined || found.isFile();
}

/** The complete lines of a file behind its first, which must be `head`; the file is made, and cut to them. */
async function readLines<T>(fault: Fault, file: string, head: string): Promise<Map<string, T>> {
  const text = await readRegularText(file, maxBytes).catch((cause: unknown) =>
    factsOf(cause).code === "ENOENT" ? "" : unusable(fault, file, readingReason(cause, file)),
  );
  const [first, ...lines] = text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .slice(0, -1);
  if (first !== undefined && first !== head)
    return unusable(
      fault,
      file,
      "it holds measurements of another model, other samples, another objective or another version; delete it, or name another `file`",
    );
  const values = new Map<string, T>();
  for (const [index, line] of lines.entries()) {
    const [key, value] = parse(line) ?? unusable(fault, file, `line ${index + 2} is no measurement; delete the file`);
    values.set(key, value as T);
  }
  const whole = [head, ...lines].map((line) => `${line}\n`).join("");
  if (whole !== text)
    await replaceFile(file, whole).catch((cause: unknown) => unusable(fault, file, writeFailure(cause)));
  return values;
}

function parse(line: string): [key: string, value: unknown] | undefined {
  try {
    const read = JSON.parse(line) as unknown;
    const pair = Array.isArray(read) && read.length === 2 && typeof read[0] === "string";
    return pair && typeof read[1] === "object" && read[1] !== null ? (read as [string, unknown]) : undefined;
  } catch {
    return undefined;
  }
}

function unusable(fault: Fault, file: string, why: string): never {
  throw fault(`cannot use ${shorten(file, 240)}: ${why}`);
}
