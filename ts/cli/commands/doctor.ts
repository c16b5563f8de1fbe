import { DeviceError, PrefixKvError } from "../../errors.ts";
import { formatTable, formatTime } from "../../format.ts";
import type { About, Device } from "../../generated/wire.ts";
import { openModel } from "../../load.ts";
import { image } from "../../media.ts";
import type { Native } from "../../native/contract.ts";
import type { Attempt } from "../../native/cuda.ts";
import { gpuName } from "../../native/device.ts";
import { type Binding, runtime } from "../../native/pick.ts";
import { samplePicture } from "../../sample.ts";
import { packageVersion } from "../../version.ts";
import { bindingFlag, type Command, type Context } from "../command.ts";

/** The shapes in the sample picture. */
const expected: readonly string[] = ["blue triangle", "gray ring", "green star", "purple triangle"];

type Outcome = { ok: boolean; text: string; milliseconds: number; error: { code: string; message: string } | null };

/** The build for CUDA: what it finds here, or why it is not used. */
interface Cuda {
  file: string | null;
  version: string | null;
  /** The GPUs. */
  devices: string[];
  /** Why there is none. */
  reason: string | null;
  /** Where the build was looked for in vain. */
  attempts: Attempt[];
  /** The self test on the first GPU; null where there is none. */
  selfTest: Outcome | null;
}

/** Checks an installation. */
export const doctor: Command = {
  name: "doctor",
  summary: "check this installation",
  flags: [bindingFlag],
  failed: (output) => output.ok !== true,
  async run(values, context) {
    const { name, version } = runtime();
    const facts = {
      version: await packageVersion(),
      runtime: { name, version },
      platform: `${process.platform}-${process.arch}`,
    };
    const binding = values.text("binding") as Binding | undefined;
    let native: { file: string; about: About } | null = null;
    let selfTest: Outcome;
    try {
      const door = await context.door(binding);
      native = { file: door.file, about: JSON.parse(door.native.about()) as About };
      selfTest = await describeSample(door.native, context);
    } catch (error) {
      selfTest = failure(error, context);
    }
    const cuda = await checkCuda(binding, context);
    if (!values.has("json")) context.out(report(facts, native, selfTest, cuda));
    const ok = selfTest.ok && cuda.selfTest?.ok !== false;
    return { ok, ...facts, native: native && { file: native.file, ...native.about }, cuda, selfTest };
  },
};

/** Asks the build for CUDA, and has it describe the sample where there is a GPU. */
async function checkCuda(binding: Binding | undefined, context: Context): Promise<Cuda> {
  const cuda: Cuda = { file: null, version: null, devices: [], reason: null, attempts: [], selfTest: null };
  try {
    const { native, file } = await context.door(binding, "cuda");
    const { version, devices, noGpu } = JSON.parse(native.about()) as About;
    const gpus = devices.filter((name): name is Device => gpuName(name) !== undefined);
    Object.assign(cuda, { file, version, devices: gpus, reason: noGpu });
    if (gpus[0]) {
      cuda.selfTest = await describeSample(native, context, gpus[0]).catch((error) => failure(error, context));
    }
  } catch (error) {
    if (context.signal.aborted) throw error;
    cuda.reason = problem(error).message;
    if (error instanceof DeviceError) cuda.attempts = (error.details.attempts ?? []) as Attempt[];
  }
  return cuda;
}

function failure(error: unknown, { signal }: Context): Outcome {
  if (signal.aborted) throw error;
  return { ok: false, text: "", milliseconds: 0, error: problem(error) };
}

async function describeSample(native: Native, { signal }: Context, device?: Device): Promise<Outcome> {
  const start = performance.now();
  const model = await openModel(native, undefined, { signal, ...(device && { device }) });
  try {
    const content = [image(await samplePicture()), "Describe the image in detail."];
    const { text } = await model.generate({ messages: [{ role: "user", content }], signal });
    const missing = expected.filter((object) => !text.includes(object));
    const error =
      missing.length > 0 ? { code: "self-test", message: `the description misses: ${missing.join(", ")}` } : null;
    return { ok: error === null, text: text.trim(), milliseconds: Math.round(performance.now() - start), error };
  } finally {
    await model.dispose();
  }
}

function problem(error: unknown): { code: string; message: string } {
  if (error instanceof PrefixKvError) return { code: error.code, message: error.message };
  return { code: "internal", message: error instanceof Error ? error.message : String(error) };
}

function report(
  facts: { version: string; runtime: { name: string; version: string }; platform: string },
  native: { file: string; about: About } | null,
  selfTest: Outcome,
  cuda: Cuda,
): string {
  const rows: [string, string][] = [
    ["prefixkv", facts.version],
    ["runtime", `${facts.runtime.name} ${facts.runtime.version} on ${facts.platform}`],
    ["native", native ? `${native.file} ${native.about.version}` : "missing"],
  ];
  if (native) {
    rows.push(["cpu", native.about.cpu.join(", ") || "no SIMD"]);
    rows.push(["threads", String(native.about.threads)]);
    rows.push(["devices", native.about.devices.join(", ")]);
    rows.push(["architectures", native.about.architectures.join(", ")]);
  }
  rows.push(["self test", verdict(selfTest)]);
  rows.push(["cuda build", cuda.file ? `${cuda.file} ${cuda.version}` : "none that loads, see below"]);
  rows.push(["gpus", cuda.devices.join(", ") || "none"]);
  rows.push([
    "gpu self test",
    cuda.selfTest ? verdict(cuda.selfTest) : "never run: there is no GPU here that could be used",
  ]);
  const { error, text } = selfTest;
  const lines = [error ? `error[${error.code}]: ${error.message}` : text];
  if (cuda.selfTest?.error)
    lines.push(`error[${cuda.selfTest.error.code}]: on the GPU: ${cuda.selfTest.error.message}`);
  if (cuda.devices.length === 0 && cuda.reason !== null) lines.push(`no GPU: ${cuda.reason}`);
  return `${formatTable(rows)}\n${lines.join("\n")}\n`;
}

function verdict({ ok, milliseconds }: Outcome): string {
  return ok ? `ok, ${formatTime(milliseconds)}` : "FAILED";
}
