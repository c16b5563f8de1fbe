import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { EvaluationError, parseMethod, readMethods } from "../../ts/eval/index.ts";
import { readMethodList } from "../../ts/eval/method_file.ts";

const folder = mkdtempSync(join(tmpdir(), "prefixkv-methods-"));
after(() => rmSync(folder, { recursive: true }));

const file = join(folder, "mine.json");
const given = (value: unknown): Promise<void> =>
  writeFile(file, typeof value === "string" ? value : JSON.stringify(value));

test("a file of methods holds texts and objects", async () => {
  const two = { id: "two", cache: [{ method: "h2o", sinks: 2 }, { method: "full" }] };
  const offline = { id: "offline", cache: { method: "prefixkv", calibration: { crossFit: 2 } } };
  await given(["prefixkv", "snapkv:window=4", offline, two]);
  const methods = [parseMethod("prefixkv"), parseMethod("snapkv:window=4"), offline, two];
  assert.deepEqual(await readMethods(file), methods);
  assert.deepEqual(await readMethodList(`h2o, ${file},prefixkv:score=text,calibration=mine.json`), [
    parseMethod("h2o"),
    ...methods,
    parseMethod("prefixkv:score=text,calibration=mine.json"),
  ]);
});

test("what is wrong with a file of methods is said with its place", async () => {
  for (const [value, pattern] of [
    ["[", /cannot use .*mine\.json: it is not JSON/],
    [{}, /the file is no array of methods/],
    [[], /the file is no array of methods/],
    [[7], /method 0 is 7, not an object/],
    [["h2o", null], /method 1 is null, not an object/],
    [["h2o:sink=1"], /method 0 cannot be meant: `sink=1` of `h2o:sink=1` is no OPTION=VALUE of h2o/],
    [["h20"], /method 0 cannot be meant: there is no method `h20`/],
    [[""], /method 0 cannot be meant: /],
    [[{ cache: { method: "h2o" } }], /method 0 needs a text `id`, found nothing/],
    [[{ id: "x" }], /method 0 is nothing, not an object/],
    [[{ id: "x", cache: {} }], /method 0 needs a text `method`, found nothing/],
    [[{ id: "x", cache: ["h2o"] }], /method 0 is the text "h2o", not an object/],
    [[{ id: "x", cache: { method: "h2o" }, keep: 0.5 }], /method 0 has `keep`; a method has `id` and `cache`/],
  ] as const) {
    await given(value);
    const error = await readMethods(file).catch((error: unknown) => error);
    assert.ok(error instanceof EvaluationError, String(error));
    assert.match(error.message, pattern);
  }
  await assert.rejects(readMethods(join(folder, "none.json")), /there is no such file or folder/);
  await assert.rejects(readMethods(""), /`file` of readMethods is empty|`file`.* is empty/);
});
