import type { Rule } from "./rules.ts";

/** A copy of what is JSON, null included, as schemas and arguments of tools have it. */
export const json: Rule<unknown> = (value, place) => {
  const text = place.read(() => JSON.stringify(value));
  if (text === undefined) throw place.refuse("a value of JSON", value);
  place.spend(text.length);
  return JSON.parse(text);
};
