import { boundTo } from "./calibrate.ts";
import { requireCalibrationFile, writeDirections } from "./calibration.ts";
import { compared, promptsOf } from "./compared.ts";
import type {
  DirectionsCalibration,
  DirectionsHeads,
  DirectionsInit,
  DirectionsSpan,
  ModelInfo,
  Progress,
} from "./generated/wire.ts";
import type { Place } from "./options/place.ts";
import type { Requests } from "./requests.ts";

interface Asked {
  init: DirectionsInit;
  /** With `init: "asvd"`. */
  alpha?: number;
  heads: DirectionsHeads;
  span?: DirectionsSpan;
  most: number;
}

interface Given {
  samples?: Parameters<typeof promptsOf>[1];
  file?: string;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

/** Reads samples and has the engine find directions; the file is written in the end. */
export async function findDirections(
  requests: Requests,
  info: ModelInfo,
  place: Place,
  { alpha = 0.5, ...asked }: Asked,
  { samples, file, onProgress, signal }: Given,
): Promise<DirectionsCalibration> {
  const { init, heads, span, most } = asked;
  if (samples === undefined) throw place.invalid("need `samples`, an array of prompts");
  if (!(most > 0 && most <= 1)) throw place.field("most").refuse("a share above 0 and at most 1", most);
  if (file !== undefined) await requireCalibrationFile(file);
  const prompts = await promptsOf(place.call, samples, signal);
  const found = await compared(requests, "directions", prompts, { ...asked, alpha }, { signal, onProgress });
  const calibration: DirectionsCalibration = {
    format: "prefixkv-directions",
    version: 1,
    model: boundTo(info),
    init,
    ...(init === "asvd" && { alpha }),
    heads,
    ...(span !== undefined && { span }),
    rank: found.rank,
    samples: prompts.length,
    positions: found.positions,
    layers: found.layers,
  };
  if (file !== undefined) await writeDirections(calibration, file);
  return calibration;
}
