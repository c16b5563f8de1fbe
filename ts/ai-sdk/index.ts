/** Loaded models as language models of the AI SDK. */
import "../required.ts";

export type { PrefixkvCallOptions } from "./options.ts";
export { createPrefixkv, type PrefixkvProvider } from "./provider.ts";
