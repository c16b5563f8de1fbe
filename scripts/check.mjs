// `node scripts/check.mjs [rust|types|style|fix]...`: the linters; without a name all of them but `fix`.
import { join } from "node:path";
import { install } from "./install.mjs";
import { cargo, fail, root, run, runtime, workspace } from "./shell.mjs";

const module = (...parts) => join(root, "node_modules", ...parts);
const node = (...args) => [[runtime("node"), args]];
const rust = (...args) => [cargo().command, args, { path: cargo().path }];
const clippy = (...args) => rust("clippy", ...args, "--all-targets", "--release", "--", "-D", "warnings");
const above = ["core", "capi", "node"].flatMap((name) => [
  "-p",
  `prefixkv-${name}`,
  "--features",
  `prefixkv-${name}/cuda`,
]);
/** With empty kernels, for machines without nvcc. */
const withCuda = ([command, args, options]) => [command, args, { ...options, env: { PREFIXKV_CUDA_CHECK: "1" } }];

const checks = {
  rust: () => [
    rust("fmt", "--all", "--check"),
    clippy(...workspace()),
    withCuda(clippy("-p", "prefixkv-kernels", "--features", "cuda")),
    // The crates above them, whose tests know no GPU.
    withCuda(rust("clippy", ...above, "--release", "--", "-D", "warnings")),
  ],
  types: () => node(module("typescript", "bin", "tsc"), "--noEmit"),
  style: () => node(module("@biomejs", "biome", "bin", "biome"), "ci", "--colors=off"),
  fix: () => [rust("fmt", "--all"), ...node(module("@biomejs", "biome", "bin", "biome"), "check", "--write")],
};

const names = process.argv.slice(2);
const unknown = names.find((name) => !Object.hasOwn(checks, name));
if (unknown) fail(`unknown check \`${unknown}\`; there are ${Object.keys(checks).join(", ")}`, 2);

install();
const failures = [];
for (const name of names.length > 0 ? names : ["rust", "types", "style"]) {
  for (const [command, args, options] of checks[name]()) {
    if (run(command, args, options) !== 0) failures.push(name);
  }
}
if (failures.length > 0) fail(`failed: ${[...new Set(failures)].join(", ")}`);
