import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

interface Runner {
  name: string;
  count(text: string): { passed: number; failed: number };
  closing: RegExp;
}

const { runners } = (await import(new URL("../../scripts/runners.mjs", import.meta.url).href)) as { runners: Runner[] };

const outputs: Record<string, [text: string, passed: number, failed: number]> = {
  rust: [
    "test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n" +
      "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n",
    7,
    2,
  ],
  cuda: [
    "compiled decode.cu 26.1 s 1789280 bytes\ncompiled gather.cu 1.7 s 77144 bytes\n" +
      "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
    3,
    0,
  ],
  bun: ["(pass) 3 pass\n 30 pass\n 1 skip\n 2 fail\n 1 error\nRan 33 tests across 4 files. [426.00ms]\n", 30, 3],
  deno: ["a ... ok (2ms)\n\nFAILED | 29 passed (3 steps) | 1 failed | 2 ignored (1s)\n", 29, 1],
  node: ["✔ pass 7\nℹ tests 6\nℹ suites 0\nℹ pass 3\nℹ fail 2\nℹ cancelled 1\nℹ skipped 0\n", 3, 3],
};

test("the runners' summaries are read as they are", () => {
  for (const { name, count, closing } of runners) {
    const [text = "", passed, failed] = outputs[name] ?? [];
    assert.deepEqual(count(text), { passed, failed }, name);
    assert.ok((text.match(closing) ?? []).length > 0, name);
    assert.deepEqual(count("nothing ran"), { passed: 0, failed: 0 }, name);
  }
});

test("without a toolkit, python3 and pip nothing of CUDA is compiled, and it is said", async () => {
  const { runtime } = (await import(new URL("../../scripts/shell.mjs", import.meta.url).href)) as {
    runtime(name: string): string;
  };
  // Elsewhere, so that no toolkit fetched before is found.
  const folder = await mkdtemp(join(tmpdir(), "prefixkv-scripts-"));
  try {
    await cp(fileURLToPath(new URL("../../scripts", import.meta.url)), join(folder, "scripts"), { recursive: true });
    const url = pathToFileURL(join(folder, "scripts", "runners.mjs")).href;
    const code = `import(${JSON.stringify(url)}).then(({ runners }) => console.log(runners.find(({ name }) => name === "cuda").start().skip))`;
    const { stdout } = spawnSync(runtime("node"), ["-e", code], { env: { PATH: folder }, encoding: "utf8" });
    const want = existsSync("/usr/local/cuda/bin/nvcc") ? /^undefined$/ : /^not compiled: no CUDA toolkit/;
    assert.match(stdout.trim(), want);
    if (existsSync("/usr/local/cuda/bin/nvcc")) return;
    const build = (...args: string[]) => {
      const script = join(folder, "scripts", "cuda.mjs");
      return spawnSync(runtime("node"), [script, ...args], { env: { PATH: folder }, encoding: "utf8" });
    };
    for (const args of [[], ["--kernels"]]) {
      const { status, stderr } = build(...args);
      assert.equal(status, 1);
      assert.match(
        stderr,
        /^not compiled: no CUDA toolkit.*\nInstall NVIDIA's CUDA toolkit 13\.0, or python3 with pip/,
      );
    }
    const { status, stderr } = build("--kernel");
    assert.deepEqual([status, stderr], [2, "unknown option `--kernel`; there is --kernels\n"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("the addon's file names are those that the binding requires and that is looked for", async () => {
  const { addon, cudaAddon } = (await import(new URL("../../scripts/build.mjs", import.meta.url).href)) as {
    addon: string;
    cudaAddon: string;
  };
  assert.equal(cudaAddon.replaceAll("\\", "/"), addon.replaceAll("\\", "/").replace(/\.node$/, ".cuda.node"));
  const binding = await readFile(fileURLToPath(new URL("../../ts/native/binding.cjs", import.meta.url)), "utf8");
  assert.ok(binding.includes(addon.replaceAll("\\", "/")), addon);
});
