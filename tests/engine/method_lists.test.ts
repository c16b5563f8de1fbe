// The one list of methods that is written by hand: what is measured.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { readMethods } from "../../ts/eval/index.ts";
import { methods } from "../../ts/generated/method_table.ts";
import { root } from "../runtimes/spawn.ts";

const sized = methods.filter(({ budget }) => budget !== "outcome");

test("the grid of the results measures every method", async () => {
  const measured = await readMethods(join(root, "bench", "grids", "methods.json"));
  // What `custom` makes is as many methods as there are combinations.
  for (const { name } of sized.filter(({ name }) => name !== "custom"))
    assert.ok(
      measured.some(({ cache }) => "method" in cache && cache.method === name),
      `bench/grids/methods.json has no ${name}`,
    );
});
