import { createInterface, type Interface } from "node:readline";

/** Lines of standard input, with editing and a prompt where a person types. */
export class Terminal {
  readonly #interrupted: () => void;
  readonly #lines: string[] = [];
  #reader: Interface | undefined;
  #ended = false;
  #wake: (() => void) | undefined;

  /** `interrupted` hears of Ctrl-C: while lines are edited, no signal comes of it. */
  constructor(interrupted: () => void) {
    this.#interrupted = interrupted;
  }

  /** The next line, or undefined at the end of the input and once the signal has fired. */
  async ask(prompt: string, signal: AbortSignal): Promise<string | undefined> {
    const reader = this.#open();
    if (this.#lines.length === 0 && !this.#ended && !signal.aborted) {
      if (reader.terminal) {
        reader.setPrompt(prompt);
        reader.prompt();
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const stop = (): void => resolve();
      signal.addEventListener("abort", stop, { once: true });
      await promise;
      signal.removeEventListener("abort", stop);
    }
    return signal.aborted ? undefined : this.#lines.shift();
  }

  /** Lets go of standard input, which would keep the process alive. */
  close(): void {
    this.#reader?.close();
  }

  #open(): Interface {
    if (this.#reader !== undefined) return this.#reader;
    const terminal = process.stdin.isTTY === true && process.stderr.isTTY === true;
    const reader = createInterface({ input: process.stdin, output: process.stderr, terminal });
    reader.on("line", (line) => {
      this.#lines.push(line);
      this.#wake?.();
    });
    reader.on("close", () => {
      this.#ended = true;
      this.#wake?.();
    });
    reader.on("SIGINT", this.#interrupted);
    this.#reader = reader;
    return reader;
  }
}
