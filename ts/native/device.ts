import { DeviceError } from "../errors.ts";
import { printable } from "../format.ts";
import type { About } from "../generated/wire.ts";
import type { OpenDoor } from "./napi.ts";
import type { Binding } from "./pick.ts";

/** Opens a door: to the addon for the CPU, or with the name of a GPU to the one for CUDA. */
export type PickDoor = (binding?: Binding, gpu?: string) => Promise<OpenDoor>;

/** The name if it is a GPU's. Unknown names are left to the engine, whose error lists the devices. */
export function gpuName(device: string | undefined): string | undefined {
  return device !== undefined && /^cuda(:\d+)?$/.test(device) ? device : undefined;
}

/** The door to the first GPU, or why there is none. */
export async function findGpu(pick: PickDoor, binding?: Binding): Promise<OpenDoor | { reason: string }> {
  try {
    const door = await pick(binding, "cuda");
    const { devices, noGpu } = JSON.parse(door.native.about()) as About;
    if (devices.some((name) => gpuName(name) !== undefined)) return door;
    return { reason: `${door.file} lists no GPU: ${noGpu ?? "no reason is known"}` };
  } catch (error) {
    if (error instanceof DeviceError) return { reason: error.message };
    throw error;
  }
}

let warned = false;

/** Says on standard error, once, why `auto` is the CPU. */
export function warnOfCpu(reason: string): void {
  if (warned) return;
  warned = true;
  process.emitWarning(`device \`auto\` is the CPU: ${printable(reason)}`, { code: "PREFIXKV_NO_GPU" });
}
