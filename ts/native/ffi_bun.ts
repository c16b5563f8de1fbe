import { functions } from "../generated/abi.ts";
import type { OpenLibrary, Symbols } from "./library.ts";

interface BunFfi {
  dlopen(path: string, symbols: Record<string, { args: string[]; returns: string }>): { symbols: Symbols };
  ptr(bytes: Uint8Array): number;
}

/** Milliseconds between looks at a ticket: bun:ffi has no calls off the event loop, and timers have no finer steps. */
const POLL = 1;

/** The native file through bun:ffi. */
export const openBun: OpenLibrary = async (path) => {
  // Not a literal: other runtimes and bundlers would look for it.
  const name = "bun:ffi";
  const { dlopen, ptr } = (await import(name)) as BunFfi;
  const kinds = { u32: "u32", i32: "i32", usize: "usize", buffer: "ptr" };
  const table = Object.entries(functions).map(([name, { parameters, result }]) => {
    return [name, { args: parameters.map((kind) => kinds[kind]), returns: kinds[result] }] as const;
  });
  const { symbols } = dlopen(path, Object.fromEntries(table));
  return {
    symbols,
    address: (bytes) => BigInt(ptr(bytes)),
    wait: () => new Promise((resolve) => setTimeout(resolve, POLL)),
  };
};
