// Memory of chats' caches as the operating system sees it: `npm run bench -- held` at a small size.
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import type { HeldRun } from "../../bench/held_run.ts";
import { shared } from "../kit/turns.ts";
import { runScript } from "../runtimes/spawn.ts";

const script = fileURLToPath(new URL("../../bench/held_run.ts", import.meta.url));
const slack = 16 * 2 ** 20;
const skip = process.platform === "linux" ? false : "reads /proc";

for (const [method, keep, weights] of [
  ["prefixkv", "0.2", "f32"],
  ["h2o", "0.2", "f16"],
  ["full", "1", "f32"],
] as const) {
  shared(`${method} ${weights}: memory grows by what is reported, and comes back`, { skip }, async () => {
    const { code, out, err } = await runScript(script, ["little", weights, method, keep, "6", "1500"], { gc: true });
    assert.equal(code, 0, err);
    const { before, held, after, reported, full } = JSON.parse(out) as HeldRun;
    const said = JSON.stringify({ before, held, after, reported, full });
    assert.ok(held - before < 1.15 * reported + slack, said);
    assert.ok(after - before < slack, said);
    assert.ok(method !== "full" || held - before > 0.9 * reported, said);
    // Large enough to tell: without giving back, the caches of all prompts would still be there.
    assert.ok(full > 6 * slack, said);
  });
}
