// Checks the lines of result files: a malformed line is reported before anything is computed from it.
import type { CellKey, FitRecord, QualityRecord, ReferenceRecord, TimingRecord } from "./records.ts";

type Fields = Record<string, unknown>;

const measured = [
  "nll",
  "answerTokens",
  "ppl",
  "keptShareAfterPrompt",
  "keptShareAtEnd",
  "effectiveBits",
  "payloadBytes",
  "residentBytes",
  "peakBytes",
  "fullBytes",
];
const metrics = [
  "keptOfText",
  "keptOfImages",
  "keptOfAnswer",
  "textTokens",
  "rougeL",
  "agreement",
  "kl",
  "correct",
  "right",
  "objects",
];
const times = ["imageMs", "visionMs", "prefillMs", "decodeMs", "firstTokenMs", "tokensPerSecond", "engineMs", "wallMs"];

/** A line of `quality.jsonl`, or what is wrong with it. */
export function asQuality(line: Fields): QualityRecord | string {
  // Its name was `tokens` before there were tokens in other files.
  const { tokens, ...rest } = line;
  const fields = tokens === undefined ? line : { textTokens: tokens, ...rest };
  const { refused } = fields;
  if (refused !== undefined) {
    const { code, least } = (refused ?? {}) as Fields;
    return keyFault(fields) ?? (typeof code === "string" && isKeep(least) ? cast(fields) : "its `refused` is none");
  }
  const fault = keyFault(fields) ?? numberFault(fields, measured, true) ?? numberFault(fields, metrics, false);
  if (fault !== undefined) return fault;
  if (!isNumbers(fields.keptPerLayer)) return "its `keptPerLayer` is no list of numbers";
  if (fields.text !== undefined && typeof fields.text !== "string") return "its `text` is no text";
  return cast(fields);
}

/** A line of `timings.jsonl`, or what is wrong with it. */
export function asTiming(line: Fields): TimingRecord | string {
  return keyFault(line) ?? numberFault(line, times, true) ?? cast(line);
}

/** A line of `reference.jsonl`, or what is wrong with it. */
export function asReference(line: Fields): ReferenceRecord | string {
  if (typeof line.sample !== "string") return "it has no text `sample`";
  return isNumbers(line.tokens) ? cast(line) : "its `tokens` are no list of numbers";
}

/** A line of `calibrations.jsonl`. */
export function asFit(line: Fields): FitRecord | string {
  const { method, stage, fold, calibration, refused } = line;
  if (typeof method !== "string") return "it has no text `method`";
  if (!isNumber(stage) || !isNumber(fold)) return "it has no numbers `stage` and `fold`";
  if (calibration !== undefined && (typeof calibration !== "object" || calibration === null))
    return "its `calibration` is none";
  const isRefused = (each: unknown): boolean => {
    const { keep, least } = (each ?? {}) as Fields;
    return isNumber(keep) && isKeep(least);
  };
  return Array.isArray(refused) && refused.every(isRefused) ? cast(line) : "its `refused` are no sizes";
}

function cast<T>(fields: Fields): T {
  return fields as T;
}

function keyFault({ method, keep, sample }: Partial<Record<keyof CellKey, unknown>>): string | undefined {
  if (typeof method !== "string") return "it has no text `method`";
  if (typeof sample !== "string") return "it has no text `sample`";
  return isNumber(keep) ? undefined : "it has no number `keep`";
}

function numberFault(fields: Fields, names: readonly string[], needed: boolean): string | undefined {
  const wrong = names.find((name) => (needed || fields[name] !== undefined) && !isNumber(fields[name]));
  return wrong === undefined ? undefined : `it has no number \`${wrong}\``;
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function isNumbers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(isNumber);
}

function isKeep(value: unknown): boolean {
  const { tokens, bytes } = (value ?? {}) as Fields;
  return isNumber(value) || isNumber(tokens) || isNumber(bytes);
}
