import { boundTo } from "./calibrate.ts";
import { calibrationFile, requireCalibrationFile, writeCodebooks } from "./calibration.ts";
import { compared, promptsOf } from "./compared.ts";
import type { CodebookCalibration, ModelInfo, Progress } from "./generated/wire.ts";
import type { PromptInput } from "./messages.ts";
import { Place } from "./options/place.ts";
import { address, callback, fields, number, type Rules, signal as signalRule, whole } from "./options/rules.ts";
import { samples as samplesRule } from "./options/samples.ts";
import type { Requests } from "./requests.ts";

/**
 * Options of `calibrateKvquant`, which finds KVQuant's codebooks: the ranges of the channels of keys before their rotary embedding, and the
 * levels of keys and values per layer. The samples are read once, with the full cache; up to 2,048 of their positions are looked at.
 *
 * @example
 * ```ts
 * import { type CalibrateKvquantOptions, image, kvquant, load } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }];
 * const options: CalibrateKvquantOptions = { samples: [{ messages }], bits: 4, file: "codebooks.json" };
 * const { positions } = await model.calibrateKvquant(options);
 * const { memory } = await model.generate({ messages, cache: kvquant({ calibration: "./codebooks.json" }) });
 * console.log(positions, memory.effectiveBits);
 * ```
 */
export interface CalibrateKvquantOptions {
  /** Prompts representative of the intended use, with at most 64 images in all; all of them are held. */
  samples: Iterable<PromptInput> | AsyncIterable<PromptInput>;
  /** Bits of a code: 2 or 4; 4 by default. */
  bits?: number;
  /**
   * The share of the numbers of each key and each value of a head that lie apart in f16, rounded up to a whole number of them: from 0 to
   * 0.25, 0.01 by default, as in the paper.
   */
  outliers?: number;
  /** A JSON file to write, whole or not at all. */
  file?: string | URL;
  /** Called after every sample that was read. */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

const file = (value: unknown, place: Place): string => calibrationFile(address(value, place));

const read = fields({
  samples: samplesRule,
  bits: whole,
  outliers: number,
  file,
  onProgress: callback,
  signal: signalRule,
} satisfies Rules<CalibrateKvquantOptions>);

/** Reads the samples and has the engine find the codebooks. */
export async function calibrateKvquant(
  requests: Requests,
  info: ModelInfo,
  options: unknown,
): Promise<CodebookCalibration> {
  const place = new Place("calibrateKvquant");
  const { samples, bits = 4, outliers = 0.01, file, onProgress, signal } = read(options, place);
  if (samples === undefined) throw place.invalid("need `samples`, an array of prompts");
  if (bits !== 2 && bits !== 4) throw place.field("bits").refuse("2 or 4", bits);
  if (!(outliers >= 0 && outliers <= 0.25)) throw place.field("outliers").refuse("a share from 0 to 0.25", outliers);
  if (file !== undefined) await requireCalibrationFile(file);
  const prompts = await promptsOf("calibrateKvquant", samples, signal);
  const { layers, positions } = await compared(
    requests,
    "codebooks",
    prompts,
    { bits, outliers },
    { signal, onProgress },
  );
  const calibration: CodebookCalibration = {
    format: "prefixkv-codebooks",
    version: 1,
    model: boundTo(info),
    bits,
    outliers,
    samples: prompts.length,
    positions,
    layers,
  };
  if (file !== undefined) await writeCodebooks(calibration, file);
  return calibration;
}
