import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { root, runScript } from "../runtimes/spawn.ts";

const folder = join(root, "docs", "reference");

test("the API reference agrees with the doc comments", async () => {
  const { code, err } = await runScript(join(root, "scripts", "reference.mjs"), ["--check"]);
  assert.equal(code, 0, err);
});

test("every public member says what it is", () => {
  for (const name of readdirSync(folder)) {
    const rows = readFileSync(join(folder, name), "utf8").matchAll(/^\| (`[^`]+`) \| .* \|\s*\|$/gm);
    const bare = [...rows].map(([, label]) => label ?? "").filter((label) => !own.test(label));
    assert.deepEqual(bare, [], name);
  }
});

/** Members that belong to the language. */
const own = /^`(new|then\(\)|catch\(\)|finally\(\)|\[Symbol\.\w+\](\(\))?)`$/;
