import { abortError, PrefixKvError } from "./errors.ts";

/**
 * Ends a piece of work early, through the caller's signal or by its owner. The reason of its signal is the typed error to throw.
 * {@link Stop.done} lets go of the caller's signal, which may live on.
 */
export class Stop {
  readonly #controller = new AbortController();
  readonly #source: AbortSignal | undefined;
  readonly #listener = (): void => this.end(abortError(this.#source));

  constructor(source?: AbortSignal) {
    this.#source = source;
    if (source?.aborted) this.#listener();
    else source?.addEventListener("abort", this.#listener, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(reason: PrefixKvError): void {
    this.#controller.abort(reason);
  }

  done(): void {
    this.#source?.removeEventListener("abort", this.#listener);
  }
}

/** The outcome of some work, or the reason of the signal as soon as it fires. */
export function until<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const stopped = (): void => reject(stopError(signal));
    if (signal.aborted) stopped();
    else signal.addEventListener("abort", stopped, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stopped));
  });
}

/** The typed error of a signal that has fired: its reason if that is one, else an AbortError. */
export function stopError(signal: AbortSignal): PrefixKvError {
  return signal.reason instanceof PrefixKvError ? signal.reason : abortError(signal);
}
