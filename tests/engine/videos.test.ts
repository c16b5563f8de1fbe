// Videos through the ordinary `load`: answers as transformers gives them, chats, counts, traces, and what is refused.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  h2o,
  image,
  inspect,
  load,
  type Message,
  type Model,
  OptionError,
  PromptError,
  prefixkv,
  type VideoInput,
  video,
} from "../../ts/index.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const families = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "smolvlm-tiles"];
const film = (count: number): VideoInput =>
  video(
    Array.from({ length: count }, (_, frame) => image(`${root}tests/golden/fixtures/images/film-${frame}.png`)),
    { fps: 2 },
  );

type Medium = { image: string } | { frames: string[]; fps?: number; times?: number[] };

interface Golden {
  cases: {
    media: Medium[];
    messages: { role: "user"; content: { type: string; text?: string }[] }[];
    input_ids: number[];
    tokens: number[];
  }[];
}

function shown(medium: Medium) {
  if ("image" in medium) return image(`${root}${medium.image}`);
  const { frames, fps, times } = medium;
  const timing = { ...(fps !== undefined && { fps }), ...(times !== undefined && { times }) };
  return video(
    frames.map((path) => image(`${root}${path}`)),
    timing,
  );
}

async function using<T>(name: string, work: (model: Model) => Promise<T>): Promise<T> {
  const model = await load(`${root}tests/golden/fixtures/${name}`, { batch: 3 });
  try {
    return await work(model);
  } finally {
    await model.dispose();
  }
}

for (const name of families) {
  test(`${name} answers about videos as transformers does`, async () => {
    const golden: Golden = JSON.parse(await readFile(`${root}tests/golden/data/${name}-videos.json`, "utf8"));
    await using(name, async (model) => {
      const answers = golden.cases.map(async ({ media, messages, input_ids, tokens }) => {
        const pictures = media.map(shown);
        const asked = messages.map(({ role, content }): Message => {
          const parts = content.map(({ type, text }) => (type === "text" ? text : pictures.shift()));
          return { role, content: parts.filter((part) => part !== undefined) };
        });
        const { tokens: found, usage } = await model.generate({ messages: asked, maxTokens: 32 });
        assert.deepEqual(found, tokens);
        assert.equal(usage.promptTokens, input_ids.length);
      });
      await Promise.all(answers);
    });
  });

  test(`${name} counts, shrinks and traces the positions of a video`, async () => {
    await using(name, async (model) => {
      const counted = await model.imageTokens(43, 27, { frames: 5, fps: 2 });
      const folder = `${root}tests/golden/fixtures/${name}`;
      const info = await inspect(folder, { picture: { width: 43, height: 27, frames: 5, fps: 2 } });
      assert.deepEqual(info.image?.picture, counted);
      const frames = counted.pieces.map(({ piece }) => (piece.kind.type === "frame" ? piece.kind.frame : -1));
      assert.deepEqual(frames, name === "smolvlm-tiles" ? [0, 1, 2, 3, 4] : [0, 1, 2]);
      const messages = [{ role: "user", content: [film(5), "What happens?"] }];
      const { usage } = await model.generate({ messages, maxTokens: 1 });
      assert.equal(usage.imageTokens, counted.tokens);
      const half = await model.generate({ messages, maxTokens: 4, ignoreEos: true, cache: prefixkv({ keep: 0.5 }) });
      assert.ok(half.memory.payload < 0.7 * half.memory.full, JSON.stringify(half.memory));

      const { images, spans } = await model.trace({ messages, maxTokens: 1, cache: h2o({ keep: 0.5 }) });
      assert.deepEqual(
        images.map(({ source }) => source),
        name === "smolvlm-tiles" ? [0, 1, 2, 3, 4] : [0, 2, 4],
      );
      const positions = spans.flatMap(({ modality, start, len }) =>
        modality.type === "image" ? Array.from({ length: len }, (_, at) => start + at) : [],
      );
      assert.deepEqual(
        images.flatMap(({ cells }) => cells),
        positions,
      );
      const scored = await model.score({ messages, answer: " It falls.", kept: true });
      assert.equal(scored.usage.imageTokens, counted.tokens);
    });
  });

  test(`${name} goes on behind a video in a chat`, async () => {
    await using(name, async (model) => {
      const still = image(`${root}tests/golden/fixtures/images/square-168.png`);
      const counted = (await model.imageTokens(43, 27, { frames: 4, fps: 2 })).tokens;
      const more = (await model.imageTokens(168, 168)).tokens;
      for (const cache of [undefined, prefixkv({ keep: 0.5 })]) {
        // Random weights write bytes that are no text, behind which a chat reads everything again; some answers are text.
        let continued = false;
        for (let seed = 0; seed < 100 && !continued; seed += 1) {
          const chat = model.chat({ ...(cache && { cache }), maxTokens: 1, ignoreEos: true, temperature: 3, seed });
          assert.equal((await chat.send([film(4), "What happens?"])).usage.imageTokens, counted);
          const { usage } = await chat.send([still, "And here?"]);
          continued = usage.cachedTokens > 0;
          assert.equal(usage.imageTokens, continued ? more : counted + more);
          if (seed === 0) assert.ok((await chat.send([film(2), film(3)])).usage.imageTokens > 0);
          await chat.dispose();
        }
        assert.ok(continued);
      }
    });
  });
}

