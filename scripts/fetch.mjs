// `npm run fetch:easy-vqa`: public data for `prefixkv eval`, by the package manager that is set up on this machine.
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fail, root, run, which } from "./shell.mjs";

const sets = { "easy-vqa": easyVqa };

const [name = ""] = process.argv.slice(2);
if (!Object.hasOwn(sets, name)) fail(`unknown data \`${name}\`; there are ${Object.keys(sets).join(", ")}`, 2);
sets[name]();

/** The Python package `easy-vqa` (MIT), which holds drawn pictures with questions. */
function easyVqa() {
  const folder = join(root, ".cache", "data", "easy-vqa");
  const data = join(folder, "easy_vqa", "data", "test", "questions.json");
  if (!existsSync(data)) {
    const python = process.env.PREFIXKV_PYTHON ?? which("python3") ?? which("python");
    if (!python) fail("Python with pip is needed to fetch easy-vqa; install it, or name one in PREFIXKV_PYTHON.");
    rmSync(folder, { recursive: true, force: true });
    const args = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", folder, "easy-vqa==1.0"];
    if (run(python, args) !== 0 || !existsSync(data)) fail("pip could not install easy-vqa; its message stands above.");
  }
  process.stdout.write("`prefixkv eval --data .cache/data/easy-vqa ...` reads it.\n");
}
