import { abortError } from "../errors.ts";
import { tryLock } from "../files/lock.ts";
import type { System } from "./system.ts";

export interface LockOptions {
  signal: AbortSignal;
  system: System;
  /** Called while somebody else holds the lock. */
  waiting(): Promise<void>;
}

/** Runs `use` while no other load, here or in another process, holds the lock file. */
export async function withLock<T>(
  path: string,
  { signal, system, waiting }: LockOptions,
  use: () => Promise<T>,
): Promise<T> {
  for (;;) {
    const lock = await tryLock(path);
    if ("release" in lock) {
      try {
        return await use();
      } finally {
        await lock.release();
      }
    }
    if (signal.aborted) throw abortError(signal);
    await waiting();
    await system.pause(100, signal);
  }
}
