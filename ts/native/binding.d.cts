import type { Native } from "./contract.ts";

declare const binding: {
  /** The addon, or null when no candidate could be loaded. */
  native: Native | null;
  /** The candidate that was loaded. */
  file: string | null;
  /** What was tried in vain, and why. */
  attempts: { file: string; reason: string }[];
};
export = binding;
