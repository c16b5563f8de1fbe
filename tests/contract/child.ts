// Run by process.test.ts in a process, or a worker, of its own: `child.ts DOOR WHAT`.
import { isMainThread, parentPort, workerData } from "node:worker_threads";
import { type Door, loadThrough } from "./doors.ts";

const [door, what] = isMainThread ? (process.argv.slice(2) as [Door, string]) : (workerData as [Door, string]);
const asked = { prompt: "USER: Describe. ASSISTANT:", maxTokens: 50, ignoreEos: true };

const model = await loadThrough(door);
switch (what) {
  case "await":
    // Nothing else keeps the process alive.
    console.log((await model.generate(asked)).tokens.length);
    break;
  case "leave":
    // A model that is neither used nor disposed keeps nothing alive.
    await model.generate({ ...asked, maxTokens: 1 });
    console.log("left");
    break;
  case "exit":
    void model.generate({ ...asked, maxTokens: 1500 }).then();
    setTimeout(() => process.exit(3), 20);
    break;
  case "worker":
    parentPort?.postMessage((await model.generate(asked)).tokens);
    await model.dispose();
    break;
}
