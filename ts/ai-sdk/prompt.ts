import {
  type LanguageModelV4FilePart,
  type LanguageModelV4Prompt,
  type LanguageModelV4ToolResultOutput,
  UnsupportedFunctionalityError,
} from "@ai-sdk/provider";
import type { WireToolCall } from "../generated/wire.ts";
import { type ImageInput, image } from "../media.ts";
import type { Message } from "../messages.ts";

type Part = string | ImageInput;

/** The messages of a prompt; `leave` hears of parts that are left out. */
export function messagesOf(prompt: LanguageModelV4Prompt, leave: (feature: string) => void): Message[] {
  return prompt.flatMap((message): Message[] => {
    if (message.role === "system") return [{ role: "system", content: message.content }];
    if (message.role === "user") {
      return [
        { role: "user", content: message.content.map((part) => (part.type === "text" ? part.text : fileOf(part))) },
      ];
    }
    if (message.role === "assistant") return [assistantOf(message.content, leave)];
    return message.content.flatMap((part): Message[] => {
      if (part.type === "tool-result") return [{ role: "tool", content: resultOf(part.output) }];
      leave("answers to requests for approval");
      return [];
    });
  });
}

type AssistantContent = Extract<LanguageModelV4Prompt[number], { role: "assistant" }>["content"];

function assistantOf(content: AssistantContent, leave: (feature: string) => void): Message {
  let text = "";
  const toolCalls: WireToolCall[] = [];
  for (const part of content) {
    if (part.type === "text") text += part.text;
    else if (part.type === "tool-call") toolCalls.push({ name: part.toolName, arguments: inputOf(part.input) });
    else leave(`${part.type} in earlier answers`);
  }
  return { role: "assistant", content: text, ...(toolCalls.length > 0 && { toolCalls }) };
}

/** The arguments of a call, which the SDK gives as they were parsed. */
function inputOf(input: unknown): Record<string, unknown> {
  if (typeof input === "object" && input !== null && !Array.isArray(input)) return input as Record<string, unknown>;
  throw new UnsupportedFunctionalityError({ functionality: "calls of tools whose input is no object" });
}

function resultOf(output: LanguageModelV4ToolResultOutput): string | Part[] {
  switch (output.type) {
    case "text":
    case "error-text":
      return output.value;
    case "json":
    case "error-json":
      return JSON.stringify(output.value);
    case "execution-denied":
      return output.reason ?? "The call was not allowed.";
    default:
      return output.value.map((part): Part => {
        if (part.type === "text") return part.text;
        if (part.type === "file") return fileOf(part);
        throw new UnsupportedFunctionalityError({ functionality: "custom content in results of tools" });
      });
  }
}

/** A picture, or a text that came as a file. Addresses follow the model's `images` policy. */
function fileOf({ data, mediaType }: Pick<LanguageModelV4FilePart, "data" | "mediaType">): Part {
  if (data.type === "text") return data.text;
  if (!/^image(?:\/|$)/i.test(mediaType)) {
    throw new UnsupportedFunctionalityError({ functionality: `files of the type ${mediaType}` });
  }
  if (data.type === "data") return image(typeof data.data === "string" ? Buffer.from(data.data, "base64") : data.data);
  if (data.type === "url") return image(data.url);
  throw new UnsupportedFunctionalityError({ functionality: "files that a provider has stored" });
}
