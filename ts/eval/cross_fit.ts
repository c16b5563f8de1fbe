import type { CalibrateOptions } from "../calibrate.ts";
import type { AnyCalibration } from "../calibration.ts";
import { BudgetError } from "../errors.ts";
import type { CacheMethod } from "../generated/methods.ts";
import type { Keep } from "../generated/wire.ts";
import type { Model } from "../model.ts";
import { badOption } from "./errors.ts";
import type { RunFiles } from "./files.ts";
import type { Fit, Prepared } from "./methods.ts";
import type { EvalProgress } from "./options.ts";
import type { FitKey, FitRecord } from "./records.ts";
import { type EvalSample, promptOf } from "./samples.ts";

/** The calibrations that an evaluation finds by itself, so that no sample is measured with what was found on it. */
export class CrossFit {
  /** In the order in which they are found. */
  readonly keys: readonly FitKey[];
  readonly #fits: readonly (Fit & { method: string })[];
  readonly #samples: readonly EvalSample[];
  #found: readonly FitRecord[] = [];

  constructor(methods: readonly Prepared[], samples: readonly EvalSample[]) {
    this.#samples = samples;
    this.#fits = methods.flatMap(({ id, fits }) => fits.map((fit) => ({ ...fit, method: id })));
    const short = this.#fits.find(({ folds }) => folds > samples.length);
    if (short)
      throw badOption(
        `\`crossFit\` of the method \`${short.method}\` makes ${short.folds} folds of ${samples.length} samples; every fold needs one`,
      );
    this.keys = this.#fits.flatMap(({ method, index, folds }) =>
      Array.from({ length: folds }, (_, fold): FitKey => ({ method, stage: index, fold })),
    );
  }

  /** Finds what the files of the run do not have yet. */
  async find(
    files: RunFiles,
    model: Model,
    keeps: readonly number[],
    signal: AbortSignal | undefined,
    say: (progress: NonNullable<EvalProgress["calibrating"]>) => void,
  ): Promise<void> {
    for (const key of this.keys.slice(files.fits.length)) {
      const { stage, folds, finder, options: more } = this.#fit(key);
      const samples = this.#samples.filter((_, index) => index % folds !== key.fold);
      const onProgress = ({ done, total }: { done: number; total: number }): void =>
        say({ method: key.method, done, total });
      const given = { onProgress, ...(signal && { signal }) };
      const prompts = { method: stage as unknown as CacheMethod, samples: samples.map(promptOf) };
      const found = finder
        ? { calibration: await finder(model, { stage, options: more, samples, given }), refused: [] }
        : await withLargeEnough(model, { ...prompts, ...given }, keeps);
      await files.addFit({ ...key, ...found });
    }
    this.#found = files.fits;
  }

  /** The calibrations that apply to a sample, or the least size if this one is too small. */
  of({ id, fits }: Prepared, keep: number, sample: string): Found {
    const at = this.#samples.findIndex((each) => each.id === sample);
    const calibrations = new Map<number, AnyCalibration>();
    for (const { index, folds } of fits) {
      const found = this.#found.find((fit) => fit.method === id && fit.stage === index && fit.fold === at % folds);
      const refused = found?.refused.find((each) => each.keep === keep);
      if (refused) return { least: refused.least };
      if (found?.calibration) calibrations.set(index, found.calibration);
    }
    return { calibration: (index) => calibrations.get(index) };
  }

  #fit({ method, stage }: FitKey): Fit {
    const fit = this.#fits.find((each) => each.method === method && each.index === stage);
    if (!fit) throw new Error(`the method ${method} has no calibration to find at ${stage}`);
    return fit;
  }
}

/** The calibrations for a sample by stage, or the least size that holds what the method protects. */
export type Found = { calibration: (index: number) => AnyCalibration | undefined } | { least: Keep };

/** Calibrates with the sizes that hold what the method protects in all samples. */
async function withLargeEnough(
  model: Model,
  options: CalibrateOptions,
  keeps: readonly number[],
): Promise<Pick<FitRecord, "calibration" | "refused">> {
  const refused: FitRecord["refused"] = [];
  for (let left = [...keeps].sort((a, b) => a - b); left.length > 0; ) {
    try {
      return { calibration: await model.calibrate({ ...options, keeps: left }), refused };
    } catch (error) {
      const least = error instanceof BudgetError ? error.least : undefined;
      const small = left.filter((keep) => typeof least === "number" && keep < least);
      if (typeof least !== "number" || small.length === 0) throw error;
      refused.push(...small.map((keep) => ({ keep, least })));
      left = left.slice(small.length);
    }
  }
  return { refused };
}
