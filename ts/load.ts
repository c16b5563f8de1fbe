import { abortError, DeviceError } from "./errors.ts";
import type { About, LoadRequest, ModelInfo, Progress } from "./generated/wire.ts";
import { adapterFolders, modelFiles } from "./hub/source.ts";
import { Model } from "./model.ts";
import type { Native } from "./native/contract.ts";
import { findGpu, gpuName, type PickDoor, warnOfCpu } from "./native/device.ts";
import { wire } from "./native/errors.ts";
import { inWorker, pickDoor } from "./native/pick.ts";
import { lastEvent } from "./native/ticket.ts";
import {
  type AboutOptions,
  type InspectOptions,
  type LoadOptions,
  type OwnLoadOptions,
  readAbout,
  readInspect,
  readLoad,
  readSource,
} from "./options/load.ts";

/**
 * Loads a model: a folder in the Hugging Face layout, a Hugging Face Hub model (`org/name` or `org/name@revision`), or
 * without a source the small model that comes with the package. An existing folder named `org/name` wins over the Hub; a source that
 * starts with `.`, `/` or `~` is never a Hub model. `adapter` merges LoRA adapters into its weights.
 *
 * @example
 * ```ts
 * import { load } from "prefixkv";
 *
 * await using model = await load();
 * console.log(model.info.architecture, model.info.kvBytesPerToken);
 * ```
 */
export async function load(source?: string | URL, options: LoadOptions = {}): Promise<Model> {
  return loadWith(pickDoor, source, options);
}

/** {@link load} with a given way to open doors. */
export async function loadWith(pick: PickDoor, source?: string | URL, options: LoadOptions = {}): Promise<Model> {
  const { binding, ...read } = readLoad(options);
  const path = readSource(source, "load");
  if (read.signal?.aborted) throw abortError(read.signal);
  if (read.device !== "auto") return open((await pick(binding, gpuName(read.device))).native, path, read);
  const gpu = await findGpu(pick, binding);
  if ("native" in gpu) {
    try {
      return await open(gpu.native, path, { ...read, device: "cuda" });
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      warnOfCpu(error.message);
    }
  } else {
    warnOfCpu(gpu.reason);
  }
  return open((await pick(binding)).native, path, { ...read, device: "cpu" });
}

/** {@link load} through a given door. */
export async function openModel(
  native: Native,
  source?: string | URL,
  options: Omit<LoadOptions, "binding"> = {},
): Promise<Model> {
  return open(native, readSource(source, "load"), readLoad(options));
}

async function open(
  native: Native,
  source: string | undefined,
  options: Omit<OwnLoadOptions, "binding">,
): Promise<Model> {
  const {
    signal,
    onProgress,
    images,
    adapter,
    device,
    weights,
    map,
    threads,
    batch,
    prefillChunk,
    cacheLimit,
    prefixCache,
    rotateValues,
    ...hub
  } = options;
  const engineOptions = { device, weights, map, threads, batch, prefillChunk, cacheLimit, prefixCache, rotateValues };
  if (signal?.aborted) throw abortError(signal);
  const finding = given({ ...hub, signal, onProgress });
  const files = await modelFiles(source, finding);
  const adapters = adapter === undefined ? undefined : await adapterFolders(adapter, finding);
  if (signal?.aborted) throw abortError(signal);
  const request = {
    ...files,
    ...given({ adapters }),
    ...given(engineOptions),
    ...(inWorker() && { closeWithThread: true }),
  } as LoadRequest;
  const engine = wire(() => native.open(JSON.stringify(request)));
  try {
    const onEvent = (event: { type: string }): void => {
      if (event.type !== "progress") return;
      const { stage, done, total } = event as Progress & { type: string };
      onProgress?.({ stage, done, total });
    };
    const { info } = await lastEvent(engine.loading(), "loaded", { signal, onEvent });
    return new Model(engine, info, images);
  } catch (error) {
    await lastEvent(engine.close(), "closed").catch(() => {});
    throw error;
  }
}

/**
 * Reads a model's description without loading its weights; a Hub model is downloaded first. `binding` is as in LoadOptions.
 *
 * @example
 * ```ts
 * import { inspect } from "prefixkv";
 *
 * const info = await inspect();
 * console.log(info.architecture, info.parameters, info.kvBytesPerToken);
 * ```
 */
export async function inspect(source?: string | URL, options: InspectOptions = {}): Promise<ModelInfo> {
  const read = readInspect(options);
  const path = readSource(source, "inspect");
  return inspectPath((await pickDoor(read.binding)).native, path, read);
}

/** {@link inspect} through a given door. */
export async function inspectModel(
  native: Native,
  source?: string | URL,
  options: Omit<InspectOptions, "binding"> = {},
): Promise<ModelInfo> {
  return inspectPath(native, readSource(source, "inspect"), readInspect(options));
}

async function inspectPath(
  native: Native,
  source: string | undefined,
  { binding: _, picture, ...options }: ReturnType<typeof readInspect>,
): Promise<ModelInfo> {
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal);
  const files = await modelFiles(source, given(options));
  const ticket = wire(() => native.inspect(JSON.stringify({ ...files, picture })));
  return (await lastEvent(ticket, "inspected", { signal })).info;
}

/** The fields that are there. */
function given<T extends object>(options: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
}

/**
 * Describes the native code of this installation: its version, architectures, devices, processor features and threads; and what
 * is alive in this process, over all models and both bindings. `device` selects the build to ask: the CPU build, by
 * default, or the CUDA build, which is loaded for it (a DeviceError if there is none). Each counts only its own models.
 *
 * @example
 * ```ts
 * import { about } from "prefixkv";
 *
 * const { version, devices, live } = await about();
 * console.log(version, devices, live.models, live.cacheBytes);
 * const { noGpu } = await about({ device: "cuda" }).catch(() => ({ noGpu: "the build for CUDA is not installed" }));
 * console.log(noGpu ?? "a GPU can be used");
 * ```
 */
export async function about(options: AboutOptions = {}): Promise<About> {
  const { device } = readAbout(options);
  const { native } = await pickDoor("auto", gpuName(device));
  return JSON.parse(wire(() => native.about())) as About;
}
