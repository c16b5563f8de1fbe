// The soak in small; `npm run soak` is the whole one.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { random } from "../../ts/eval/bootstrap.ts";
import { doors } from "../contract/doors.ts";
import { runScript } from "../runtimes/spawn.ts";
import type { Sample } from "./rounds.ts";
import { slope } from "./slope.ts";

const script = fileURLToPath(new URL("./child.ts", import.meta.url));

for (const door of doors) {
  test(`${door}: nothing is left after a round`, async () => {
    // A process of its own, in which nothing else is alive.
    const { code, out, err } = await runScript(script, [door, "6", "3"], { gc: true });
    assert.equal(code, 0, err);
    const { failure, samples } = JSON.parse(out) as { failure: string | null; samples: Sample[] };
    assert.equal(failure, null);
    assert.equal(samples.length, 6);
    for (const { live, resident, actions } of samples) {
      const { layersRun, rowsRun, rowsShared: _, pairsRun: __, ...alive } = live;
      assert.deepEqual(alive, { models: 0, sessions: 0, requests: 0, cacheBytes: 0 }, actions.join(", "));
      assert.ok(layersRun > 0 && rowsRun >= layersRun && resident > 2 ** 20);
    }
  });
}

test("the slope belongs to the line through the values", () => {
  const near = (found: number, wanted: number): void => assert.ok(Math.abs(found - wanted) < 1e-9, `${found}`);
  near(slope([5, 5, 5, 5]).slope, 0);
  near(slope([1, 3, 5, 7, 9]).slope, 2);
  near(slope([1, 3, 5, 7, 9]).error, 0);
  // By hand: the squared rests of the line 1/3 + x are 1/9, 4/9 and 1/9; one degree of freedom is left, and the width is 2.
  near(slope([0, 2, 2]).slope, 1);
  near(slope([0, 2, 2]).error, Math.sqrt(2 / 3 / 1 / 2));
  assert.throws(() => slope([1, 2]), RangeError);
  // A leak of 20 KiB a round is found under the noise of a process.
  const uniform = random(7);
  const noisy = (leak: number): number[] =>
    Array.from({ length: 150 }, (_, round) => 2 ** 27 + round * leak + (uniform() - 0.5) * 2 ** 20);
  const leaky = slope(noisy(20 * 1024));
  assert.ok(Math.abs(leaky.slope - 20 * 1024) < 4 * leaky.error && leaky.error < 1024, JSON.stringify(leaky));
  const flat = slope(noisy(0));
  assert.ok(Math.abs(flat.slope) < 4 * flat.error, JSON.stringify(flat));
});
