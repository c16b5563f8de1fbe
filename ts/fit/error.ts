import { OptionError } from "../errors.ts";

/**
 * The file of a fit cannot be read or written, or holds what is no fit, or another model's.
 *
 * @example
 * ```ts
 * import { FitError, load } from "prefixkv";
 *
 * await using model = await load();
 * const error = await model.generate({ prompt: "USER: Hello ASSISTANT:", cache: "no-such.json" }).catch((error: unknown) => error);
 * console.log(error instanceof FitError);
 * ```
 */
export class FitError extends OptionError {}
