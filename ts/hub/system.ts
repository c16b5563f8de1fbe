import { type FileHandle, statfs } from "node:fs/promises";

/** The machine as a download sees it; tests replace it with a full disk or an impatient clock. */
export interface System {
  fetch(url: string, init: RequestInit): Promise<Response>;
  write(file: FileHandle, bytes: Uint8Array, position: number): Promise<void>;
  /** Free bytes of the disk that holds a folder; undefined where the platform does not say. */
  free(folder: string): Promise<number | undefined>;
  /** Waits; ends early, without an error, when the signal fires. */
  pause(milliseconds: number, signal: AbortSignal): Promise<void>;
  /** Milliseconds without a byte after which a connection counts as cut. */
  stall: number;
}

export const machine: System = {
  fetch: (url, init) => fetch(url, init),
  async write(file, bytes, position) {
    for (let at = 0; at < bytes.length; ) {
      at += (await file.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
    }
  },
  async free(folder) {
    try {
      const { bavail, bsize } = await statfs(folder);
      // Some file systems say 0 for "unknown".
      return bavail * bsize || undefined;
    } catch {
      return undefined;
    }
  },
  pause: (milliseconds, signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      signal.addEventListener("abort", done);
    }),
  stall: 30_000,
};
