// Memory of held caches, as the operating system sees it: bench/results/<machine>-held.json and .md. Options: --quick, and --gguf for
// models from GGUF files instead: held_gguf.ts. Linux only.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { heldGguf } from "./held_gguf.ts";
import type { HeldRun } from "./held_run.ts";
import { heading, keep, origin } from "./machine.ts";
import { table } from "./stats.ts";

const { runtime } = (await import(new URL("../scripts/shell.mjs", import.meta.url).href)) as {
  runtime(name: string): string;
};
const script = fileURLToPath(new URL("./held_run.ts", import.meta.url));
const quick = process.argv.includes("--quick");
if (process.argv.includes("--gguf")) {
  await heldGguf(runtime("bun"), quick);
  process.exit();
}
const [chats, tokens] = quick ? [3, 500] : [10, 2000];
const share = 0.2;
const methods = ["full", "prefixkv", "h2o", "snapkv", "streaming"];
const cases = ["f16", "f32"].flatMap((weights) => methods.map((method) => ({ weights, method })));

const measured = cases.map(({ weights, method }) => {
  const args = [script, "smol", weights, method, String(share), String(chats), String(tokens)];
  const { stdout, stderr, status } = spawnSync(runtime("bun"), args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${weights} ${method}: ${stderr}`);
  process.stderr.write(".");
  return { weights, method, ...(JSON.parse(stdout) as HeldRun) };
});
process.stderr.write("\n");

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
const from = await origin();
const page = `${heading("Caches that are held", from)}

A random model of the shape of SmolLM2-135M, ${chats} chats with a prompt of ${tokens} tokens and 16 tokens of answer each, \`keep: ${share}\`; one
process per row, on Bun. Resident memory of the process in MiB: its growth while all chats are held beside what their reports add up
to, and what is left of it after the last is closed.

${table([
  ["weights", "method", "full cache", "reported", "growth while held", "growth over report", "left after closing"],
  ...measured.map(({ weights, method, full, reported, before, held, after }) => {
    const growth = held - before;
    return [weights, method, mib(full), mib(reported), mib(growth), mib(growth - reported), mib(after - before)];
  }),
])}
`;
const report = { origin: from, chats, tokens, share, measured };
await keep("held", quick, report, page);
