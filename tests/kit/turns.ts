// Tests that would say the same on every runtime take turns where all three run, as `npm test` does: each runs on one of them.
import { type TestOptions, test } from "node:test";

const here = "Bun" in globalThis ? 0 : "Deno" in globalThis ? 1 : 2;
let told = 0;

/** Whether the test with this number runs here: all do, unless the three runtimes share them. */
export function inTurn(number: number): boolean {
  return process.env.PREFIXKV_TURNS !== "shared" || number % 3 === here;
}

type Shared = (
  ...args: [name: string, options: TestOptions, body: () => unknown] | [name: string, body: () => unknown]
) => void;

/** A test that runs on one runtime where they take turns. */
export const shared: Shared = (...args) => {
  if (inTurn(told++)) (test as (...args: unknown[]) => unknown)(...args);
};
