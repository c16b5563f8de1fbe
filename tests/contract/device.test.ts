// The addon for CUDA as a file of its own: not there, not an addon, one that finds no GPU, and the real one where it has been built.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { About } from "../../ts/index.ts";
import { cudaPackages } from "../../ts/native/cuda.ts";
import { runtime } from "../../ts/native/pick.ts";
import { root, runScript } from "../runtimes/spawn.ts";
import { type Door, doors } from "./doors.ts";

const build = new URL("../../scripts/build.mjs", import.meta.url).href;
const { addon, cudaAddon, triple } = (await import(build)) as { addon: string; cudaAddon: string; triple(): string };
const script = fileURLToPath(new URL("./device_child.ts", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "prefixkv-device-"));
after(() => rmSync(folder, { recursive: true }));

interface Told {
  name: string;
  code: string;
  message: string;
  details: { device: string; attempts?: { file: string; reason: string }[] };
}
interface Outcome {
  plain: string;
  cpu: string;
  cuda: string | Told;
  second: string | Told;
  auto: [string, string];
  about: About | Told;
  both: { tokens: number[][]; live: number[][] } | null;
}

/** Output and warnings of the child. */
async function run(door: Door, file: string | undefined): Promise<Outcome & { warnings: string[] }> {
  const { code, out, err } = await runScript(script, [door], { env: file ? { PREFIXKV_CUDA_NATIVE: file } : {} });
  assert.equal(code, 0, err);
  const outcome = JSON.parse(out) as Outcome;
  // Whatever file there is for CUDA, the default never needs it.
  assert.deepEqual([outcome.plain, outcome.cpu], ["cpu", "cpu"]);
  return { ...outcome, warnings: err.split("\n").filter((line) => line.includes("PREFIXKV_NO_GPU")) };
}

/** A refusal of a device, and what its message says. */
function refused(told: string | About | Told, device: string, ...patterns: RegExp[]): Told {
  assert.ok(typeof told === "object" && "code" in told, JSON.stringify(told));
  assert.deepEqual([told.name, told.code, told.details.device], ["DeviceError", "device", device]);
  for (const pattern of patterns) assert.match(told.message, pattern);
  return told;
}

/** `auto` fell back to the CPU and said why, once. */
function fellBack({ auto, warnings }: Outcome & { warnings: string[] }, why: RegExp): void {
  assert.deepEqual(auto, ["cpu", "cpu"]);
  assert.equal(warnings.length, 1, warnings.join("\n"));
  assert.match(warnings[0] ?? "", /device `auto` is the CPU: /);
  assert.match(warnings[0] ?? "", why);
}

/** Two models in two native files know nothing of each other. */
function separate({ both }: Outcome): void {
  assert.ok(both !== null);
  assert.equal(both.tokens[0]?.length, 20);
  assert.deepEqual(both.tokens[1], both.tokens[0]);
  assert.deepEqual(both.live, [
    [1, 1],
    [1, 0],
    [0, 0],
  ]);
}

