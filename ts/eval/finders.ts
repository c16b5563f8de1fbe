import type { CalibrateBitsOptions } from "../calibrate_bits.ts";
import type { CalibrateChannelsOptions } from "../calibrate_channels.ts";
import type { CalibrateCllaOptions } from "../calibrate_clla.ts";
import type { CalibrateCskvOptions } from "../calibrate_cskv.ts";
import type { CalibrateHeadsOptions } from "../calibrate_heads.ts";
import type { CalibrateKvquantOptions } from "../calibrate_kvquant.ts";
import type { CalibrateSharingOptions } from "../calibrate_sharing.ts";
import type { AnyCalibration } from "../calibration.ts";
import type { methods } from "../generated/method_table.ts";
import type { Progress } from "../generated/wire.ts";
import type { Model } from "../model.ts";
import { type EvalSample, promptOf } from "./samples.ts";

type OptionKind = (typeof methods)[number]["options"][number]["kind"];

/** The options of a method, by their names. */
type Stage = Readonly<Record<string, unknown>>;

interface Asked {
  /** The stage that the calibration is for. */
  stage: Stage;
  /** Options of the calibration, which stand beside `crossFit`. */
  options: Readonly<Record<string, unknown>>;
  samples: readonly EvalSample[];
  given: { onProgress: (progress: Progress) => void; signal?: AbortSignal };
}

/** Finds a calibration that belongs to no size. */
export type Finder = (model: Model, asked: Asked) => Promise<AnyCalibration>;

/** Calibrations that hold their samples take this many. */
const held = 64;

/** Up to 64 of the samples, evenly spread. */
function some(samples: readonly EvalSample[]): EvalSample[] {
  const step = Math.max(1, samples.length / held);
  return Array.from({ length: Math.min(samples.length, held) }, (_, index) => samples[Math.floor(index * step)]).filter(
    (sample) => sample !== undefined,
  );
}

const prompts = (samples: readonly EvalSample[]) => some(samples).map(promptOf);
const answered = (samples: readonly EvalSample[]) =>
  some(samples).map((sample) => ({ ...promptOf(sample), answer: sample.answer }));

/** Those of the options of a stage that its calibration takes as well. */
function shared(stage: Stage, ...names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.filter((name) => stage[name] !== undefined).map((name) => [name, stage[name]]));
}

/** By the kind of the option `calibration`; sizes of layers are found otherwise, for each `keep`. */
export const finders: Partial<Record<OptionKind, Finder>> = {
  bits: (model, { stage, options, samples, given }) =>
    model.calibrateBits({
      ...shared(stage, "group", "window", "keys"),
      ...options,
      samples: answered(samples),
      ...given,
    } as CalibrateBitsOptions),
  channels: (model, { stage, options, samples, given }) =>
    model.calibrateChannels({
      ...shared(stage, "group", "sinks"),
      ...options,
      samples: prompts(samples),
      ...given,
    } as CalibrateChannelsOptions),
  codebooks: (model, { options, samples, given }) =>
    model.calibrateKvquant({ ...options, samples: prompts(samples), ...given } as CalibrateKvquantOptions),
  directions: (model, { stage, options, samples, given }) =>
    model.calibrateCskv({
      most: Math.max(Number(stage.keys ?? 0.5), Number(stage.values ?? 0.5)),
      ...options,
      samples: prompts(samples),
      ...given,
    } as CalibrateCskvOptions),
  heads: (model, { stage, options, samples, given }) =>
    model.calibrateHeads({
      ...(stage.method === "headKv" && { measure: "copies" }),
      ...options,
      samples: answered(samples),
      ...given,
    } as CalibrateHeadsOptions),
  latents: (model, { stage, options, samples, given }) =>
    model.calibrateClla({
      most: Number(stage.latent ?? 0.5),
      ...options,
      samples: prompts(samples),
      ...given,
    } as CalibrateCllaOptions),
  sharing: (model, { stage, options, samples, given }) =>
    model.calibrateSharing({
      ...shared(stage, "layers"),
      ...options,
      samples: prompts(samples),
      ...given,
    } as CalibrateSharingOptions),
};
