// Values that JSON drops, changes or cannot write, each made anew.
import { createContext, runInContext } from "node:vm";

class Options {
  maxTokens = 5;
}

function revoked(target: object): object {
  const { proxy, revoke } = Proxy.revocable(target, {});
  revoke();
  return proxy;
}

function circular(make: () => object): object {
  const value = make();
  return Array.isArray(value) ? Object.assign(value, { 0: value }) : Object.assign(value, { self: value });
}

function holed(array: unknown[]): unknown[] {
  delete array[1];
  return array;
}

/** By name; each may be refused, or sent as it is, and nothing else. */
export const hostileValues: Readonly<Record<string, () => unknown>> = {
  null: () => null,
  symbol: () => Symbol("s"),
  "registered symbol": () => Symbol.for("prefixkv"),
  bigint: () => 5n,
  "arrow function": () => () => {},
  class: () => Options,
  NaN: () => Number.NaN,
  Infinity: () => Number.POSITIVE_INFINITY,
  "-Infinity": () => Number.NEGATIVE_INFINITY,
  Date: () => new Date(0),
  "invalid Date": () => new Date(Number.NaN),
  Map: () => new Map([["keep", 0.5]]),
  Set: () => new Set(["a"]),
  WeakRef: () => new WeakRef({}),
  RegExp: () => /stop/,
  Error: () => new Error("boom"),
  Promise: () => Promise.resolve(1),
  "typed array": () => new Float64Array([0.5]),
  bytes: () => new Uint8Array([1, 2]),
  DataView: () => new DataView(new ArrayBuffer(2)),
  ArrayBuffer: () => new ArrayBuffer(2),
  "boxed number": () => Object(5),
  "boxed string": () => Object("a"),
  "boxed boolean": () => Object(true),
  "boxed bigint": () => Object(5n),
  "boxed symbol": () => Object(Symbol("s")),
  "instance of a class": () => new Options(),
  "instance of a foreign class": () => runInContext("new (class Foreign { keep = 0.5 })()", createContext({})),
  "inherited fields": () => Object.create({ keep: 0.5, method: "h2o" }),
  "getter that throws": () =>
    Object.defineProperty({}, "method", {
      enumerable: true,
      get() {
        throw new Error("no");
      },
    }),
  "getter that throws what cannot be told": () =>
    Object.defineProperty({}, "method", {
      enumerable: true,
      get() {
        throw revoked({});
      },
    }),
  "proxy that throws": () =>
    new Proxy(
      {},
      {
        ownKeys() {
          throw new TypeError("no keys");
        },
      },
    ),
  "revoked proxy": () => revoked({}),
  "revoked proxy of an array": () => revoked([]),
  "circular object": () => circular(() => ({ method: "h2o" })),
  "circular array": () => circular(() => ["a"]),
  "deep object": () => {
    let value: object = {};
    for (let depth = 0; depth < 10_000; depth++) value = { method: value };
    return value;
  },
  "symbol for a name": () => ({ [Symbol("s")]: 1 }),
  "own __proto__": () => JSON.parse('{"__proto__": {"op": "generate", "method": "h2o"}}'),
  toJSON: () => ({ toJSON: () => ({ method: "h2o", keep: 0.5 }) }),
  "sparse array": () => Array(3),
  "array with a hole": () => holed(["a", "?", "b"]),
  "array of undefined": () => [undefined],
  "array of functions": () => [() => {}],
  "array of NaN": () => [Number.NaN],
  "array of null": () => [null],
  "empty array": () => [],
  "empty object": () => ({}),
  "empty text": () => "",
  text: () => "abc",
  "half a surrogate pair": () => "\ud83d",
  "negative zero": () => -0,
  number: () => 7,
  "huge number": () => 1e300,
  true: () => true,
  false: () => false,
  "arguments object": () =>
    (function (..._: number[]) {
      // biome-ignore lint/complexity/noArguments: it is what is tried
      return arguments;
    })(1, 2),
  "global object": () => globalThis,
  generator: () => (function* () {})(),
};
