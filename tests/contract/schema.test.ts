// Requests and answers of the engine are as docs/schema/wire.schema.json says, to the last field.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import type { EngineRequest, WireError, WireEvent } from "../../ts/generated/wire.ts";
import type { Native, NativeEngine } from "../../ts/native/contract.ts";
import { faults, type Schema } from "../kit/json_schema.ts";
import { root } from "../runtimes/spawn.ts";
import { nativeOf, readAll } from "./doors.ts";

const { $defs: definitions } = JSON.parse(await readFile(`${root}docs/schema/wire.schema.json`, "utf8")) as {
  $defs: Record<string, Schema>;
};
const scene = new Uint8Array(await readFile(`${root}data/scenes/scene-000.png`));
const source = `${root}models/tiny-llava`;
let native: Native;
let engine: NativeEngine;
const seen = new Set<string>();

before(async () => {
  native = await nativeOf("napi");
  const load = {
    source,
    weights: "f32",
    device: "cpu",
    batch: 1,
    prefillChunk: 512,
    cacheLimit: "1GiB",
    prefixCache: "1MiB",
    rotateValues: false,
    map: true,
    vision: false,
  };
  valid("LoadRequest", load);
  engine = native.open(JSON.stringify(load));
  answered(await readAll(engine.loading()), "loaded");
});

after(async () => answered(await readAll(engine.close()), "closed"));

function valid(name: string, value: unknown): void {
  assert.deepEqual(faults(definitions, name, value), []);
}

/** Checks events, the last of which has this type. */
function answered(events: WireEvent[], last: WireEvent["type"]): WireEvent {
  for (const event of events) {
    valid("WireEvent", event);
    seen.add(event.type);
  }
  assert.equal(events.at(-1)?.type, last, JSON.stringify(events.at(-1)));
  return events.at(-1) as WireEvent;
}

async function ask(request: EngineRequest, last: WireEvent["type"], images: Uint8Array[] = []): Promise<WireEvent> {
  valid("EngineRequest", request);
  return answered(await readAll(engine.submit(JSON.stringify(request), images)), last);
}

const messages = [
  { role: "user", content: [{ type: "image", index: 0 } as const, { type: "text", text: "What is it?" } as const] },
];
const prompt = "USER: Which shapes are there, and where do they lie in the image? ASSISTANT:";
const cache = { method: "prefixkv", keep: 0.5 };

