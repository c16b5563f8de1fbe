// Run by process.test.ts: `web_worker_main.ts DOOR` terminates a web worker that has a model open.
import { live, until } from "./doors.ts";

interface WebWorker {
  onmessage: (event: { data: unknown }) => void;
  postMessage(message: unknown): void;
  terminate(): void;
}
const { Worker } = globalThis as unknown as { Worker: new (url: URL, options: { type: "module" }) => WebWorker };

const worker = new Worker(new URL("./web_worker.ts", import.meta.url), { type: "module" });
await new Promise<void>((resolve) => {
  worker.onmessage = ({ data }) => {
    if (data === "ready") worker.postMessage(process.argv[2]);
    else resolve();
  };
});
const { models } = await live();
worker.terminate();
await until(async () => (await live()).models === 0);
const { cacheBytes, requests } = await live();
console.log(JSON.stringify({ models, cacheBytes, requests }));
process.exit(0);
