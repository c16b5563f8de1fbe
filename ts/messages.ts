import { OptionError, PromptError } from "./errors.ts";
import type { PromptFields, WireMessage, WirePart, WireToolCall, WireVideo } from "./generated/wire.ts";
import { bareImage, type ImageInput, type ImageSource, isImage } from "./media.ts";
import { json } from "./options/json.ts";
import { Place } from "./options/place.ts";
import { plain } from "./options/plain.ts";
import { items, own, text } from "./options/rules.ts";
import { show } from "./options/show.ts";
import { isVideo, maxFrames, type VideoInput } from "./video.ts";

/**
 * The content of a message: text, an image, a video, or several of them in order.
 *
 * @example
 * ```ts
 * import { image, type MessageContent } from "prefixkv";
 *
 * const content: MessageContent = [image("scene.png"), "What is at the top left?"];
 * console.log(content.length);
 * ```
 */
export type MessageContent = string | ImageInput | VideoInput | readonly (string | ImageInput | VideoInput)[];

/**
 * One message of a conversation. The model's chat template decides which roles exist; LLaVA-1.5 knows `user` and
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
  /** The speaker. */
  role: "user" | "assistant" | "system" | (string & {});
  /** The content. */
  content: MessageContent;
  /** Calls of tools that an assistant has made, for templates that know them. */
  toolCalls?: readonly WireToolCall[];
}

/**
 * The prompt of a request: `messages`, put through the model's chat template, or a raw `prompt` with one image placeholder
 * (`<image>`) per image.
 *
 * @example
 * ```ts
 * import { image, type PromptInput } from "prefixkv";
 *
 * const raw: PromptInput = { prompt: "USER: <image>\nWhat is it? ASSISTANT:", images: [image("scene.png")] };
 * console.log(raw.prompt);
 * ```
 */
export interface PromptInput extends Pick<PromptFields, "specialTokens" | "prompt"> {
  /** A conversation, for the model's chat template. */
  messages?: readonly Message[];
  /**
   * The images and videos of a raw prompt in order; with `messages`, those to insert before the last user message. A plain string or URL
   * among them may come from outside: it names no file unless `images.files` of load allows it, which `image(path)` does not need.
   */
  images?: readonly (ImageInput | ImageSource | VideoInput)[];
}

/** The prompt of a request as it crosses a door, and its images by number, frames of videos among them. */
export interface WirePrompt {
  fields: PromptFields;
  images: ImageInput[];
}

type Picture = ImageInput | VideoInput;

/** The images and videos of a prompt, as they are numbered. */
class Shown {
  readonly images: ImageInput[] = [];
  readonly videos: WireVideo[] = [];
  #frames = 0;

  /** The part of a message that shows it. */
  add(picture: Picture): WirePart {
    if (!isVideo(picture)) return { type: "image", index: this.images.push(picture) - 1 };
    const { frames, fps, times } = picture;
    const timing = { ...(fps !== undefined && { fps }), ...(times !== undefined && { times: [...times] }) };
    const index = this.videos.push({ first: this.images.length, frames: frames.length, ...timing }) - 1;
    this.images.push(...frames);
    this.#frames += frames.length;
    return { type: "video", index };
  }

