import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fastv, h2o, image, load, type Model, merge, OptionError, prefixkv, streaming } from "../../ts/index.ts";
import { scene } from "./scenes.ts";

let model: Model;

before(async () => {
  model = await load();
});

after(() => model.dispose());

const messages = [{ role: "user", content: [image(scene.image), scene.question] }];

test("a trace gives the answer of generate and says where its memory went", async () => {
  const least = prefixkv({ keep: 0.4, objective: "least", floor: 0 });
  const caches = [undefined, prefixkv({ keep: 0.4 }), least, h2o({ keep: 0.4 }), streaming({ keep: { tokens: 60 } })];
  for (const cache of caches) {
    const request = { messages, maxTokens: 10, ignoreEos: true, ...(cache && { cache }) };
    const trace = await model.trace(request);
    const answer = await model.generate(request);
    assert.deepEqual([trace.text, trace.tokens], [answer.text, answer.tokens]);
    assert.deepEqual(trace.memory, answer.memory);
    assert.equal(trace.layers.length, model.info.layers);
    assert.equal(trace.steps.length, 10);
    assert.equal(trace.steps.at(-1)?.resident, trace.memory.resident);
    assert.ok(trace.steps.every(({ resident, payload, full }) => resident >= payload && payload <= full));
    const { kept } = await model.score({ messages, answer: "There", kept: true, ...(cache && { cache }) });
    assert.deepEqual(
      trace.layers.map((layer) => layer.kept),
      kept,
    );
    assert.equal(trace.mass, cache?.method !== "streaming");
    // Only that split looks for one.
    assert.equal(trace.threshold === null, cache !== least);
  }
});

test("a trace names the patches of a picture", async () => {
  const { spans, images, usage, layers } = await model.trace({ messages, maxTokens: 2 });
  const patches = spans.filter(({ modality }) => modality.type === "image");
  assert.deepEqual([patches.length, patches[0]?.len], [1, 144]);
  const [picture] = images;
  assert.deepEqual([picture?.rows, picture?.columns, picture?.source, picture?.tiles], [12, 12, 0, 1]);
  const first = patches[0]?.start ?? 0;
  assert.deepEqual(
    picture?.cells,
    Array.from({ length: 144 }, (_, cell) => first + cell),
  );
  assert.deepEqual(picture?.area, { x: 0, y: 0, width: picture?.width, height: picture?.height });
  assert.equal(
    spans.filter(({ modality }) => modality.type !== "generated").reduce((sum, { len }) => sum + len, 0),
    usage.promptTokens,
  );
  assert.ok(layers.every(({ importance }) => importance.length === usage.promptTokens));
});

test("a trace refuses options that it does not know, and can be aborted", async () => {
  await assert.rejects(model.trace({ messages, maxToken: 2 } as never), (error) => {
    return error instanceof OptionError && error.details.suggestion === "maxTokens";
  });
  await assert.rejects(model.trace({ messages, signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("later layers see the rows that a plan lets go on, and no others", async () => {
  const trace = await model.trace({ messages, cache: fastv({ layer: 2, images: 0.25 }), maxTokens: 4 });
  const [plan] = trace.plans;
  assert.deepEqual([trace.plans.length, plan?.moment, plan?.layer], [1, "layer", 1]);
  const image = trace.spans.find(({ modality }) => modality.type === "image");
  const prompt = trace.usage.promptTokens;
  const gone = (image?.len ?? 0) - Math.floor((image?.len ?? 0) / 4 + 0.5);
  assert.equal(plan?.rows?.length, prompt - gone);
  for (const [layer, { kept }] of trace.layers.entries()) {
    const all = Array.from({ length: prompt }, (_, position) => position);
    assert.deepEqual(kept[0]?.positions, layer < 2 ? all : plan?.rows, `layer ${layer}`);
  }
  await assert.rejects(
    model.generate({ messages, cache: [fastv(), merge()] }),
    (error) => error instanceof OptionError && /frees no entries/.test(error.message),
  );
  await assert.rejects(model.generate({ messages, cache: fastv({ layer: 100 }) }), /leaves no layer/);
});
