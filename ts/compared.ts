import type { Progress } from "./generated/wire.ts";
import type { WirePrompt } from "./messages.ts";
import { type EventOf, lastEvent } from "./native/ticket.ts";
import { Place } from "./options/place.ts";
import { readPrompt } from "./options/requests.ts";
import { type Samples, stoppable } from "./options/samples.ts";
import type { Requests } from "./requests.ts";

/** The prompts of all samples, of which there must be one, for the call of this name. */
export async function promptsOf(
  call: string,
  samples: Samples<unknown>,
  signal: AbortSignal | undefined,
): Promise<WirePrompt[]> {
  const prompts: WirePrompt[] = [];
  for await (const sample of stoppable(samples, signal)) {
    prompts.push(readPrompt(sample, new Place(call, `samples[${prompts.length}]`)));
  }
  if (prompts.length === 0) throw new Place(call).field("samples").invalid("is empty");
  return prompts;
}

/** Has the engine look at all prompts at once, and gives what it found. */
export async function compared<T extends Parameters<Requests["compare"]>[0]>(
  requests: Requests,
  op: T,
  prompts: readonly WirePrompt[],
  rest: Readonly<Record<string, unknown>>,
  { signal, onProgress }: { signal: AbortSignal | undefined; onProgress: ((progress: Progress) => void) | undefined },
): Promise<EventOf<T>> {
  const ticket = await requests.compare(op, prompts, rest, signal);
  return lastEvent(ticket, op, {
    signal,
    onEvent: (event) => {
      if (event.type !== "progress") return;
      const { type: _, ...progress } = event;
      onProgress?.(progress);
    },
  });
}