test("every answer is what the schema says", async () => {
  valid("About", JSON.parse(native.about()));
  answered(await readAll(native.inspect(JSON.stringify({ source }))), "inspected");
  const sampling = { temperature: 0.5, topK: 9, topP: 0.9, minP: 0.01, repetitionPenalty: 1.1, seed: 1 };
  await ask({ op: "generate", messages, specialTokens: "text", maxTokens: 4, ...sampling, stop: ["#"] }, "done", [
    scene,
  ]);
  await ask({ op: "score", prompt, answer: " A star.", cache, kept: true, kl: true }, "scored");
  await ask({ op: "profile", prompt, cache, keeps: [0.5, 0.75] }, "profiled");
  await ask({ op: "distances", prompts: [{ prompt }, { prompt: "Hello" }], variant: "official" }, "distances");
  const sharing = { method: "kvsharer", sources: { 6: 2 } };
  await ask({ op: "similarity", prompt, cache: sharing }, "similarity");
  const bits = { method: "kvtuner", window: 0 };
  await ask({ op: "sensitivity", prompt: prompt.repeat(2), cache: bits, pairs: [[8, 4]] }, "sensitivity");
  await ask({ op: "codebooks", prompts: [{ prompt }], bits: 2, outliers: 0.01 }, "codebooks");
  const directions = { init: "asvd", alpha: 0.5, heads: "each", most: 0.25 } as const;
  await ask({ op: "directions", prompts: [{ prompt }], ...directions }, "directions");
  const together = { ...directions, init: "covariance", span: "pair" } as const;
  await ask({ op: "directions", prompts: [{ prompt }], ...together }, "directions");
  const heads = { measure: "copies", queries: 16 } as const;
  await ask({ op: "heads", prompts: [{ prompt: prompt.repeat(2), answer: " A star." }], ...heads }, "heads");
  await ask({ op: "channels", prompts: [{ prompt }], group: 16, sinks: 0 }, "channels");
  await ask({ op: "trace", messages, cache: [cache], maxTokens: 2, ignoreEos: true }, "traced", [scene]);
  await ask({ op: "trace", prompt, maxTokens: 2, cache: { method: "knorm", keep: { tokens: 30 } } }, "traced");
  const opened = await ask({ op: "open-session", cache }, "session");
  const session = opened.type === "session" ? opened.session : "";
  await ask({ op: "turn", session, messages: [{ role: "user", content: "Hello" }], maxTokens: 2 }, "done");
  await ask({ op: "close-session", session }, "session");
  const prefilled = await ask({ op: "prefill", messages, cache: { method: "knorm", keep: 0.5 } }, "prefilled", [scene]);
  const prefix = prefilled.type === "prefilled" ? prefilled.prefix : "";
  await ask({ op: "ask", prefix, question: "What is it?", maxTokens: 2 }, "done");
  const path = join(await mkdtemp(join(tmpdir(), "schema-")), "a.prefix");
  await ask({ op: "save-prefix", prefix, path }, "saved");
  await ask({ op: "close-prefix", prefix }, "forgotten");
  await ask({ op: "restore-prefix", path }, "prefilled");
  await rm(dirname(path), { recursive: true });
  await ask({ op: "restore-prefix", path }, "error");
  const needs = { sums: "window", keys: true, values: true, queries: 2 };
  const own = engine.submit(
    JSON.stringify({ op: "generate", prompt, maxTokens: 2, cache: { method: "custom", needs } }),
    [],
  );
  const shown = JSON.parse((await own.next()) ?? "[]") as WireEvent[];
  for (let view = shown.at(-1); view?.type !== "view"; view = shown.at(-1))
    shown.push(...(JSON.parse((await own.next()) ?? "[]") as WireEvent[]));
  const view = answered(shown, "view");
  assert.ok(view.type === "view");
  const lanes = view.view.lanes.map(() => ({ keep: [0, 2], merge: [{ from: 1, into: 0, weight: 0.5 }] }));
  await ask({ op: "plan", view: view.id, lanes }, "planned");
  answered(await readAll(own), "done");
  await ask({ op: "memory" }, "memory");
  await ask({ op: "tokenize", text: "a", addSpecialTokens: false }, "tokens");
  await ask({ op: "detokenize", tokens: [5, 6], skipSpecialTokens: true }, "text");
  await ask({ op: "image-tokens", width: 640, height: 480 }, "pieces");
  for (const keep of [0.001, { tokens: 2 }, { bytes: 1000 }]) {
    const refused = await ask({ op: "generate", prompt, maxTokens: 1, cache: { method: "streaming", keep } }, "error");
    assert.ok(refused.type === "error" && refused.error.code === "budget");
    const { asked, least } = refused.error.details;
    assert.deepEqual(asked, keep);
    valid("Keep", least);
    await ask({ op: "generate", prompt, maxTokens: 1, cache: { method: "streaming", keep: least } }, "done");
  }
  answered(await readAll(native.checkDevice('{"device":"cuda:4096"}')), "error");
});

test("every kind of event was among them", () => {
  const kinds = (definitions.WireEvent?.anyOf ?? []).map(({ $ref = "" }) => {
    return definitions[$ref.replace("#/$defs/", "")]?.properties?.type?.const;
  });
  // A device that can be checked is not everywhere, and `closed` comes last.
  const others = kinds.filter((kind) => kind !== "checked" && kind !== "closed");
  assert.deepEqual([...seen].sort(), others.sort());
});

test("what the schema does not allow is refused", () => {
  for (const [request, fault] of [
    [{ op: "generate", prompt, max_tokens: 1 }, "nothing names"],
    [{ op: "generate", prompt, maxTokens: 0 }, "maxTokens is 0"],
    [{ op: "generate", prompt, maxTokens: 1_000_001 }, "maxTokens is 1000001"],
    [{ op: "generate", prompt, stop: "a" }, "not array"],
    [{ op: "generate", prompt, specialTokens: "both" }, 'is "both"'],
    [{ op: "turn", messages: [{ role: "user", content: "a" }] }, "no session"],
    [{ op: "close-session", session: "1" }, 'session is "1"'],
    [{ op: "memory", device: "cpu" }, "nothing names"],
    [{ op: "score", prompt }, "no answer"],
    [{ op: "tokens" }, 'is "tokens"'],
  ] as const) {
    const found = faults(definitions, "EngineRequest", request).join("; ");
    assert.ok(found.includes(fault), `${JSON.stringify(request)}: ${found}`);
    assert.throws(
      () => engine.submit(JSON.stringify(request), []),
      (error: Error) => (JSON.parse(error.message) as WireError).code === "option",
    );
  }
});
