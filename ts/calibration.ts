import { CalibrationError } from "./errors.ts";
import { filePath } from "./files/path.ts";
import { replaceFile, requireWritable, writeFailure } from "./files/write.ts";
import type {
  BitsCalibration,
  Calibration,
  ChannelsCalibration,
  CodebookCalibration,
  DirectionsCalibration,
  HeadsCalibration,
  SharingCalibration,
} from "./generated/wire.ts";
import type { Place } from "./options/place.ts";
import { plain } from "./options/plain.ts";
import { address, text } from "./options/rules.ts";
import { shorten } from "./options/show.ts";
import { packageFile, shippedNames } from "./package_files.ts";
import { readingReason, readRegularFile } from "./regular_file.ts";
import { stopError } from "./stop.ts";

/**
 * Where a calibration comes from: the object, a JSON file by path or `file:` URL, the name of one that comes with the package
 * (`"llava-1.5-7b"`, `"llava-1.5-13b"`), or a configuration of the published PrefixKV code, which is the evicted share of every
 * layer. A name has neither a slash nor an ending `.json`; a path is relative to the working directory.
 *
 * @example
 * ```ts
 * import { type CalibrationSource, prefixkv } from "prefixkv";
 *
 * const sources: CalibrationSource[] = ["llava-1.5-7b", "./mine.json", new URL("file:///data/mine.json"), [0.4, 0.5, 0.6]];
 * console.log(sources.map((calibration) => prefixkv({ keep: 0.5, calibration })));
 * ```
 */
export type CalibrationSource = Calibration | readonly number[] | string | URL;

/**
 * Where a map of layers that share comes from: the object, or a JSON file by path or `file:` URL, relative to the working directory.
 *
 * @example
 * ```ts
 * import { kvsharer, type SharingSource } from "prefixkv";
 *
 * const sources: SharingSource[] = ["./map.json", new URL("file:///data/map.json")];
 * console.log(sources.map((calibration) => kvsharer({ calibration, layers: 2 })));
 * ```
 */
export type SharingSource = SharingCalibration | string | URL;

/**
 * Where the bits of each layer come from: the object, or a JSON file by path or `file:` URL, relative to the working directory.
 *
 * @example
 * ```ts
 * import { type BitsSource, kvtuner } from "prefixkv";
 *
 * const sources: BitsSource[] = ["./bits.json", new URL("file:///data/bits.json")];
 * console.log(sources.map((calibration) => kvtuner({ calibration, bits: 4 })));
 * ```
 */
export type BitsSource = BitsCalibration | string | URL;

/**
 * Where the orders of channels come from: the object, or a JSON file by path or `file:` URL, relative to the working directory.
 *
 * @example
 * ```ts
 * import { type ChannelsSource, skvq } from "prefixkv";
 *
 * const sources: ChannelsSource[] = ["./channels.json", new URL("file:///data/channels.json")];
 * console.log(sources.map((calibration) => skvq({ calibration, bits: 4 })));
 * ```
 */
export type ChannelsSource = ChannelsCalibration | string | URL;

/**
 * Where codebooks come from: the object, or a JSON file by path or `file:` URL, relative to the working directory.
 *
 * @example
 * ```ts
 * import { type CodebookSource, kvquant } from "prefixkv";
 *
 * const sources: CodebookSource[] = ["./codebooks.json", new URL("file:///data/codebooks.json")];
 * console.log(sources.map((calibration) => kvquant({ calibration })));
 * ```
 */
export type CodebookSource = CodebookCalibration | string | URL;

/**
 * Where directions come from: the object, or a JSON file by path or `file:` URL, relative to the working directory. An object of more
 * than 8 MiB has to be a file.
 *
 * @example
 * ```ts
 * import { cskv, type DirectionsSource } from "prefixkv";
 *
 * const sources: DirectionsSource[] = ["./directions.json", new URL("file:///data/directions.json")];
 * console.log(sources.map((calibration) => cskv({ calibration, keys: 0.25 })));
 * ```
 */
