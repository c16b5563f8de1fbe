// What is written by hand about each method: a new one is missing nowhere.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readMethods } from "../../ts/eval/index.ts";
import { methods } from "../../ts/generated/method_table.ts";
import { type CacheMethod, image, load, type Model } from "../../ts/index.ts";
import { scoreText } from "../../ts/report/runs.ts";
import { root } from "../runtimes/spawn.ts";
import { scene } from "./scenes.ts";

let model: Model;
before(async () => {
  model = await load();
});
after(() => model.dispose());

const sized = methods.filter(({ budget }) => budget !== "outcome");

test("the example, the guide and the grids have every method", async () => {
  const places = {
    "examples/methods.ts": (name: string) => `${name}({ keep })`,
    "docs/cache.md": (name: string) => `\`${name}\``,
  };
  for (const [file, text] of Object.entries(places)) {
    const page = readFileSync(join(root, file), "utf8");
    for (const { name } of sized) assert.ok(page.includes(text(name)), `${file} has no ${text(name)}`);
  }
  const measured = await readMethods(join(root, "bench", "grids", "methods.json"));
  // What `custom` makes is as many methods as there are combinations.
  for (const { name } of sized.filter(({ name }) => name !== "custom"))
    assert.ok(
      measured.some(({ cache }) => "method" in cache && cache.method === name),
      `bench/grids/methods.json has no ${name}`,
    );
});

test("a report says in words what every method ranks by", async () => {
  for (const { name, options } of sized) {
    const values = options.find((option) => option.name === "score")?.values.match(/"[^"]+"/g) ?? [];
    for (const score of [undefined, ...values.map((value) => JSON.parse(value) as string)]) {
      const cache = { method: name, keep: 0.5, ...(score !== undefined && { score }) } as CacheMethod;
      const messages = [{ role: "user", content: [image(scene.image), scene.question] }];
      const trace = await model.trace({ messages, cache, maxTokens: 1 });
      assert.notEqual(scoreText(trace), trace.score, `ts/report/runs.ts has no words for \`${trace.score}\``);
    }
  }
});
