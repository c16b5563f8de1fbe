import { constants, type Stats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { until } from "./stop.ts";

/** Why something cannot be read, in words that quote nothing of it. Whoever knows what it is makes a typed error of it. */
export class Unreadable extends Error {}

/** Bytes of one step of reading: a signal is heard between two. */
const step = 1024 * 1024;

/**
 * Reads a file to its end, but not beyond `most` bytes, by what comes and not by what its size says, which is 0 below /proc. Pipes,
 * devices and sockets are refused: they may have no end, or wait for ever.
 */
export function readRegularFile(path: string, most: number, signal?: AbortSignal): Promise<Uint8Array> {
  return until(read(path, most, signal), signal);
}

/** The same as text in UTF-8. */
export async function readRegularText(path: string, most: number, signal?: AbortSignal): Promise<string> {
  const bytes = await readRegularFile(path, most, signal);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

async function read(path: string, most: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
  check(await stat(path), most);
  // A file that has been replaced by a pipe since must not hang.
  const file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const stats = await file.stat();
    check(stats, most);
    return await readAll(file, stats.size, most, signal);
  } finally {
    await file.close();
  }
}

async function readAll(
  file: FileHandle,
  size: number,
  most: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  // One byte more than there should be shows the end of the file.
  let bytes = new Uint8Array(size + 1);
  let length = 0;
  for (;;) {
    if (signal?.aborted) throw new Unreadable("it is no longer wanted");
    if (length === bytes.length) {
      const longer = new Uint8Array(Math.min(Math.max(2 * length, step), most + 1));
      longer.set(bytes);
      bytes = longer;
    }
    const { bytesRead } = await file.read(bytes, length, Math.min(step, bytes.length - length), null);
    if (bytesRead === 0) return bytes.length - length > step ? bytes.slice(0, length) : bytes.subarray(0, length);
    length += bytesRead;
    if (length > most) throw tooLarge(most);
  }
}

function check(stats: Stats, most: number): void {
  if (stats.isDirectory()) throw new Unreadable("it is a folder");
  if (stats.isFIFO()) throw new Unreadable("it is a pipe, not a file");
  if (stats.isSocket()) throw new Unreadable("it is a socket, not a file");
  if (!stats.isFile()) throw new Unreadable("it is a device, not a file");
  if (stats.size > most) throw tooLarge(most);
}

/** The failure of what is larger than `most` bytes. */
export function tooLarge(most: number): Unreadable {
  return new Unreadable(`it is larger than ${most / 1024 / 1024} MiB`);
}

/** The reason of a failed read, without its path, which may be long or secret. */
export function readingReason(error: unknown, path = ""): string {
  if (error instanceof Unreadable) return error.message;
  const { name, code } = factsOf(error);
  const windows = process.platform !== "win32" && /(^|\/)[A-Za-z]:[\\/]|\\/.test(path);
  if (code === "ENOENT" && windows)
    return `there is no such file; it is a path of Windows, and this is ${process.platform}`;
  if (code !== undefined && Object.hasOwn(reasons, code)) return reasons[code] ?? code;
  if (name === "NotCapable") return "Deno allows it with --allow-read";
  return code ?? name ?? "it failed";
}

/** The name and code of an error; under a test runner, system errors come from another realm. */
export function factsOf(error: unknown): { name: string | undefined; code: string | undefined } {
  if (typeof error !== "object" || error === null) return { name: undefined, code: undefined };
  const { name, code } = error as { name?: unknown; code?: unknown };
  return { name: typeof name === "string" ? name : undefined, code: typeof code === "string" ? code : undefined };
}

const reasons: Record<string, string> = {
  ENOENT: "there is no such file",
  ENOTDIR: "a part of the path is not a folder",
  EISDIR: "it is a folder",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENAMETOOLONG: "the path is too long",
  ELOOP: "its links go in a circle",
  EMFILE: "this process has too many files open",
  EAGAIN: "it has nothing to read yet",
  ERR_INVALID_ARG_VALUE: "the path has a character that no path has",
};
