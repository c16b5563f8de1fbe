// How files that somebody else wrote are read: plain ones only, and counted as they come, since sizes can lie.
import { constants } from "node:fs";
import { open, stat } from "node:fs/promises";

const chunk = 1 << 20;
const smallest = 4096;

/** The path leads to something that cannot be read whole; the message follows `cannot use FILE: `. */
export class NotPlain extends Error {}

/**
 * Reads a plain file of at most `limit` bytes. Pipes and devices are refused, because they may never end, and so is a file that turns out
 * to hold more. Throws a NotPlain for these, else what the system says.
 */
export async function readPlainFile(path: string | URL, limit: number, signal?: AbortSignal): Promise<Buffer> {
  // Asked first as well: opening a device can have effects of its own.
  refuse(await stat(path), limit);
  const handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  try {
    const info = await handle.stat();
    refuse(info, limit);
    const parts: Buffer[] = [];
    let length = 0;
    for (;;) {
      signal?.throwIfAborted();
      // One byte more than there should be tells a file that grows, or one of no true size.
      const buffer = Buffer.allocUnsafe(Math.min(chunk, Math.max(smallest, info.size - length + 1)));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return Buffer.concat(parts, length);
      length += bytesRead;
      if (length > limit) throw new NotPlain(`it has more than ${limit} bytes, the most that is read`);
      parts.push(buffer.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}

interface Info {
  size: number;
  isFile(): boolean;
  isDirectory(): boolean;
}

function refuse(info: Info, limit: number): void {
  if (info.isDirectory()) throw new NotPlain("it is a folder");
  if (!info.isFile()) throw new NotPlain("it is no plain file but a pipe, a socket or a device");
  if (info.size > limit) throw new NotPlain(`it has ${info.size} bytes, at most ${limit} are read`);
}
