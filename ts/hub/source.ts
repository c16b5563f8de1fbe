import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { OptionError } from "../errors.ts";
import { embeddedModel } from "../package_files.ts";
import { parseHubId } from "./ids.ts";
import { isGguf } from "./names.ts";
import type { HubOptions } from "./options.ts";
import { hubModel, type ModelFiles } from "./snapshot.ts";

/** The absolute paths of a model's folder, or GGUF file and vision tower; a Hub model is downloaded into the cache first. */
export async function modelFiles(
  source: string | URL | undefined,
  options: HubOptions & { vision?: string | false },
): Promise<ModelFiles> {
  const hub = typeof source === "string" && (await isHubId(source)) ? parseHubId(source, options.revision) : undefined;
  if (hub) return hubModel(hub, options);
  if (options.revision !== undefined)
    throw new OptionError("option", "`revision` is for Hub models (`org/name`); a folder has none", {
      option: "revision",
    });
  if (options.file !== undefined)
    throw new OptionError("option", "`file` is for Hub models (`org/name`); elsewhere give the path of the file", {
      option: "file",
    });
  const found = source === undefined ? await embeddedModel() : localPath(source);
  const { vision } = options;
  if (vision === undefined) return { source: found };
  return { source: found, vision: vision === false ? false : localPath(vision) };
}

function localPath(place: string | URL): string {
  return place instanceof URL || place.startsWith("file:") ? fileURLToPath(place) : resolve(place);
}

/** The absolute paths of the folders of adapters; those of the hub are downloaded, each by the revision in its own name. */
export async function adapterFolders(
  adapter: string | URL | readonly (string | URL)[],
  { revision: _, file: __, ...options }: HubOptions,
): Promise<string[]> {
  const folders: string[] = [];
  for (const source of typeof adapter === "string" || adapter instanceof URL ? [adapter] : adapter)
    folders.push(await adapterFolder(source, options));
  return folders;
}

async function adapterFolder(source: string | URL, options: HubOptions): Promise<string> {
  const hub = typeof source === "string" && (await isHubId(source)) ? parseHubId(source, undefined) : undefined;
  return hub ? (await hubModel(hub, options, undefined, true)).source : localPath(source);
}

/** A folder that is there goes first, so that what worked without the hub goes on working. */
async function isHubId(source: string): Promise<boolean> {
  if (isGguf(source)) return false;
  const found = await stat(resolve(source)).catch(() => undefined);
  return found === undefined;
}
