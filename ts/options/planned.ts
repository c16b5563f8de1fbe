import type { CustomNeeds, CustomPlanner, PlannedMethod } from "../custom_plan.ts";
import type { Keep } from "../generated/wire.ts";
import type { Place } from "./place.ts";
import { plain } from "./plain.ts";
import { callback, own } from "./rules.ts";

const known = ["method", "keep", "needs", "plan"];

/** Whether a value is a method with a `plan` of its own. */
export function isPlanned(value: unknown, place: Place): boolean {
  return place.look(value, (found) => "plan" in found) === true;
}

/** A method with a `plan` in copies, but for the function. */
export function readPlanned(value: unknown, place: Place): PlannedMethod {
  const made: { keep?: Keep; needs?: CustomNeeds; plan?: CustomPlanner["plan"] } = {};
  for (const [name, field] of own(value, place)) {
    const at = place.field(name);
    if (name === "plan") made.plan = callback(field, at);
    else if (name === "keep") made.keep = plain(field, at) as Keep;
    else if (name === "needs") made.needs = plain(field, at) as CustomNeeds;
    else if (name !== "method")
      throw at.unknown("a method with `plan`", `it has ${known.slice(1).join(", ")}`, undefined);
    else if (field !== "custom") throw at.refuse('"custom" beside a `plan`', field);
  }
  return { method: "custom", ...made } as PlannedMethod;
}
