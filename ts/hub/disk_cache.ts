import { randomBytes } from "node:crypto";
import { copyFile, mkdir, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { readRegularText } from "../regular_file.ts";
import { isCommit } from "./ids.ts";

const maxRefBytes = 4096;

/** One model's part of the cache, laid out as huggingface_hub does. */
export class ModelCache {
  readonly folder: string;
  readonly #locks: string;
  readonly #links: boolean;

  constructor(cacheDir: string, id: string, links: boolean = true) {
    const name = `models--${id.replaceAll("/", "--")}`;
    this.#links = links;
    this.folder = join(cacheDir, name);
    this.#locks = join(cacheDir, ".locks", name);
  }

  /** A file's content, under the hash of it. */
  blob(etag: string): string {
    return join(this.folder, "blobs", etag);
  }

  /** Where the part of a file lies that has been downloaded so far. */
  partial(etag: string): string {
    return `${this.blob(etag)}.incomplete`;
  }

  /** Of this library: huggingface_hub holds `<etag>.lock` through a call of the system that JavaScript does not have. */
  lock(etag: string): string {
    return join(this.#locks, `${etag}.prefixkv`);
  }

  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  /** The commit that a revision meant when it was last asked; undefined when it never was. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const file = join(this.folder, "refs", ...revision.split("/"));
    const text = (await readRegularText(file, maxRefBytes).catch(() => "")).trim();
    return isCommit(text) ? text : undefined;
  }

  /** Notes which commit a branch or tag means. */
  async setCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return;
    await replace(join(this.folder, "refs", ...revision.split("/")), (path) => writeFile(path, commit));
  }

  /** Whether a commit's file is there; whole as well, if its size is given. */
  async has(commit: string, name: string, size?: number): Promise<boolean> {
    return isFile(join(this.snapshot(commit), ...name.split("/")), size);
  }

  /** The names of a commit's files that are there, with slashes; no more than `most` are looked at. */
  async names(commit: string, most: number): Promise<string[]> {
    const [found, folders]: [string[], string[]] = [[], [""]];
    for (let folder = folders.pop(); folder !== undefined && most > 0; folder = folders.pop()) {
      const entries = await readdir(join(this.snapshot(commit), folder), { withFileTypes: true }).catch(() => []);
      for (const entry of entries.slice(0, most)) {
        const name = folder === "" ? entry.name : `${folder}/${entry.name}`;
        if (entry.isDirectory()) folders.push(name);
        else if (await this.has(commit, name)) found.push(name);
      }
      most -= entries.length;
    }
    return found;
  }

  async hasBlob(etag: string, size: number): Promise<boolean> {
    return isFile(this.blob(etag), size);
  }

  /** How many of a file's bytes are in the cache already. */
  async bytesOf(etag: string, size: number): Promise<number> {
    if (await this.hasBlob(etag, size)) return size;
    const found = await stat(this.partial(etag)).catch(() => undefined);
    return found && found.size <= size ? found.size : 0;
  }

  /** Whether a commit is known to lack a file. */
  async lacks(commit: string, name: string): Promise<boolean> {
    return isFile(join(this.folder, ".no_exist", commit, name));
  }

  /** Notes that a commit lacks a file, which spares other tools the question. */
  async setLacking(commit: string, name: string): Promise<void> {
    const path = join(this.folder, ".no_exist", commit, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, "");
  }

  /** Lets a commit's file name a blob: by a link, or by a copy where there are no links. */
  async link(commit: string, name: string, etag: string): Promise<void> {
    const pointer = join(this.snapshot(commit), ...name.split("/"));
    const blob = this.blob(etag);
    await replace(pointer, async (path) => {
      if (!this.#links || !(await tryToLink(relative(dirname(pointer), blob), path))) await copyFile(blob, path);
    });
  }
}

async function tryToLink(target: string, path: string): Promise<boolean> {
  try {
    await symlink(target, path);
    return true;
  } catch {
    return false;
  }
}

/** Writes a file under a name of its own and renames it, so that nobody sees half of it. */
async function replace(path: string, write: (path: string) => Promise<void>): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  // Not longer than the name itself, which may be as long as the disk allows.
  const own = join(dirname(path), `.${randomBytes(6).toString("hex")}.tmp`);
  try {
    await write(own);
    await rename(own, path);
  } catch (error) {
    await rm(own, { force: true });
    throw error;
  }
}

async function isFile(path: string, size?: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true && (size === undefined || found.size === size);
}