  /** The prompt with them; more than a request may have are refused before any is read. */
  with(fields: PromptFields, place: Place): WirePrompt {
    const pictures = this.images.length - this.#frames + this.videos.length;
    if (pictures > maxImages) throw tooMany(place, `${maxImages} images`, pictures);
    if (this.#frames > maxFrames) throw tooMany(place, `${maxFrames} frames of videos`, this.#frames);
    return { fields: { ...fields, ...(this.videos.length > 0 && { videos: this.videos }) }, images: this.images };
  }
}

/**
 * Reads `messages`, `prompt` and `images`, whatever they are, into copies. Throws a PromptError for what is no message, and an
 * OptionError for what no request could say.
 */
export function wirePrompt(
  input: { [K in keyof PromptInput]?: unknown },
  place: Place = new Place("generate"),
): WirePrompt {
  const extra = input.images === undefined ? [] : readImages(input.images, place.field("images"));
  const prompt = input.prompt === undefined ? {} : { prompt: text(input.prompt, place.field("prompt")) };
  const shown = new Shown();
  if (input.messages === undefined) {
    for (const picture of extra) shown.add(picture);
    return shown.with(prompt, place);
  }
  const messages = readMessages(input.messages, place.field("messages"));
  const target = extra.length > 0 ? messages.findLastIndex(({ role }) => role === "user") : -1;
  if (extra.length > 0 && target < 0) throw invalid("`images` need a message of role `user` to go to");
  const wired = messages.map(({ content, ...message }, index): WireMessage => {
    return { ...message, content: wireContent(index === target ? [...extra, ...list(content)] : content, shown) };
  });
  return shown.with({ messages: wired, ...prompt }, place);
}

function readImages(value: unknown, place: Place): Picture[] {
  if (!place.read(() => Array.isArray(value))) {
    throw place.refuse("an array of images", value, "write images: [image(source)]");
  }
  return items(value as unknown[], place, (source) => (isPicture(source) ? source : bareImage(source)));
}

function isPicture(value: unknown): value is Picture {
  return isImage(value) || isVideo(value);
}

/** Most images and videos of a request. */
const maxImages = 64;

function tooMany(place: Place, most: string, found: number): OptionError {
  const message = `invalid option: ${place.call} takes at most ${most}, found ${found}`;
  return new OptionError("option", message, { option: "images", suggestion: null });
}

type Content = string | Picture | readonly (string | Picture)[];
type OwnMessage = { role: string; content: Content };

function readMessages(value: unknown, place: Place): OwnMessage[] {
  if (!place.read(() => Array.isArray(value))) throw invalid("`messages` is not an array of { role, content }");
  const messages = value as unknown[];
  place.spend(messages.length);
  return Array.from(messages, (message, index) => readMessage(message, index, place.item(index)));
}

function readMessage(value: unknown, index: number, place: Place): OwnMessage {
  const noRole = invalid(`message ${index} has no role; write { role: "user", content: ... }`);
  if (typeof value !== "object" || value === null) throw noRole;
  const message: Record<string, unknown> = {};
  for (const [name, field] of own(value, place)) {
    if (name === "content") continue;
    // The engine knows the fields that there are; `__proto__` is a name like others.
    Object.defineProperty(message, name, {
      value: (name === "toolCalls" ? json : plain)(field, place.field(name)),
      enumerable: true,
    });
  }
  if (typeof message.role !== "string") throw noRole;
  const content = place.field("content").read(() => (value as { content?: unknown }).content);
  return { ...message, role: message.role, content: readContent(content, index, place.field("content")) };
}

/** A copy of a message's content. */
export function readContent(content: unknown, index: number, place: Place): Content {
  if (typeof content === "string") return text(content, place);
  if (isPicture(content)) return content;
  const isList = place.read(() => Array.isArray(content));
  const parts = isList ? (content as unknown[]) : [content];
  place.spend(parts.length);
  return Array.from(parts, (part, at) => {
    if (typeof part === "string") return text(part, isList ? place.item(at) : place);
    if (isPicture(part)) return part;
    throw invalid(
      `message ${index} contains ${describe(part)}; its content is made of strings, image(source) and video(frames)`,
    );
  });
}

function list(content: Content): readonly (string | Picture)[] {
  return typeof content === "string" || isPicture(content) ? [content] : content;
}

function wireContent(content: Content, shown: Shown): string | WirePart[] {
  if (typeof content === "string") return content;
  return list(content).map((part): WirePart => {
    return typeof part === "string" ? { type: "text", text: part } : shown.add(part);
  });
}

function describe(value: unknown): string {
  return typeof value === "number" ? "a number" : show(value);
}

function invalid(reason: string): PromptError {
  return new PromptError("prompt", `invalid prompt: ${reason}`);
}
