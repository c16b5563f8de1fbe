// Run by process.test.ts and work.test.ts in a process, or a worker, of its own: `child.ts DOOR WHAT`.

import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import type { WireEvent } from "../../ts/generated/wire.ts";
import type { Model } from "../../ts/index.ts";
import type { NativeEngine, NativeTicket } from "../../ts/native/contract.ts";
import { collect, type Door, engineThrough, generate, live, loadThrough, readAll, sleep, until } from "./doors.ts";
import { countTicks } from "./ticks.ts";

const [door, what] = isMainThread ? (process.argv.slice(2) as [Door, string]) : (workerData as [Door, string]);
const asked = { prompt: "USER: Describe. ASSISTANT:", maxTokens: 50, ignoreEos: true };
const LAYERS = 10;

/** The events of a ticket up to its end, and how many layers the engine runs meanwhile. */
async function rest(ticket: NativeTicket): Promise<{ events: WireEvent[]; layers: number }> {
  const before = (await live()).layersRun;
  const events = await readAll(ticket);
  return { events, layers: (await live()).layersRun - before };
}

function summary(events: WireEvent[]) {
  const end = events.at(-1);
  return {
    types: [...new Set(events.map(({ type }) => type))],
    tokens: events.filter(({ type }) => type === "token").length,
    end: end?.type === "error" ? end.error.code : end?.type === "done" ? end.finish : end?.type,
  };
}

/** Lets nobody read a long answer, which fills its queue, and then cancels it. */
async function full(engine: NativeEngine) {
  const start = (await live()).layersRun;
  const ticket = engine.submit(generate(1500), []);
  const layers = async () => (await live()).layersRun - start;
  // The prompt's event and 255 tokens wait in the queue, and the engine with the 256th.
  await until(async () => (await layers()) >= 256 * LAYERS);
  const held = [await layers()];
  let grown = 1;
  // The layers of a step are counted before its entries are: on a busy machine the last step may end meanwhile.
  for (let attempt = 0; grown !== 0 && attempt < 5; attempt++) {
    const bytes = (await live()).cacheBytes;
    await sleep(300);
    grown = (await live()).cacheBytes - bytes;
  }
  held.push(await layers());
  ticket.cancel();
  const { events, layers: after } = await rest(ticket);
  return { held, grown, after, ...summary(events) };
}

/** Cancels an answer whose tokens are read as they come. */
async function decode(engine: NativeEngine) {
  const ticket = engine.submit(generate(1500), []);
  const seen: WireEvent[] = [];
  while (summary(seen).tokens < 5) seen.push(...(JSON.parse((await ticket.next()) ?? "[]") as WireEvent[]));
  ticket.cancel();
  const { events, layers } = await rest(ticket);
  const all = [...seen, ...events];
  const done = all.at(-1);
  return { layers, counted: done?.type === "done" ? done.tokens.length : -1, ...summary(all) };
}

/** Cancels a long prompt while it is read. */
async function prompt(engine: NativeEngine) {
  for (let attempt = 0; ; attempt++) {
    const start = (await live()).layersRun;
    const ticket = engine.submit(generate(2, `USER: ${"word ".repeat(350)}ASSISTANT:`), []);
    await until(async () => (await live()).layersRun > start, 0);
    ticket.cancel();
    const { events, layers } = await rest(ticket);
    // A prompt that was read before the timer came says nothing.
    if (!events.some(({ type }) => type === "prompt") || attempt === 20) return { layers, ...summary(events) };
  }
}

async function contract(run: (engine: NativeEngine) => Promise<unknown>): Promise<void> {
  const engine = await engineThrough(door);
  console.log(JSON.stringify(await run(engine)));
  await readAll(engine.close());
}

async function ticks(): Promise<void> {
  const stop = countTicks();
  parentPort?.once("message", () => parentPort?.postMessage(stop()));
  parentPort?.postMessage("started");
}

// Not collected before the process ends, which would be a warning.
let model: Model;

switch (what) {
  case "await": {
    // Nothing else keeps the process alive.
    model = await loadThrough(door);
    console.log((await model.generate(asked)).tokens.length);
    break;
  }
  case "leave": {
    // A model that is neither used nor disposed keeps nothing alive.
    model = await loadThrough(door);
    await model.generate({ ...asked, maxTokens: 1 });
    console.log("left");
    break;
  }
  case "exit": {
    model = await loadThrough(door);
    void model.generate({ ...asked, maxTokens: 1500 }).then();
    setTimeout(() => process.exit(3), 20);
    break;
  }
  case "worker": {
    model = await loadThrough(door);
    parentPort?.postMessage((await model.generate(asked)).tokens);
    await model.dispose();
    break;
  }
  case "stay": {
    // Until it is terminated.
    model = await loadThrough(door);
    const chat = model.chat();
    await chat.send("Hello", { maxTokens: 2 });
    const running = model.generate({ ...asked, maxTokens: 1800 });
    model.generate({ ...asked, maxTokens: 1800 }).catch(() => {});
    let parts = 0;
    for await (const _ of running) if (++parts === 3) parentPort?.postMessage(await live());
    break;
  }
  case "terminate": {
    const seen: unknown[] = [];
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(new URL(import.meta.url), { workerData: [door, "stay"] });
      seen.push(
        await new Promise((resolve, reject) => {
          worker.once("message", resolve);
          worker.once("error", reject);
        }),
      );
      await worker.terminate();
      await until(async () => (await live()).models === 0);
    }
    console.log(JSON.stringify({ seen, left: await live() }));
    break;
  }
  case "drop": {
    model = await loadThrough(door);
    const { signal } = new AbortController();
    const drop = (index: number): void => {
      void model.generate({ ...asked, maxTokens: 1500, ...(index % 2 === 1 && { signal }) });
    };
    for (let index = 0; index < 4; index++) drop(index);
    await until(async () => (await live()).requests > 0);
    const most = (await live()).requests;
    await until(async () => {
      collect();
      return (await live()).requests === 0;
    });
    const { tokens } = await model.generate({ ...asked, maxTokens: 2 });
    await model.dispose();
    console.log(JSON.stringify({ most, tokens: tokens.length, aborted: signal.aborted, left: await live() }));
    break;
  }
  case "full":
    await contract(full);
    break;
  case "decode":
    await contract(decode);
    break;
  case "prompt":
    await contract(prompt);
    break;
  case "ticks":
    await ticks();
    break;
}
