import { functions } from "../generated/abi.ts";
import type { OpenLibrary, Symbols } from "./library.ts";

interface Definition {
  name?: string;
  parameters: readonly string[];
  result: string;
  nonblocking?: boolean;
}

interface DenoFfi {
  dlopen(path: string, symbols: Record<string, Definition>): { symbols: Symbols & { wait: Wait } };
  UnsafePointer: { of(bytes: Uint8Array): unknown; value(pointer: unknown): number | bigint };
}

type Wait = (ticket: number, timeout: number, out: null, capacity: number, size: null) => Promise<number>;

/** Milliseconds that a thread waits before it asks again, which nobody notices. */
const TIMEOUT = 500;

/** The native file through Deno's dlopen. */
export const openDeno: OpenLibrary = async (path) => {
  const { Deno: deno } = globalThis as unknown as { Deno: DenoFfi };
  // Without room for them, the events stay for the call that takes them: no buffer is lent to another thread.
  const wait: Definition = { ...functions.pkv_next, name: "pkv_next", nonblocking: true };
  const { symbols } = deno.dlopen(path, { ...functions, wait });
  return {
    symbols,
    address: (bytes) => BigInt(deno.UnsafePointer.value(deno.UnsafePointer.of(bytes))),
    wait: async (ticket) => {
      await symbols.wait(ticket, TIMEOUT, null, 0, null);
    },
  };
};
