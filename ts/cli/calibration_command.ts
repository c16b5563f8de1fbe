import type { Progress } from "../generated/wire.ts";
import type { PromptInput } from "../messages.ts";
import type { Model } from "../model.ts";
import type { Flag } from "./command.ts";
import type { Values } from "./values.ts";

/** The part of a calibration that is alike for all methods: pictures with a question, and where the result goes. */
export interface Samples {
  samples: PromptInput[];
  file: string;
  onProgress: (progress: Progress) => void;
  signal: AbortSignal;
}

/** A calibration that `calibrate` makes: one file under calibrations/ and one line in commands/calibrate.ts. */
export interface CalibrationCommand {
  /** The method that it is for; without one, every method that none of the others is for. */
  method?: string;
  /** The flags of it, some of which others may have too. */
  flags: readonly Flag[];
  /** Flags of `calibrate` that do not go with it. */
  without: readonly string[];
  /** Reads its options, and gives the search: the calibration, and the text that shows it to people. */
  prepare(values: Values): (model: Model, given: Samples) => Promise<{ calibration: object; text: string }>;
}
