import type { WireToolCall } from "../../generated/wire.ts";
import type { ImageInput } from "../../media.ts";
import type { Message } from "../../messages.ts";
import { isRecord } from "../fields.ts";
import { type PictureSettings, Pictures } from "../pictures.ts";
import { invalid, unsupported } from "../refusal.ts";
import { readArguments } from "../tools.ts";

type Part = string | ImageInput;

const roles = new Map([
  ["system", "system"],
  ["developer", "system"],
  ["user", "user"],
  ["assistant", "assistant"],
  ["tool", "tool"],
]);

/** The messages of a request as the library has them. Throws a Refusal. */
export function readMessages(value: unknown, settings: PictureSettings): Message[] {
  if (!Array.isArray(value) || value.length === 0)
    throw invalid("messages", "must be an array with a message at least");
  const pictures = new Pictures(settings);
  return value.map((message: unknown, index) => {
    const param = `messages[${index}]`;
    if (!isRecord(message)) throw invalid(param, "must be an object with role and content");
    const role = typeof message.role === "string" ? roles.get(message.role) : undefined;
    if (role === undefined) throw invalid(`${param}.role`, `must be one of ${[...roles.keys()].join(", ")}`);
    for (const field of ["function_call", "audio"]) {
      if (message[field] === undefined || message[field] === null) continue;
      throw unsupported(`${param}.${field}`, `this server has no \`${field}\`; send the conversation as text`);
    }
    const toolCalls = role === "assistant" ? readCalls(message.tool_calls ?? [], `${param}.tool_calls`) : [];
    const silent = toolCalls.length > 0 && (message.content ?? null) === null;
    const content = silent ? [""] : readContent(message.content, `${param}.content`, pictures);
    const [only] = content;
    return {
      role,
      content: content.length === 1 && typeof only === "string" ? only : content,
      ...(toolCalls.length > 0 && { toolCalls }),
    };
  });
}

function readCalls(value: unknown, param: string): WireToolCall[] {
  if (!Array.isArray(value)) throw invalid(param, "must be an array of calls");
  return value.map((call: unknown, index) => {
    const place = `${param}[${index}]`;
    if (!isRecord(call) || !isRecord(call.function) || typeof call.function.name !== "string") {
      throw invalid(place, "must be { id, type: function, function: { name, arguments } }");
    }
    return {
      name: call.function.name,
      arguments: readArguments(call.function.arguments, `${place}.function.arguments`),
    };
  });
}

function readContent(value: unknown, param: string, pictures: Pictures): Part[] {
  if (typeof value === "string") return [value];
  if (!Array.isArray(value) || value.length === 0) throw invalid(param, "must be a string or an array of parts");
  return value.map((part: unknown, index) => readPart(part, `${param}[${index}]`, pictures));
}

function readPart(part: unknown, param: string, pictures: Pictures): Part {
  if (!isRecord(part)) throw invalid(param, "must be an object with a type");
  const { type } = part;
  if (type === "text" || type === "refusal") {
    const text = part[type];
    if (typeof text !== "string") throw invalid(`${param}.${type}`, "must be a string");
    return text;
  }
  if (type === "image_url") {
    const given = part.image_url;
    const url = isRecord(given) ? given.url : given;
    if (typeof url !== "string")
      throw invalid(`${param}.image_url`, "must be a data URL, or an object with one as its url");
    return pictures.read(url, `${param}.image_url`);
  }
  if (typeof type !== "string") throw invalid(`${param}.type`, "must be a string");
  throw unsupported(`${param}.type`, "this server takes parts of the types text, image_url and refusal only");
}
