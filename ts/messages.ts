import { PromptError } from "./errors.ts";
import { type ImageInput, type ImageSource, image, isImage } from "./media.ts";
import type { WireMessage, WirePart } from "./native/contract.ts";

/**
 * What a message says: text, one image, or both in order.
 *
 * @example
 * ```ts
 * import { image, type MessageContent } from "prefixkv";
 *
 * const content: MessageContent = [image("scene.png"), "What is at the top left?"];
 * console.log(content.length);
 * ```
 */
export type MessageContent = string | ImageInput | readonly (string | ImageInput)[];

/**
 * One turn of a conversation. The model's chat template decides which roles there are; LLaVA-1.5 knows `user` and
 * `assistant`.
 *
 * @example
 * ```ts
 * import { image, type Message } from "prefixkv";
 *
 * const messages: Message[] = [
 *   { role: "user", content: [image("scene.png"), "How many objects are there?"] },
 *   { role: "assistant", content: "There are four objects." },
 *   { role: "user", content: "What color is the star?" },
 * ];
 * console.log(messages.length);
 * ```
 */
export interface Message {
  /** Who says it. */
  role: "user" | "assistant" | "system" | (string & {});
  /** What is said. */
  content: MessageContent;
}

/**
 * The prompt of a request: `messages`, put through the model's chat template, or a raw `prompt` with one image placeholder
 * (`<image>`) per image.
 *
 * @example
 * ```ts
 * import { type PromptInput } from "prefixkv";
 *
 * const raw: PromptInput = { prompt: "USER: <image>\nWhat is it? ASSISTANT:", images: ["scene.png"] };
 * console.log(raw.prompt);
 * ```
 */
export interface PromptInput {
  /** A conversation, for the model's chat template. */
  messages?: readonly Message[];
  /** A raw prompt instead. */
  prompt?: string;
  /** The images of a raw prompt in order; with `messages`, images to put in front of the last user message. */
  images?: readonly (ImageInput | ImageSource)[];
}

/** A prompt as it crosses a door, and its images in the order of their numbers. */
export interface WirePrompt {
  fields: { messages?: WireMessage[]; prompt?: string };
  images: ImageInput[];
}

/** Brings a prompt into the form of the contract; throws a PromptError for what is not a message. */
export function wirePrompt(input: PromptInput): WirePrompt {
  const extra = (input.images ?? []).map((source) => (isImage(source) ? source : image(source)));
  if (input.messages === undefined) {
    return { fields: input.prompt === undefined ? {} : { prompt: input.prompt }, images: extra };
  }
  if (!Array.isArray(input.messages)) throw invalid("`messages` is not an array of { role, content }");
  const images: ImageInput[] = [];
  const target = extra.length > 0 ? input.messages.findLastIndex((message: Message) => message?.role === "user") : -1;
  if (extra.length > 0 && target < 0) throw invalid("`images` need a message of role `user` to go to");
  const messages = input.messages.map((message: Message, index): WireMessage => {
    if (typeof message !== "object" || message === null || typeof message.role !== "string") {
      throw invalid(`message ${index} has no role; write { role: "user", content: ... }`);
    }
    const content = index === target ? [...extra, ...list(message.content)] : message.content;
    return { ...message, content: wireContent(content, images, index) };
  });
  return { fields: { messages, ...(input.prompt === undefined ? {} : { prompt: input.prompt }) }, images };
}

function list(content: MessageContent): readonly unknown[] {
  return Array.isArray(content) ? content : [content];
}

function wireContent(content: unknown, images: ImageInput[], index: number): string | WirePart[] {
  if (typeof content === "string") return content;
  const parts: readonly unknown[] = Array.isArray(content) ? content : [content];
  return parts.map((part): WirePart => {
    if (typeof part === "string") return { type: "text", text: part };
    if (isImage(part)) return { type: "image", index: images.push(part) - 1 };
    throw invalid(`message ${index} contains ${describe(part)}; its content is made of strings and image(source)`);
  });
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return typeof value === "object"
    ? `an object with ${Object.keys(value).join(", ") || "no fields"}`
    : `a ${typeof value}`;
}

function invalid(reason: string): PromptError {
  return new PromptError("prompt", `invalid prompt: ${reason}`);
}
