// Run by gpu.test.ts in a process of its own, because what is open stays open: `gpu_child.ts DOOR PART FILE`. Prints one JSON object.
import {
  about,
  type CacheMethod,
  checkDevice,
  image,
  type LoadOptions,
  load,
  type Model,
  type PrefixKvError,
  prefixkv,
  streaming,
} from "../../ts/index.ts";
import { scene } from "../engine/scenes.ts";
import { type Door, until } from "./doors.ts";

const [binding, part, file] = process.argv.slice(2) as [Door, "all" | "some", string];

const told = (error: unknown) => {
  const { name, code, message, details } = error as PrefixKvError;
  return { name, code, message, details };
};
const refused = (work: Promise<unknown>) => work.then(() => null, told);

const shim = { exports: {} as { shimAllocated(): number } };
process.dlopen(shim, file);
/** Memory and objects that the shim and the addon over it hold. */
const held = async () => {
  const { models, sessions, requests, cacheBytes } = (await about({ device: "cuda" })).live;
  return { bytes: shim.exports.shimAllocated(), models, sessions, requests, cacheBytes };
};

const half = prefixkv({ keep: 0.5 });
const messages = [{ role: "user" as const, content: [image(scene.image), "Describe the image in detail."] }];
const greeting = "USER: Hello ASSISTANT:";

/** Answers of a model, for a device and the CPU to be compared. */
async function say(model: Model) {
  const { text, tokens, memory } = await model.generate({ messages, maxTokens: 10 });
  const scored = await model.score({ messages, answer: " The image shows four objects.", cache: half, kept: true });
  const full = ({ full, payload, keptPerLayer }: typeof memory) => ({ full, payload, keptPerLayer });
  return {
    described: { text, tokens, memory: full(memory) },
    kept: scored.kept,
    logprobs: scored.logprobs,
    halved: full(scored.memory),
    resident: [memory.resident, scored.memory.resident],
  };
}

/** Two turns; the second sees what the first has left in the cache. */
async function talk(model: Model) {
  const chat = model.chat({ cache: half, maxTokens: 3 });
  const turns = [await chat.send([image(scene.image), "How many objects are there?"])];
  const open = await held();
  turns.push(await chat.send("What color is the star?"));
  await chat.dispose();
  return { turns: turns.map(({ tokens, usage }) => ({ tokens, cached: usage.cachedTokens })), open };
}

/** Three requests, which a batch decodes together. */
async function three(model: Model) {
  const asked: { prompt: string; cache?: CacheMethod }[] = [
    { prompt: greeting },
    { prompt: "USER: Which shapes are there? ASSISTANT:", cache: half },
    { prompt: "USER: Describe. ASSISTANT:" },
  ];
  const answers = asked.map((one) => model.generate({ ...one, maxTokens: 6, ignoreEos: true }));
  return (await Promise.all(answers)).map(({ tokens }) => tokens);
}

async function stopped(model: Model) {
  const controller = new AbortController();
  const { signal } = controller;
  let parts = 0;
  const stream = async () => {
    for await (const _ of model.generate({ prompt: greeting, maxTokens: 300, ignoreEos: true, signal })) {
      if (++parts === 2) controller.abort();
    }
  };
  const error = await refused(stream());
  return { error, parts, afterwards: (await model.generate({ prompt: greeting, maxTokens: 2 })).tokens };
}

async function on(device: NonNullable<LoadOptions["device"]>) {
  const model = await load(undefined, { binding, device, batch: 3 });
  const outcome = {
    device: model.info.device,
    loaded: await held(),
    said: await say(model),
    stopped: await stopped(model),
    ...(part === "all" && { talked: await talk(model), three: await three(model) }),
    cacheKeys: await refused(
      model.generate({ prompt: greeting, cache: streaming({ keep: 0.8, positions: "cache" }), maxTokens: 1 }),
    ),
  };
  await model.dispose();
  return { ...outcome, disposed: await held() };
}

/** The first kernels of the check; all of them would take half a minute. */
async function check() {
  const controller = new AbortController();
  const seen: number[] = [];
  const onProgress = ({ done, total }: { done: number; total: number }): void => {
    seen.push(done, total);
    if (done === 4) controller.abort();
  };
  const error = await refused(checkDevice("cuda", { binding, onProgress, signal: controller.signal }));
  await until(async () => (await held()).requests === 0);
  return { error, seen };
}

async function auto() {
  const model = await load(undefined, { binding, device: "auto" });
  await model.dispose();
  return model.info.device;
}

const { devices, noGpu } = await about({ device: "cuda" });
const outcome = {
  about: { devices, noGpu },
  cuda: await on("cuda"),
  cpu: await on("cpu"),
  auto: await auto(),
  weights: await refused(load(undefined, { binding, device: "cuda", weights: "q8_0" })),
  second: await refused(load(undefined, { binding, device: "cuda:1" })),
  checked: part === "all" ? await check() : null,
  atLast: await held(),
};
process.stdout.write(`${JSON.stringify(outcome)}\n`);
