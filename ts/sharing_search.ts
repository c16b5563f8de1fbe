import { abortError, CalibrationError } from "./errors.ts";
import { replaceFile, writeFailure } from "./files/write.ts";
import type { LayerDistance, SharedLayer } from "./generated/wire.ts";
import { shorten } from "./options/show.ts";
import { readingReason, readRegularText } from "./regular_file.ts";

/** The search that a file is about. */
interface About {
  fingerprint: string;
  samples: number;
  variant: string;
  threshold: number;
}

/** A pair that has been tried. */
interface Trial {
  layer: number;
  source: number;
  similarity: number;
}

/** The file with what has been tried. */
interface Saved extends About {
  format: "prefixkv-sharing-search";
  version: 1;
  /** `[layer, source, distance]`, by which samples are known again. */
  ranking: [number, number, number][];
  tried: Trial[];
}

/** More than any search needs. */
const maxBytes = 256 * 1024 * 1024;

/** Distances of the same samples differ by less, relative to themselves. */
const same = 1e-6;

/** The pairs that have been tried, and what comes next: as long as nothing is tried, it is the first of the ranking. */
export class SharingSearch {
  /** Pairs that are kept, in the order in which they were found. */
  readonly found: SharedLayer[] = [];
  readonly #about: About;
  readonly #ranking: readonly LayerDistance[];
  readonly #file: string | undefined;
  readonly #tried: Trial[] = [];
  /** The place in the ranking. */
  #at = 0;

  private constructor(about: About, ranking: readonly LayerDistance[], file: string | undefined) {
    this.#about = about;
    this.#ranking = ranking;
    this.#file = file;
  }

  /** Goes on from the file, if there is one; throws a CalibrationError where it is about something else. */
  static async open(
    about: About,
    ranking: readonly LayerDistance[],
    file: string | undefined,
    signal?: AbortSignal,
  ): Promise<SharingSearch> {
    const search = new SharingSearch(about, ranking, file);
    const saved = file === undefined ? undefined : await readSaved(file, signal);
    if (saved !== undefined) {
      const other = difference(saved, about, ranking);
      if (other !== undefined) throw unusable(file, `it is about another search: ${other}; name another file`);
      for (const { layer, source, similarity } of saved.tried) {
        const next = search.next(Number.POSITIVE_INFINITY);
        if (next?.layer !== layer || next.source !== source) throw unusable(file, "its trials are in another order");
        search.#note(next, similarity);
      }
    }
    return search;
  }

  /** The pair to try next; undefined where enough layers share, or none is left. */
  next(wanted: number): LayerDistance | undefined {
    if (this.found.length >= wanted) return undefined;
    const shares = (pair: LayerDistance): boolean => this.found.some(({ layer }) => layer === pair.layer);
    while (this.#ranking[this.#at] !== undefined && shares(this.#ranking[this.#at] as LayerDistance)) this.#at += 1;
    return this.#ranking[this.#at];
  }

  /** The map with a pair on top of those found. */
  with(pair: LayerDistance): Record<number, number> {
    return Object.fromEntries([...this.found, pair].map(({ layer, source }) => [layer, source]));
  }

  /** Keeps the pair that was tried if what it leaves is alike enough, and writes that down. */
  async add(similarity: number): Promise<void> {
    const pair = this.#ranking[this.#at];
    if (pair === undefined) return;
    this.#note(pair, similarity);
    if (this.#file === undefined) return;
    const saved: Saved = {
      format: "prefixkv-sharing-search",
      version: 1,
      ...this.#about,
      ranking: this.#ranking.map(({ layer, source, distance }) => [layer, source, distance]),
      tried: this.#tried,
    };
    await replaceFile(this.#file, `${JSON.stringify(saved)}\n`).catch((cause: unknown) => {
      throw new CalibrationError("calibration", `cannot write ${this.#file}: ${writeFailure(cause)}`, {}, { cause });
    });
  }

  #note(pair: LayerDistance, similarity: number): void {
    this.#tried.push({ layer: pair.layer, source: pair.source, similarity });
    if (similarity > this.#about.threshold) this.found.push({ ...pair, similarity });
    this.#at += 1;
  }
}

async function readSaved(file: string, signal: AbortSignal | undefined): Promise<Saved | undefined> {
  let text: string;
  try {
    text = await readRegularText(file, maxBytes, signal);
  } catch (error) {
    if (signal?.aborted) throw abortError(signal);
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw unusable(file, readingReason(error, file));
  }
  let saved: Partial<Saved> | null;
  try {
    saved = JSON.parse(text) as Partial<Saved> | null;
  } catch {
    throw unusable(file, "it is not JSON");
  }
  const isSound =
    saved?.format === "prefixkv-sharing-search" &&
    saved.version === 1 &&
    Array.isArray(saved.tried) &&
    Array.isArray(saved.ranking) &&
    saved.tried.every((trial: unknown) => typeof (trial as Trial | null)?.similarity === "number") &&
    saved.ranking.every((pair: unknown) => Array.isArray(pair));
  if (!isSound) throw unusable(file, "it holds no search for layers that share");
  return saved as Saved;
}

/** How a file differs from the search that is asked for. */
function difference(saved: Saved, about: About, ranking: readonly LayerDistance[]): string | undefined {
  for (const name of ["fingerprint", "samples", "variant", "threshold"] as const) {
    if (saved[name] !== about[name])
      return `\`${name}\` is ${shorten(String(saved[name]), 80)} there, ${about[name]} here`;
  }
  const known = new Map(saved.ranking.map(([layer, source, distance]) => [`${layer} ${source}`, distance]));
  const differs = ranking.some(({ layer, source, distance }) => {
    const before = known.get(`${layer} ${source}`);
    return before === undefined || Math.abs(before - distance) > same * Math.abs(distance);
  });
  return differs ? "the layers are as far apart as with other samples" : undefined;
}

function unusable(file: string | undefined, why: string): CalibrationError {
  return new CalibrationError("calibration", `cannot go on from ${shorten(String(file), 240)}: ${why}`);
}
