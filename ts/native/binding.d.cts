import type { Native } from "./contract.ts";

interface Attempts {
  /** The candidate that was taken. */
  file: string | null;
  /** What was tried in vain, and why. */
  attempts: { file: string; reason: string }[];
}

declare const binding: {
  /** The platform as the names of the files have it. */
  platform(): string;
  /** Loads the addon; `native` is null when no candidate could be loaded. */
  load(): Attempts & { native: Native | null };
  /** Finds the addon's absolute path without loading it; null when there is none. */
  locate(): Attempts & { path: string | null };
};
export = binding;
