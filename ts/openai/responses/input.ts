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
]);

/** The conversation in the input of a request for a response. Throws a Refusal. */
export function readInput(input: unknown, instructions: string | undefined, settings: PictureSettings): Message[] {
  const messages: Message[] = instructions === undefined ? [] : [{ role: "system", content: instructions }];
  if (typeof input === "string") return [...messages, { role: "user", content: input }];
  if (!Array.isArray(input) || input.length === 0) {
    throw invalid("input", "must be a text, or an array with an item at least");
  }
  const pictures = new Pictures(settings);
  for (const [index, item] of input.entries()) readItem(item, `input[${index}]`, messages, pictures);
  return messages;
}

function readItem(item: unknown, param: string, messages: Message[], pictures: Pictures): void {
  if (!isRecord(item)) throw invalid(param, "must be an object");
  const type = item.type ?? "message";
  // Thoughts of an earlier answer are not read again.
  if (type === "reasoning") return;
  if (type === "message") messages.push(readMessage(item, param, pictures));
  else if (type === "function_call") addCall(readCall(item, param), messages);
  else if (type === "function_call_output") {
    messages.push({ role: "tool", content: contentOf(item.output, `${param}.output`, pictures) });
  } else {
    throw unsupported(
      `${param}.type`,
      "this server takes items of the types message, function_call and function_call_output, and keeps none of earlier answers",
    );
  }
}

function readMessage(item: Record<string, unknown>, param: string, pictures: Pictures): Message {
  const role = typeof item.role === "string" ? roles.get(item.role) : undefined;
  if (role === undefined) throw invalid(`${param}.role`, `must be one of ${[...roles.keys()].join(", ")}`);
  return { role, content: contentOf(item.content, `${param}.content`, pictures) };
}

function readCall({ name, arguments: given }: Record<string, unknown>, param: string): WireToolCall {
  if (typeof name !== "string" || name === "") throw invalid(`${param}.name`, "must be the name of a function");
  return { name, arguments: readArguments(given, `${param}.arguments`) };
}

/** Calls that follow an answer of the assistant, or each other, are one message. */
function addCall(call: WireToolCall, messages: Message[]): void {
  const last = messages.at(-1);
  const before = last?.role === "assistant" ? messages.pop() : undefined;
  messages.push({ role: "assistant", content: before?.content ?? "", toolCalls: [...(before?.toolCalls ?? []), call] });
}

function contentOf(value: unknown, param: string, pictures: Pictures): string | Part[] {
  if (typeof value === "string") return value;
  if (!Array.isArray(value) || value.length === 0) throw invalid(param, "must be a string or an array of parts");
  const parts = value.map((part: unknown, index) => readPart(part, `${param}[${index}]`, pictures));
  const [only] = parts;
  return parts.length === 1 && typeof only === "string" ? only : parts;
}

function readPart(part: unknown, param: string, pictures: Pictures): Part {
  if (!isRecord(part)) throw invalid(param, "must be an object with a type");
  const { type } = part;
  if (type === "input_text" || type === "output_text" || type === "refusal") {
    const text = type === "refusal" ? part.refusal : part.text;
    if (typeof text !== "string") throw invalid(`${param}.${type === "refusal" ? type : "text"}`, "must be a string");
    return text;
  }
  if (type === "input_image") {
    const url = isRecord(part.image_url) ? part.image_url.url : part.image_url;
    if (typeof url !== "string") throw invalid(`${param}.image_url`, "must be a data URL; files are not kept here");
    return pictures.read(url, `${param}.image_url`);
  }
  if (typeof type !== "string") throw invalid(`${param}.type`, "must be a string");
  throw unsupported(
    `${param}.type`,
    "this server takes parts of the types input_text, input_image and output_text only",
  );
}
