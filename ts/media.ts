import { open } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { abortError, MediaError, PrefixKvError } from "./errors.ts";

/**
 * Where an image can come from: a file path, a `file:`, `data:`, `http:` or `https:` URL, or encoded bytes (PNG, JPEG, WebP,
 * GIF).
 *
 * @example
 * ```ts
 * import { image, type ImageSource } from "prefixkv";
 *
 * const sources: ImageSource[] = ["scene.png", new URL("https://example.com/scene.png"), new Uint8Array(8), new Blob([])];
 * console.log(sources.map((source) => image(source).name));
 * ```
 */
export type ImageSource = string | URL | Uint8Array | ArrayBuffer | Blob;

/**
 * An image of a prompt. It is read when a request needs it, once.
 *
 * @example
 * ```ts
 * import { image } from "prefixkv";
 *
 * const bytes = await image("scene.png").bytes();
 * console.log(bytes.length);
 * ```
 */
export interface ImageInput {
  /** What it is called in messages: the path, the URL or the kind of bytes. */
  readonly name: string;
  /** The encoded bytes; rejects with a MediaError when they cannot be read. */
  bytes(signal?: AbortSignal): Promise<Uint8Array>;
}

/** No encoded image may be larger. */
export const maxImageBytes: number = 64 * 1024 * 1024;

/** How long a server may take. */
const fetchTimeout = 30_000;

/**
 * Names an image for a prompt; nothing is read yet. A relative path is relative to the working directory of this call.
 * `http(s):` images may have 64 MiB and take 30 s.
 *
 * @example
 * ```ts
 * import { image, load } from "prefixkv";
 *
 * const model = await load();
 * const { text } = await model.generate({
 *   messages: [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }],
 * });
 * console.log(text);
 * await model.dispose();
 * ```
 */
export function image(source: ImageSource): ImageInput {
  return new SourceImage(source);
}

/** Whether a value is an image of {@link image}. */
export function isImage(value: unknown): value is ImageInput {
  return value instanceof SourceImage;
}

type Read = (signal: AbortSignal | undefined) => Promise<Uint8Array>;

class SourceImage implements ImageInput {
  readonly name: string;
  readonly #read: Read;
  #bytes: Uint8Array | undefined;

  constructor(source: ImageSource) {
    [this.name, this.#read] = reader(source);
  }

  async bytes(signal?: AbortSignal): Promise<Uint8Array> {
    if (signal?.aborted) throw abortError(signal);
    if (this.#bytes) return this.#bytes;
    try {
      const bytes = await this.#read(signal);
      if (bytes.length === 0) throw this.#error("it is empty");
      if (bytes.length > maxImageBytes) throw this.#error(tooLarge);
      this.#bytes = bytes;
      return bytes;
    } catch (error) {
      if (error instanceof PrefixKvError) throw error;
      if (signal?.aborted) throw abortError(signal);
      throw this.#error(reason(error), error);
    }
  }

  #error(why: string, cause?: unknown): MediaError {
    return new MediaError("image", `cannot read the image ${this.name}: ${why}`, { source: this.name }, { cause });
  }
}

const tooLarge = `it is larger than ${maxImageBytes / 1024 / 1024} MiB`;

function reader(source: ImageSource): [name: string, read: Read] {
  if (source instanceof Uint8Array) return ["(bytes)", async () => source];
  if (source instanceof ArrayBuffer) return ["(bytes)", async () => new Uint8Array(source)];
  if (source instanceof Blob) return [source instanceof File ? source.name : "(blob)", () => fromBlob(source)];
  if (source instanceof URL) return fromUrl(source);
  if (typeof source === "string") {
    if (/^(https?|data|file):/i.test(source)) return fromUrl(parseUrl(source));
    const path = resolve(source);
    return [source, (signal) => fromFile(path, signal)];
  }
  throw new MediaError("image", "cannot read the image: image() takes a path, a URL, bytes or a Blob", {
    source: typeof source,
  });
}

function parseUrl(text: string): URL {
  try {
    return new URL(text);
  } catch (cause) {
    throw new MediaError("image", `cannot read the image ${text}: it is not a valid URL`, { source: text }, { cause });
  }
}

function fromUrl(url: URL): [name: string, read: Read] {
  const name = url.protocol === "data:" ? `${url.href.slice(0, 32)}...` : url.href;
  switch (url.protocol) {
    case "http:":
    case "https:":
      return [name, (signal) => fromServer(url, signal)];
    case "data:":
      return [name, () => fromData(url)];
    case "file:":
      return [name, async (signal) => fromFile(fileURLToPath(url), signal)];
    default:
      throw new MediaError("image", `cannot read the image ${name}: use a file:, data:, http: or https: URL`, {
        source: name,
      });
  }
}

async function fromBlob(blob: Blob): Promise<Uint8Array> {
  if (blob.size > maxImageBytes) throw new Error(tooLarge);
  return new Uint8Array(await blob.arrayBuffer());
}

async function fromFile(path: string, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    if (size > maxImageBytes) throw new Error(tooLarge);
    return new Uint8Array(await file.readFile(signal ? { signal } : undefined));
  } finally {
    await file.close();
  }
}

async function fromData(url: URL): Promise<Uint8Array> {
  // Base64 has 4 characters per 3 bytes; percent-encoding has up to 3 per byte.
  if (url.href.length > 3 * maxImageBytes + 1024) throw new Error(tooLarge);
  return new Uint8Array(await (await fetch(url)).arrayBuffer());
}

async function fromServer(url: URL, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const timeout = AbortSignal.timeout(fetchTimeout);
  const response = await fetch(url, { signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
  if (!response.ok) {
    await response.body?.cancel();
    throw new Error(`the server answered ${response.status}`);
  }
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > maxImageBytes) throw new Error(tooLarge);
    chunks.push(chunk);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return `the server took longer than ${fetchTimeout / 1000} s`;
  if ("code" in error && error.code === "ENOENT") return "there is no such file";
  if ("code" in error && error.code === "EISDIR") return "it is a folder";
  return error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message;
}
