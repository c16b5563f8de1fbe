import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { createContext, runInContext } from "node:vm";
import {
  AbortError,
  DisposedError,
  type Generation,
  image,
  type Model,
  OptionError,
  PrefixKvError,
  prefixkv,
} from "../../ts/index.ts";
import { openModel } from "../../ts/load.ts";
import { fakeModels, native } from "../kit/fake_model.ts";

const open = fakeModels();

const sleep = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** An image that never comes, and whether its reading has been given up. */
function never(): { content: ReturnType<typeof image>[]; given: { up: boolean } } {
  const given = { up: false };
  const blob = {
    [Symbol.toStringTag]: "Blob",
    size: 9,
    stream: () =>
      new ReadableStream({
        cancel() {
          given.up = true;
        },
      }),
  };
  return { content: [image(blob as never)], given };
}

/** Every call that reads an image, with what else it needs. */
const calls: Record<
  string,
  (model: Model, content: ReturnType<typeof image>[], signal?: AbortSignal) => Promise<unknown>
> = {
  generate: async (model, content, signal) =>
    model.generate({ messages: [{ role: "user", content }], ...given(signal) }),
  "generate by iteration": (model, content, signal) =>
    Array.fromAsync(model.generate({ messages: [{ role: "user", content }], ...given(signal) })),
  "images beside": async (model, images, signal) => model.generate({ prompt: "<image>", images, ...given(signal) }),
  score: (model, content, signal) =>
    model.score({ messages: [{ role: "user", content }], answer: "a", ...given(signal) }),
  trace: (model, content, signal) => model.trace({ messages: [{ role: "user", content }], ...given(signal) }),
  calibrate: (model, content, signal) =>
    model.calibrate({ method: prefixkv(), samples: [{ messages: [{ role: "user", content }] }], ...given(signal) }),
  send: async (model, content, signal) => model.chat().send(content, given(signal)),
};

