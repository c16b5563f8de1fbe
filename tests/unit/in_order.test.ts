import assert from "node:assert/strict";
import { test } from "node:test";
import { inOrder } from "../../ts/eval/in_order.ts";

/** Work whose outcomes come in any order, and how much of it runs at once. */
function slow(orders: readonly number[]) {
  const seen = { running: 0, most: 0, begun: 0 };
  const begin = async (item: number): Promise<number> => {
    seen.begun += 1;
    seen.most = Math.max(seen.most, ++seen.running);
    for (let turn = 0; turn < (orders[item] ?? 0); turn++) await new Promise((done) => setTimeout(done, 0));
    seen.running -= 1;
    if (item === 7) throw new Error("seven");
    return item;
  };
  return { seen, begin };
}

test("outcomes come in the order of the items, and no more run at once than asked", async () => {
  for (const most of [1, 2, 3, 10]) {
    const { seen, begin } = slow([5, 1, 4, 1, 1, 3, 2]);
    const items = [0, 1, 2, 3, 4, 5, 6];
    const found: number[] = [];
    for await (const [item, outcome] of inOrder(items, most, begin)) {
      assert.equal(await outcome, item);
      found.push(item);
    }
    assert.deepEqual(found, items);
    assert.equal(seen.most, Math.min(most, items.length));
  }
});

test("a failure comes at its turn, and nothing runs behind it", async () => {
  const { seen, begin } = slow([1, 1, 9]);
  const found: number[] = [];
  await assert.rejects(async () => {
    for await (const [item, outcome] of inOrder([0, 7, 2, 3, 4], 3, begin)) {
      await outcome;
      found.push(item);
    }
  }, /seven/);
  assert.deepEqual(found, [0]);
  assert.deepEqual([seen.running, seen.begun], [0, 4]);
});
