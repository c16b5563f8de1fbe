// A panic in the core, through every door: over crates/node/examples/panics.rs, the addon with a model that panics.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import type { Native, NativeTicket } from "../../ts/native/contract.ts";
import { openLibrary } from "../../ts/native/ffi.ts";
import { runtime } from "../../ts/native/pick.ts";
import { root } from "../runtimes/spawn.ts";
import { type Door, doors, readAll } from "./doors.ts";

const build = new URL("../../scripts/build.mjs", import.meta.url).href;
const { panics } = (await import(build)) as { panics: string };
const file = join(root, panics);

async function open(door: Door): Promise<Native> {
  if (door === "napi") return createRequire(import.meta.url)(file) as Native;
  return openLibrary(runtime().name as "bun" | "deno", file, panics);
}

const last = async (ticket: NativeTicket) => (await readAll(ticket)).at(-1);

for (const door of doors) {
  test(`${door}: a panic in the core is caught and reported, and the engine goes on`, async () => {
    const engine = (await open(door)).open(JSON.stringify({ source: root }));
    assert.equal((await last(engine.loading()))?.type, "loaded");
    const reported = async (request: object, message: RegExp) => {
      const event = await last(engine.submit(JSON.stringify(request), []));
      assert.ok(event?.type === "error" && event.error.code === "internal", JSON.stringify(event));
      assert.match(event.error.message, message);
    };
    await reported({ op: "generate", prompt: "panic" }, /in the model .*panics\.rs/);
    await reported({ op: "tokenize", text: "panic" }, /in the tokenizer/);
    const sound = await last(engine.submit('{"op":"generate","prompt":"go on"}', []));
    assert.deepEqual(sound, { type: "text", text: "sound" });
    assert.deepEqual(await last(engine.close()), { type: "closed" });
  });
}
