import type { Place } from "./place.ts";
import { items, number, own, text } from "./rules.ts";

/** Far deeper than anything that a request holds. */
const maxDepth = 32;

/** A copy that JSON writes as it is. Whatever JSON would leave out, or write as something else, is refused. */
export function plain(value: unknown, place: Place, allowed?: string, depth = 0): unknown {
  if (typeof value === "string") return text(value, place);
  if (typeof value === "boolean") return value;
  if (typeof value === "number" && allowed === undefined) return number(value, place);
  if (typeof value === "number" && Number.isFinite(value)) return value + 0;
  if (typeof value !== "object" || value === null) {
    throw place.refuse(allowed ?? "a number, a text, true, false, an array or a plain object", value);
  }
  if (depth > maxDepth) throw place.invalid("is nested too deep, or contains itself");
  if (place.read(() => Array.isArray(value))) {
    return items(value as unknown[], place, (item, at) => plain(item, at, undefined, depth + 1));
  }
  const copy: Record<string, unknown> = {};
  for (const [name, field] of own(value, place, allowed)) {
    place.spend(name.length);
    // Assigning `__proto__` would set the prototype.
    Object.defineProperty(copy, name, {
      value: plain(field, place.field(name), undefined, depth + 1),
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  return copy;
}

/** Makes an object and all that it holds unchangeable. */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  for (const part of Object.values(value)) deepFreeze(part);
  return Object.freeze(value);
}
