import { calibrationFile } from "./calibration.ts";
import { findDirections } from "./directions.ts";
import type { DirectionsCalibration, ModelInfo, Progress } from "./generated/wire.ts";
import type { PromptInput } from "./messages.ts";
import { Place } from "./options/place.ts";
import { address, callback, fields, number, oneOf, type Rules, signal as signalRule } from "./options/rules.ts";
import { samples as samplesRule } from "./options/samples.ts";
import type { Requests } from "./requests.ts";

/**
 * Options of `calibrateClla`, which finds the directions along which `clla` stores the keys and values of two layers together. The samples
 * are read once, with the full cache.
 *
 * @example
 * ```ts
 * import { type CalibrateCllaOptions, clla, image, load } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }];
 * const options: CalibrateCllaOptions = { samples: [{ messages }], most: 0.25, file: "latents.json" };
 * const { positions } = await model.calibrateClla(options);
 * const { memory } = await model.generate({ messages, cache: clla({ calibration: "./latents.json", latent: 0.25 }) });
 * console.log(positions, memory.effectiveBits);
 * ```
 */
export interface CalibrateCllaOptions {
  /** Prompts representative of the intended use, with at most 64 images in all; all of them are held. */
  samples: Iterable<PromptInput> | AsyncIterable<PromptInput>;
  /**
   * `"each"` KV head has a latent of its own, the default; or all heads of two layers have one together (`"joint"`), as in the paper, up to
   * 512 channels of keys and values of both.
   */
  heads?: "each" | "joint";
  /**
   * The share of all directions that is found, above 0 and at most 1, 0.5 by default: `latent` of `clla` can be as large. The file may have
   * 23 MiB, which is a share of 0.12 for LLaVA-1.5 7B with its 32 heads in 32 layers.
   */
  most?: number;
  /** A JSON file to write, whole or not at all. */
  file?: string | URL;
  /** Called after every sample that was read (stage `samples`) and every two layers that were done (stage `layers`). */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

const file = (value: unknown, place: Place): string => calibrationFile(address(value, place));

const read = fields({
  samples: samplesRule,
  heads: oneOf("each", "joint"),
  most: number,
  file,
  onProgress: callback,
  signal: signalRule,
} satisfies Rules<CalibrateCllaOptions>);

/** Reads the samples and has the engine find the directions. */
export async function calibrateClla(
  requests: Requests,
  info: ModelInfo,
  options: unknown,
): Promise<DirectionsCalibration> {
  const place = new Place("calibrateClla");
  const { heads = "each", most = 0.5, ...given } = read(options, place);
  return findDirections(requests, info, place, { init: "covariance", heads, span: "pair", most }, given);
}
