import { abortError } from "../errors.ts";
import { Refusal } from "./refusal.ts";

/** The bounds of a body: bytes, milliseconds, and a signal that ends the reading. */
export interface BodyBounds {
  bytes: number;
  time: number;
  signal: AbortSignal;
}

/** The JSON object in a request's body. Throws a Refusal, or an AbortError. */
export async function readBody(request: Request, bounds: BodyBounds): Promise<Record<string, unknown>> {
  const most = bounds.bytes;
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json *(;|$)/i.test(type.trim())) {
    throw new Refusal(415, "unsupported_media_type", "the body must come with `content-type: application/json`");
  }
  const length = request.headers.get("content-length");
  if (length !== null && !(Number(length) <= most)) throw tooLarge(most);
  const bytes = await readBytes(request, bounds);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Refusal(400, "invalid_json", "the body is not JSON in UTF-8");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Refusal(400, "invalid_json", "the body must be a JSON object");
  }
  return value as Record<string, unknown>;
}

async function readBytes(request: Request, { bytes: most, time, signal }: BodyBounds): Promise<Uint8Array> {
  const reader = request.body?.getReader();
  if (reader === undefined) return new Uint8Array();
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Refusal(408, "timeout", "the body did not come in time")), time);
  const stop = (): void => late.reject(abortError(signal));
  // Without a reader that waits, its rejection is nobody's.
  late.promise.catch(() => {});
  if (signal.aborted) stop();
  else signal.addEventListener("abort", stop, { once: true });
  const chunks: Uint8Array[] = [];
  let total = 0;
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), late.promise]);
      if (done) break;
      total += value.byteLength;
      if (total > most) throw tooLarge(most);
      chunks.push(value);
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    if (error instanceof Refusal || signal.aborted) throw error;
    throw new Refusal(400, "invalid_body", "the body ended early");
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
  return Buffer.concat(chunks, total);
}

function tooLarge(most: number): Refusal {
  const message = `the body is larger than ${most} bytes`;
  return new Refusal(413, "request_too_large", message, { headers: { connection: "close" } });
}
