import { abortError } from "../errors.ts";
import { Refusal } from "./refusal.ts";

/** The refusal of a request where so many are there already. */
export function full(there: number): Refusal {
  const message = `${there} requests run or wait, which is all that this server holds; try again`;
  return new Refusal(429, "queue_full", message, { type: "rate_limit_exceeded", headers: { "retry-after": "1" } });
}

/** So many requests run at once, and the others wait in the order in which they came. The handler bounds how many there are. */
export class Turns {
  readonly #most: number;
  readonly #waiting = new Set<() => void>();
  #running = 0;

  constructor(most: number) {
    this.#most = most;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Resolves when it is the caller's turn, who calls what it gives when done. */
  take(signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) return Promise.reject(abortError(signal));
    if (this.#running < this.#most) return Promise.resolve(this.#start());
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(start);
        reject(abortError(signal));
      };
      const start = (): void => {
        this.#waiting.delete(start);
        signal.removeEventListener("abort", leave);
        resolve(this.#start());
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.add(start);
    });
  }

  #start(): () => void {
    this.#running += 1;
    let over = false;
    return () => {
      if (over) return;
      over = true;
      this.#running -= 1;
      for (const next of this.#waiting) {
        next();
        break;
      }
    };
  }
}
