import { randomUUID } from "node:crypto";
import type {
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4Content,
  LanguageModelV4FinishReason,
  LanguageModelV4GenerateResult,
  LanguageModelV4StreamPart,
  LanguageModelV4StreamResult,
  LanguageModelV4Usage,
  SharedV4ProviderMetadata,
} from "@ai-sdk/provider";
import type { GenerationResult } from "../generated/wire.ts";
import type { Model } from "../model.ts";
import { CallReader, type Piece } from "../tool_calls.ts";
import { type Call, readCall } from "./options.ts";

/** A loaded model behind the language-model interface of the AI SDK. */
export class PrefixkvLanguageModel implements LanguageModelV4 {
  readonly specificationVersion = "v4";
  readonly provider: string = "prefixkv";
  readonly modelId: string;
  /** None: the SDK downloads pictures itself, and asks for no address here. */
  readonly supportedUrls: Record<string, RegExp[]> = {};
  readonly #model: Model;

  constructor(model: Model, modelId: string) {
    this.#model = model;
    this.modelId = modelId;
  }

  async doGenerate(options: LanguageModelV4CallOptions): Promise<LanguageModelV4GenerateResult> {
    const { generate, warnings } = readCall(options);
    const result = await this.#model.generate(generate);
    const reader = new CallReader();
    const pieces = generate.tools ? [...reader.push(result.text), ...reader.finish()] : [{ text: result.text }];
    return {
      content: contentOf(pieces),
      ...endOf(result, reader.called),
      response: { id: idOf(), timestamp: new Date(), modelId: this.modelId },
      warnings,
    };
  }

  async doStream(options: LanguageModelV4CallOptions): Promise<LanguageModelV4StreamResult> {
    const parts = this.#parts(readCall(options));
    // A fault of the request is an error of the call, and no part of a stream.
    const first = await parts.next();
    let begun = false;
    const stream = new ReadableStream<LanguageModelV4StreamPart>({
      async pull(controller) {
        try {
          const { done, value } = begun ? await parts.next() : first;
          begun = true;
          if (done) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          controller.error(error);
        }
      },
      async cancel() {
        await parts.return();
      },
    });
    return { stream };
  }

  async *#parts({ generate, warnings }: Call): AsyncGenerator<LanguageModelV4StreamPart, void, undefined> {
    const generation = this.#model.generate(generate);
    const reader = generate.tools ? new CallReader() : undefined;
    const said = new Said();
    let begun = false;
    const begin = (): LanguageModelV4StreamPart[] => [
      { type: "stream-start", warnings },
      { type: "response-metadata", id: idOf(), timestamp: new Date(), modelId: this.modelId },
    ];
    for await (const { text } of generation) {
      if (!begun) yield* begin();
      begun = true;
      const pieces = reader?.push(text) ?? (text === "" ? [] : [{ text }]);
      for (const piece of pieces) yield* said.take(piece);
    }
    const result = await generation;
    if (!begun) yield* begin();
    for (const piece of reader?.finish() ?? []) yield* said.take(piece);
    yield* said.close();
    yield { type: "finish", ...endOf(result, reader?.called ?? false) };
  }
}

/** The parts of a stream that pieces of an answer become. */
class Said {
  #id: string | undefined;
  #count = 0;

  *take(piece: Piece): Generator<LanguageModelV4StreamPart, void, undefined> {
    if ("text" in piece) {
      if (this.#id === undefined) {
        this.#id = `text-${this.#count++}`;
        yield { type: "text-start", id: this.#id };
      }
      yield { type: "text-delta", id: this.#id, delta: piece.text };
      return;
    }
    yield* this.close();
    const { id, name, arguments: input } = piece.call;
    yield { type: "tool-input-start", id, toolName: name };
    yield { type: "tool-input-delta", id, delta: input };
    yield { type: "tool-input-end", id };
    yield { type: "tool-call", toolCallId: id, toolName: name, input };
  }

  *close(): Generator<LanguageModelV4StreamPart, void, undefined> {
    if (this.#id !== undefined) yield { type: "text-end", id: this.#id };
    this.#id = undefined;
  }
}

function contentOf(pieces: readonly Piece[]): LanguageModelV4Content[] {
  const content: LanguageModelV4Content[] = [];
  for (const piece of pieces) {
    const last = content.at(-1);
    if ("call" in piece) {
      const { id, name, arguments: input } = piece.call;
      content.push({ type: "tool-call", toolCallId: id, toolName: name, input });
    } else if (last?.type === "text") last.text += piece.text;
    else if (piece.text !== "") content.push({ type: "text", text: piece.text });
  }
  return content;
}

function endOf(
  { finish, usage, memory, timings }: GenerationResult,
  called: boolean,
): {
  usage: LanguageModelV4Usage;
  finishReason: LanguageModelV4FinishReason;
  providerMetadata: SharedV4ProviderMetadata;
} {
  const unified = finish === "length" ? "length" : called ? "tool-calls" : "stop";
  const { promptTokens: total, cachedTokens: cacheRead, completionTokens: output, imageTokens } = usage;
  return {
    usage: {
      inputTokens: { total, noCache: total - cacheRead, cacheRead, cacheWrite: undefined },
      outputTokens: { total: output, text: output, reasoning: undefined },
      raw: { ...usage },
    },
    finishReason: { unified, raw: finish },
    providerMetadata: {
      prefixkv: { imageTokens, memory: { ...memory, keptPerLayer: [...memory.keptPerLayer] }, timings: { ...timings } },
    },
  };
}

const idOf = (): string => `gen-${randomUUID().replaceAll("-", "")}`;
