import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const page = readFileSync(new URL("../../docs/cli.md", import.meta.url), "utf8");

interface Field {
  path: string[];
  type: string;
  optional: boolean;
}

/** The fields that docs/cli.md promises under a heading such as `describe --json`. */
export function documentedFields(heading: string): Field[] {
  const [, section = ""] = page.split(`### ${heading}\n`);
  const [table = ""] = section.split("\n#");
  const rows = [...table.matchAll(/^\| `([\w.]+)` \| ([^|]+) \|/gm)];
  return rows.map(([, path = "", type = ""]) => ({
    path: path.split("."),
    type: type.trim().replace(/, optional$/, ""),
    optional: type.includes("optional"),
  }));
}

/** Asserts that an object has exactly the documented fields, each of its type. */
export function assertDocumented(heading: string, output: Record<string, unknown>): void {
  const fields = documentedFields(heading);
  assert.ok(fields.length > 0, `docs/cli.md has no table for ${heading}`);
  checkLevel(heading, fields, output);
}

function checkLevel(where: string, fields: readonly Field[], output: Record<string, unknown>): void {
  const names = new Set(fields.map(({ path }) => path[0] ?? ""));
  for (const name of Object.keys(output)) assert.ok(names.has(name), `${where} prints the undocumented field ${name}`);
  for (const name of names) {
    const own = fields.filter(({ path }) => path[0] === name);
    const value = output[name];
    if (value === undefined)
      assert.ok(
        own.every(({ optional }) => optional),
        `${where} misses ${name}`,
      );
    else if (own.length === 1 && own[0]?.path.length === 1) assert.ok(hasType(value, own[0].type), `${where}: ${name}`);
    else {
      const inner = own.map((field) => ({ ...field, path: field.path.slice(1) }));
      checkLevel(`${where}: ${name}`, inner, value as Record<string, unknown>);
    }
  }
}

function hasType(value: unknown, type: string): boolean {
  if (type.endsWith(" or null")) return value === null || hasType(value, type.slice(0, -" or null".length));
  if (type.endsWith("[]")) return Array.isArray(value) && value.every((item) => hasType(item, type.slice(0, -2)));
  if (type === "integer") return Number.isSafeInteger(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  assert.ok(["string", "number", "boolean"].includes(type), `docs/cli.md names the unknown type ${type}`);
  return typeof value === type;
}
