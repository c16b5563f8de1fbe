// One process of doors.ts: `doors_run.ts DOOR TOKENS REQUESTS` measures a door on the runtime that runs it, and prints JSON.
import { load } from "../ts/index.ts";

export interface DoorRun {
  /** Milliseconds per token, as the engine counts them. */
  decode: number;
  /** Tokens per second as the reader sees them, one event each. */
  rate: number;
  /** Milliseconds of processor time of the whole process per token: the engine's own is the same for every door. */
  cpu: number;
  /** Milliseconds from the call of a one-token request to its answer, less what the engine took; each a request. */
  delay: number[];
}

const [binding, tokens, requests] = process.argv.slice(2) as ["napi" | "ffi", string, string];
const asked = { prompt: "USER: Describe. ASSISTANT:", ignoreEos: true };
const model = await load(undefined, { binding });
await model.generate({ ...asked, maxTokens: 200 });

const before = process.cpuUsage();
const start = performance.now();
const out = model.generate({ ...asked, maxTokens: Number(tokens) });
let parts = 0;
for await (const _ of out) parts += 1;
const { timings, tokens: found } = await out;
const wall = performance.now() - start;
const { user, system } = process.cpuUsage(before);

const delay: number[] = [];
for (let index = 0; index < Number(requests); index++) {
  const start = performance.now();
  const { timings } = await model.generate({ ...asked, maxTokens: 1 });
  delay.push(performance.now() - start - timings.total);
}
await model.dispose();

const run: DoorRun = {
  decode: timings.decode / (found.length - 1),
  rate: (1000 * parts) / (wall - timings.firstToken),
  cpu: (user + system) / 1000 / found.length,
  delay,
};
console.log(JSON.stringify(run));
