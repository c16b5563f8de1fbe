import { createHash } from "node:crypto";
import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ModelError } from "./errors.ts";

const model = "models/tiny-llava";

type Copies = typeof import("./bundled.mjs")["bundled"];

/** The files in a bundle. Not imported above: Node 20 cannot parse it, and is to be told so first. */
async function copies(): Promise<Copies> {
  return (await import("./bundled.mjs")).bundled;
}

/** Where the package has a file: beside the folder of this code, in ts/ as in dist/. */
function placed(name: string): string {
  return fileURLToPath(new URL(`../${name}`, import.meta.url));
}

/**
 * The path of a file that comes with the package, by its path there. In a program made by `bun build --compile` that is the copy
 * in the program, which JavaScript can read and native code cannot.
 */
export async function packageFile(name: string): Promise<string> {
  const path = placed(name);
  if (await isFile(path)) return path;
  const bundled = await copies();
  const copy = Object.hasOwn(bundled, name) ? bundled[name] : undefined;
  // Where there is neither, the place in the package is what messages should name.
  return copy
    ? await copy().then(
        (found) => found.default,
        () => path,
      )
    : path;
}

/** The names of the files in a folder of the package, by the folder's path with its slash. */
export async function shippedNames(folder: string): Promise<string[]> {
  const names = Object.keys(await copies()).filter((name) => name.startsWith(folder));
  return names.map((name) => name.slice(folder.length)).sort();
}

/** The folder of the embedded model. A compiled program writes its copy to the user's cache first, once. */
export async function embeddedModel(): Promise<string> {
  if (await isFile(placed(`${model}/config.json`))) return placed(model);
  const files = new Map<string, Uint8Array>();
  for (const [name, copy] of Object.entries(await copies())) {
    if (name.startsWith(`${model}/`)) files.set(basename(name), await readCopy(name, copy));
  }
  return unpack(files, join(cacheFolder(), "prefixkv"));
}

/** Writes files into a folder of `parent` that is named after their content; what is there already is checked, byte by byte. */
export async function unpack(files: ReadonlyMap<string, Uint8Array>, parent: string): Promise<string> {
  const hash = createHash("sha256");
  for (const [name, bytes] of files) hash.update(`${name}\0${bytes.length}\0`).update(bytes);
  const folder = join(parent, `tiny-llava-${hash.digest("hex").slice(0, 32)}`);
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const [name, bytes] of files) await writeWhole(join(folder, name), bytes);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const cure = "set XDG_CACHE_HOME to a folder that can be written, or give `load` the folder of a model";
    const message = `cannot unpack the embedded model into ${folder}: ${reason}; ${cure}`;
    throw new ModelError("model-file", message, { path: folder }, { cause });
  }
  return folder;
}

/** Another process may be writing the same file: each writes its own and puts it in place whole. */
async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const there = await readFile(path).catch(() => undefined);
  if (there?.equals(bytes)) return;
  const fresh = `${path}.${process.pid}.new`;
  try {
    await writeFile(fresh, bytes, { mode: 0o600 });
    await rename(fresh, path);
  } finally {
    await rm(fresh, { force: true });
  }
}

async function readCopy(name: string, copy: () => Promise<{ readonly default: string }>): Promise<Uint8Array> {
  try {
    return await readFile((await copy()).default);
  } catch (cause) {
    const message =
      `the embedded model is incomplete: there is no ${placed(name)}. Reinstall the package; if a bundler made this program, ` +
      "keep `prefixkv` out of the bundle, or give `load` the folder of a model";
    throw new ModelError("model-not-found", message, { path: placed(name) }, { cause });
  }
}

function cacheFolder(): string {
  const named = process.env.XDG_CACHE_HOME;
  // The XDG specification says to ignore relative paths.
  return named !== undefined && isAbsolute(named) ? named : join(homedir(), ".cache");
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (cause) {
    if (!(cause instanceof Error && cause.name === "NotCapable")) return false;
    const message = `cannot read a file of the package: ${cause.message} (Deno needs --allow-read)`;
    throw new ModelError("model-file", message, { path }, { cause });
  }
}
