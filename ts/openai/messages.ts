import { type ImageInput, image } from "../media.ts";
import type { Message } from "../messages.ts";
import { invalid, Refusal, unsupported } from "./refusal.ts";

type Part = string | ImageInput;

const roles = new Map([
  ["system", "system"],
  ["developer", "system"],
  ["user", "user"],
  ["assistant", "assistant"],
  ["tool", "tool"],
]);

/** The messages of a request as the library has them. Throws a Refusal. */
export function readMessages(value: unknown, mostImages: number): Message[] {
  if (!Array.isArray(value) || value.length === 0)
    throw invalid("messages", "must be an array with a message at least");
  let images = 0;
  return value.map((message: unknown, index) => {
    const param = `messages[${index}]`;
    if (!isRecord(message)) throw invalid(param, "must be an object with role and content");
    const role = typeof message.role === "string" ? roles.get(message.role) : undefined;
    if (role === undefined) throw invalid(`${param}.role`, `must be one of ${[...roles.keys()].join(", ")}`);
    for (const field of ["tool_calls", "function_call", "audio"]) {
      const given = message[field];
      if (given === undefined || given === null || (Array.isArray(given) && given.length === 0)) continue;
      throw unsupported(`${param}.${field}`, `this server has no \`${field}\`; send the conversation as text`);
    }
    const content = readContent(message.content, `${param}.content`);
    images += content.filter((part) => typeof part !== "string").length;
    if (images > mostImages) {
      throw new Refusal(413, "request_too_large", `a request may have ${mostImages} images`, { param });
    }
    const [only] = content;
    return { role, content: content.length === 1 && typeof only === "string" ? only : content };
  });
}

function readContent(value: unknown, param: string): Part[] {
  if (typeof value === "string") return [value];
  if (!Array.isArray(value) || value.length === 0) throw invalid(param, "must be a string or an array of parts");
  return value.map((part: unknown, index) => readPart(part, `${param}[${index}]`));
}

function readPart(part: unknown, param: string): Part {
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
    return readImageUrl(url, `${param}.image_url`);
  }
  if (typeof type !== "string") throw invalid(`${param}.type`, "must be a string");
  throw unsupported(`${param}.type`, "this server takes parts of the types text, image_url and refusal only");
}

/** Nothing is fetched or read for a request: an address or a path from outside would be the caller's hand in our network. */
function readImageUrl(url: string, param: string): ImageInput {
  if (!/^data:image\/[\w.+-]{1,64}(?:;[\w.+=-]{1,64}){0,4};base64,/i.test(url.slice(0, 512))) {
    const message =
      "images come as data URLs only: data:image/png;base64,...; addresses are not fetched and files not read";
    throw new Refusal(400, "invalid_image", message, { param });
  }
  return image(url);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
