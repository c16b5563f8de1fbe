// `npm run build:cuda`: builds the addon and libprefixkv for NVIDIA GPUs, beside those for the CPU. With `--kernels` it only compiles the
// kernels with nvcc and tests the Rust side that embeds them. No GPU is needed for either.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, delimiter, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { buildCuda, cudaAddon, cudaLibrary } from "./build.mjs";
import {
  cargo,
  fail,
  hasCxx,
  must,
  readStamp,
  requireCompiler,
  root,
  run,
  which,
  windows,
  writeStamp,
} from "./shell.mjs";

/** The compiler and its headers, 270 MB. PTX of 13.0 is what drivers from 580 on read: do not go higher lightly. */
const wheels = [
  "nvidia-cuda-nvcc==13.0.88",
  "nvidia-cuda-crt==13.0.88",
  "nvidia-nvvm==13.0.88",
  "nvidia-cuda-cccl==13.0.85",
  "nvidia-cuda-runtime==13.0.96",
];
const cache = join(".cache", "cuda");
const stamp = join(cache, "wheels.txt");
const fetched = join(root, cache, "nvidia", "cu13");
const nvcc = (home) => join(home, "bin", windows ? "nvcc.exe" : "nvcc");

/** The folder of a CUDA toolkit: one that is installed, else the one fetched before. */
function installed() {
  const { CUDA_HOME, CUDA_PATH } = process.env;
  const home = [CUDA_HOME, CUDA_PATH, "/usr/local/cuda"].find((home) => home && existsSync(nvcc(home)));
  if (home) return home;
  const found = which("nvcc");
  if (found) return dirname(dirname(found));
  return readStamp(stamp) === wheels.join("\n") && existsSync(nvcc(fetched)) ? fetched : undefined;
}

function pip() {
  const python = which("python3") ?? which("python");
  if (!python) return undefined;
  const asked = spawnSync(python, ["-m", "pip", "--version"], { stdio: "ignore" });
  return asked.status === 0 ? [python, "-m", "pip"] : undefined;
}

/** Why the kernels cannot be compiled here, if so; fetches the compiler where there is none. */
export function obstacle() {
  if (installed()) return undefined;
  if (process.platform === "darwin") return "not compiled: no CUDA toolkit, and NVIDIA has none for macOS";
  const found = pip();
  if (!found) return "not compiled: no CUDA toolkit and no python3 with pip";
  if (!windows && !hasCxx()) return "not compiled: no C++ compiler, which nvcc needs";
  return fetchToolkit(found) ? undefined : "not compiled: no CUDA toolkit, and pip could not fetch one";
}

function fetchToolkit([python, ...args]) {
  const folder = join(root, `${cache}.new`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"];
  if (run(python, [...args, "install", ...options, "--target", `${cache}.new`, ...wheels]) !== 0) return false;
  rmSync(join(root, cache), { recursive: true, force: true });
  renameSync(folder, join(root, cache));
  writeStamp(stamp, wheels.join("\n"));
  return existsSync(nvcc(fetched));
}

/** The most that the addon or the library may have: what a user downloads is for the kernels, not for other people's libraries. */
const limit = 60 * 2 ** 20;

/** A PATH with nvcc; ends the script with the cure when there is none. By the PATH, because a changed CUDA_HOME makes cargo build cudarc again. */
export function pathWithNvcc() {
  const why = obstacle();
  if (why)
    fail(
      `${why}\nInstall NVIDIA's CUDA toolkit 13.0, or python3 with pip, which fetches its compiler, and run this again.`,
    );
  const home = installed() ?? fail("the toolkit is gone");
  return [join(home, "bin"), cargo().path].join(delimiter);
}

/** Builds the addon and the library, and says how long it took and how large they are. */
function buildAddon() {
  const path = pathWithNvcc();
  const start = performance.now();
  buildCuda(path);
  const seconds = ((performance.now() - start) / 1000).toFixed(0);
  for (const file of [cudaAddon, cudaLibrary]) {
    const { size } = statSync(join(root, file));
    if (size > limit) fail(`${file} has ${megabytes(size)}, more than the limit of ${megabytes(limit)}`);
    process.stdout.write(`${file}: ${megabytes(size)} of at most ${megabytes(limit)}\n`);
  }
  process.stdout.write(
    `built for CUDA in ${seconds} s; load(id, { device: "cuda" }) and \`prefixkv doctor\` take it\n`,
  );
}

function megabytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/** Compiles the kernels, says what each took and how large it is, and runs the tests of the device. */
function buildKernels() {
  const path = pathWithNvcc();
  requireCompiler();
  const { command } = cargo();
  // Compiled to see that it does, and never run.
  const env = { PATH: path, PREFIXKV_CUDA_CHECK: "quick" };
  const target = ["--release", "-p", "prefixkv-kernels", "--features", "cuda"];
  process.stderr.write(`$ cargo build ${target.join(" ")}\n`);
  const built = spawnSync(command, ["build", ...target, "--lib", "--message-format=json-render-diagnostics"], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
    maxBuffer: 1 << 28,
    encoding: "utf8",
  });
  if (built.error) fail(`could not run cargo: ${built.error.message}`);
  if (built.status !== 0) process.exit(built.status ?? 1);
  const messages = built.stdout.split("\n").filter((line) => line.startsWith("{"));
  const script = messages
    .map((line) => JSON.parse(line))
    .find(
      ({ reason, package_id: id }) => reason === "build-script-executed" && /prefixkv-kernels|crates\/kernels/.test(id),
    );
  if (!script) fail("cargo did not run the build script of prefixkv-kernels");
  for (const line of readFileSync(join(script.out_dir, "kernels.txt"), "utf8").trim().split("\n")) {
    process.stdout.write(`compiled ${line}\n`);
  }
  must(command, ["test", ...target, "--lib", "--test", "device", "--", "cuda::", "a_device"], { env, path: env.PATH });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href && basename(process.argv[1]) === "cuda.mjs") {
  const args = process.argv.slice(2);
  const unknown = args.find((arg) => arg !== "--kernels");
  if (unknown) fail(`unknown option \`${unknown}\`; there is --kernels`, 2);
  if (args.length > 0) buildKernels();
  else buildAddon();
}
