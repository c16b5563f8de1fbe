import { abortError } from "./errors.ts";
import type { CheckRequest, DeviceCheck, Progress } from "./generated/wire.ts";
import type { Native } from "./native/contract.ts";
import { gpuName } from "./native/device.ts";
import { wire } from "./native/errors.ts";
import { pickDoor } from "./native/pick.ts";
import { lastEvent } from "./native/ticket.ts";
import { type CheckOptions, type LoadOptions, readCheck, readDevice } from "./options/load.ts";

/**
 * Compares every kernel of a GPU with its twin on the CPU, on fixed noise, and measures what the device can do if `ceilings` is true
 * (false by default). Takes seconds, needs no model, and releases the device. `onProgress` gets the stages `kernels` and `ceilings`;
 * `signal` stops the check; `binding` is as in LoadOptions. Without a GPU, a driver or cuBLAS it rejects with a DeviceError that says
 * what is missing.
 *
 * @example
 * ```ts
 * import { checkDevice, DeviceError } from "prefixkv";
 *
 * try {
 *   const { name, passed, ceilings } = await checkDevice("cuda", { ceilings: true });
 *   console.log(name, passed, ceilings?.read, ceilings?.productF16);
 * } catch (error) {
 *   if (!(error instanceof DeviceError)) throw error;
 *   console.log(error.message);
 * }
 * ```
 */
export async function checkDevice(
  device: Exclude<LoadOptions["device"], undefined> = "auto",
  options: CheckOptions = {},
): Promise<DeviceCheck> {
  const read = readCheck(options);
  const asked = readDevice(device);
  if (read.signal?.aborted) throw abortError(read.signal);
  // On the CPU there is nothing to check, which `auto` would hide.
  const gpu = asked === "auto" ? "cuda" : asked;
  return check((await pickDoor(read.binding, gpuName(gpu))).native, gpu, read);
}

/** {@link checkDevice} through a given door. */
export async function checkThrough(
  native: Native,
  device: CheckRequest["device"],
  options: Omit<CheckOptions, "binding"> = {},
): Promise<DeviceCheck> {
  return check(native, readDevice(device), readCheck(options));
}

async function check(
  native: Native,
  device: CheckRequest["device"],
  { signal, onProgress, ceilings }: ReturnType<typeof readCheck>,
): Promise<DeviceCheck> {
  const request: CheckRequest = { device, ...(ceilings !== undefined && { ceilings }) };
  const ticket = wire(() => native.checkDevice(JSON.stringify(request)));
  const onEvent = (event: { type: string }): void => {
    if (event.type !== "progress") return;
    const { stage, done, total } = event as Progress & { type: string };
    onProgress?.({ stage, done, total });
  };
  return (await lastEvent(ticket, "checked", { signal, onEvent })).report;
}
