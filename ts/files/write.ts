// How every file that somebody names is written: whole or not at all, and never in place of what is no file.
import { randomBytes } from "node:crypto";
import { constants, writeSync } from "node:fs";
import { access, type FileHandle, lstat, open, readlink, realpath, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

/** As many links are followed as Linux follows. */
const maxLinks = 40;

/** A pipe takes so many bytes whole or not at all (POSIX), where of more it may take a part that Deno does not count. */
const pipeBytes = 512;

/** Milliseconds between attempts to write to a pipe that is full. */
const pause = 5;

/** Where a path leads when its links are followed. */
type Target =
  | { kind: "file"; path: string; mode: number; uid: number; gid: number }
  | { kind: "new"; path: string }
  /** A pipe or a character device, which takes bytes but is never replaced. */
  | { kind: "pipe" | "device"; path: string }
  | { kind: "descriptor"; descriptor: number };

/**
 * Writes a file. A plain file is replaced by renaming, so that it is the old or the new one at any moment, also when the disk is full;
 * it keeps its mode, and links to it stay links. Pipes and character devices are written to directly. Throws what the system says; see
 * {@link writeFailure}.
 */
export async function replaceFile(path: string, content: string | Uint8Array): Promise<void> {
  const target = await follow(path);
  const bytes = typeof content === "string" ? Buffer.from(content) : content;
  if (target.kind === "descriptor") return writeToDescriptor(target.descriptor, bytes);
  if (target.kind === "pipe" || target.kind === "device") return writeToStream(target, bytes);
  const old = target.kind === "file" ? target : undefined;
  // A file that may not be written is not replaced either.
  if (old) await openForWriting(old.path);
  // The name has to be short, because the target's may be as long as the disk allows.
  const fresh = join(dirname(target.path), `.prefixkv-${randomBytes(6).toString("hex")}.tmp`);
  try {
    const handle = await open(fresh, "wx", old ? 0o600 : 0o666);
    try {
      await writeAll(handle, bytes, bytes.length);
      if (old) await adopt(handle, old);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(fresh, target.path);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
}

/** Throws the errors that {@link replaceFile} would throw for this path, before any work goes into the content. */
export async function requireWritable(path: string): Promise<void> {
  const target = await follow(path);
  if (target.kind === "descriptor") return;
  if (target.kind === "pipe" || target.kind === "device") return;
  if (target.kind === "file") await openForWriting(target.path);
  await access(dirname(target.path), constants.W_OK).catch((error: Error) => {
    // Deno asks for a permission of its own to say it; then the writing says it.
    if (error.name !== "NotCapable") throw error;
  });
}

/** Throws what the system has against writing to a file, and leaves it as it is. */
async function openForWriting(path: string): Promise<void> {
  await (await open(path, constants.O_WRONLY)).close();
}

const reasons: Record<string, string> = {
  ENOENT: "its folder does not exist",
  ENOTDIR: "a part of its path is no folder",
  EISDIR: "it is a folder",
  EEXIST: "something that is no folder is in its place",
  ELOOP: "its links lead in a circle",
  ENAMETOOLONG: "its name is longer than the disk allows",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk's quota is used up",
  EFBIG: "a file may not be that large here",
  EROFS: "the disk may only be read",
  EACCES: "it may not be written",
  EPERM: "it may not be written",
  EBUSY: "it is in use, perhaps as a mount point, which cannot be replaced",
  EPIPE: "the reader of the pipe has gone",
  ENXIO: "nobody reads the pipe; start its reader first",
};

/** Why a file was not written, in words that follow `cannot write FILE: `. */
export function writeFailure(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = "code" in error ? String(error.code) : "";
  const reason = reasons[code];
  return reason === undefined ? error.message : `${reason} (${code})`;
}

async function follow(path: string): Promise<Target> {
  // Its absolute form would lose the sign of a folder.
  if (/\/$/.test(path)) throw failure("EISDIR", "it is a folder");
  let at = resolve(path);
  for (let links = 0; links < maxLinks; links += 1) {
    const own = /^\/(?:dev\/fd|proc\/(?:self|thread-self)\/fd)\/(\d+)$/.exec(at)?.[1];
    const standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"].indexOf(at);
    const descriptor = own === undefined ? standard : Number(own);
    if (descriptor === 1 || descriptor === 2) return { kind: "descriptor", descriptor };
    // Any other descriptor is opened anew through its name; what its link says is no path.
    const info = await (descriptor >= 0 ? stat(at) : lstat(at)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw error;
    });
    if (info === undefined) {
      await stat(dirname(at));
      return { kind: "new", path: at };
    }
    if (info.isSymbolicLink()) {
      at = resolve(await realpath(dirname(at)), await readlink(at));
      continue;
    }
    if (info.isFIFO()) return { kind: "pipe", path: at };
    if (info.isCharacterDevice() || (descriptor >= 0 && info.isFile())) return { kind: "device", path: at };
    if (info.isDirectory()) throw failure("EISDIR", "it is a folder");
    if (!info.isFile()) throw failure("ENOTSUP", "it is neither a file nor a pipe nor a character device");
    return { kind: "file", path: at, mode: info.mode & 0o7777, uid: info.uid, gid: info.gid };
  }
  throw failure("ELOOP", "its links lead in a circle");
}

function failure(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

/** Gives a new file the owner, where that may be, and the mode of the one that it takes the place of. */
async function adopt(
  handle: FileHandle,
  { uid, gid, mode }: { uid: number; gid: number; mode: number },
): Promise<void> {
  const own = await handle.stat();
  if (own.uid !== uid || own.gid !== gid) await handle.chown(uid, gid).catch(() => {});
  await handle.chmod(mode);
}

async function writeToStream({ kind, path }: { kind: "pipe" | "device"; path: string }, bytes: Uint8Array) {
  // A pipe without a reader would block for ever.
  const flags = kind === "pipe" ? constants.O_WRONLY | constants.O_NONBLOCK : constants.O_WRONLY | constants.O_APPEND;
  const handle = await open(path, flags);
  try {
    await writeAll(handle, bytes, kind === "pipe" ? pipeBytes : bytes.length);
  } finally {
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array, atOnce: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(atOnce, bytes.length - at);
    at += await patiently(async () => (await handle.write(bytes, at, length)).bytesWritten);
  }
}

async function writeToDescriptor(descriptor: number, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const length = Math.min(pipeBytes, bytes.length - at);
    at += await patiently(async () => writeSync(descriptor, bytes, at, length));
  }
}

/** Writes once the reader of a full pipe has made room. */
async function patiently(write: () => Promise<number>): Promise<number> {
  for (;;) {
    try {
      return await write();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      await new Promise((done) => setTimeout(done, pause));
    }
  }
}
