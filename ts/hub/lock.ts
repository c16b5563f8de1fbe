import { mkdir, open, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { abortError } from "../errors.ts";
import type { System } from "./system.ts";

/** A holder touches its lock this often ... */
const heartbeat = 5_000;
/** ... and is taken for dead after this long. */
const patience = 30_000;

export interface LockOptions {
  signal: AbortSignal;
  system: System;
  /** Called while somebody else holds the lock. */
  waiting(): Promise<void>;
}

/** Runs `use` while no other load, here or in another process, holds the lock file. */
export async function withLock<T>(path: string, options: LockOptions, use: () => Promise<T>): Promise<T> {
  const mark = await take(path, options);
  const timer = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), heartbeat);
  try {
    return await use();
  } finally {
    clearInterval(timer);
    // Somebody who took this holder for dead has a lock of his own by now.
    if ((await readFile(path, "utf8").catch(() => "")) === mark) await rm(path, { force: true });
  }
}

async function take(path: string, { signal, system, waiting }: LockOptions): Promise<string> {
  await mkdir(dirname(path), { recursive: true });
  const mark = JSON.stringify({ pid: process.pid, host: hostname(), id: crypto.randomUUID() });
  while (!(await create(path, mark))) {
    if (signal.aborted) throw abortError(signal);
    if (await isStale(path)) await takeAway(path);
    else {
      await waiting();
      await system.pause(100, signal);
    }
  }
  return mark;
}

async function create(path: string, mark: string): Promise<boolean> {
  try {
    const file = await open(path, "wx");
    try {
      await file.writeFile(mark);
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    } finally {
      await file.close();
    }
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

async function isStale(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (!found) return false;
  if (Date.now() - found.mtimeMs > patience) return true;
  try {
    const { pid, host } = JSON.parse(await readFile(path, "utf8")) as { pid: number; host: string };
    return host === hostname() && !isAlive(pid);
  } catch {
    return false;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
}

/** By renaming: of several who see the same dead lock, one succeeds, and the others find the next one. */
async function takeAway(path: string): Promise<void> {
  const away = `${path}.${crypto.randomUUID()}`;
  await rename(path, away).catch(() => {});
  await rm(away, { force: true });
}
