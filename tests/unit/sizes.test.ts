import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { parseBytes } from "../../ts/format.ts";

test("sizes are read as the engine reads them", async () => {
  const table: [string, number | null][] = JSON.parse(
    await readFile(new URL("../fixtures/sizes.json", import.meta.url), "utf8"),
  );
  assert.ok(table.length > 30);
  for (const [text, bytes] of table) assert.equal(parseBytes(text) ?? null, bytes, JSON.stringify(text));
});
