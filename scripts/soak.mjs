// `npm run soak [-- --runtime NAME --door NAME --rounds N --seed N --jobs N --no-build]`: loads, uses and disposes models for a long time and
// fails when anything is left or resident memory grows; see bench/README.md.
import { join } from "node:path";
import { buildNative } from "./build.mjs";
import { install } from "./install.mjs";
import { must, root, runtime } from "./shell.mjs";

const args = process.argv.slice(2);
install();
if (!args.includes("--no-build")) buildNative();
const rest = args.filter((arg) => arg !== "--no-build");
must(runtime("bun"), [join(root, "tests", "soak", "soak.ts"), ...rest], { env: { RAYON_NUM_THREADS: "2" } });
