// `node scripts/build.mjs [native|ts]`: builds the native addon and libprefixkv, the published JavaScript, or all.
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { install } from "./install.mjs";
import {
  cargo,
  fail,
  hasCxx,
  hashFiles,
  must,
  readStamp,
  requireCompiler,
  root,
  runtime,
  writeStamp,
} from "./shell.mjs";

/** The platform as the file names say it; scripts/platforms.mjs and ts/native/binding.cjs have the same names. */
export function triple() {
  const { platform, arch } = process;
  if (platform === "linux") return `linux-${arch}-${isMusl() ? "musl" : "gnu"}`;
  return platform === "win32" ? `win32-${arch}-msvc` : `${platform}-${arch}`;
}

function isMusl() {
  return existsSync("/etc/alpine-release");
}

export const addon = join("native", `prefixkv.${triple()}.node`);

/** The C ABI alone, for programs that are not JavaScript. */
export const library = join(
  "native",
  "capi",
  { win32: "prefixkv.dll", darwin: "libprefixkv.dylib" }[process.platform] ?? "libprefixkv.so",
);

/** Both with the CUDA kernels; `npm run build:cuda` makes them, and nothing else needs them. */
export const cudaAddon = join("native", `prefixkv.${triple()}.cuda.node`);
export const cudaLibrary = join(dirname(library), "cuda", basename(library));

/** The addon over a model that panics, for the tests. */
export const panics = join(".cache", "panics.node");

/** The addon and the C ABI alone, for programs without Node-API, whose GPU is the shim: for the tests. */
export const shim = join(".cache", "shim.node");
export const shimLibrary = join(".cache", "shim", basename(library));

/** Builds the addon and the library of the C ABI. */
export function buildNative() {
  build(
    ["-p", "prefixkv-node", "-p", "prefixkv-capi"],
    [
      ["prefixkv_node", addon],
      ["prefixkv", library],
    ],
  );
}

/** Builds both with the CUDA kernels; `path` is a PATH with nvcc. */
export function buildCuda(path) {
  const packages = ["-p", "prefixkv-node", "-p", "prefixkv-capi"];
  build(
    [...packages, "--features", "prefixkv-node/cuda,prefixkv-capi/cuda"],
    [
      ["prefixkv_node", cudaAddon],
      ["prefixkv", cudaLibrary],
    ],
    { path, env: withKernels },
  );
}

/** Not the empty kernels of the linters. */
const withKernels = { PREFIXKV_CUDA_CHECK: "" };

/** Builds what only the tests need. */
export function buildPanics() {
  build(["-p", "prefixkv-node", "--example", "panics"], [["panics", panics]]);
}

/** Builds both over the shim; where nothing can compile its C++, their tests find no file and say so. */
export function buildShim() {
  if (!hasCxx()) {
    for (const file of [shim, shimLibrary]) rmSync(join(root, file), { force: true });
    return;
  }
  build(["-p", "prefixkv-shim-addon"], [["prefixkv_shim_addon", shim]]);
  build(["-p", "prefixkv-shim-addon", "--no-default-features"], [["prefixkv_shim_addon", shimLibrary]]);
}

/** Builds the addon as it is packaged, smaller and faster, slowly; returns its file. */
export function buildDist() {
  const file = join(".cache", "pack", "native", basename(addon));
  build(["-p", "prefixkv-node"], [["prefixkv_node", file]], { profile: "dist" });
  return file;
}

/** {@link buildDist} with the CUDA kernels; `path` is a PATH with nvcc. */
export function buildCudaDist(path) {
  const file = join(".cache", "pack", "native", basename(cudaAddon));
  const args = ["-p", "prefixkv-node", "--features", "prefixkv-node/cuda"];
  build(args, [["prefixkv_node", file]], { profile: "dist", path, env: withKernels });
  return file;
}

/** Lets cargo decide what is fresh and copies a library only when it differs. */
function build(packages, targets, { profile = "release", path = cargo().path, env = {} } = {}) {
  requireCompiler();
  const { command } = cargo();
  process.stderr.write(`$ cargo build --profile ${profile} ${packages.join(" ")}\n`);
  const args = ["build", "--profile", profile, ...packages, "--message-format=json-render-diagnostics"];
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, PATH: path, ...env },
    maxBuffer: 1 << 28,
    encoding: "utf8",
  });
  if (result.error) fail(`could not run cargo: ${result.error.message}`);
  if (result.status !== 0) process.exit(result.status ?? 1);
  for (const [target, file] of targets) {
    place(builtLibrary(result.stdout, target) ?? fail(`cargo built no library ${target}`), file);
  }
}

function place(built, file) {
  const target = join(root, file);
  if (existsSync(target) && readFileSync(built).equals(readFileSync(target))) return;
  mkdirSync(dirname(target), { recursive: true });
  // A running process may have the old file mapped: replace the name, never the bytes.
  copyFileSync(built, `${target}.new`);
  renameSync(`${target}.new`, target);
  process.stderr.write(`wrote ${file}\n`);
}

function builtLibrary(stdout, target) {
  for (const line of stdout.split("\n").reverse()) {
    if (!line.startsWith("{")) continue;
    const message = JSON.parse(line);
    if (message.reason !== "compiler-artifact" || message.target.name !== target) continue;
    return message.filenames.find((file) => /\.(so|dylib|dll)$/.test(file));
  }
  return undefined;
}

const tsStamp = ".cache/build-ts";

/** Compiles ts/ to dist/ when a source has changed. */
export function buildTs() {
  const sources = readdirSync(join(root, "ts"), { recursive: true })
    .map((name) => join("ts", String(name)))
    .filter((file) => statSync(join(root, file)).isFile())
    .sort();
  const want = hashFiles([
    ...sources,
    "scripts/build.mjs",
    "tsconfig.json",
    "tsconfig.build.json",
    "package-lock.json",
  ]);
  if (readStamp(tsStamp) === want && existsSync(join(root, "dist", "index.js"))) return;
  rmSync(join(root, "dist"), { recursive: true, force: true });
  must(runtime("node"), [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", "tsconfig.build.json"]);
  for (const file of sources.filter((name) => /\.[cm]js$|\.d\.[cm]ts$/.test(name))) {
    copyFileSync(join(root, file), join(root, "dist", file.slice("ts/".length)));
  }
  nameDeclarations();
  writeStamp(tsStamp, want);
}

/** The compiler rewrites imports in JavaScript, and leaves `./x.ts` in declarations, where there is no such file. */
function nameDeclarations() {
  for (const name of readdirSync(join(root, "dist"), { recursive: true })) {
    if (!/\.d\.[cm]?ts$/.test(String(name))) continue;
    const file = join(root, "dist", String(name));
    const text = readFileSync(file, "utf8");
    writeFileSync(file, text.replace(/(\bfrom |\bimport\()"(\.[^"]*)\.ts"/g, '$1"$2.js"'));
  }
}

if (
  process.argv[1] &&
  import.meta.url === pathToFileURL(process.argv[1]).href &&
  basename(process.argv[1]) === "build.mjs"
) {
  const what = process.argv[2] ?? "all";
  if (!["all", "native", "ts"].includes(what)) fail(`unknown part \`${what}\`; use native, ts or nothing`, 2);
  install();
  if (what !== "ts") buildNative();
  if (what !== "native") buildTs();
}
