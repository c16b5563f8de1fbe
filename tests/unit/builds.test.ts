import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const { cargo } = (await import(new URL("../../scripts/shell.mjs", import.meta.url).href)) as {
  cargo(): { command: string; path: string };
};

/** Every crate from outside with the features that a build of `selection` asks of it. */
function crates(...selection: string[]): Set<string> {
  const { command, path } = cargo();
  const args = ["tree", "--locked", "--prefix", "none", "--format", "{p} {f}", ...selection];
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, PATH: path },
  });
  assert.equal(status, 0, stderr);
  const lines = stdout.split("\n").map((line) => line.replace(/ \((\*|proc-macro)\)/g, "").trim());
  // Crates of the workspace stand with their folder.
  return new Set(lines.filter((line) => line !== "" && !line.includes(" (")));
}

test("builds of one crate and of all share their dependencies, so candle is compiled once", () => {
  const all = crates("--workspace", "--edges", "normal,build,dev");
  assert.ok([...all].some((line) => line.startsWith("candle-core ")));
  for (const [edges, ...names] of [
    ["normal,build", "prefixkv-node", "prefixkv-capi"],
    ["normal,build", "prefixkv-shim-addon"],
    ["normal,build", "prefixkv-fuzz"],
    ["normal,build", "xtask"],
    ["normal,build,dev", "prefixkv-core"],
    ["normal,build,dev", "prefixkv-capi"],
    ["normal,build,dev", "prefixkv-cuda-shim"],
  ] as const) {
    const own = crates("--edges", edges, ...names.flatMap((name) => ["-p", name]));
    assert.deepEqual(
      [...own].filter((line) => !all.has(line)),
      [],
      names.join(" "),
    );
  }
});
