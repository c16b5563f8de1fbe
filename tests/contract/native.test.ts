// Streams and memory in the contract between a door and the library.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { WireError, WireEvent } from "../../ts/generated/wire.ts";
import type { NativeEngine } from "../../ts/native/contract.ts";
import { collect, type Door, doors, engineThrough, generate, nativeOf, readAll, sleep } from "./doors.ts";

const engines = new Map<Door, NativeEngine>();

before(async () => {
  for (const door of doors) engines.set(door, await engineThrough(door));
});

after(async () => {
  for (const engine of engines.values()) await readAll(engine.close());
});

const engine = (door: Door): NativeEngine => engines.get(door) as NativeEngine;
const tokens = (events: WireEvent[]): number => events.filter(({ type }) => type === "token").length;

/** The error with which a call refuses. */
function refusal(call: () => unknown): WireError {
  try {
    call();
  } catch (error) {
    return JSON.parse((error as Error).message) as WireError;
  }
  return assert.fail("nothing was refused");
}

for (const door of doors) {
  test(`${door}: what is refused is thrown as the JSON of an error`, async () => {
    const native = await nativeOf(door);
    assert.equal(refusal(() => native.open("{}")).code, "option");
    assert.equal(refusal(() => native.inspect("[")).code, "option");
    assert.equal(refusal(() => native.checkDevice("{}")).code, "option");
    assert.equal(refusal(() => native.checkDevice('{"device":"cpu"}')).code, "device");
    const { code, details } = refusal(() => engine(door).submit('{"op":"genrate"}', []));
    assert.deepEqual([code, details.suggestion], ["option", "generate"]);
    assert.equal(refusal(() => engine(door).submit(generate(1), Array(65).fill(new Uint8Array(1)))).code, "option");
    assert.deepEqual(JSON.parse(native.about()).devices.slice(0, 1), ["cpu"]);
  });

  test(`${door}: the check of a GPU that is not there ends with an error`, async () => {
    const [event] = await readAll((await nativeOf(door)).checkDevice('{"device":"cuda:4096"}'));
    assert.ok(event?.type === "error" && event.error.code === "device", JSON.stringify(event));
  });

  test(`${door}: a stream ends with null, again and again`, async () => {
    const ticket = engine(door).submit(generate(3), []);
    const events = await readAll(ticket);
    assert.deepEqual([tokens(events), events.at(-1)?.type], [3, "done"]);
    assert.deepEqual([await ticket.next(), await ticket.next()], [null, null]);
    ticket.cancel();
  });

  test(`${door}: a second reader is refused while the first waits`, async () => {
    const busy = engine(door).submit(generate(200), []);
    const ticket = engine(door).submit(generate(1), []);
    const first = ticket.next();
    await assert.rejects(async () => ticket.next(), /one call at a time/);
    busy.cancel();
    assert.match((await first) ?? "", /"prompt"/);
    await Promise.all([readAll(busy), readAll(ticket)]);
  });

  test(`${door}: work that waits or runs can be cancelled`, async () => {
    const running = engine(door).submit(generate(1500), []);
    const waiting = engine(door).submit(generate(1500), []);
    waiting.cancel();
    assert.deepEqual((await readAll(waiting)).map(codeOf), ["aborted"]);
    while (tokens(JSON.parse((await running.next()) ?? "[]")) === 0);
    running.cancel();
    assert.equal(codeOf((await readAll(running)).at(-1)), "aborted");
  });

  test(`${door}: a slow reader holds the engine up and loses nothing`, async () => {
    const ticket = engine(door).submit(generate(700), []);
    await sleep(1500);
    // The engine lets 256 events wait.
    const first = JSON.parse((await ticket.next()) ?? "[]") as WireEvent[];
    assert.ok(first.length <= 256, String(first.length));
    await sleep(50);
    const events = [...first, ...(await readAll(ticket))];
    assert.equal(tokens(events), 700);
    assert.equal(events.at(-1)?.type, "done");
  });

  test(`${door}: an abandoned stream is collected, and the engine goes on`, async () => {
    await abandon(engine(door));
    const next = readAll(engine(door).submit(generate(2), []));
    let done = false;
    void next.then(() => {
      done = true;
    });
    const start = performance.now();
    while (!done && performance.now() - start < 30_000) {
      collect();
      await sleep(20);
    }
    assert.ok(done, "the abandoned stream still holds the engine up");
    assert.equal(tokens(await next), 2);
  });
}

function codeOf(event: WireEvent | undefined): string | undefined {
  if (event?.type === "error") return event.error.code;
  return event?.type === "done" ? event.finish : event?.type;
}

/** Starts a stream that blocks the engine until somebody reads, and forgets it. */
async function abandon(engine: NativeEngine): Promise<void> {
  await engine.submit(generate(1500), []).next();
}
