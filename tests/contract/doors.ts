// The doors that this runtime has; every test of the contract runs through each.
import type { About, WireEvent } from "../../ts/generated/wire.ts";
import type { Model } from "../../ts/index.ts";
import { about, load } from "../../ts/index.ts";
import type { Native, NativeEngine, NativeTicket } from "../../ts/native/contract.ts";
import { pickDoor, runtime } from "../../ts/native/pick.ts";
import { lastEvent } from "../../ts/native/ticket.ts";
import { root } from "../runtimes/spawn.ts";

export type Door = "napi" | "ffi";

export const doors: readonly Door[] = runtime().name === "node" ? ["napi"] : ["napi", "ffi"];

/** The embedded model through a door. */
export function loadThrough(binding: Door): Promise<Model> {
  return load(undefined, { binding });
}

/** The embedded model as the contract has it. */
export async function engineThrough(binding: Door): Promise<NativeEngine> {
  const engine = (await nativeOf(binding)).open(JSON.stringify({ source: `${root}models/tiny-llava` }));
  await lastEvent(engine.loading(), "loaded");
  return engine;
}

export async function nativeOf(binding: Door): Promise<Native> {
  return (await pickDoor(binding)).native;
}

/** A request for so many tokens, whatever they say. */
export function generate(maxTokens: number, prompt = "USER: Describe. ASSISTANT:"): string {
  return JSON.stringify({ op: "generate", prompt, maxTokens, ignoreEos: true });
}

/** All events of a ticket from here on. */
export async function readAll(ticket: NativeTicket): Promise<WireEvent[]> {
  const events: WireEvent[] = [];
  for (let json = await ticket.next(); json !== null; json = await ticket.next()) {
    events.push(...(JSON.parse(json) as WireEvent[]));
  }
  return events;
}

/** Counts of everything alive in this process. */
export async function live(): Promise<About["live"]> {
  return (await about()).live;
}

/** Resolves once `condition` holds, looking every few milliseconds; rejects after half a minute. */
export async function until(condition: () => Promise<boolean>, pause = 5): Promise<void> {
  const start = performance.now();
  while (!(await condition())) {
    if (performance.now() - start > 30_000) throw new Error(`not within half a minute: ${condition}`);
    await sleep(pause);
  }
}

/** Makes so much garbage that the collector runs. */
export function collect(): void {
  const { Bun: bun, gc } = globalThis as { Bun?: { gc(force: boolean): void }; gc?: () => void };
  if (bun) bun.gc(true);
  else if (gc) gc();
  else for (let index = 0; index < 40; index++) Array.from({ length: 100_000 }, () => ({}));
}

export const sleep = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));
