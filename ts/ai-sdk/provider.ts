import { type LanguageModelV4, NoSuchModelError } from "@ai-sdk/provider";
import type { Model } from "../model.ts";
import { PrefixkvLanguageModel } from "./language_model.ts";

/**
 * A provider of the AI SDK (specification v4, `ai` 7): call it with the name of a model, or put it into a registry.
 *
 * @example
 * ```ts
 * import { load } from "prefixkv";
 * import { createPrefixkv, type PrefixkvProvider } from "prefixkv/ai-sdk";
 *
 * await using model = await load();
 * const provider: PrefixkvProvider = createPrefixkv({ tiny: model });
 * console.log(provider.languageModel("tiny").modelId);
 * ```
 */
export interface PrefixkvProvider {
  (modelId: string): LanguageModelV4;
  /** The version of the interface. */
  readonly specificationVersion: "v4";
  /** A model by its name; throws a NoSuchModelError for another one. */
  languageModel(modelId: string): LanguageModelV4;
  /** There are none: throws a NoSuchModelError. */
  embeddingModel(modelId: string): never;
  /** There are none: throws a NoSuchModelError. */
  imageModel(modelId: string): never;
}

/**
 * Makes loaded models usable with the AI SDK, in this process: `generateText({ model: provider("tiny"), ... })`. They stay their owner's to dispose.
 *
 * @example
 * ```ts
 * import { generateText } from "ai";
 * import { load, samplePicture } from "prefixkv";
 * import { createPrefixkv } from "prefixkv/ai-sdk";
 *
 * await using model = await load();
 * const prefixkv = createPrefixkv({ tiny: model });
 * const picture = { type: "file" as const, mediaType: "image/png", data: await samplePicture() };
 * const { text, providerMetadata } = await generateText({
 *   model: prefixkv("tiny"),
 *   messages: [{ role: "user", content: [picture, { type: "text", text: "What color is the star?" }] }],
 *   providerOptions: { prefixkv: { cache: { method: "prefixkv", keep: 0.5 } } },
 * });
 * console.log(text, providerMetadata?.prefixkv);
 * ```
 */
export function createPrefixkv(models: Readonly<Record<string, Model>>): PrefixkvProvider {
  const known = new Map(Object.entries(models));
  const languageModel = (modelId: string): LanguageModelV4 => {
    const model = known.get(modelId);
    if (model === undefined) throw new NoSuchModelError({ modelId, modelType: "languageModel" });
    return new PrefixkvLanguageModel(model, modelId);
  };
  const none =
    (modelType: "embeddingModel" | "imageModel") =>
    (modelId: string): never => {
      throw new NoSuchModelError({ modelId, modelType });
    };
  return Object.assign((modelId: string) => languageModel(modelId), {
    specificationVersion: "v4" as const,
    languageModel,
    embeddingModel: none("embeddingModel"),
    imageModel: none("imageModel"),
  });
}
