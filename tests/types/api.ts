// Type-checked by `npm run check`, never run: what must and must not compile.
import {
  about,
  type BudgetError,
  type CacheMethod,
  type Calibration,
  type Chat,
  full,
  type Generation,
  type GenerationResult,
  h2o,
  type ImagePolicy,
  image,
  type Keep,
  type Kept,
  load,
  type Model,
  type Part,
  prefixkv,
  snapkv,
  streaming,
} from "prefixkv";

export async function mustCompile(): Promise<void> {
  await using model: Model = await load("models/tiny-llava", { device: "cuda:1", weights: "q4_k", threads: 2 });
  const out: Generation = model.generate({
    messages: [{ role: "user", content: [image("a.png"), "Hi"] }],
    images: ["b.png"],
  });
  for await (const part of out) part satisfies Part;
  const result: GenerationResult = await out;
  const images: ImagePolicy = {
    fetch: ({ hostname }) => hostname === "a.example",
    files: ["./a", new URL("file:///b")],
  };
  await using strict = await load(undefined, { images });
  strict.generate({ prompt: "<image>", images: [image(new DataView(new ArrayBuffer(1)), { fetch: "none" })] });
  result.finish satisfies "eos" | "stop" | "length" | "aborted";
  await model.score({ prompt: "Hi", answer: "Ho" });
  (await about({ device: "cuda" })).noGpu satisfies string | null;
}

export async function cachesMustCompile(model: Model, error: BudgetError): Promise<void> {
  const methods: CacheMethod[] = [full(), prefixkv(), h2o({ keep: { tokens: 7 } }), { method: "knorm", keep: 0.5 }];
  methods.at(-1) satisfies { method: string } | undefined;
  model.generate({ prompt: "Hi", cache: streaming({ keep: { bytes: "1MiB" }, positions: "cache" }) });
  model.generate({ prompt: "Hi", cache: [snapkv({ keep: error.least, pool: "mean" })] });
  error.asked satisfies Keep;
  const { kept } = await model.score({ prompt: "Hi", answer: "Ho", kept: true });
  kept satisfies Kept[][];
  const calibration: Calibration = await model.calibrate({ method: prefixkv(), samples: [{ prompt: "Hi" }] });
  await using chat: Chat = model.chat({ cache: prefixkv({ keep: 0.5, calibration }), maxTokens: 7 });
  const turn: Generation = chat.send([image("a.png"), "Hi"], { maxTokens: 3, signal: AbortSignal.timeout(1) });
  (await turn).usage.cachedTokens satisfies number;
}

export async function cachesMustNotCompile(model: Model, chat: Chat): Promise<void> {
  // @ts-expect-error an unknown method
  model.generate({ prompt: "Hi", cache: { method: "prefix", keep: 0.5 } });
  // @ts-expect-error an option of another method
  h2o({ keep: 0.5, window: 3 });
  // @ts-expect-error only prefixkv can do without a size
  h2o({});
  // @ts-expect-error no value of the choice
  snapkv({ keep: 0.5, pool: "median" });
  // @ts-expect-error a size has one unit
  streaming({ keep: { tokens: 3, bytes: 3 } });
  // @ts-expect-error the full cache has no size
  full({ keep: 0.5 });
  // @ts-expect-error what was made does not change
  prefixkv({ keep: 0.5 }).keep = 0.4;
  // @ts-expect-error what is kept is there when it was asked for
  (await model.score({ prompt: "Hi", answer: "Ho" })).kept.length;
  // @ts-expect-error the cache belongs to the chat
  chat.send("Hi", { cache: prefixkv({ keep: 0.5 }) });
  // @ts-expect-error the turns of a chat are messages
  model.chat({ prompt: "Hi" });
}

export async function mustNotCompile(model: Model): Promise<void> {
  // @ts-expect-error an unknown option
  model.generate({ prompt: "Hi", maxToken: 3 });
  // @ts-expect-error an unknown weight format
  await load(undefined, { weights: "q9" });
  // @ts-expect-error an unknown device
  await load(undefined, { device: "gpu" });
  // @ts-expect-error a build is asked, not a device
  await about({ device: "auto" });
  // @ts-expect-error a score needs an answer
  await model.score({ prompt: "Hi" });
  // @ts-expect-error undefined is not the same as absent
  model.generate({ prompt: "Hi", maxTokens: undefined });
  // @ts-expect-error parts are text and images
  model.generate({ messages: [{ role: "user", content: [{ type: "text", text: "Hi" }] }] });
  // @ts-expect-error info is read-only
  model.info = await load();
}
