/**
 * The interface of a door. Every door (Node-API now; the C ABI through bun:ffi and Deno.dlopen beside it) implements these
 * interfaces and nothing more; all logic is either above (ts/) or below (crates/core).
 *
 * Options cross as one JSON object, images as bytes. Every answer is a stream of events that the caller pulls.
 */
export interface Native {
  /** JSON of {@link About}. */
  about(): string;
  /**
   * Starts an engine thread that loads a model; `json` is a {@link LoadRequest}. Returns at once; the outcome comes through
   * {@link NativeEngine.loading}. Throws an Error whose message is the JSON of a {@link WireError} when `json` is refused.
   */
  open(json: string): NativeEngine;
  /** Reads a model folder's configuration without loading weights; `json` is `{ "source": DIR }`. Ends with an `inspected` event. */
  inspect(json: string): NativeTicket;
  /**
   * Compares the kernels of a GPU with those of the CPU; `json` is a {@link CheckRequest}. `progress` events, then `checked`. Throws
   * like {@link Native.open} when the JSON is refused, or the device is the CPU.
   */
  checkDevice(json: string): NativeTicket;
}

export interface NativeEngine {
  /** The ticket of the load: `progress` events, then `loaded` or `error`. */
  loading(): NativeTicket;
  /**
   * Queues one request ({@link EngineRequest} as JSON) with the bytes of its images. The bytes are copied before the call
   * returns. Throws like {@link Native.open} when the JSON is refused.
   */
  submit(json: string, images: Uint8Array[]): NativeTicket;
  /** Stops intake, cancels what runs, frees the model. Idempotent. Ends with a `closed` event once every byte is free. */
  close(): NativeTicket;
}

export interface NativeTicket {
  /**
   * Resolves with all ready events as one JSON array, waiting for at least one; with null when the stream has ended.
   * One call at a time.
   */
  next(): Promise<string | null>;
  /** Asks the work to stop; it ends with an `error` event of code `aborted` (or `done` with finish `aborted` once text exists). */
  cancel(): void;
}