function given(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

for (const [name, call] of Object.entries(calls)) {
  test(`${name}: a signal and the model's end stop it while an image is being read`, async () => {
    for (const [kind, stop, expected] of [
      ["signal", (_: Model, controller: AbortController) => controller.abort("enough"), AbortError],
      ["end", (model: Model) => model.dispose(), DisposedError],
    ] as const) {
      const fake = native();
      const model = await openModel(fake);
      const { content, given } = never();
      const controller = new AbortController();
      const running = call(model, content, controller.signal);
      const outcome = assert.rejects(running, expected, `${name}, ${kind}`);
      await sleep(5);
      const start = performance.now();
      await stop(model, controller);
      await outcome;
      assert.ok(performance.now() - start < 1000, `${name}, ${kind}`);
      await sleep(1);
      assert.ok(given.up, `${name}, ${kind}: the image is still being read`);
      const sent = fake.requests.map(({ request }) => request.op).filter((op) => !/session/.test(op));
      assert.deepEqual(sent, [], `${name}, ${kind}`);
      await model.dispose();
    }
  });
}

test("calibrate: a signal stops it while it waits for a sample", async () => {
  const model = await open(native());
  const controller = new AbortController();
  let returned = false;
  const samples = {
    [Symbol.asyncIterator]: () => ({
      next: () => new Promise<IteratorResult<{ prompt: string }>>(() => {}),
      return: async () => {
        returned = true;
        return { done: true as const, value: undefined };
      },
    }),
  };
  const running = model.calibrate({ method: prefixkv(), samples, signal: controller.signal });
  setTimeout(() => controller.abort(), 5);
  await assert.rejects(running, AbortError);
  assert.ok(returned);
});

test("a request that is refused leaves nothing running", async () => {
  const fake = native({ stallAfter: 1 });
  const model = await open(fake);
  for (const signal of [{}, new AbortController(), { aborted: false }, null, "signal", () => {}]) {
    const options = { prompt: "Hi", signal: signal as never };
    await assert.rejects(model.generate(options), OptionError);
    await assert.rejects(Array.fromAsync(model.generate(options)), OptionError);
    await assert.rejects(model.trace(options), OptionError);
    await assert.rejects(model.score({ ...options, answer: "a" }), OptionError);
    await assert.rejects(model.calibrate({ method: prefixkv(), samples: [], signal: signal as never }), OptionError);
    await assert.rejects(model.chat().send("Hi", { signal: signal as never }), OptionError);
  }
  assert.deepEqual(
    fake.requests.filter(({ request }) => !/session/.test(request.op)),
    [],
  );
});

test("a signal of another realm or of a library works", async () => {
  const listeners = new Set<() => void>();
  const foreign = {
    aborted: false,
    addEventListener: (_: string, listener: () => void) => void listeners.add(listener),
    removeEventListener: (_: string, listener: () => void) => void listeners.delete(listener),
  };
  const model = await open(native({ stallAfter: 1 }));
  const running = model.generate({ prompt: "Hi", signal: foreign as never });
  const outcome = assert.rejects(running, AbortError);
  await sleep(5);
  foreign.aborted = true;
  for (const listener of [...listeners]) listener();
  await outcome;
  assert.equal(listeners.size, 0);
});

test("signals that live on keep no listeners of what has ended", async () => {
  let listening = 0;
  const controller = new AbortController();
  const { signal } = controller;
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = ((...args: Parameters<typeof add>) => {
    listening += 1;
    add(...args);
  }) as typeof add;
  signal.removeEventListener = ((...args: Parameters<typeof remove>) => {
    listening -= 1;
    remove(...args);
  }) as typeof remove;
  const model = await open(native());
  const content = [image(new Uint8Array([1])), "Hi"];
  await model.generate({ messages: [{ role: "user", content }], signal });
  await model.score({ prompt: "Hi", answer: "a", signal });
  await model.calibrate({ method: prefixkv(), samples: [{ prompt: "a" }], signal });
  await assert.rejects(model.generate({ messages: [{ role: "user", content: image("none.png") }], signal }));
  await sleep(5);
  assert.ok(listening <= 0, String(listening));
});

test("ending an iteration before its start cancels the generation", async () => {
  for (const end of [
    (parts: AsyncGenerator<unknown>) => parts.return(undefined),
    (parts: AsyncGenerator<unknown>) => parts.throw(new Error("no more")).catch(() => {}),
    (parts: AsyncGenerator<unknown>) => parts[Symbol.asyncDispose](),
  ]) {
    const fake = native({ stallAfter: 1 });
    const model = await open(fake);
    const out = model.generate({ prompt: "Hi" });
    const parts = out[Symbol.asyncIterator]();
    await end(parts);
    const { finish, text } = await out;
    assert.deepEqual([finish, text, fake.tickets[0]?.cancelled], ["aborted", "There", true]);
    assert.deepEqual(await parts.next(), { done: true, value: undefined });
  }
});

test("an iterator is a generator: it iterates itself, and ends when it is left", async () => {
  const model = await open(native());
  const parts = model.generate({ prompt: "Hi" })[Symbol.asyncIterator]();
  assert.equal(parts[Symbol.asyncIterator](), parts);
  assert.equal((await parts.next()).value?.text, "There");
  const rest: string[] = [];
  for await (const { text } of parts) rest.push(text);
  assert.deepEqual(rest, [" is", " a star."]);
});

test("an AbortError of a chat comes when its messages are those of the engine", async () => {
  for (let round = 0; round < 20; round++) {
    const fake = native({ stallAfter: round % 3 });
    const model = await open(fake);
    const chat = model.chat();
    const controller = new AbortController();
    const turn = chat.send("Hi", { signal: controller.signal });
    while (fake.requests.length < 2) await sleep(1);
    await sleep(round % 4);
    // The engine takes its time to hear of it.
    const ticket = fake.tickets[1];
    assert.ok(ticket);
    const hear = ticket.onCancel;
    ticket.onCancel = () => void setTimeout(hear, 10 + round);
    const reading = round % 2 === 0 ? turn : Array.fromAsync(turn);
    const outcome = Promise.resolve(reading).then(
      () => undefined,
      (error: unknown) => ({ error, messages: chat.messages }),
    );
    controller.abort();
    const ended = await outcome;
    assert.ok(ended?.error instanceof AbortError);
    await sleep(30);
    assert.deepEqual(ended.messages, chat.messages, `round ${round}`);
    const kept = chat.messages[1]?.content ?? "";
    assert.equal(ended.error.partial, kept, `round ${round}`);
    assert.equal(chat.messages.length, kept === "" ? 0 : 2);
  }
});

test("an abort is heard even where nothing but the signal holds the generation", async () => {
  const collect = collector();
  if (collect === undefined) return;
  const model = await open(native());
  const controller = new AbortController();
  const outcomes: unknown[] = [];
  (() => {
    for (let n = 0; n < 10; n++) {
      void (async () => {
        const { content } = never();
        await model.generate({ messages: [{ role: "user", content }], signal: controller.signal });
      })().catch((error: unknown) => outcomes.push(error));
    }
  })();
  for (let n = 0; n < 5; n++) {
    await sleep(5);
    collect();
  }
  controller.abort();
  await sleep(20);
  assert.deepEqual(
    outcomes.map((error) => (error as Error).name),
    Array(10).fill("AbortError"),
  );
});

function collector(): (() => void) | undefined {
  const { Bun } = globalThis as { Bun?: { gc(force: boolean): void } };
  if (Bun) return () => Bun.gc(true);
  try {
    setFlagsFromString("--expose-gc");
    return runInContext("gc", createContext({})) as () => void;
  } catch {
    return undefined;
  }
}

test("null for options is an error of the promise and of the iterator, once, and of nothing else", async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => void unhandled.push(reason);
  process.on("unhandledRejection", note);
  const model = await open(native());
  const chat = model.chat();
  for (const options of [null, undefined, 5, "Hi"] as never[]) {
    const makes: (() => Generation)[] = [() => model.generate(options), () => chat.send(null as never)];
    for (const make of makes) {
      assert.ok(make(), "a generation that nobody looks at");
      await assert.rejects(make(), PrefixKvError);
      await assert.rejects(Array.fromAsync(make()), PrefixKvError);
      const both = make();
      await assert.rejects(Array.fromAsync(both), PrefixKvError);
      await assert.rejects(both, PrefixKvError);
    }
  }
  await sleep(10);
  process.off("unhandledRejection", note);
  assert.deepEqual(unhandled, []);
  assert.equal((await chat.send("Still there?")).text, "There is a star.");
});
