// The C ABI from C and from Python: the examples are compiled and run.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import type { WireEvent } from "../../ts/generated/wire.ts";
import { missingObjects, scene } from "../engine/scenes.ts";
import { root } from "../runtimes/spawn.ts";

const build = new URL("../../scripts/build.mjs", import.meta.url).href;
const { library } = (await import(build)) as { library: string };
const model = join(root, "models", "tiny-llava");

/** Runs a program to its end. */
function run(command: string, args: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: "utf8" });
  if (error) throw error;
  return { status, stdout, stderr };
}

test("C: the example compiles against the header without a warning, and describes a picture", () => {
  const folder = mkdtempSync(join(tmpdir(), "prefixkv-c-"));
  try {
    const program = join(folder, "describe");
    const native = join(root, dirname(library));
    const flags = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-I", "crates/capi/include"];
    const link = ["-L", native, "-lprefixkv", `-Wl,-rpath,${native}`];
    const compiled = run(process.env.CC ?? "cc", ["examples/c/describe.c", ...flags, ...link, "-o", program]);
    assert.deepEqual(compiled, { status: 0, stdout: "", stderr: "" });
    const { status, stdout, stderr } = run(program, [model, scene.image]);
    assert.deepEqual([status, stderr], [0, ""]);
    const events = stdout
      .trim()
      .split("\n")
      .flatMap((line) => JSON.parse(line) as WireEvent[]);
    const done = events.find((event) => event.type === "done");
    assert.deepEqual(missingObjects(scene, done?.text ?? ""), []);
    assert.deepEqual([events[0]?.type, events.at(-1)?.type], ["progress", "closed"]);
    const refused = run(program, [join(folder, "none"), scene.image]);
    assert.equal(refused.status, 1);
    assert.match(refused.stdout, /model-not-found/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("C++: the header compiles as C++, and its functions are those of C", () => {
  const compiler = process.env.CXX ?? "c++";
  if (spawnSync(compiler, ["--version"]).status !== 0) {
    console.log(`${compiler} is not on the PATH: the header was not compiled as C++`);
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), "prefixkv-cpp-"));
  try {
    const source = join(folder, "about.cpp");
    const program = join(folder, "about");
    writeFileSync(
      source,
      `#include "prefixkv.h"
#include <cstdio>
#include <vector>

int main() {
  uint32_t size = 0;
  if (pkv_abi_version() != PKV_ABI_VERSION || pkv_about(nullptr, 0, &size) != PKV_TOO_SMALL) return 1;
  std::vector<char> text(size);
  if (pkv_about(text.data(), text.size(), &size) != PKV_OK) return 2;
  std::fwrite(text.data(), 1, size, stdout);
}
`,
    );
    const native = join(root, dirname(library));
    const flags = ["-std=c++11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-I", "crates/capi/include"];
    const link = ["-L", native, "-lprefixkv", `-Wl,-rpath,${native}`];
    assert.deepEqual(run(compiler, [source, ...flags, ...link, "-o", program]), { status: 0, stdout: "", stderr: "" });
    const { status, stdout } = run(program, []);
    assert.deepEqual([status, JSON.parse(stdout).devices[0]], [0, "cpu"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("Python: the example describes a picture and raises typed errors", () => {
  if (spawnSync("python3", ["--version"]).status !== 0) {
    console.log("python3 is not on the PATH: its example was not run");
    return;
  }
  const program = "examples/python/describe.py";
  const { status, stdout, stderr } = run("python3", [program, join(root, library), model, scene.image]);
  assert.equal(status, 0, stderr);
  assert.deepEqual(missingObjects(scene, stdout), []);
  const refused = run("python3", [
    "examples/python/describe.py",
    join(root, library),
    join(model, "none"),
    scene.image,
  ]);
  assert.ok(refused.status === 1 && /PrefixKvError: model not found/.test(refused.stderr), refused.stderr);
});
