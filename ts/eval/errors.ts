import { OptionError, PrefixKvError } from "../errors.ts";

/**
 * Data or a folder of results cannot be used: code `eval-data` for data, `eval-files` for results. `details.file` and
 * `details.line` say where, when that is known.
 *
 * @example
 * ```ts
 * import { EvaluationError, openData } from "prefixkv/eval";
 *
 * const error = await openData("no-such-folder").catch((error: unknown) => error);
 * if (error instanceof EvaluationError) console.log(error.code, error.message);
 * ```
 */
export class EvaluationError extends PrefixKvError {}

/** Malformed data: what was found where, and what to do. */
export function badData(file: string, line: number | undefined, found: string): EvaluationError {
  const where = line === undefined ? file : `${file}, line ${line}`;
  return new EvaluationError("eval-data", `cannot use ${where}: ${found}`, {
    file,
    ...(line !== undefined && { line }),
  });
}

/** A folder of results that cannot be read, written or resumed. */
export function badFiles(
  file: string,
  reason: string,
  details: { line?: number } = {},
  options?: ErrorOptions,
): EvaluationError {
  return new EvaluationError("eval-files", `cannot use ${file}: ${reason}`, { file, ...details }, options);
}

/** An invalid option of the evaluation. */
export function badOption(reason: string, details: Record<string, unknown> = {}): OptionError {
  return new OptionError("option", `invalid option: ${reason}`, { suggestion: null, ...details });
}

/** The message of a system error without its path twice. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if ("code" in error && error.code === "ENOENT") return "there is no such file or folder";
  return error.message;
}