export type DirectionsSource = DirectionsCalibration | string | URL;

/**
 * Where the scores of heads come from: the object, or a JSON file by path or `file:` URL, relative to the working directory.
 *
 * @example
 * ```ts
 * import { type HeadsSource, sparseMm } from "prefixkv";
 *
 * const sources: HeadsSource[] = ["./heads.json", new URL("file:///data/heads.json")];
 * console.log(sources.map((calibration) => sparseMm({ keep: 0.3, calibration })));
 * ```
 */
export type HeadsSource = HeadsCalibration | string | URL;

/** A calibration of one of the kinds. */
export type AnyCalibration =
  | Calibration
  | SharingCalibration
  | BitsCalibration
  | ChannelsCalibration
  | CodebookCalibration
  | DirectionsCalibration
  | HeadsCalibration;

/** A calibration of a kind as the engine takes it. */
type Read = AnyCalibration | readonly number[];

/** The source of a calibration as a copy, a URL as its text; throws an OptionError for what is none. */
export function readCalibrationSource(value: unknown, place: Place): unknown {
  const allowed = "a calibration, a path, a URL, a name or an array of shares";
  if (typeof value === "string") return text(value, place);
  const kind = place.read(() => Object.prototype.toString.call(value));
  if (kind === "[object URL]") return String(address(value, place));
  if (typeof value !== "object" || value === null) throw place.refuse(allowed, value);
  return plain(value, place, allowed);
}

/** The `format` of files that the engine reads. */
const formats: readonly string[] = [
  "prefixkv-calibration",
  "prefixkv-sharing",
  "prefixkv-bits",
  "prefixkv-channels",
  "prefixkv-codebooks",
  "prefixkv-directions",
  "prefixkv-heads",
];

/** More than any calibration needs: the engine refuses to find directions that would take more. */
const maxBytes = 24 * 1024 * 1024;

/** The calibration of a source, as the engine takes it; throws a CalibrationError that says what was looked for. */
export async function readCalibration(
  source:
    | CalibrationSource
    | SharingSource
    | BitsSource
    | ChannelsSource
    | CodebookSource
    | DirectionsSource
    | HeadsSource,
  signal?: AbortSignal,
): Promise<Read> {
  if (typeof source !== "string" && !(source instanceof URL)) return source;
  const file = isName(source) ? await packageFile(`calibrations/${encodeURIComponent(source)}.json`) : place(source);
  let text: string;
  try {
    text = new TextDecoder().decode(await readRegularFile(file, maxBytes, signal));
  } catch (cause) {
    if (signal?.aborted) throw stopError(signal);
    throw unusable(source, await missing(source, file, cause));
  }
  return parse(source, text);
}

/** The absolute path of a calibration that is to be written. */
export function calibrationFile(file: string | URL): string {
  if (file === "") throw new CalibrationError("calibration", "cannot write the calibration: `file` is empty");
  return place(file);
}

/** Writes a calibration so that a reader never sees half of it. */
export async function writeCalibration(calibration: Calibration, file: string | URL): Promise<void> {
  await replaceFile(calibrationFile(file), calibrationText(calibration)).catch((cause: unknown) =>
    unwritable(file, cause),
  );
}

/** Writes a map of layers that share, likewise. */
export async function writeSharing(calibration: SharingCalibration, file: string | URL): Promise<void> {
  await replaceFile(calibrationFile(file), sharingText(calibration)).catch((cause: unknown) => unwritable(file, cause));
}

/** Writes the bits of each layer, likewise. */
export async function writeBits(calibration: BitsCalibration, file: string | URL): Promise<void> {
  await replaceFile(calibrationFile(file), bitsText(calibration)).catch((cause: unknown) => unwritable(file, cause));
}

/** Writes orders of channels, likewise. */
export async function writeChannels(calibration: ChannelsCalibration, file: string | URL): Promise<void> {
  await replaceFile(calibrationFile(file), channelsText(calibration)).catch((cause: unknown) =>
    unwritable(file, cause),
  );
}

