// The exported functions of the native file as JavaScript sees them: what the dialects of Bun and Deno have in common.
import type { functions } from "../generated/abi.ts";

interface Kinds {
  u32: number;
  i32: number;
  usize: number;
  buffer: Uint8Array | Uint32Array | BigUint64Array | null;
}
type Arguments<T extends readonly (keyof Kinds)[]> = { -readonly [At in keyof T]: Kinds[T[At]] };
type Functions = typeof functions;

/** The functions of the C ABI by their names. */
export type Symbols = {
  readonly [Name in keyof Functions]: (...args: Arguments<Functions[Name]["parameters"]>) => number;
};

/** A native file that a runtime has opened. */
export interface Library {
  symbols: Symbols;
  /** The address of bytes that stay where they are as long as they are referenced. */
  address(bytes: Uint8Array): bigint;
  /** Resolves when a ticket may have events, or a little earlier. Keeps the event loop alive. */
  wait(ticket: number): Promise<void>;
}

/** Opens a native file; throws what the runtime throws when it cannot. */
export type OpenLibrary = (path: string) => Promise<Library>;
