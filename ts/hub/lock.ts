import { link, mkdir, open, readFile, rename, rm, stat, utimes } from "node:fs/promises";
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
    const dead = await deadMark(path);
    if (dead !== undefined) await takeAway(path, dead);
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

/** The content of a lock whose holder is dead; undefined for one that is alive. */
async function deadMark(path: string): Promise<string | undefined> {
  try {
    const { mtimeMs } = await stat(path);
    const mark = await readFile(path, "utf8");
    if (Date.now() - mtimeMs > patience) return mark;
    const { pid, host } = JSON.parse(mark) as { pid: number; host: string };
    return host === hostname() && !isAlive(pid) ? mark : undefined;
  } catch {
    // Gone by now, or not yet written.
    return undefined;
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

/** Of several who see the same dead lock one must take it, and none a new one: what was no longer the dead one goes back. */
async function takeAway(path: string, dead: string): Promise<void> {
  const away = `${path}.${crypto.randomUUID()}`;
  try {
    await rename(path, away);
  } catch {
    return;
  }
  if ((await readFile(away, "utf8")) !== dead) await link(away, path).catch(() => {});
  await rm(away, { force: true });
}
