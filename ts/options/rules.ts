import { nearest } from "../suggest.ts";
import { Place } from "./place.ts";

/** Reads one value, or throws an OptionError that names its place; what comes out is a copy that nobody else can change. */
export type Rule<T> = (value: unknown, place: Place) => T;

/** A rule for every field of an interface, so that none can be forgotten. */
export type Rules<T> = { readonly [K in keyof T]-?: Rule<unknown> };

/** A rule for every field of an interface that gives what the field takes. */
export type RulesFor<T> = { readonly [K in keyof T]-?: Rule<Exclude<T[K], undefined>> };

/** The type that a set of rules reads. */
export type Read<R> = { -readonly [K in keyof R]?: R[K] extends Rule<infer V> ? V : never };

/** Read later, together with other fields. */
export const anything: Rule<unknown> = (value) => value;

/** Half a surrogate pair, as cutting by length leaves it, becomes U+FFFD: the one place where texts are made well-formed. */
export const text: Rule<string> = (value, place) => {
  if (typeof value !== "string") throw place.refuse("a string", value);
  place.spend(value.length);
  return value.toWellFormed();
};

export const number: Rule<number> = (value, place) => {
  if (typeof value !== "number" || !Number.isFinite(value)) throw place.refuse("a finite number", value);
  // JSON has no -0.
  return value + 0;
};

export const whole: Rule<number> = (value, place) => {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) {
    const advice = typeof value === "bigint" ? "write a number" : undefined;
    throw place.refuse("a whole number", value, advice);
  }
  return value + 0;
};

export const flag: Rule<boolean> = (value, place) => {
  if (typeof value !== "boolean") throw place.refuse("true or false", value);
  return value;
};

/** A number of bytes, or a text such as `"2GiB"`. */
export const size: Rule<number | string> = (value, place) => {
  if (typeof value === "string") return text(value, place);
  if (typeof value === "number" && Number.isSafeInteger(value)) return value + 0;
  throw place.refuse('a number of bytes or a text such as "64MiB"', value);
};

export function oneOf<const V extends string>(...values: V[]): Rule<V> {
  const allowed = `one of ${values.map((value) => JSON.stringify(value)).join(", ")}`;
  return (value, place) => {
    if (!values.includes(value as V)) throw place.refuse(allowed, value);
    return value as V;
  };
}

// biome-ignore lint/suspicious/noExplicitAny: the types of a callback cannot be seen
export const callback: Rule<any> = (value, place) => {
  if (typeof value !== "function") throw place.refuse("a function", value);
  return value;
};

/** A signal of this realm, of another, or of a library. */
export const signal: Rule<AbortSignal> = (value, place) => {
  const given = place.look(value, (found) => {
    const { aborted, addEventListener, removeEventListener } = found as AbortSignal;
    return [typeof aborted, typeof addEventListener, typeof removeEventListener, "signal" in found];
  });
  if (given?.slice(0, 3).join() === "boolean,function,function") return value as AbortSignal;
  const advice = given?.[3] === true ? "pass controller.signal, not the controller" : undefined;
  throw place.refuse("an AbortSignal", value, advice);
};

/** A text or a URL, of any realm. */
export const address: Rule<string | URL> = (value, place) => {
  if (typeof value === "string") return text(value, place);
  const href = place.look(value, (found) =>
    Object.prototype.toString.call(found) === "[object URL]" ? (found as URL).href : undefined,
  );
  if (typeof href === "string" && URL.canParse(href)) return new URL(href);
  throw place.refuse("a string or a URL", value);
};

/** An array, which may be of another realm but not sparse. */
export function list<T>(item: Rule<T>, allowed = "an array"): Rule<T[]> {
  return (value, place) => {
    return items(array(value, place, allowed), place, item);
  };
}

/** Reads every item of an array; a hole is refused, because JSON would write null for it. */
export function items<T>(array: readonly unknown[], place: Place, item: Rule<T>): T[] {
  const length = place.read(() => array.length);
  place.spend(length);
  return Array.from({ length }, (_, index) => {
    const at = place.item(index);
    if (!at.read(() => Object.hasOwn(array, index))) throw at.invalid("is missing: the array is sparse");
    return item(
      at.read(() => array[index]),
      at,
    );
  });
}

/** Token ids: an array of whole numbers, or a typed array of them. */
export const tokenIds: Rule<number[]> = (value, place) => {
  const kind = place.read(() => Object.prototype.toString.call(value));
  const typed = /^\[object (Uint8|Uint16|Uint32|Int32)Array\]$/.test(kind) && ArrayBuffer.isView(value);
  return items(
    typed ? Array.from(value as Uint32Array) : array(value, place, "an array of whole numbers"),
    place,
    whole,
  );
};

function array(value: unknown, place: Place, allowed: string): unknown[] {
  if (!place.read(() => Array.isArray(value))) throw place.refuse(allowed, value);
  return value as unknown[];
}

/** The own fields of a plain object; undefined ones count as absent. */
export function own(value: unknown, place: Place, allowed = "a plain object"): [name: string, value: unknown][] {
  if (typeof value !== "object" || value === null || place.read(() => Array.isArray(value))) {
    throw place.refuse(allowed, value);
  }
  if (!place.read(() => isPlain(value))) {
    throw place.refuse(
      allowed,
      value,
      "only own fields of an object without a class count; write { ...it } to pass those it has",
    );
  }
  const found: [string, unknown][] = [];
  for (const key of place.read(() => Reflect.ownKeys(value))) {
    if (typeof key === "symbol") {
      if (place.read(() => Object.prototype.propertyIsEnumerable.call(value, key))) {
        throw place.invalid("has a symbol for a name, which means nothing here");
      }
      continue;
    }
    const field = place.field(key).read(() => (value as Record<string, unknown>)[key]);
    if (field !== undefined) found.push([key, field]);
  }
  return found;
}

/** Whether an object has no class: its prototype is null, or the Object.prototype of any realm. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === null || prototype === Object.prototype) return true;
  return Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype as object, "isPrototypeOf");
}

/** A plain object with no other fields than those that have a rule. */
export function fields<R extends Readonly<Record<string, Rule<unknown>>>>(rules: R): Rule<Read<R>> {
  const known = Object.keys(rules);
  return (value, place) => {
    const read: Record<string, unknown> = Object.create(null);
    for (const [name, field] of own(value, place)) {
      const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
      if (rule === undefined) throw unknown(name, place, known);
      read[name] = rule(field, place.field(name));
    }
    return read as Read<R>;
  };
}

function unknown(name: string, place: Place, known: readonly string[]): Error {
  const near = nearest(name, known);
  const owner = place.path === "" ? place.call : `\`${place.path}\` of ${place.call}`;
  const advice = near === undefined ? `there are ${known.join(", ")}` : `did you mean \`${near}\`?`;
  return place.field(name).unknown(owner, advice, near);
}

/** A text that is an argument of a call. */
export function readText(value: unknown, call: string, name: string): string {
  const place = new Place(call, name);
  const found = text(value, place);
  if (found === "") throw place.invalid("is empty");
  return found;
}
