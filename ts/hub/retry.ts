import { abortError } from "../errors.ts";
import { Transient } from "./failures.ts";
import type { Session } from "./http.ts";

/** No pause is longer, whatever a server asks for: a longer one is the caller's to decide. */
const longestPause = 60_000;

/** Repeats what may pass, with growing pauses; attempts that brought something do not count. */
export async function retrying<T>(
  { signal, system }: Session,
  attempts: number,
  attempt: () => Promise<T>,
): Promise<T> {
  for (let failed = 0; ; ) {
    if (signal.aborted) throw abortError(signal);
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Transient)) throw error;
      failed = error.progressed ? 1 : failed + 1;
      if (failed >= attempts || (error.after ?? 0) > longestPause) throw error.error;
      // A random part keeps many clients from coming back at the same moment.
      await system.pause(error.after ?? 500 * 2 ** (failed - 1) * (0.75 + Math.random() / 2), signal);
    }
  }
}
