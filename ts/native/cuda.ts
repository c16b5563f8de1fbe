// The addon for CUDA: a file of its own, looked for only when a device asks for it.

import { statSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { DeviceError } from "../errors.ts";
import { abiVersion } from "../generated/abi.ts";
import type { About } from "../generated/wire.ts";
import { packageVersion } from "../version.ts";
import type { Native } from "./contract.ts";
import { dlopen, FfiNative } from "./ffi.ts";
import { type OpenDoor, platformName } from "./napi.ts";

/** A file that was looked for in vain, and why. */
export interface Attempt {
  file: string;
  reason: string;
}

/** The requested device and how to reach it. */
export interface Wanted {
  /** The device as the caller named it, for messages. */
  device: string;
  /** Through Node-API, or through the foreign functions of a runtime. */
  binding: "napi" | "bun" | "deno";
  /** A program in one file has no package around it. */
  compiled: boolean;
}

/** The platforms that scripts/platforms.mjs makes a package for CUDA of. */
export const cudaPackages: readonly string[] = ["linux-x64-gnu"];

const variable = "PREFIXKV_CUDA_NATIVE";

/** Opens the addon for CUDA; throws a DeviceError with the cure when there is none, or when it does not load. */
export async function openCuda({ device, binding, compiled }: Wanted): Promise<OpenDoor> {
  const { path, file } = await locateCuda(device, compiled);
  let native: Native;
  try {
    native = binding === "napi" ? byNodeApi(path) : await byForeignFunctions(binding, path);
  } catch (error) {
    throw notLoaded(device, file, reasonOf(error));
  }
  const found = (JSON.parse(native.about()) as About).version;
  const needed = await packageVersion();
  if (found === needed) return { native, file };
  throw notLoaded(device, file, `it has version ${found}, this package ${needed}: both must be the same`);
}

/** Finds the addon for CUDA without loading it; throws like {@link openCuda}. */
export async function locateCuda(device: string, compiled: boolean): Promise<{ path: string; file: string }> {
  const platform = await platformName();
  const attempts: Attempt[] = [];
  for (const { file, find } of candidates(platform, compiled)) {
    try {
      const path = find();
      if (path !== undefined) return { path, file };
    } catch (error) {
      attempts.push({ file, reason: reasonOf(error) });
    }
  }
  throw missing(device, platform, compiled, attempts);
}

interface Candidate {
  file: string;
  /** The absolute path; undefined where nothing was to be looked for. Throws with the reason when it is not there. */
  find(): string | undefined;
}

function candidates(platform: string, compiled: boolean): Candidate[] {
  let named: string | undefined;
  const list: Candidate[] = [];
  try {
    named = process.env[variable] || undefined;
  } catch (error) {
    // Deno without --allow-env: said, and the usual places are looked at.
    list.push({ file: variable, find: () => rethrow(error) });
  }
  // A file named explicitly is the only candidate.
  if (named !== undefined) {
    const path = resolve(named);
    return [{ file: path, find: () => existing(path, `, and ${variable} names it`) }];
  }
  if (compiled) return list;
  const beside = fileURLToPath(new URL(`../../native/prefixkv.${platform}.cuda.node`, import.meta.url));
  list.push({ file: beside, find: () => existing(beside) });
  if (cudaPackages.includes(platform)) {
    // Not a literal: bundlers would take a file along that most programs never open.
    const name = packageName(platform);
    list.push({ file: name, find: () => createRequire(import.meta.url).resolve(name) });
  }
  return list;
}

const packageName = (platform: string): string => `@prefixkv/${platform}-cuda`;

function existing(path: string, named = ""): string {
  let file: boolean;
  try {
    file = statSync(path).isFile();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") throw new Error(`no such file${named}`);
    throw error;
  }
  if (!file) throw new Error(`not a file${named}`);
  return path;
}

function rethrow(error: unknown): never {
  throw error;
}

/** Not `require`, which takes only files called `.node` for addons. */
function byNodeApi(path: string): Native {
  const module: { exports: Partial<Native> } = { exports: {} };
  process.dlopen(module, path);
  if (typeof module.exports.open === "function") return module.exports as Native;
  throw new Error("it is an addon, but not one of prefixkv");
}

async function byForeignFunctions(runtime: "bun" | "deno", path: string): Promise<Native> {
  const library = await dlopen(runtime, path);
  const found = library.symbols.pkv_abi_version();
  if (found === abiVersion) return new FfiNative(library);
  throw new Error(`it has version ${found} of the C ABI, this code needs ${abiVersion}`);
}

function missing(device: string, platform: string, compiled: boolean, attempts: readonly Attempt[]): DeviceError {
  const tried = attempts.map(({ file, reason }) => `\n  ${file}: ${reason}`).join("");
  const where = compiled ? `a compiled program looks for it only where ${variable} says` : `looked for:${tried}`;
  const message = `device \`${device}\` needs the build for CUDA, which is not there. ${cure(platform)}. ${capital(where)}`;
  return new DeviceError("device", message, { device, attempts });
}

function notLoaded(device: string, file: string, reason: string): DeviceError {
  const told = reason.includes(file) ? reason : `${file}: ${reason}`;
  const message =
    `device \`${device}\` needs the build for CUDA, which is there and does not load: ${told}. Install the version of ` +
    "this package, or build it again with `npm run build:cuda` (Deno needs --allow-ffi and --allow-read)";
  return new DeviceError("device", message, { device, attempts: [{ file, reason }] });
}

function cure(platform: string): string {
  if (platform.startsWith("darwin")) return "NVIDIA has no CUDA for macOS: use `cpu`";
  const build = "run `npm run build:cuda` in a checkout";
  const install = cudaPackages.includes(platform)
    ? `install it with \`npm install ${packageName(platform)}\`, or `
    : "";
  return `${capital(install + build)}, or name the file in ${variable}`;
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

function reasonOf(error: unknown): string {
  return ((error instanceof Error ? error.message : String(error)).split("\n")[0] ?? "").replace(/\.$/, "");
}
