import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** The files of the repository that a file imports, types included. */
function imports(file: string, text: string): string[] {
  const code = text.replace(/\/\*\*.*?\*\//gs, "");
  return [...code.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"(\.[^"]+)"/g)].map(([, path = ""]) =>
    new URL(path, `file:///${file}`).pathname.slice(1),
  );
}

/** Files that import one another, each circle from its first file on; the graph is searched depth first. */
function circles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const found: string[][] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) found.push([...path.slice(at), file]);
    if (at >= 0 || done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
  return found;
}

test("circles are found, and only circles", () => {
  const graph = (edges: Record<string, string[]>) => new Map(Object.entries(edges));
  assert.deepEqual(circles(graph({ a: ["b", "c"], b: ["c"], c: [] })), []);
  assert.deepEqual(circles(graph({ a: ["b"], b: ["c"], c: ["b"] })), [["b", "c", "b"]]);
  const text = 'import type { A } from "../a.ts";\nexport { b } from "./b.ts";\nconst c = await import("./c.ts");\n';
  assert.deepEqual(imports("ts/x/y.ts", text), ["ts/a.ts", "ts/x/b.ts", "ts/x/c.ts"]);
});

test("no file is imported by what it imports, types included", async () => {
  const graph = new Map<string, string[]>();
  for (const folder of ["ts", "bench", "tests", "examples"]) {
    const names = await readdir(join(root, folder), { recursive: true });
    for (const name of names.filter((name) => name.endsWith(".ts"))) {
      const file = `${folder}/${name.replaceAll("\\", "/")}`;
      graph.set(file, imports(file, await readFile(join(root, file), "utf8")));
    }
  }
  assert.ok(graph.size > 200);
  assert.deepEqual(
    circles(graph).map((circle) => circle.join(" -> ")),
    [],
  );
});

/** The rooms of crates/core that a source names outside its comments and its tests. */
function rooms(source: string): string[] {
  const [code = ""] = source.split(/^#\[cfg\(test\)\]\nmod tests \{/m);
  const lines = code.split("\n").filter((line) => !line.trimStart().startsWith("//"));
  return [...lines.join("\n").matchAll(/\bcrate::(\w+)/g)].map(([, room = ""]) => room);
}

test("no room of the core imports one that imports it", async () => {
  const core = join(root, "crates", "core", "src");
  const names = (await readdir(core, { recursive: true })).map((name) => name.replaceAll("\\", "/"));
  const sources = names.filter(
    (name) => name.endsWith(".rs") && name !== "lib.rs" && !/(^|\/)tests(\/|\.rs$)/.test(name),
  );
  const graph = new Map<string, Set<string>>();
  const of = (room: string): Set<string> => graph.get(room) ?? graph.set(room, new Set()).get(room) ?? new Set();
  for (const name of sources) {
    const room = name.replace(/(\/.*|\.rs)$/, "");
    for (const other of rooms(await readFile(join(core, name), "utf8"))) if (other !== room) of(room).add(other);
  }
  assert.ok(graph.size > 15);
  const found = circles(new Map([...graph].map(([room, others]) => [room, [...others]])));
  assert.deepEqual(
    found.map((circle) => circle.join(" -> ")),
    [],
  );
});
