// Effects of a door on the process around it: the event loop, its end, workers, permissions.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { image } from "../../ts/index.ts";
import { runtime } from "../../ts/native/pick.ts";
import { scene } from "../engine/scenes.ts";
import { root, runScript } from "../runtimes/spawn.ts";
import { type Door, doors, loadThrough } from "./doors.ts";
import { countTicks, type Ticks } from "./ticks.ts";

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

  test(`${door}: the event loop stays alive while a model loads, sees, reads and writes`, async () => {
    const work = async () => {
      const model = await loadThrough(door);
      const content = [image(scene.image), scene.question];
      await model.generate({ messages: [{ role: "user", content }], maxTokens: 5 });
      await model.generate({ prompt: `USER: ${"word ".repeat(300)}ASSISTANT:`, maxTokens: 1 });
      await model.generate({ ...asked, maxTokens: 150 });
      await model.dispose();
    };
    const seen: string[] = [];
    // Beside an idle timer in a worker: where that keeps the limits the loop must, and what it loses to a busy machine is forgiven.
    for (let attempt = 0; attempt < 5; attempt++) {
      const { busy, idle } = await ticksBeside(work);
      if (busy.share >= 0.8 * Math.min(1, idle.share) && busy.gap < Math.max(50, 2 * idle.gap)) return;
      const show = ({ share, gap }: Ticks) => `${share.toFixed(2)} of the ticks, longest gap ${gap.toFixed(0)} ms`;
      seen.push(`${show(busy)} (idle: ${show(idle)})`);
    }
    assert.fail(`too few ticks came: ${seen.join("; ")}`);
  });

  if (runtime().name !== "node") {
    test(`${door}: a model that was open in a terminated web worker is freed`, async () => {
      const main = new URL("./web_worker_main.ts", import.meta.url);
      const { code, out, err } = await runScript(fileURLToPath(main), [door]);
      assert.deepEqual([code, JSON.parse(out)], [0, { models: 1, cacheBytes: 0, requests: 0 }], err);
    });
  }

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
      for (const permissions of [["--allow-read"], ["--allow-ffi"], ["--allow-env"]]) {
        const denied = run(...permissions);
        assert.equal(denied.status, 1, `${permissions}: ${denied.stdout}`);
        assert.match(denied.stderr, /(?:Native|Model)Error: .*--allow-(?:ffi and --allow-)?read/, String(permissions));
      }
      // Folders that hold the library, the addon, the model, and nothing else.
      const folders = "--allow-read=ts,tests,native,models,package.json";
      for (const permissions of [
        ["--allow-read", "--allow-ffi"],
        ["--allow-ffi=native", folders],
      ]) {
        const allowed = run(...permissions);
        assert.deepEqual([allowed.status, allowed.stdout], [0, "left\n"], allowed.stderr);
      }
    });
  }
}

/** The ticks here, and those of a worker that does nothing else, while something happens. */
async function ticksBeside(during: () => Promise<unknown>): Promise<{ busy: Ticks; idle: Ticks }> {
  const worker = new Worker(script, { workerData: ["napi", "ticks"] });
  const message = () => new Promise<unknown>((resolve) => worker.once("message", resolve));
  await message();
  const stop = countTicks();
  const busy = await during().then(stop).finally(stop);
  const answer = message();
  worker.postMessage("stop");
  const idle = (await answer) as Ticks;
  await worker.terminate();
  return { busy, idle };
}
