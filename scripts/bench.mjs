// `npm run bench`, `bench:peers`, `bench:cache`, `bench:batch`, `bench:pieces`, `bench:doors`, `bench:held`, `bench:fit`, `bench:sharing`, `bench:stores`, `bench:versions`, `bench:kvpress`, `bench:llama`, `bench:large`, `bench:overhead`, `bench:pruning`, `bench:prefixkv-search`, `bench:prefixkv-report`, `scenes`, each with `-- [--quick] [--no-build]`, and `methods` and `results` with
// options of their own: see bench/README.md.
import { join } from "node:path";
import { buildNative } from "./build.mjs";
import { install } from "./install.mjs";
import { cargo, fail, must, root, runtime } from "./shell.mjs";

/** Both sides of every comparison get as many. */
const env = { RAYON_NUM_THREADS: "2", OMP_NUM_THREADS: "2" };
const suites = {
  suite,
  peers,
  cache: () => limited("cache"),
  batch: () => limited("batch"),
  pieces: () => bun("pieces.ts"),
  doors: () => bun("doors.ts"),
  held: () => bun("held.ts"),
  sharing: () => bun("sharing.ts"),
  stores: () => bun("stores.ts"),
  fit: () => bun("fit.ts"),
  versions: () => bun("versions.ts"),
  kvpress: () => bun("kvpress.ts"),
  llama: () => bun("llama.ts"),
  large: () => bun("large.ts"),
  overhead: () => bun("overhead.ts"),
  pruning: () => bun("pruning.ts"),
  "prefixkv-search": () => withQuestions("prefixkv_search.ts"),
  "prefixkv-report": () => withQuestions("prefixkv_report.ts"),
  scenes: () => bun("scenes.ts"),
  methods: () => bun(grids, "--only", "scenes"),
  results,
};
const grids = join("grids", "run.ts");
const withOptions = ["held", "kvpress", "llama", "methods", "prefixkv-search", "results", "stores", "versions"];

const args = process.argv.slice(2);
const quick = args.includes("--quick");
const [name = "suite", ...rest] = args.filter((arg) => !["--quick", "--no-build"].includes(arg));
if (!Object.hasOwn(suites, name) || (rest.length > 0 && !withOptions.includes(name)))
  fail(`unknown bench \`${args.join(" ")}\`; there are ${Object.keys(suites).join(", ")}, --quick and --no-build`, 2);

install();
if (!["--no-build", "--check", "--docs"].some((option) => args.includes(option))) buildNative();
suites[name]();

function suite() {
  kernels("before", quick ? "limits" : undefined);
  bun("suite.ts");
  kernels("after", "limits");
  bun("report.ts");
}

function peers() {
  bun(join("peers", "compare.ts"));
}

/** Between two measurements of the limits. */
function limited(name) {
  kernels("before", "limits");
  bun(`${name}.ts`);
  kernels("after", "limits");
  bun(`${name}_report.ts`);
}

function results() {
  const measures = !["--check", "--docs"].some((option) => args.includes(option));
  if (measures) must(runtime("node"), [join(root, "scripts", "fetch.mjs"), "easy-vqa"]);
  bun(grids);
}

function withQuestions(file) {
  must(runtime("node"), [join(root, "scripts", "fetch.mjs"), "easy-vqa"]);
  bun(file);
}

/** Criterion's benches whose name has `filter`, kept as a baseline. */
function kernels(baseline, filter) {
  const { command, path } = cargo();
  const options = ["--noplot", "--save-baseline", baseline, ...(quick ? ["--quick"] : [])];
  const only = filter ? [filter] : [];
  must(command, ["bench", "-p", "prefixkv-kernels", "--bench", "attention", "--", ...only, ...options], { path, env });
}

function bun(file, ...options) {
  must(runtime("bun"), [join(root, "bench", file), ...options, ...rest, ...(quick ? ["--quick"] : [])], { env });
}
