import type { MethodFacts, MethodOption } from "../generated/method_table.ts";

/** An option of a method as people write it. */
export interface Setting {
  /** Empty where the text is no `NAME=VALUE`. */
  name: string;
  /** Undefined where the method has no option of that name. */
  option: MethodOption | undefined;
  /** The value as it was written. */
  written: string;
  /** JSON, or else the text itself; always the text for a choice, which may be called `true`. */
  value: unknown;
}

/** Reads `NAME=VALUE` of a method. */
export function readSetting({ options }: Pick<MethodFacts, "options">, text: string): Setting {
  const at = Math.max(0, text.indexOf("="));
  const [name, written] = [text.slice(0, at).trim(), text.slice(at + 1).trim()];
  const option = options.find((candidate) => candidate.name === name);
  return { name, option, written, value: option?.kind === "choice" ? written : jsonOrText(written) };
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
