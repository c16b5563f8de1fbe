// Rounds of loading, using and disposing the embedded model, with aborts at random places, and what must be left after each: nothing.

import { fileURLToPath } from "node:url";
import { random } from "../../ts/eval/bootstrap.ts";
import type { About } from "../../ts/generated/wire.ts";
import {
  AbortError,
  about,
  type GenerateOptions,
  h2o,
  image,
  load,
  MediaError,
  type Model,
  prefixkv,
  snapkv,
} from "../../ts/index.ts";

export interface Sample {
  /** Actions of the round, in order. */
  actions: string[];
  /** Counts of everything alive after the model was disposed of. */
  live: About["live"];
  /** Bytes of resident memory after garbage was collected. */
  resident: number;
  /** Bytes of it that the heap of JavaScript has reserved. */
  heap: number;
}

export interface SoakOptions {
  door: "napi" | "ffi";
  rounds: number;
  seed?: number;
  onRound?: (sample: Sample, round: number) => void;
}

type Draw = (choices: number) => number;

const scene = fileURLToPath(new URL("../../data/scenes/scene-000.png", import.meta.url));
const text = { prompt: "USER: Describe. ASSISTANT:", ignoreEos: true };
const picture: GenerateOptions = {
  messages: [{ role: "user", content: [image(scene), "Describe the image in detail."] }],
};
const sizes = [0.2, 0.5, 0.8] as const;
const caches = [prefixkv, h2o, snapkv] as const;

/** Actions that a round can take with a model; each ends by itself. */
export const actions: Readonly<Record<string, (model: Model, draw: Draw) => Promise<unknown>>> = {
  answer: (model, draw) => model.generate({ ...picture, maxTokens: 1 + draw(12) }),
  compress: (model, draw) => {
    const cache = (caches[draw(caches.length)] ?? prefixkv)({ keep: sizes[draw(sizes.length)] ?? 0.5 });
    return model.generate({ ...picture, cache, maxTokens: 1 + draw(12) });
  },
  "abort before the start": (model) => aborted(model.generate({ ...text, signal: AbortSignal.abort() })),
  "abort in the prompt": async (model, draw) => {
    const prompt = `USER: ${"word ".repeat(250)}ASSISTANT:`;
    const controller = new AbortController();
    const out = model.generate({ ...text, prompt, maxTokens: 200, signal: controller.signal });
    setTimeout(() => controller.abort(), 1 + draw(10));
    await aborted(out);
  },
  "abort in decode": async (model, draw) => {
    const controller = new AbortController();
    const last = 1 + draw(8);
    let parts = 0;
    await aborted(
      (async () => {
        const out = model.generate({ ...text, maxTokens: 500, signal: controller.signal });
        for await (const _ of out) if (++parts === last) controller.abort();
      })(),
    );
  },
  "leave the loop": async (model, draw) => {
    const last = 1 + draw(8);
    let parts = 0;
    for await (const _ of model.generate({ ...text, maxTokens: 500 })) if (++parts === last) break;
  },
  chat: async (model, draw) => {
    const cache = draw(2) === 0 ? { cache: prefixkv({ keep: 0.5 }) } : {};
    const chat = model.chat({ ...cache, maxTokens: 6 });
    await chat.send([image(scene), "How many objects are there?"]);
    const signal = draw(2) === 0 ? { signal: AbortSignal.timeout(1 + draw(10)) } : {};
    await chat.send("Which colors?", signal).catch(expectAbort);
    // Otherwise it goes with its model.
    if (draw(2) === 0) await chat.dispose();
  },
  score: (model, draw) =>
    model.score({ ...picture, answer: "There is a star.", ...(draw(2) === 0 && { cache: snapkv({ keep: 0.5 }) }) }),
  tokens: async (model) => model.detokenize(await model.tokenize("There is a blue triangle.")),
  refuse: async (model) => {
    const broken = model.generate({ prompt: "<image>", images: [new Uint8Array(1000)] });
    await broken.catch((error: unknown) => {
      if (!(error instanceof MediaError)) throw error;
    });
  },
};

/** Work that a round can start and leave to the disposal of its model. */
const leftovers: Readonly<Record<string, (model: Model) => void>> = {
  nothing: () => {},
  // Never read: its engine waits for a reader until the model closes.
  "abandon a stream": (model) => void model.generate({ ...text, maxTokens: 1500 }),
  "dispose while it runs": (model) => void model.generate({ ...text, maxTokens: 1500 }).then(nothing, nothing),
  "dispose in a queue": (model) => {
    for (let index = 0; index < 3; index++) model.generate({ ...text, maxTokens: 300 }).then(nothing, nothing);
  },
};

/** Runs the rounds, and throws when something is left after one. */
export async function soak({ door, rounds, seed = 1, onRound }: SoakOptions): Promise<Sample[]> {
  const uniform = random(seed);
  const draw: Draw = (choices) => Math.floor(uniform() * choices);
  const pick = <T>(choices: Readonly<Record<string, T>>): [string, T] => {
    const entries = Object.entries(choices);
    return entries[draw(entries.length)] as [string, T];
  };
  const samples: Sample[] = [];
  for (let round = 0; round < rounds; round++) {
    const names: string[] = [];
    const model = await load(undefined, { binding: door });
    for (let index = 0; index < 3; index++) {
      const [name, act] = pick(actions);
      names.push(name);
      await act(model, draw);
    }
    const [name, leave] = pick(leftovers);
    names.push(name);
    leave(model);
    if (draw(2) === 0) await new Promise((resolve) => setTimeout(resolve, draw(20)));
    await model.dispose();
    const { live } = await about();
    await collect();
    const { rss, heapTotal } = process.memoryUsage();
    const sample = { actions: names, live, resident: rss, heap: heapTotal };
    samples.push(sample);
    onRound?.(sample, round);
    const { models, sessions, requests, cacheBytes } = live;
    if (models + sessions + requests + cacheBytes > 0)
      throw new Error(`round ${round} (${names.join(", ")}) has left ${JSON.stringify(live)}`);
  }
  return samples;
}

const nothing = (): void => {};

async function aborted(work: PromiseLike<unknown>): Promise<void> {
  await Promise.resolve(work).then(() => {}, expectAbort);
}

function expectAbort(error: unknown): void {
  if (!(error instanceof AbortError)) throw error;
}

/** Collects garbage where the runtime offers it, twice: finalizers release more. */
async function collect(): Promise<void> {
  const { Bun: bun, gc } = globalThis as { Bun?: { gc(force: boolean): void }; gc?: () => void };
  for (let turn = 0; turn < 2; turn++) {
    if (bun) bun.gc(true);
    else gc?.();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}
