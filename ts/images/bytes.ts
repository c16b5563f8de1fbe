import { Unreadable } from "../regular_file.ts";
import { until } from "../stop.ts";
import { Collected } from "./limits.ts";

/** The name given to raw bytes where an image is named. */
export const bytesName = "(bytes)";

/**
 * A view of the bytes of a buffer or of any view of one, of whatever realm: an `instanceof` knows only those of its own. Undefined for
 * anything else.
 */
export function viewBytes(value: unknown): Uint8Array | undefined {
  if (ArrayBuffer.isView(value)) {
    refuseDetached(value.buffer);
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  const kind = Object.prototype.toString.call(value);
  if (kind !== "[object ArrayBuffer]" && kind !== "[object SharedArrayBuffer]") return undefined;
  // Only a true buffer has the length; what merely calls itself one has not.
  if (lengthOf(value) === undefined) return undefined;
  refuseDetached(value as ArrayBuffer);
  return new Uint8Array(value as ArrayBuffer);
}

const lengths = [ArrayBuffer.prototype, SharedArrayBuffer.prototype].map(
  (prototype) => Object.getOwnPropertyDescriptor(prototype, "byteLength")?.get,
);

function lengthOf(value: unknown): number | undefined {
  for (const length of lengths) {
    try {
      return length?.call(value) as number;
    } catch {
      // The other kind, or none.
    }
  }
  return undefined;
}

function refuseDetached(buffer: ArrayBufferLike): void {
  if ((buffer as { detached?: boolean }).detached === true) {
    throw new Unreadable("its buffer is detached: it has been transferred elsewhere");
  }
}

/** A blob or a file of whatever realm, by what it can do. */
export function asBlob(value: unknown): Blob | undefined {
  if (!/^\[object (Blob|File)\]$/.test(Object.prototype.toString.call(value))) return undefined;
  const { stream, arrayBuffer } = value as Blob;
  return typeof stream === "function" || typeof arrayBuffer === "function" ? (value as Blob) : undefined;
}

/** The bytes of a blob, piece by piece: its size is a promise only, as with a file of Bun that is a device. */
export async function readBlob(blob: Blob, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const collected = new Collected();
  if (typeof blob.stream !== "function") {
    collected.add(new Uint8Array(await until(blob.arrayBuffer(), signal)));
    return collected.bytes();
  }
  const reader = blob.stream().getReader();
  try {
    for (;;) {
      const { done, value } = await until(reader.read(), signal);
      if (done) return collected.bytes();
      collected.add(viewBytes(value) ?? new Uint8Array(0));
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    throw error;
  }
}
