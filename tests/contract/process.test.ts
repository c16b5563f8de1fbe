// What a door means for the process around it: the event loop, its end, workers, permissions.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { runtime } from "../../ts/native/pick.ts";
import { root, runScript } from "../runtimes/spawn.ts";
import { type Door, doors, loadThrough, sleep } from "./doors.ts";

const script = new URL("./child.ts", import.meta.url);
const child = (door: Door, what: string) => runScript(fileURLToPath(script), [door, what]);
const asked = { prompt: "USER: Describe. ASSISTANT:", ignoreEos: true };

for (const door of doors) {
  test(`${door}: what is awaited keeps the process alive`, async () => {
    assert.deepEqual(await child(door, "await"), { code: 0, out: "50\n", err: "" });
  });

  test(`${door}: an idle model lets the process end`, async () => {
    const { code, out, err } = await child(door, "leave");
    assert.deepEqual([code, out], [0, "left\n"], err);
  });

  test(`${door}: a process can exit while the engine works`, async () => {
    const { code, out, err } = await child(door, "exit");
    assert.deepEqual([code, out], [3, ""], err);
  });

  test(`${door}: works in a Worker, beside the main thread`, async () => {
    const model = await loadThrough(door);
    const worker = new Worker(script, { workerData: [door, "worker"] });
    const message = new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    const ended = new Promise((resolve) => worker.once("exit", resolve));
    const here = await model.generate({ ...asked, maxTokens: 50 });
    assert.deepEqual(await message, here.tokens);
    await ended;
    assert.equal((await model.generate({ ...asked, maxTokens: 3 })).tokens.length, 3);
    await model.dispose();
  });

  test(`${door}: the event loop stays alive`, async () => {
    const work = async () => {
      const model = await loadThrough(door);
      await model.generate({ ...asked, maxTokens: 300 });
      await model.dispose();
    };
    const seen: string[] = [];
    // As in tests/engine/model.test.ts: against the idle timer of the same moment, and repeated on a busy machine.
    for (let attempt = 0; attempt < 4; attempt++) {
      const idle = await tickShare(() => sleep(300));
      const busy = await tickShare(work);
      if (busy >= 0.8 * Math.min(1, idle)) return;
      seen.push(`${busy.toFixed(2)} (idle ${idle.toFixed(2)})`);
    }
    assert.fail(`too few ticks came: ${seen.join(", ")}`);
  });

  if (runtime().name === "deno") {
    test(`${door}: Deno needs --allow-ffi and --allow-read, and says so`, () => {
      const run = (...permissions: string[]) => {
        const args = ["run", "--no-prompt", "--no-check", ...permissions, fileURLToPath(script), door, "leave"];
        return spawnSync(process.execPath, args, {
          cwd: root,
          encoding: "utf8",
          env: { ...process.env, NO_COLOR: "1" },
        });
      };
      const denied = run("--allow-read");
      assert.ok(denied.status !== 0 && denied.stderr.includes("--allow-ffi"), denied.stderr);
      const allowed = run("--allow-read", "--allow-ffi");
      assert.deepEqual([allowed.status, allowed.stdout], [0, "left\n"], allowed.stderr);
    });
  }
}

/** The share of the ticks of a 5 ms timer that come while something happens. */
async function tickShare(during: () => Promise<unknown>): Promise<number> {
  const period = 5;
  let ticks = 0;
  const timer = setInterval(() => {
    ticks += 1;
  }, period);
  const start = performance.now();
  await during().finally(() => clearInterval(timer));
  return (ticks * period) / (performance.now() - start);
}
