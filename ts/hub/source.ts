import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { OptionError } from "../errors.ts";
import { embeddedModel } from "../package_files.ts";
import { isGguf } from "./gguf.ts";
import { parseHubId } from "./ids.ts";
import type { HubOptions } from "./options.ts";
import { hubFolder } from "./snapshot.ts";

/** The absolute path of a model's folder or GGUF file; a Hub model is downloaded into the cache first. */
export async function modelFolder(source: string | URL | undefined, options: HubOptions): Promise<string> {
  const hub = typeof source === "string" && (await isHubId(source)) ? parseHubId(source, options.revision) : undefined;
  if (hub) return hubFolder(hub, options);
  if (options.revision !== undefined)
    throw new OptionError("option", "`revision` is for Hub models (`org/name`); a folder has none", {
      option: "revision",
    });
  if (options.file !== undefined)
    throw new OptionError("option", "`file` is for Hub models (`org/name`); elsewhere give the path of the file", {
      option: "file",
    });
  if (source === undefined) return embeddedModel();
  if (source instanceof URL || source.startsWith("file:")) return fileURLToPath(source);
  return resolve(source);
}

/** A folder that is there goes first, so that what worked without the hub goes on working. */
async function isHubId(source: string): Promise<boolean> {
  if (isGguf(source)) return false;
  const found = await stat(resolve(source)).catch(() => undefined);
  return found === undefined;
}
