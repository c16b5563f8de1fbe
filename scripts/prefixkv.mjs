// `npm run -s prefixkv -- ARGS`: the command line of the working tree; builds only what is missing.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { addon, buildNative } from "./build.mjs";
import { prefixkv } from "./cli.mjs";
import { install } from "./install.mjs";
import { root } from "./shell.mjs";

install();
if (!existsSync(join(root, addon))) buildNative();
// npm and bun run scripts in the repository root; file arguments are relative to where the person stands.
const asked = process.env.npm_lifecycle_event === "prefixkv" ? process.env.INIT_CWD : process.cwd();
process.exitCode = await prefixkv(process.argv.slice(2), { cwd: asked ?? process.cwd() });
