import type { Origin } from "../../bench/machine.ts";

/** Where figures that no machine has measured come from. */
export const origin: Origin = {
  date: "2026-01-01",
  commit: "0",
  changed: false,
  machine: { slug: "m", cpu: "c", cores: 2, features: [], platform: "p" },
  versions: {},
};
