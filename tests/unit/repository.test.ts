import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (path: string) => readFile(join(root, path), "utf8");

test("the lock files carry no download addresses", async () => {
  for (const file of ["package-lock.json", "bun.lock"]) assert.doesNotMatch(await read(file), /https?:/, file);
});

test("versions agree", async () => {
  const version = JSON.parse(await read("package.json")).version;
  assert.equal(JSON.parse(await read("deno.json")).version, version);
  assert.match(await read("Cargo.toml"), new RegExp(`^version = "${version.replaceAll(".", "\\.")}"$`, "m"));
});

test("every written file is small, and only pick.ts and required.ts ask for the runtime", async () => {
  const sources = (await readdir(join(root, "ts"), { recursive: true })).filter((name) => name.endsWith(".ts"));
  for (const name of sources) {
    const text = await read(join("ts", name));
    if (!name.startsWith("generated")) assert.ok(text.split("\n").length <= 300, `${name} is longer than 300 lines`);
    const code = text.replace(/\/\*\*.*?\*\//gs, "");
    if (!name.endsWith("pick.ts") && name !== "required.ts")
      assert.doesNotMatch(code, /\b(Bun|Deno)\.|process\.versions/, name);
    assert.doesNotMatch(text, /export default/, name);
  }
});

test("no test says `await using`, which Node 22 does not know", async () => {
  const tests = (await readdir(join(root, "tests"), { recursive: true })).filter((name) =>
    /\.(test|case)\.ts$/.test(name),
  );
  assert.ok(tests.length > 80, `${tests.length} tests`);
  for (const name of tests) assert.doesNotMatch(await read(join("tests", name)), /^ *await using \w+ =/m, name);
});

test("importing the library does not load the addon", async () => {
  // The one import of the binding is inside a function.
  const importers = [];
  for (const name of await readdir(join(root, "ts"), { recursive: true })) {
    if (name.endsWith(".ts") && (await read(join("ts", name))).includes("binding.cjs")) importers.push(name);
  }
  assert.deepEqual(importers, [join("native", "napi.ts")]);
  assert.match(await read("ts/native/napi.ts"), /await import\("\.\/binding\.cjs"\)/);
});

test("no panic leaves the Node-API door", async () => {
  for (const name of await readdir(join(root, "crates/node/src"))) {
    const text = await read(join("crates/node/src", name));
    const exported = [...text.matchAll(/#\[napi([^\]]*)\]\s+pub fn (\w+)/g)];
    for (const [, options = "", method] of exported) assert.match(options, /catch_unwind/, `${name}: ${method}`);
    assert.equal(exported.length, [...text.matchAll(/^ *pub fn /gm)].length, name);
  }
});

test("every public name has a doc comment with an example", async () => {
  for (const [folder, least, most] of [
    ["ts", 10, 90],
    ["ts/eval", 10, 40],
  ] as const)
    await checkDocumented(folder, least, most);
});

async function checkDocumented(folder: string, least: number, most: number): Promise<void> {
  const index = await read(join(folder, "index.ts"));
  const names = [...index.matchAll(/^export (?:type )?\{([^}]*)\} from "([^"]*)";$/gm)].flatMap(
    ([, list = "", file = ""]) =>
      list
        .split(",")
        .map((name) => [name.trim().replace(/^type /, ""), file] as const)
        .filter(([name]) => name !== ""),
  );
  assert.ok(names.length > least && names.length <= most);
  // As many as there are methods: all that is generated for them.
  for (const [, file = ""] of index.matchAll(/^export \* from "(\.\/generated\/[^"]*)";$/gm)) {
    const text = await read(join(folder, file));
    for (const [, name = ""] of text.matchAll(/^export function (\w+)/gm)) names.push([name, file]);
  }
  for (const [name, file] of names) {
    const text = await read(join(folder, file));
    const at = text.search(new RegExp(`^export (?:async )?(?:class|const|interface|type|function) ${name}\\b`, "m"));
    assert.ok(at > 0, `${name} is not in ${file}`);
    const before = text.slice(0, at).trimEnd();
    assert.ok(before.endsWith("*/"), `${name} has no doc comment`);
    if (!file.includes("contract"))
      assert.ok(before.slice(before.lastIndexOf("/**")).includes("@example"), `${name} has no example`);
  }
}
