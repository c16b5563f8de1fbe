// `npm run kernels`: compiles every CUDA kernel and holds its registers and stack against docs/design/cuda-kernels.md; fails on spills and on a
// page that says otherwise. With `--write` it writes the page. No GPU is needed.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { pathWithNvcc } from "./cuda.mjs";
import { fail, root } from "./shell.mjs";

const page = join(root, "docs", "design", "cuda-kernels.md");
const sources = join(root, "crates", "kernels", "cuda");
const architectures = ["sm_80", "sm_90a"];
/** Registers of a multiprocessor, and the threads and blocks that it takes: A100 and H100. */
const multiprocessor = { registers: 65536, threads: 2048, blocks: 32 };

/** Blocks that registers and threads allow on a multiprocessor; warps take registers by 256. */
function blocks(registers, threads) {
  const warps = threads / 32;
  const taken = Math.ceil((registers * 32) / 256) * 256 * warps;
  return Math.min(
    Math.floor(multiprocessor.registers / taken),
    multiprocessor.threads / threads,
    multiprocessor.blocks,
  );
}

/** Kernel, stack, spilled bytes, registers of each entry in the report of ptxas. */
function entries(report) {
  const entry =
    /Function properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\s+ptxas info\s+: Used (\d+) registers/g;
  return [...report.matchAll(entry)].map(([, kernel, stack, stores, loads, registers]) => ({
    kernel,
    stack: Number(stack),
    spills: Number(stores) + Number(loads),
    registers: Number(registers),
  }));
}

/** Threads of a block, which ptxas does not tell, as the launch bounds in the assembly say. */
function threads(assembly) {
  const entry = /\.entry (\w+)\([^)]*\)\s*((?:\.\w+ [\d, ]+\s*)*)/g;
  return new Map(
    [...assembly.matchAll(entry)].map(([, kernel, bounds]) => [kernel, Number(/\.maxntid (\d+)/.exec(bounds)?.[1])]),
  );
}

function compiled(folder, file, architecture, path) {
  const to = join(folder, `${file}.${architecture}`);
  const flags = [
    "-std=c++17",
    "-O3",
    `-arch=${architecture}`,
    "-cubin",
    "-keep",
    `-keep-dir=${folder}`,
    "-Xptxas",
    "-v",
  ];
  const done = spawnSync("nvcc", [...flags, "-o", to, join(sources, file)], {
    env: { ...process.env, PATH: path },
    encoding: "utf8",
  });
  if (done.status !== 0) fail(`nvcc could not compile ${file}:\n${done.stderr ?? done.error?.message}`);
  const found = entries(done.stderr);
  if (found.length === 0) fail(`ptxas said nothing of ${file}:\n${done.stderr}`);
  const of = threads(readFileSync(join(folder, `${basename(file, ".cu")}.ptx`), "utf8"));
  return found.map((entry) => ({ file, ...entry, threads: of.get(entry.kernel) }));
}

function table(path) {
  const folder = mkdtempSync(join(tmpdir(), "prefixkv-kernels-"));
  try {
    const files = readdirSync(sources).filter((file) => file.endsWith(".cu"));
    const [first, second] = architectures.map((architecture) =>
      files.sort().flatMap((file) => compiled(folder, file, architecture, path)),
    );
    const beside = new Map(second.map((entry) => [entry.kernel, entry]));
    const rows = first.map((entry) => [entry, beside.get(entry.kernel)]);
    const spilling = rows.flat().filter(({ stack, spills }) => stack + spills > 0);
    const lines = rows
      .sort(([a], [b]) => `${a.file} ${a.kernel}`.localeCompare(`${b.file} ${b.kernel}`, "en"))
      .map(([a, b]) => {
        const per = (entry) => [entry.registers, entry.stack, entry.spills, blocks(entry.registers, entry.threads)];
        return `| ${[`\`${a.kernel}\``, a.threads, ...per(a), ...per(b)].join(" | ")} |`;
      });
    return { lines, spilling };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const { lines, spilling } = table(pathWithNvcc());
const [open, close] = ["<!-- table -->\n\n", "\n\n<!-- end of table -->"];
const text = readFileSync(page, "utf8");
const [start, end] = [text.indexOf(open) + open.length, text.indexOf(close)];
if (start < open.length || end < start) fail(`${page} has no place for the table`);
const head = [
  "| kernel | threads | sm_80: registers | stack | spilled | blocks | sm_90a: registers | stack | spilled | blocks |",
  `|${" --- |".repeat(10)}`,
];
const written = text.slice(0, start) + [...head, ...lines].join("\n") + text.slice(end);
for (const { kernel, stack, spills } of spilling) {
  process.stdout.write(`${kernel}: ${stack} bytes of stack, ${spills} bytes spilled\n`);
}
if (process.argv.includes("--write")) writeFileSync(page, written);
else if (written !== text)
  fail("docs/design/cuda-kernels.md says otherwise; if this is meant: npm run kernels -- --write");
if (spilling.length > 0) fail("kernels use local memory");
process.stdout.write(`${lines.length} kernels, no stack and no spills\n`);
