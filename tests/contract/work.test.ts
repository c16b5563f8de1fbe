// How much an engine works for what nobody wants: counted in layers, each in a process where nothing else works.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { runScript } from "../runtimes/spawn.ts";
import { type Door, doors } from "./doors.ts";

const script = fileURLToPath(new URL("./child.ts", import.meta.url));
/** Of the embedded model. */
const layers = 10;
const none = { models: 0, sessions: 0, requests: 0, cacheBytes: 0 };

async function child(door: Door, what: string): Promise<Record<string, unknown>> {
  const { code, out, err } = await runScript(script, [door, what], { gc: true });
  assert.equal(code, 0, `${out}${err}`);
  return JSON.parse(out) as Record<string, unknown>;
}

for (const door of doors) {
  test(`${door}: an abort in the prompt stops the work within a layer`, async () => {
    const { layers: after, types, end } = await child(door, "prompt");
    assert.deepEqual([types, end], [["error"], "aborted"]);
    assert.ok((after as number) <= 1, `${after} layers were run after the abort`);
  });

  test(`${door}: an abort in decode stops the work within a step`, async () => {
    const { layers: after, tokens, counted, end } = await child(door, "decode");
    assert.deepEqual([end, counted], ["aborted", tokens]);
    assert.ok((after as number) <= layers, `${after} layers were run after the abort`);
  });

  test(`${door}: unread, at most 256 events wait, and an abort then works no further`, async () => {
    const { held, grown, after, tokens, end } = await child(door, "full");
    assert.deepEqual({ held, grown, after }, { held: [256 * layers, 256 * layers], grown: 0, after: 0 });
    assert.deepEqual([tokens, end], [256, "aborted"]);
  });

  test(`${door}: generations that are dropped unread are cancelled, with a signal too`, async () => {
    const { most, tokens, aborted, left } = await child(door, "drop");
    assert.deepEqual([most, tokens, aborted], [4, 2, false]);
    const { layersRun, rowsRun: _, rowsShared: __, pairsRun: ___, ...alive } = left as Record<string, number>;
    assert.deepEqual(alive, none);
    // Without a reader each has run to its full queue at most.
    assert.ok((layersRun as number) <= (4 * 256 + 2) * layers, String(layersRun));
  });

  test(`${door}: a model that was open in a terminated Worker is freed`, async () => {
    const { seen, left } = await child(door, "terminate");
    for (const { models, sessions, requests, cacheBytes } of seen as Record<string, number>[]) {
      assert.deepEqual([models, sessions, requests], [1, 1, 2]);
      assert.ok((cacheBytes as number) > 0);
    }
    const { layersRun: _, rowsRun: __, rowsShared: ___, pairsRun: ____, ...alive } = left as Record<string, number>;
    assert.deepEqual(alive, none);
  });
}
