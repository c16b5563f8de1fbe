import { boundTo } from "./calibrate.ts";
import { calibrationFile, requireCalibrationFile, writeSharing } from "./calibration.ts";
import { compared, promptsOf } from "./compared.ts";
import type { LayerDistance, ModelInfo, Progress, SharingCalibration } from "./generated/wire.ts";
import type { PromptInput, WirePrompt } from "./messages.ts";
import { lastEvent } from "./native/ticket.ts";
import { Place } from "./options/place.ts";
import { address, callback, fields, number, oneOf, type Rules, signal as signalRule, whole } from "./options/rules.ts";
import { samples as samplesRule } from "./options/samples.ts";
import type { Requests } from "./requests.ts";
import { SharingSearch } from "./sharing_search.ts";

/**
 * Options of `calibrateSharing`, KVSharer's search for layers that can read the keys and values of others. The samples are read once to
 * compare the layers; then pairs of layers are tried, the most different first, and each one is kept with which the last hidden states of
 * the samples stay alike. Every trial reads all samples twice.
 *
 * @example
 * ```ts
 * import { type CalibrateSharingOptions, image, kvsharer, load } from "prefixkv";
 *
 * await using model = await load();
 * const messages = [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }];
 * const options: CalibrateSharingOptions = { samples: [{ messages }], layers: 2, file: "map.json", resume: "search.json" };
 * const { pairs } = await model.calibrateSharing(options);
 * const { memory } = await model.generate({ messages, cache: kvsharer({ calibration: "./map.json", layers: 1 }) });
 * console.log(pairs, memory.resident / memory.full);
 * ```
 */
export interface CalibrateSharingOptions {
  /**
   * Prompts representative of the intended use, with at most 64 images in all; all of them are held. Keys and values are averaged
   * position by position, each position over the samples that have it, so prompts of one length make the best use of all.
   */
  samples: Iterable<PromptInput> | AsyncIterable<PromptInput>;
  /** How many layers are to share. */
  layers?: number;
  /** The share of the model's layers that are to share instead, rounded to a whole number of layers. */
  share?: number;
  /** The cosine above which a pair is kept, the mean over the samples; 0.5 by default, as in the paper. */
  threshold?: number;
  /**
   * The distance of two layers: `"paper"` takes a layer's keys as one long vector, and its values; `"official"` the norm over the channels
   * of a head, averaged over heads and positions, as the published code does. `"paper"` by default.
   */
  variant?: "paper" | "official";
  /** A JSON file to write, whole or not at all. */
  file?: string | URL;
  /**
   * A JSON file with what has been tried so far, written after every trial. Where it is there and is about the same model, samples,
   * threshold and variant, the search goes on from it; about others it is a CalibrationError.
   */
  resume?: string | URL;
  /** Called after every sample that was read (stage `samples`) and after every pair that was tried (stage `layers`, those found so far). */
  onProgress?: (progress: Progress) => void;
  /** Stops the work; see AbortError. */
  signal?: AbortSignal;
}

const file = (value: unknown, place: Place): string => calibrationFile(address(value, place));

const read = fields({
  samples: samplesRule,
  layers: whole,
  share: number,
  threshold: number,
  variant: oneOf("paper", "official"),
  file,
  resume: file,
  onProgress: callback,
  signal: signalRule,
} satisfies Rules<CalibrateSharingOptions>);

/** Compares the layers, then tries one pair after the other. */
export async function calibrateSharing(
  requests: Requests,
  info: ModelInfo,
  options: unknown,
): Promise<SharingCalibration> {
  const place = new Place("calibrateSharing");
  const { samples, layers, share, threshold = 0.5, variant = "paper", ...rest } = read(options, place);
  const { file, resume, onProgress, signal } = rest;
  if (samples === undefined) throw place.invalid("need `samples`, an array of prompts");
  const wanted = count(info, layers, share, place);
  if (!(threshold >= -1 && threshold <= 1)) throw place.field("threshold").refuse("a cosine from -1 to 1", threshold);
  for (const written of [file, resume]) if (written !== undefined) await requireCalibrationFile(written);
  const prompts = await promptsOf("calibrateSharing", samples, signal);
  const ranking = await distances(requests, prompts, { variant, signal, onProgress });
  const about = { fingerprint: info.fingerprint, samples: prompts.length, variant, threshold };
  const search = await SharingSearch.open(about, ranking, resume, signal);
  onProgress?.({ stage: "layers", done: 0, total: wanted });
  for (let next = search.next(wanted); next !== undefined; next = search.next(wanted)) {
    const sources = search.with(next);
    let sum = 0;
    for (const prompt of prompts) sum += await similarity(requests, prompt, sources, signal);
    await search.add(sum / prompts.length);
    onProgress?.({ stage: "layers", done: search.found.length, total: wanted });
  }
  const calibration: SharingCalibration = {
    format: "prefixkv-sharing",
    version: 1,
    model: boundTo(info),
    samples: prompts.length,
    variant,
    threshold,
    pairs: search.found,
  };
  if (file !== undefined) await writeSharing(calibration, file);
  return calibration;
}

/** How many layers are to share. */
function count(info: ModelInfo, layers: number | undefined, share: number | undefined, place: Place): number {
  if ((layers === undefined) === (share === undefined)) throw place.invalid("need one of `layers` and `share`");
  if (share !== undefined && !(share > 0 && share < 1)) {
    throw place.field("share").refuse("a share above 0 and below 1", share);
  }
  const wanted = layers ?? Math.round((share ?? 0) * info.layers);
  if (wanted >= 1 && wanted < info.layers) return wanted;
  const name = layers === undefined ? "share" : "layers";
  throw place.field(name).refuse(`1 to ${info.layers - 1} of the model's ${info.layers} layers`, layers ?? share);
}

interface Watched {
  variant: "paper" | "official";
  signal: AbortSignal | undefined;
  onProgress: ((progress: Progress) => void) | undefined;
}

/** All pairs of layers that may share, the most different first. */
async function distances(
  requests: Requests,
  prompts: readonly WirePrompt[],
  { variant, signal, onProgress }: Watched,
): Promise<LayerDistance[]> {
  const { pairs } = await compared(requests, "distances", prompts, { variant }, { signal, onProgress });
  return pairs;
}

/** The cosine of a prompt's last hidden states with and without a map. */
async function similarity(
  requests: Requests,
  prompt: WirePrompt,
  sources: Readonly<Record<number, number>>,
  signal: AbortSignal | undefined,
): Promise<number> {
  const cache = { method: "kvsharer", sources } as const;
  const ticket = await requests.ask("similarity", { prompt, cache, signal, rest: {} });
  return (await lastEvent(ticket, "similarity", { signal })).similarity;
}
