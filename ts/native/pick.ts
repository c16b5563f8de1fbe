import { type OpenDoor, openNapi } from "./napi.ts";

/** The runtime that this program runs on. */
export interface Runtime {
  name: "bun" | "deno" | "node";
  version: string;
}

let door: Promise<OpenDoor> | undefined;

/** Opens the door of this runtime, once. Node-API serves Bun, Deno and Node alike. */
export function pickDoor(): Promise<OpenDoor> {
  door ??= openNapi();
  return door;
}

/** Which runtime this is. */
export function runtime(): Runtime {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  if (bun !== undefined) return { name: "bun", version: bun };
  if (deno !== undefined) return { name: "deno", version: deno };
  return { name: "node", version: node ?? process.version.slice(1) };
}