/** Writes codebooks, likewise, a layer per line. */
export async function writeCodebooks(calibration: CodebookCalibration, file: string | URL): Promise<void> {
  const { layers, ...head } = calibration;
  await replaceFile(calibrationFile(file), linewise(head, "layers", layers)).catch((cause: unknown) =>
    unwritable(file, cause),
  );
}

/** Writes directions, likewise. */
export async function writeDirections(calibration: DirectionsCalibration, file: string | URL): Promise<void> {
  const { layers, ...head } = calibration;
  await replaceFile(calibrationFile(file), linewise(head, "layers", layers)).catch((cause: unknown) =>
    unwritable(file, cause),
  );
}

/** Writes the scores of heads, likewise, a layer per line. */
export async function writeHeads(calibration: HeadsCalibration, file: string | URL): Promise<void> {
  const { scores, ...head } = calibration;
  await replaceFile(calibrationFile(file), linewise(head, "scores", scores)).catch((cause: unknown) =>
    unwritable(file, cause),
  );
}

/** Refuses a file that cannot be written, before the work for it is done. */
export async function requireCalibrationFile(file: string | URL): Promise<void> {
  await requireWritable(calibrationFile(file)).catch((cause: unknown) => unwritable(file, cause));
}

function unwritable(file: string | URL, cause: unknown): never {
  const message = `cannot write the calibration ${file}: ${writeFailure(cause)}`;
  throw new CalibrationError("calibration", message, {}, { cause });
}

/** The content of a calibration file, a row per line. */
export function calibrationText({ rows, ...head }: Calibration): string {
  return linewise(head, "rows", rows);
}

/** The content of a file of layers that share, a pair per line. */
export function sharingText({ pairs, ...head }: SharingCalibration): string {
  return linewise(head, "pairs", pairs);
}

/** The content of a file of the bits of each layer, a point per line. */
export function bitsText({ points, ...head }: BitsCalibration): string {
  return linewise(head, "points", points);
}

/** The content of a file of orders of channels, a layer per line. */
export function channelsText({ layers, ...head }: ChannelsCalibration): string {
  return linewise(head, "layers", layers);
}

function linewise(head: object, name: string, rows: readonly object[]): string {
  const lines = rows.map((row) => `    ${JSON.stringify(row)}`).join(",\n");
  const start = JSON.stringify(head, null, 2).replace(/\n\}$/, "");
  return `${start},\n  "${name}": [\n${lines}\n  ]\n}\n`;
}

function place(source: string | URL): string {
  const path = filePath(source);
  if (path === undefined) throw unusable(source, "a calibration is read from a file; use a path or a file: URL");
  return path;
}

function isName(source: string | URL): source is string {
  return typeof source === "string" && !/^file:/i.test(source) && !/[\\/]/.test(source) && !/\.json$/i.test(source);
}

function parse(source: string | URL, text: string): Read {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // A parser's message quotes what it has read, which may be any file.
    throw unusable(source, "it is not JSON");
  }
  const format = (value as { format?: unknown } | null)?.format;
  if (Array.isArray(value) || formats.includes(String(format))) return value as Read;
  const names = formats.map((name) => `"${name}"`).join(" or ");
  throw unusable(source, `it has no \`format\` ${names} and is no array with the evicted share of every layer`);
}

async function missing(source: string | URL, file: string, cause: unknown): Promise<string> {
  if (!isName(source)) return `${shorten(file, 240)}: ${readingReason(cause, file)}`;
  const names = (await shippedNames("calibrations/")).map((name) => name.slice(0, -".json".length));
  return `no calibration of that name comes with the package; there are ${names.join(", ")}, and a file needs its path`;
}

function unusable(source: string | URL, why: string): CalibrationError {
  return new CalibrationError("calibration", `cannot use the calibration ${shorten(String(source))}: ${why}`);
}
