import { readFile } from "node:fs/promises";
import { PrefixKvError } from "../../errors.ts";
import { formatTable, formatTime } from "../../format.ts";
import { openModel } from "../../load.ts";
import { image } from "../../media.ts";
import type { About, Native } from "../../native/contract.ts";
import { type Binding, runtime } from "../../native/pick.ts";
import { packageFile } from "../../package_files.ts";
import { packageVersion } from "../../version.ts";
import { bindingFlag, type Command, type Context } from "../command.ts";

/** What is in the sample picture. */
const expected: readonly string[] = ["blue triangle", "gray ring", "green star", "purple triangle"];

type Outcome = { ok: boolean; text: string; milliseconds: number; error: { code: string; message: string } | null };

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
    let native: { file: string; about: About } | null = null;
    let selfTest: Outcome;
    try {
      const door = await context.door(values.text("binding") as Binding | undefined);
      native = { file: door.file, about: JSON.parse(door.native.about()) as About };
      selfTest = await describeSample(door.native, context);
    } catch (error) {
      if (context.signal.aborted) throw error;
      selfTest = { ok: false, text: "", milliseconds: 0, error: problem(error) };
    }
    if (!values.has("json")) context.out(report(facts, native, selfTest));
    return { ok: selfTest.ok, ...facts, native: native && { file: native.file, ...native.about }, selfTest };
  },
};

async function describeSample(native: Native, { signal }: Context): Promise<Outcome> {
  const start = performance.now();
  const model = await openModel(native, undefined, { signal });
  try {
    const content = [
      image(await readFile(await packageFile("data/scenes/scene-000.png"))),
      "Describe the image in detail.",
    ];
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
  rows.push(["self test", selfTest.ok ? `ok, ${formatTime(selfTest.milliseconds)}` : "FAILED"]);
  const { error, text } = selfTest;
  return `${formatTable(rows)}\n${error ? `error[${error.code}]: ${error.message}` : text}\n`;
}
