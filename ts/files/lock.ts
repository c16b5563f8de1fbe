// Locks between processes: a file that is created exclusively, touched while it is held, and taken over from the dead.
import { link, mkdir, open, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { readRegularText, Unreadable } from "../regular_file.ts";

/** A holder touches its lock this often ... */
const heartbeat = 5_000;
/** ... and is taken for dead after this long. */
const patience = 30_000;
/** A lock that goes each time before it can be read is none. */
const maxAttempts = 100;
const maxBytes = 4096;

/** A lock that is held. */
export interface Held {
  /** Whether it is still this holder's: somebody may have taken him for dead. */
  held(): Promise<boolean>;
  release(): Promise<void>;
}

/** Takes a lock, or says in words that go into a message who holds it; a dead holder's is taken over. */
export async function tryLock(path: string): Promise<Held | { holder: string }> {
  await mkdir(dirname(path), { recursive: true });
  const mark = JSON.stringify({ pid: process.pid, host: machine(), id: crypto.randomUUID() });
  for (let attempt = 0; !(await create(path, mark)); attempt += 1) {
    const found = await look(path);
    if (found && !found.dead) return { holder: found.holder };
    if (attempt >= maxAttempts)
      throw Object.assign(new Error("its lock can neither be taken nor read"), { code: "ENOLCK" });
    if (found) await takeAway(path, found.mark);
  }
  const timer = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), heartbeat);
  const held = async (): Promise<boolean> => (await readFile(path, "utf8").catch(() => "")) === mark;
  return {
    held,
    async release() {
      clearInterval(timer);
      if (await held()) await rm(path, { force: true });
    },
  };
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

/** The holder that a lock file names; undefined if the file is gone. */
async function look(path: string): Promise<{ mark: string; dead: boolean; holder: string } | undefined> {
  let mark: string;
  let silent: number;
  try {
    silent = Date.now() - (await stat(path)).mtimeMs;
    mark = await readRegularText(path, maxBytes);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    if (error instanceof Unreadable)
      throw Object.assign(new Error(`its lock is none: ${error.message}`), { code: "ENOLCK" });
    throw error;
  }
  const { pid, host } = parse(mark);
  const here = host === machine() && pid !== undefined;
  const dead = silent > patience || (here && !isAlive(pid));
  return { mark, dead, holder: pid === undefined ? "" : ` (process ${pid}${here ? "" : ` on ${host}`})` };
}

/** Nothing of a mark that is not yet written whole. */
function parse(mark: string): { pid?: number; host?: string } {
  try {
    const { pid, host } = JSON.parse(mark) as Record<string, unknown>;
    return Number.isSafeInteger(pid) && typeof host === "string" ? { pid: pid as number, host } : {};
  } catch {
    return {};
  }
}

/** The name of this machine; Deno says it with a permission only. */
function machine(): string {
  try {
    return hostname();
  } catch {
    return "";
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
