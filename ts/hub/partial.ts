import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, lstat, open, rename, rm } from "node:fs/promises";
import type { HubFile } from "./api.ts";
import type { System } from "./system.ts";

const chunkBytes = 1 << 20;
const maxOpens = 10;

/** A file on its way into the cache: what is there is hashed once, what comes is hashed as it is written. */
export class PartialFile {
  length = 0;
  readonly #path: string;
  readonly #file: HubFile;
  readonly #system: System;
  #handle: FileHandle;
  #hash: Hash;

  private constructor(path: string, file: HubFile, system: System, handle: FileHandle) {
    this.#path = path;
    this.#file = file;
    this.#system = system;
    this.#handle = handle;
    this.#hash = newHash(file);
  }

  /** Goes on with what an earlier download has left. */
  static async open(path: string, file: HubFile, system: System, signal: AbortSignal): Promise<PartialFile> {
    const partial = new PartialFile(path, file, system, await openFile(path));
    try {
      await partial.#readExisting(signal);
      return partial;
    } catch (error) {
      await partial.close();
      throw error;
    }
  }

  async #readExisting(signal: AbortSignal): Promise<void> {
    const { size } = await this.#handle.stat();
    if (size > this.#file.size) return this.restart();
    const buffer = new Uint8Array(Math.min(chunkBytes, size));
    while (this.length < size && !signal.aborted) {
      const { bytesRead } = await this.#handle.read(
        buffer,
        0,
        Math.min(buffer.length, size - this.length),
        this.length,
      );
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.length += bytesRead;
    }
  }

  get whole(): boolean {
    return this.length === this.#file.size;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#system.write(this.#handle, bytes, this.length);
    this.#hash.update(bytes);
    this.length += bytes.length;
  }

  /** Starts over in a new file: one that somebody else may be writing must not be shortened under him. */
  async restart(): Promise<void> {
    await this.remove();
    this.#handle = await openFile(this.#path);
    this.#hash = newHash(this.#file);
    this.length = 0;
  }

  /** Moves the file to its place if every byte is right, and if nobody has moved or replaced it meanwhile. */
  async finish(target: string): Promise<"done" | "wrong" | "lost"> {
    if (this.#hash.copy().digest("hex") !== this.#file.etag) return "wrong";
    const [own, named] = await Promise.all([this.#handle.stat(), lstat(this.#path).catch(() => undefined)]);
    if (own.size !== this.#file.size || named?.ino !== own.ino) return "lost";
    await this.#handle.sync();
    await this.close();
    await rename(this.#path, target);
    return "done";
  }

  async remove(): Promise<void> {
    await this.close();
    await rm(this.#path, { force: true });
  }

  async close(): Promise<void> {
    await this.#handle.close().catch(() => {});
  }
}

/**
 * Opens what is there of a file, or begins it. In a cache that others write to, the name may be a link, or another name of a file that is
 * not ours: such a name is taken away, never what it leads to.
 */
async function openFile(path: string): Promise<FileHandle> {
  const flags = constants.O_RDWR | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
  for (let attempt = 1; ; attempt += 1) {
    const named = await lstat(path).catch(() => undefined);
    if (named?.isFile() && named.nlink === 1) {
      const handle = await open(path, flags).catch(lost);
      const own = await handle?.stat();
      // Changed since it was looked at: it is looked at again.
      if (handle && own?.isFile() && own.nlink === 1 && own.ino === named.ino) return handle;
      await handle?.close();
    } else {
      if (named) await rm(path, { force: true });
      const handle = await open(path, flags | constants.O_CREAT | constants.O_EXCL, 0o666).catch(lost);
      if (handle) return handle;
    }
    if (attempt >= maxOpens) throw Object.assign(new Error(`${path} changes all the time`), { code: "EEXIST" });
  }
}

/** Ignores the errors of a lost race with another process; rethrows any other. */
function lost(error: NodeJS.ErrnoException): undefined {
  if (["ELOOP", "ENOENT", "EEXIST", "ENXIO"].includes(error.code ?? "")) return undefined;
  throw error;
}

/** Large files are named by their SHA-256, the others by the hash that git gives their content. */
function newHash({ etag, size }: HubFile): Hash {
  return etag.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}