for (const door of doors) {
  test(`${door}: without the file, a GPU is refused with where it was looked for and the cure`, async () => {
    const file = join(folder, "none.node");
    const outcome = await run(door, file);
    const cure =
      /needs the build for CUDA, which is not there\. .*npm run build:cuda.*\n {2}.*none\.node: no such file/s;
    const { message, details } = refused(outcome.cuda, "cuda", cure);
    assert.deepEqual(
      details.attempts?.map((attempt) => attempt.file),
      [file],
    );
    if (cudaPackages.includes(triple())) assert.ok(message.includes(`npm install @prefixkv/${triple()}-cuda`), message);
    refused(outcome.second, "cuda:1", /device `cuda:1`/);
    refused(outcome.about, "cuda", cure);
    fellBack(outcome, /which is not there/);
    assert.equal(outcome.both, null);
  });

  test(`${door}: a file that is no library is named with the loader's reason`, async () => {
    const file = join(folder, "junk.node");
    writeFileSync(file, "this is no library, whatever its name says\n".repeat(100));
    const outcome = await run(door, file);
    const { details } = refused(outcome.cuda, "cuda", /which is there and does not load: .*junk\.node.*build:cuda/);
    assert.equal(details.attempts?.length, 1);
    assert.equal(details.attempts?.[0]?.file, file);
    assert.ok((details.attempts?.[0]?.reason.length ?? 0) > 5, "the loader says why");
    fellBack(outcome, /does not load/);
  });

  // The addon for the CPU plays the part: it loads, and lists no GPU.
  test(`${door}: a file that finds no GPU says why, and is sound beside the other`, async () => {
    const file = join(folder, "no-gpu.node");
    copyFileSync(join(root, addon), file);
    const outcome = await run(door, file);
    const { details } = refused(outcome.cuda, "cuda:0", /runs on the CPU only/);
    assert.equal(details.attempts, undefined, "the native error comes as it is");
    refused(outcome.second, "cuda:1");
    assert.deepEqual((outcome.about as About).devices, ["cpu"]);
    fellBack(outcome, /no-gpu\.node lists no GPU: .*CPU only/);
    separate(outcome);
  });

  const skip = existsSync(join(root, cudaAddon)) ? false : `no ${cudaAddon}: \`npm run build:cuda\` makes it`;
  if (skip) console.log(`${door}: the real build for CUDA was not tested: ${skip}`);
  test(`${door}: the real build for CUDA uses the GPU, or says what is missing`, { skip }, async () => {
    const outcome = await run(door, undefined);
    const { devices, noGpu } = outcome.about as About;
    if (devices.length > 1) {
      assert.equal(outcome.cuda, "cuda:0");
      assert.deepEqual([outcome.auto, outcome.warnings], [["cuda:0", "cuda:0"], []]);
    } else {
      assert.match(noGpu ?? "", /libcuda|lists no GPU/);
      const { message } = refused(outcome.cuda, "cuda:0");
      assert.ok(message.includes("river"), message);
      fellBack(outcome, /lists no GPU: .*driver/);
    }
    separate(outcome);
  });
}

test("a build of another version is refused with both versions", async () => {
  const other = join(folder, "other");
  cpSync(join(root, "ts"), join(other, "ts"), { recursive: true });
  writeFileSync(join(other, "package.json"), '{ "type": "module", "version": "9.8.7" }');
  const program = join(other, "about.ts");
  writeFileSync(
    program,
    `import { about } from "./ts/index.ts";
const told = await about({ device: "cuda" }).catch(({ name, code, message, details }) => ({ name, code, message, details }));
process.stdout.write(JSON.stringify(told));
`,
  );
  const { code, out, err } = await runScript(program, [], { env: { PREFIXKV_CUDA_NATIVE: join(root, addon) } });
  assert.equal(code, 0, err);
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  refused(JSON.parse(out), "cuda", new RegExp(`has version ${version}, this package 9\\.8\\.7: both must be the same`));
});

test("Deno's permissions: none for the environment is needed, and what was not allowed is said", {
  skip: runtime().name !== "deno",
}, () => {
  const file = join(folder, "permitted.node");
  copyFileSync(join(root, addon), file);
  const deno = (...flags: string[]): Outcome => {
    const args = ["run", "--no-check", "--no-prompt", `--allow-read=${root},${folder}`, ...flags, script, "napi"];
    const env = { ...process.env, PREFIXKV_CUDA_NATIVE: file };
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8", env });
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout) as Outcome;
  };
  refused(deno("--allow-ffi", "--allow-env=PREFIXKV_CUDA_NATIVE").cuda, "cuda:0", /runs on the CPU only/);
  refused(deno(`--allow-ffi=${join(root, addon)}`, "--allow-env").cuda, "cuda", /permitted\.node.*--allow-ffi/);
  const { cuda } = deno("--allow-ffi");
  if (existsSync(join(root, cudaAddon))) assert.ok(typeof cuda === "string" || cuda.details.attempts === undefined);
  else refused(cuda, "cuda", /not there.*PREFIXKV_CUDA_NATIVE: Requires env access.*no such file/s);
});
