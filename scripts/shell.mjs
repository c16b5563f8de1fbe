// Shared by the scripts: running programs, finding them, and stamps. Node >= 18 or Bun, no dependencies.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const windows = process.platform === "win32";
const bin = join(root, "node_modules", ".bin");

/** The PATH without node_modules/.bin, where a package manager would find tools that it is about to replace. */
export const systemPath = (process.env.PATH ?? "")
  .split(delimiter)
  .filter((part) => part !== "" && !part.endsWith(join("node_modules", ".bin")))
  .join(delimiter);

/** Finds a program on a PATH. */
export function which(name, path = systemPath) {
  for (const folder of path.split(delimiter)) {
    for (const extension of windows ? [".exe", ".cmd", ""] : [""]) {
      const file = join(folder, name + extension);
      if (folder !== "" && existsSync(file)) return file;
    }
  }
  return undefined;
}

/** Ends the script with a message for the person at the terminal. */
export function fail(message, code = 1) {
  process.stderr.write(`${message}\n`);
  process.exit(code);
}

/** Runs a program in the repository, all its output going to standard error; returns its exit code. */
export function run(command, args, { env = {}, quiet = false, path } = {}) {
  if (!quiet) process.stderr.write(`$ ${[shortName(command), ...args].join(" ")}\n`);
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ["ignore", 2, 2],
    shell: windows && command.endsWith(".cmd"),
    env: { ...process.env, PATH: path ?? [bin, systemPath].join(delimiter), ...env },
  });
  if (result.error) fail(`could not run ${command}: ${result.error.message}`);
  return result.status ?? 1;
}

/** Like {@link run}, and ends the script with the program's exit code when it fails. */
export function must(command, args, options) {
  const status = run(command, args, options);
  if (status !== 0) process.exit(status);
}

function shortName(command) {
  return command.split(/[\\/]/).pop();
}

/** Cargo from the PATH or from where rustup puts it; ends the script with the cure when there is none. */
export function cargo() {
  const home = process.env.CARGO_HOME ?? join(homedir(), ".cargo");
  const found = which("cargo") ?? which("cargo", join(home, "bin"));
  if (found) return { command: found, path: [bin, dirname(found), systemPath].join(delimiter) };
  return fail(
    "Rust is needed to build the native code, but `cargo` is neither on the PATH nor in ~/.cargo/bin.\n" +
      "Install it from https://rustup.rs (Rust 1.89 or newer) and run this again.",
  );
}

/** Ends the script with the cure when no C compiler (which Rust links with) can be found. */
export function requireCompiler() {
  if (windows || process.env.CC || ["cc", "gcc", "clang"].some((name) => which(name))) return;
  fail(
    "A C compiler is needed to link the native code, but neither cc, gcc nor clang is on the PATH.\n" +
      "Install one (Debian/Ubuntu: `apt install build-essential`; macOS: `xcode-select --install`) and run this again.",
  );
}

/** Whether a C++ compiler is there, which only the tests of the CUDA kernels need. */
export function hasCxx() {
  return Boolean(process.env.CXX) || ["c++", "g++", "clang++"].some((name) => which(name));
}

/** Crates for cargo: all, but without the shim of the CUDA kernels, and with a message, where nothing can compile its C++. */
export function workspace() {
  if (hasCxx()) return ["--workspace"];
  process.stderr.write(
    "without the tests of the CUDA kernels (crates/cuda-shim): neither c++, g++ nor clang++ is on the PATH\n",
  );
  return ["--workspace", "--exclude", "prefixkv-cuda-shim", "--exclude", "prefixkv-shim-addon"];
}

/** A pinned runtime from the dev dependencies, or from the PATH. */
export function runtime(name) {
  if (name === "node")
    return pinnedNode() ?? newNode() ?? fail("Node 22 was not installed; run `npm ci` and try again.");
  const local = join(bin, windows ? `${name}.exe` : name);
  if (existsSync(local)) return local;
  return which(name) ?? fail(`${name} was not installed; run \`npm ci\` and try again.`);
}

function pinnedNode() {
  const require = createRequire(join(root, "tools", "node22", "package.json"));
  for (const name of [`node-${process.platform}-${process.arch}`, `node-bin-${process.platform}-${process.arch}`]) {
    try {
      return join(dirname(require.resolve(`${name}/package.json`)), "bin", windows ? "node.exe" : "node");
    } catch {
      // Not the package of this platform.
    }
  }
  return undefined;
}

function newNode() {
  const found = which("node");
  if (!found) return undefined;
  const version = spawnSync(found, ["--version"], { encoding: "utf8" }).stdout ?? "";
  const [major = 0, minor = 0] = version.slice(1).split(".").map(Number);
  return major > 22 || (major === 22 && minor >= 18) ? found : undefined;
}

/** A hash of the contents of files, those missing included. */
export function hashFiles(files) {
  const hash = createHash("sha256");
  for (const file of files) {
    hash.update(`${file}\0`);
    if (existsSync(join(root, file))) hash.update(readFileSync(join(root, file)));
  }
  return hash.digest("hex");
}

export function readStamp(file) {
  try {
    return readFileSync(join(root, file), "utf8");
  } catch {
    return undefined;
  }
}

export function writeStamp(file, value) {
  mkdirSync(dirname(join(root, file)), { recursive: true });
  writeFileSync(join(root, file), value);
}
