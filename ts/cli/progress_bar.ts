import { printable } from "../format.ts";
import type { Progress } from "../generated/wire.ts";
import type { Context } from "./command.ts";

const width = 24;

/** One line of a progress bar. */
export function progressLine({ stage, done, total }: Progress): string {
  const share = total > 0 ? Math.min(1, done / total) : 0;
  const full = Math.round(share * width);
  return `${stage} [${"#".repeat(full)}${".".repeat(width - full)}] ${Math.floor(share * 100)} %`;
}

/** Shows a load on a terminal and wipes the line at the end; does nothing elsewhere. */
export class ProgressBar {
  readonly #context: Context;
  #shown = "";

  constructor(context: Context) {
    this.#context = context;
  }

  readonly update = (progress: Progress): void => {
    const line = printable(progressLine(progress));
    if (!this.#context.interactive || line === this.#shown) return;
    this.#context.rewrite(line.padEnd(this.#shown.length));
    this.#shown = line;
  };

  clear(): void {
    if (this.#shown !== "") {
      this.#context.rewrite(" ".repeat(this.#shown.length));
      this.#context.rewrite("");
    }
    this.#shown = "";
  }
}
