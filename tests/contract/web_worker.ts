// Run by web_worker_main.ts as a web worker: loads through the door that its first message names, and works until it is terminated.
import { type Door, loadThrough } from "./doors.ts";

const scope = globalThis as unknown as {
  onmessage: (event: { data: Door }) => void;
  postMessage(message: unknown): void;
};
scope.onmessage = async ({ data }) => {
  const model = await loadThrough(data);
  model.generate({ prompt: "USER: Describe. ASSISTANT:", ignoreEos: true, maxTokens: 1800 }).catch(() => {});
  scope.postMessage("works");
};
scope.postMessage("ready");
