// A long-lived process of one side of the comparison. It answers one line of JSON for each line it is given, so that loading stays
// outside of what is measured.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { CacheOption } from "../../ts/index.ts";

/** One prompt and some steps after it. */
export interface Run {
  prompt: string;
  steps: number;
  /** Which attention transformers decodes with; ours has one. */
  attention?: string;
  /** The prompt's tokens, which llama.cpp takes. */
  ids?: number[];
  /** Nothing is generated then: these tokens behind the prompt get log-probabilities, and ours takes them as the text. */
  answer?: number[];
  text?: string;
  /** Our method, and the press of kvpress. */
  cache?: CacheOption;
  press?: string;
}

export interface Ran {
  promptTokens: number;
  /** The first token and one for each step. */
  tokens: number[];
  /** Milliseconds. */
  prefill: number;
  decode: number;
  /** Bytes of the cache at the end. */
  resident?: number;
  /** Bytes that the process holds more than before it loaded, mapped files included. */
  more?: number;
  /** Of the tokens of an answer. */
  logprobs?: number[];
}

export interface Ready {
  ready: string;
  /** Milliseconds that loading took. */
  load?: number;
  versions: Record<string, string>;
}

export class Child implements AsyncDisposable {
  readonly name: string;
  readonly ready: Promise<Ready>;
  readonly #process;
  readonly #closed: Promise<void>;
  readonly #waiting: PromiseWithResolvers<unknown>[] = [];

  constructor(name: string, command: string, args: string[]) {
    this.name = name;
    this.#process = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    const ended = Promise.withResolvers<void>();
    this.#closed = ended.promise;
    this.#process.on("error", (error) =>
      this.#fail(`${command} could not be started: ${error.message}`, ended.resolve),
    );
    this.#process.on("close", (code) => this.#fail(`${name} ended with code ${code}`, ended.resolve));
    // Writing to a process that has ended fails here; its end is reported above.
    this.#process.stdin.on("error", () => {});
    createInterface({ input: this.#process.stdout }).on("line", (line) => this.#answer(line));
    this.ready = this.#next() as Promise<Ready>;
  }

  run(run: Run): Promise<Ran> {
    const answer = this.#next() as Promise<Ran>;
    this.#process.stdin.write(`${JSON.stringify(run)}\n`);
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.stdin.end();
    await this.#closed;
  }

  #next(): Promise<unknown> {
    const next = Promise.withResolvers<unknown>();
    // Whoever awaits the answer sees the failure.
    next.promise.catch(() => {});
    this.#waiting.push(next);
    return next.promise;
  }

  #answer(line: string): void {
    const answer = JSON.parse(line) as { error?: string };
    const waiting = this.#waiting.shift();
    if (answer.error === undefined) waiting?.resolve(answer);
    else waiting?.reject(new Error(answer.error));
  }

  #fail(message: string, ended: () => void): void {
    for (const waiting of this.#waiting.splice(0)) waiting.reject(new Error(message));
    ended();
  }
}
