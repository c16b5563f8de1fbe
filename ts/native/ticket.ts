import { abortError, NativeError } from "../errors.ts";
import type { WireEvent } from "../generated/wire.ts";
import type { NativeTicket } from "./contract.ts";
import { errorFromThrown, errorFromWire } from "./errors.ts";

/** An event by its type. */
export type EventOf<T extends WireEvent["type"]> = Extract<WireEvent, { type: T }>;

/** The next events of a ticket, or null at its end; what the door throws comes typed. */
export async function nextEvents(ticket: NativeTicket): Promise<WireEvent[] | null> {
  try {
    const json = await ticket.next();
    return json === null ? null : (JSON.parse(json) as WireEvent[]);
  } catch (error) {
    throw errorFromThrown(error);
  }
}

/** How {@link lastEvent} reads. */
export interface ReadOptions {
  signal?: AbortSignal | undefined;
  onEvent?: ((event: WireEvent) => void) | undefined;
}

/**
 * Reads a ticket to its end and resolves with its one event of a type. A signal cancels the work and rejects at once; the
 * ticket is still read to its end.
 */
export function lastEvent<T extends WireEvent["type"]>(
  ticket: NativeTicket,
  type: T,
  { signal, onEvent }: ReadOptions = {},
): Promise<EventOf<T>> {
  const { promise, resolve, reject } = Promise.withResolvers<EventOf<T>>();
  const abort = (): void => {
    ticket.cancel();
    reject(abortError(signal));
  };
  const read = async (): Promise<void> => {
    for (let events = await nextEvents(ticket); events !== null; events = await nextEvents(ticket)) {
      for (const event of events) {
        if (event.type === "error") reject(errorFromWire(event.error));
        else if (event.type === type) resolve(event as EventOf<T>);
        else onEvent?.(event);
      }
    }
    reject(new NativeError("internal", `the engine ended without an event \`${type}\`; please report it`));
  };
  if (signal?.aborted) abort();
  else signal?.addEventListener("abort", abort, { once: true });
  read()
    .catch((error: unknown) => {
      ticket.cancel();
      reject(error);
    })
    .finally(() => signal?.removeEventListener("abort", abort));
  return promise;
}
