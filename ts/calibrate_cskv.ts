import { calibrationFile } from "./calibration.ts";
import { findDirections } from "./directions.ts";
import type { DirectionsCalibration, ModelInfo, Progress } from "./generated/wire.ts";
import type { PromptInput } from "./messages.ts";
import { Place } from "./options/place.ts";
import { address, callback, fields, number, oneOf, type Rules, signal as signalRule } from "./options/rules.ts";
import { samples as samplesRule } from "./options/samples.ts";
import type { Requests } from "./requests.ts";

/**
 * Options of `calibrateCskv`, which finds the directions along which `cskv` stores keys and values as fewer numbers. The samples are read
 * once, with the full cache.
 *
 * @example
 * ```ts
 * import { type CalibrateCskvOptions, cskv, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }];
 * const options: CalibrateCskvOptions = { samples: [{ messages }], most: 0.75, file: "directions.json" };
 * const { positions } = await model.calibrateCskv(options);
 * const { memory } = await model.generate({ messages, cache: cskv({ calibration: "./directions.json", keys: 0.75 }) });
 * console.log(positions, memory.effectiveBits);
 * ```
 */
export interface CalibrateCskvOptions {
  /** Prompts representative of the intended use, with at most 64 images in all; all of them are held. */
  samples: Iterable<PromptInput> | AsyncIterable<PromptInput>;
  /**
   * `"covariance"`, the default, takes the directions in which the keys and values of the samples lie; `"asvd"`, as the paper starts, the
   * left singular vectors of the weights, scaled by the size of what goes into them.
   */
  init?: "covariance" | "asvd";
  /** With `init: "asvd"`, the power of the mean magnitudes: from 0, which is a plain SVD of the weights, to 4; 0.5 by default. */
  alpha?: number;
  /**
   * `"each"` KV head has directions of its own, the default; or all heads of a layer have some together (`"joint"`), as in the paper, up to
   * 512 channels.
   */
  heads?: "each" | "joint";
  /**
   * The share of all directions that is found, above 0 and at most 1, 0.5 by default: `keys` and `values` of `cskv` can be as large. The file
   * takes `most` times 44.7 MB for LLaVA-1.5 7B, which has 32 heads in 32 layers, and may have 23 MiB.
   */
  most?: number;
  /** A JSON file to write, whole or not at all. */
  file?: string | URL;
  /** Called after every sample that was read (stage `samples`) and every layer that was done (stage `layers`). */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

const file = (value: unknown, place: Place): string => calibrationFile(address(value, place));

const read = fields({
  samples: samplesRule,
  init: oneOf("covariance", "asvd"),
  alpha: number,
  heads: oneOf("each", "joint"),
  most: number,
  file,
  onProgress: callback,
  signal: signalRule,
} satisfies Rules<CalibrateCskvOptions>);

/** Reads the samples and has the engine find the directions. */
export async function calibrateCskv(
  requests: Requests,
  info: ModelInfo,
  options: unknown,
): Promise<DirectionsCalibration> {
  const place = new Place("calibrateCskv");
  const { init = "covariance", alpha, heads = "each", most = 0.5, ...given } = read(options, place);
  if (alpha !== undefined && init !== "asvd") throw place.field("alpha").invalid('goes with `init: "asvd"`');
  if (!((alpha ?? 0) >= 0 && (alpha ?? 0) <= 4)) throw place.field("alpha").refuse("a number from 0 to 4", alpha);
  return findDirections(requests, info, place, { init, ...(alpha !== undefined && { alpha }), heads, most }, given);
}
