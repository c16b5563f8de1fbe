import type { ImagePolicy } from "../images/policy.ts";

/** Whoever writes an address on the command line means it, wherever it leads. */
export const named: ImagePolicy = { fetch: "any" };
