// `npm run fuzz -- [--target T] [--minutes M] [--seed S]`: random input for everything that reads what comes from outside. Other options,
// and how to repeat an input: docs/design/fuzzing.md.
import { join } from "node:path";
import { cargo, must, requireCompiler, root } from "./shell.mjs";

requireCompiler();
const { command, path } = cargo();
// Our own code checks its sums and assertions here; other crates are built as they are shipped.
const checked = ["core", "kernels", "capi"].flatMap((name) =>
  ["overflow-checks", "debug-assertions"].flatMap((check) => [
    "--config",
    `profile.release.package.prefixkv-${name}.${check}=true`,
  ]),
);
const target = join(root, "target");
must(command, ["build", "--release", "-p", "prefixkv-fuzz", "--target-dir", target, ...checked], { path });
const program = join(target, "release", process.platform === "win32" ? "fuzz.exe" : "fuzz");
must(program, process.argv.slice(2), { path });
