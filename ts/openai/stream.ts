import type { Form, Step } from "./form.ts";
import { gone, type Job, stalled } from "./job.ts";
import type { Metrics } from "./metrics.ts";
import type { Settings } from "./options.ts";
import type { Refusal } from "./refusal.ts";

const headers = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  "x-accel-buffering": "no",
};

/** How an answer is streamed. */
export interface Streaming {
  job: Job;
  form: Form;
  steps: AsyncGenerator<Step, void, undefined>;
  settings: Settings;
  metrics: Metrics;
}

/** Resolves after so many milliseconds, unless it is cleared. */
function after(time: number): { passed: Promise<"late">; clear: () => void } {
  const { promise, resolve } = Promise.withResolvers<"late">();
  const timer = setTimeout(() => resolve("late"), time);
  return { passed: promise, clear: () => clearTimeout(timer) };
}

/**
 * The answer as server-sent events. An error before the first token, or before a waiting stream is opened, is thrown and gets a
 * status of its own; a later one ends the stream with an `error` event.
 */
export async function streamed(streaming: Streaming): Promise<Response> {
  const first = streaming.steps.next();
  const opening = after(streaming.settings.openTime);
  try {
    await Promise.race([first, opening.passed]);
  } catch (error) {
    streaming.job.finish();
    throw streaming.job.refusal(error);
  } finally {
    opening.clear();
  }
  return new Response(new Events(streaming, first).stream, { headers });
}

class Events {
  readonly stream: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly #all: Streaming;
  readonly #encoder = new TextEncoder();
  #next: Promise<IteratorResult<Step, void>> | undefined;
  #controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | undefined;
  #stall: ReturnType<typeof setTimeout> | undefined;
  #ended = false;

  constructor(all: Streaming, first: Promise<IteratorResult<Step, void>>) {
    this.#all = all;
    this.#next = first;
    // Whoever reads next sees it; a stream that is not read must not end the process.
    first.catch(() => {});
    this.stream = new ReadableStream({
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#pull(),
      cancel: () => {
        if (all.job.stop(gone())) all.metrics.disconnects += 1;
      },
    });
    const stop = (): void => this.#fail(all.job.refusal(undefined));
    if (all.job.signal.aborted) stop();
    else all.job.signal.addEventListener("abort", stop, { once: true });
    this.#watch();
  }

  async #pull(): Promise<void> {
    clearTimeout(this.#stall);
    try {
      while (!this.#ended) {
        const text = await this.#read();
        if (this.#ended) return;
        if (text === "") continue;
        this.#send(text);
        this.#watch();
        return;
      }
    } catch (error) {
      this.#fail(this.#all.job.refusal(error));
    }
  }

  /** Ends a stream that nobody reads. */
  #watch(): void {
    clearTimeout(this.#stall);
    if (this.#ended) return;
    this.#stall = setTimeout(() => {
      if (this.#all.job.stop(stalled())) this.#all.metrics.stalled += 1;
    }, this.#all.settings.stallTime);
  }

  /** The events of the next step, or a comment where it does not come. */
  async #read(): Promise<string> {
    const { steps, settings, form } = this.#all;
    this.#next ??= steps.next();
    const beat = after(settings.heartbeat);
    const found = await Promise.race([this.#next, beat.passed]).finally(beat.clear);
    if (found === "late") return ": waiting\n\n";
    this.#next = undefined;
    if (found.done) {
      this.#send(form.end());
      this.#all.metrics.answered(this.#all.job.age);
      this.#end();
      return "";
    }
    if ("result" in found.value) this.#all.metrics.choice(found.value.result);
    return form.step(found.value);
  }

  #send(text: string): void {
    this.#controller?.enqueue(this.#encoder.encode(text));
  }

  #fail(refusal: Refusal): void {
    if (this.#ended) return;
    try {
      this.#send(this.#all.form.fail(refusal));
    } catch {
      // The reader has cancelled it.
    }
    this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#stall);
    // Steps that nobody asks for any more would keep the turn.
    this.#all.steps.return().catch(() => {});
    this.#all.job.finish();
    try {
      this.#controller?.close();
    } catch {
      // The reader has cancelled it.
    }
  }
}
