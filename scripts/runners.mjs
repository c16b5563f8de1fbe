// The test runners, how each is started, and how its own closing lines are read.
import { join } from "node:path";
import { obstacle } from "./cuda.mjs";
import { cargo, root, runtime, workspace } from "./shell.mjs";

const sum = (text, pattern) => [...text.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0);

/** Each runner's `count` reads its summary: the tests that passed and failed. `start` says `skip` where there is nothing to run. */
export const runners = [
  {
    name: "rust",
    start: () => ({ ...cargo(), args: ["test", "--release", ...workspace(), "--no-fail-fast"] }),
    count: (text) => ({
      passed: sum(text, /^test result: .*? (\d+) passed/gm),
      failed: sum(text, /^test result: .*?; (\d+) failed/gm),
    }),
    closing: /^test result: .*/gm,
  },
  {
    // Compiles every kernel with nvcc; whether it works is what the `rust` runner tests on the CPU.
    name: "cuda",
    start: () => {
      const skip = obstacle();
      return skip ? { skip } : { command: process.execPath, args: [join(root, "scripts", "cuda.mjs"), "--kernels"] };
    },
    count: (text) => ({
      passed: [...text.matchAll(/^compiled /gm)].length + sum(text, /^test result: .*? (\d+) passed/gm),
      failed: sum(text, /^test result: .*?; (\d+) failed/gm),
    }),
    closing: /^(?:compiled|test result:) .*/gm,
  },
  {
    name: "bun",
    start: () => ({ command: runtime("bun"), args: ["test", "--timeout=120000"] }),
    // An error outside a test, of a hook say, has a line of its own and no failed test.
    count: (text) => ({ passed: sum(text, /^ *(\d+) pass$/gm), failed: sum(text, /^ *(\d+) (?:fail|errors?)$/gm) }),
    closing: /^(?: *\d+ (?:pass|fail|skip|errors?)|Ran \d+ tests? .*)$/gm,
  },
  {
    name: "deno",
    start: () => ({ command: runtime("deno"), args: ["test", "-P", "--no-check"] }),
    count: (text) => ({
      passed: sum(text, /^(?:ok|FAILED) \| (\d+) passed/gm),
      failed: sum(text, /^(?:ok|FAILED) \| .*?(\d+) failed/gm),
    }),
    closing: /^(?:ok|FAILED) \| .*/gm,
  },
  {
    name: "node",
    start: () => ({
      command: runtime("node"),
      args: [
        "--disable-warning=ExperimentalWarning",
        "--test",
        "--test-concurrency=1",
        "--test-timeout=600000",
        "--test-reporter=spec",
        "tests/**/*.test.ts",
      ],
    }),
    count: (text) => ({ passed: sum(text, /^ℹ pass (\d+)$/gm), failed: sum(text, /^ℹ (?:fail|cancelled) (\d+)$/gm) }),
    closing: /^ℹ (?:tests|pass|fail|cancelled|skipped) \d+$/gm,
  },
];
