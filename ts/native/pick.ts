import { isMainThread } from "node:worker_threads";
import { OptionError } from "../errors.ts";
import { openCuda } from "./cuda.ts";
import { openFfi } from "./ffi.ts";
import { type OpenDoor, openNapi } from "./napi.ts";

/** The runtime that this program runs on. */
export interface Runtime {
  name: "bun" | "deno" | "node";
  version: string;
}

/** A door by its name: Node-API, the C ABI through the runtime's foreign functions, or what is best on this runtime. */
export type Binding = "auto" | "napi" | "ffi";

/** docs/design/doors.md has the measurements behind this. */
const best = { bun: "napi", deno: "napi", node: "napi" } as const;

type Door = "napi" | "ffi";

/** The addons that are open: the one for the CPU and the one for CUDA. */
const cpu: Partial<Record<Door, Promise<OpenDoor>>> = {};
const cuda: Partial<Record<Door, Promise<OpenDoor>>> = {};

/** Opens a door, once: to the addon for the CPU or, for the device `gpu`, to that for CUDA. */
export async function pickDoor(binding: Binding = "auto", gpu?: string): Promise<OpenDoor> {
  const { name } = runtime();
  const door = binding === "auto" ? best[name] : binding;
  if (door !== "napi" && door !== "ffi") {
    throw new OptionError(
      "option",
      `invalid option: \`binding\` must be "auto", "napi" or "ffi", found ${inspect(door)}`,
    );
  }
  if (door === "ffi" && name === "node") {
    throw new OptionError(
      "option",
      'binding "ffi" needs Bun or Deno: Node has no foreign function interface; use "napi", or "auto", which takes it',
      { suggestion: "napi" },
    );
  }
  if (gpu === undefined) {
    cpu[door] ??= door === "ffi" ? openFfi(name as "bun" | "deno") : openNapi();
    return cpu[door];
  }
  // A failure is not remembered: the file may be there next time, and the error names the device that was asked for.
  const through = door === "ffi" ? (name as "bun" | "deno") : door;
  const opening = cuda[door] ?? openCuda({ device: gpu, binding: through, compiled: compiled() });
  cuda[door] = opening;
  return opening.catch((error: unknown) => {
    if (cuda[door] === opening) delete cuda[door];
    throw error;
  });
}

/** Whether this is a program made by `bun build --compile`, whose files are within it. */
function compiled(): boolean {
  return /\/\$bunfs\/|\/~BUN\//.test(import.meta.url);
}

function inspect(value: unknown): string {
  return JSON.stringify(value) ?? String(value);
}

/** Which runtime this is. */
export function runtime(): Runtime {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  if (bun !== undefined) return { name: "bun", version: bun };
  if (deno !== undefined) return { name: "deno", version: deno };
  return { name: "node", version: node ?? process.version.slice(1) };
}

/** Whether this code runs in a worker, whose thread may be ended at any time. */
export function inWorker(): boolean {
  // Deno has `isMainThread` right for the workers of node:worker_threads only.
  return !isMainThread || "WorkerGlobalScope" in globalThis;
}
