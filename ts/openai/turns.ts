import { abortError } from "../errors.ts";
import { Refusal } from "./refusal.ts";

/** So many requests run at once, so many wait in the order in which they came, and the others are refused. */
export class Turns {
  readonly #most: number;
  readonly #room: number;
  readonly #waiting = new Set<() => void>();
  #running = 0;

  constructor(most: number, room: number) {
    this.#most = most;
    this.#room = room;
  }

  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Resolves when it is the caller's turn, who calls what it gives when done. Throws a Refusal at once when too many wait. */
  take(signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) return Promise.reject(abortError(signal));
    if (this.#running < this.#most) return Promise.resolve(this.#start());
    if (this.#waiting.size >= this.#room) {
      const message = `${this.#running} requests run and ${this.#waiting.size} wait, which is all that this server holds; try again`;
      const facts = { type: "rate_limit_exceeded", headers: { "retry-after": "1" } };
      return Promise.reject(new Refusal(429, "queue_full", message, facts));
    }
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
