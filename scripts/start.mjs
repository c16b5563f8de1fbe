// `npm start`: installs, builds and describes a sample picture.
import { buildNative } from "./build.mjs";
import { prefixkv } from "./cli.mjs";
import { install } from "./install.mjs";

install();
buildNative();
const picture = "data/scenes/scene-000.png";
process.stderr.write(`$ prefixkv describe ${picture}\n\n`);
process.exitCode = await prefixkv(["describe", picture, ...process.argv.slice(2)]);