test("a raw prompt has the placeholder of a video", async () => {
  await using("qwen2-vl", async (model) => {
    const around = (inner: string) => `<|im_start|>user\n${inner}What happens?<|im_end|>\n<|im_start|>assistant\n`;
    const [still, moving] = [image(`${root}tests/golden/fixtures/images/square-168.png`), film(3)];
    const vision = (pad: string) => `<|vision_start|><|${pad}_pad|><|vision_end|>`;
    const prompt = around(vision("image") + vision("video"));
    const { tokens, usage } = await model.generate({ prompt, images: [still, moving], maxTokens: 4 });
    const system = { role: "system", content: "" };
    const messages = [system, { role: "user", content: [still, moving, "What happens?"] }];
    const same = await model.generate({ messages, maxTokens: 4 });
    assert.equal(usage.imageTokens, same.usage.imageTokens);
    assert.equal(tokens.length, 4);
    const swapped = model.generate({ prompt, images: [moving, still], maxTokens: 4 });
    await assert.rejects(
      async () => await swapped,
      (error) => error instanceof PromptError && /in the order/.test(error.message),
    );
  });
});

test("videos that no model could see are refused when they are made", () => {
  const refused = (frames: unknown, options: unknown, part: RegExp) =>
    assert.throws(
      () => video(frames as string[], options as object),
      (error) => error instanceof OptionError && part.test(error.message),
      String(part),
    );
  refused([], {}, /`frames` of video is empty/);
  refused("film.mp4", {}, /an array of images/);
  refused(
    Array.from({ length: 769 }, () => "a.png"),
    {},
    /769 frames, over the limit of 768/,
  );
  refused(["a.png", "b.png"], { times: [1, 1] }, /`times\[1\]` of video must be a number from 0/);
  refused(["a.png", "b.png"], { times: [1] }, /1 numbers for 2 frames/);
  refused(["a.png", "b.png"], { times: [-1, 1] }, /`times\[0\]`/);
  refused(["a.png", "b.png"], { times: [0, Number.NaN] }, /a finite number/);
  refused(["a.png"], { fps: 0 }, /a number above 0/);
  refused(["a.png"], { fps: 2, times: [0] }, /one of them says it all/);
  refused(["a.png"], { rate: 2 }, /rate/);
  assert.deepEqual(video(["a.png", image("b.png")], { times: [0, 2] }).times, [0, 2]);
});

test("what a model cannot see of a video is refused with its reason", async () => {
  const refused = async (
    model: Model,
    content: Message["content"],
    kind: typeof OptionError | typeof PromptError,
    part: RegExp,
  ) => {
    const error = await model.generate({ messages: [{ role: "user", content }] }).catch((error: unknown) => error);
    assert.ok(error instanceof kind && part.test(error.message), String(error));
  };
  await using("qwen3-vl", async (model) => {
    await refused(model, [film(1), "What?"], OptionError, /takes 2 frames at least/);
    const sizes = [`${root}tests/golden/fixtures/images/film-0.png`, `${root}tests/golden/fixtures/images/rgb.png`];
    const mixed = video(sizes.map((path) => image(path)));
    await refused(model, [mixed, "What?"], OptionError, /frame 1 of a video has .* all must have one size/);
    const many = Array.from({ length: 65 }, () => film(1));
    await refused(model, [...many, "What?"], OptionError, /at most 64 images, found 65/);
    const long = Array.from({ length: 3 }, () => video(Array.from({ length: 300 }, () => "a.png")));
    await refused(model, [...long, "What?"], OptionError, /at most 768 frames of videos, found 900/);
  });
  for (const [name, architecture] of Object.entries({
    "llava-gqa64": "LlavaForConditionalGeneration",
    "idefics3-plain": "Idefics3ForConditionalGeneration",
    "qwen3-norms": "Qwen3ForCausalLM",
  })) {
    await using(name, async (model) => {
      const both = new RegExp(`${architecture} reads no videos; Qwen2VLForConditionalGeneration, .* do`);
      await refused(model, [film(2), "What?"], PromptError, both);
      await assert.rejects(
        async () => await model.imageTokens(40, 40, { frames: 2 }),
        (error) => error instanceof PromptError,
      );
    });
  }
});
