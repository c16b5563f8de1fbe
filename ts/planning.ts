import { Buffer } from "node:buffer";
import type { CustomLane, CustomView, LanePlan, Merge, PlannedMethod } from "./custom_plan.ts";
import { PlanError } from "./errors.ts";
import type { EngineRequest, LaneReply, LaneView, MethodView, WireEvent } from "./generated/wire.ts";
import type { NativeTicket } from "./native/contract.ts";
import { lastEvent } from "./native/ticket.ts";
import { reasonOf } from "./options/show.ts";

type Plan = PlannedMethod["plan"];

/**
 * A ticket that answers the views among its events with the plans of a method, one at a time; its reader sees the other events. A plan
 * that throws, or that is none, ends the work and is the error of `next` once the engine has ended.
 */
export function answering(
  ticket: NativeTicket,
  plan: Plan,
  submit: (request: EngineRequest) => NativeTicket,
): NativeTicket {
  let pending: Promise<string | null> | undefined;
  const take = (): Promise<string | null> => {
    const next = pending ?? ticket.next();
    pending = undefined;
    return next;
  };
  const answer = async ({ id, view }: Extract<WireEvent, { type: "view" }>): Promise<void> => {
    // The engine has nothing to say before the plan, unless the work ends.
    const ended = ticket.next();
    pending = ended;
    const lanes = await Promise.race([planned(plan, view), ended.then(() => undefined)]);
    // A request that has ended meanwhile says so itself.
    if (lanes !== undefined) await lastEvent(submit({ op: "plan", view: id, lanes }), "planned").catch(() => {});
  };
  const fail = async (error: unknown): Promise<never> => {
    ticket.cancel();
    while ((await take()) !== null);
    throw error;
  };
  return {
    next: async () => {
      for (;;) {
        const json = await take();
        if (json === null || !json.includes('"type":"view"')) return json;
        const rest: WireEvent[] = [];
        for (const event of JSON.parse(json) as WireEvent[]) {
          if (event.type !== "view") rest.push(event);
          else await answer(event).catch(fail);
        }
        if (rest.length > 0) return JSON.stringify(rest);
      }
    },
    cancel: () => ticket.cancel(),
  };
}

/** The answer of a method, as it crosses a door. */
async function planned(plan: Plan, view: MethodView): Promise<LaneReply[]> {
  let answer: readonly LanePlan[];
  try {
    answer = await plan(viewed(view));
  } catch (cause) {
    throw new PlanError("plan", `the \`plan\` of the custom method failed: ${reasonOf(cause)}`, {}, { cause });
  }
  if (!Array.isArray(answer)) throw wrong("it must be an array with a plan for each lane of the view");
  return answer.map((lane, index) => {
    if (lane === null || lane === undefined) return {};
    const { keep, merge } = typeof lane === "object" && "keep" in lane ? lane : { keep: lane, merge: undefined };
    if (typeof keep !== "object" || keep === null || typeof keep.length !== "number")
      throw wrong(`lane ${index} must be null, the entries that stay, or { keep, merge }`);
    const number = (value: unknown): number => {
      if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
      throw wrong(`lane ${index} names an entry ${String(value)}, which is no whole number from 0`);
    };
    return {
      keep: Array.from(keep, number),
      ...(merge && {
        merge: merge.map(({ from, into, weight = 1 }: Merge) => {
          // JSON knows neither NaN nor Infinity.
          if (!(weight > 0 && weight < Number.POSITIVE_INFINITY))
            throw wrong(`lane ${index} has a weight ${weight}, which is not above 0`);
          return { from: number(from), into: number(into), weight };
        }),
      }),
    };
  });
}

function wrong(reason: string): PlanError {
  return new PlanError("plan", `cannot carry out the plan of the custom method: ${reason}`);
}

function viewed({ lanes, ...view }: MethodView): CustomView {
  return { ...view, lanes: lanes.map(lane) };
}

function lane({ layer, heads, positions, ...numbers }: LaneView): CustomLane {
  const floats = (text: string | undefined): Float32Array => new Float32Array(bytes(text));
  const { sums, keys, values, queries } = numbers;
  return {
    layer,
    heads,
    positions: new Uint32Array(bytes(positions)),
    sums: floats(sums),
    keys: floats(keys),
    values: floats(values),
    queries: floats(queries),
  };
}

/** Little-endian, as every machine is that this runs on. */
function bytes(text = ""): ArrayBuffer {
  return Uint8Array.from(Buffer.from(text, "base64")).buffer;
}
