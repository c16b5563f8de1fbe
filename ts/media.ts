import { MediaError, PrefixKvError } from "./errors.ts";
import { maxImageBytes } from "./images/limits.ts";
import { type ImagePolicy, type ReadPolicy, readPolicy, rightsOf } from "./images/policy.ts";
import { type Source, sourceOf } from "./images/sources.ts";
import { Place } from "./options/place.ts";
import { shorten } from "./options/show.ts";
import { readingReason, tooLarge, Unreadable } from "./regular_file.ts";
import { Stop, until } from "./stop.ts";

export { maxImageBytes };

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
export type ImageSource = string | URL | ArrayBufferView | ArrayBufferLike | Blob;

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
  /** Its name in messages: the path, the address without user and query, or the kind of bytes. */
  readonly name: string;
  /** A copy of the encoded bytes; rejects with a MediaError when they cannot be read. */
  bytes(signal?: AbortSignal): Promise<Uint8Array>;
}

/**
 * Names an image for a prompt. Bytes are copied now; a file, an address or a blob is read when a request needs it. A relative path is
 * relative to the working directory of this call. `http(s):` images may have 64 MiB and take 30 s, and come from the public internet
 * unless `policy` or the model's policy says otherwise. The other parameters exist so that `sources.map(image)` works.
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
export function image(
  source: ImageSource,
  policy: ImagePolicy | number = {},
  sources?: readonly unknown[],
): ImageInput {
  const mapped = typeof policy === "number" && Array.isArray(sources);
  return new SourceImage(source, mapped ? {} : readPolicy(policy, new Place("image")), true);
}

/** An image that a request names without {@link image}: its name may come from outside. */
export function bareImage(source: unknown): ImageInput {
  return new SourceImage(source, {}, false);
}

/** Whether a value is an image of {@link image}. */
export function isImage(value: unknown): value is ImageInput {
  return SourceImage.is(value);
}

/** The bytes of an image for a request, not to be changed; `signal` ends the reading with its reason, a typed error. */
export function readImage(image: ImageInput, policy: ReadPolicy, signal: AbortSignal): Promise<Uint8Array> {
  return (image as SourceImage).read(policy, signal);
}

class SourceImage implements ImageInput {
  readonly name: string;
  readonly #source: Source;
  readonly #policy: ReadPolicy;
  readonly #trusted: boolean;
  #bytes: Uint8Array | undefined;

  /** Unlike `instanceof`, this touches nothing that could throw. */
  static is(value: unknown): value is SourceImage {
    return typeof value === "object" && value !== null && #source in value;
  }

  constructor(source: unknown, policy: ReadPolicy, trusted: boolean) {
    try {
      this.#source = sourceOf(source);
    } catch (error) {
      throw mediaError(roughName(source), error);
    }
    this.name = this.#source.name;
    this.#policy = policy;
    this.#trusted = trusted;
  }

  async bytes(signal?: AbortSignal): Promise<Uint8Array> {
    const stop = new Stop(signal);
    try {
      return new Uint8Array(await this.read({}, stop.signal));
    } finally {
      stop.done();
    }
  }

  async read(policy: ReadPolicy, signal: AbortSignal): Promise<Uint8Array> {
    if (this.#bytes) return until(Promise.resolve(this.#bytes), signal);
    try {
      const bytes = await until(this.#source.read(rightsOf(this.#policy, policy, this.#trusted), signal), signal);
      if (bytes.length === 0) throw new Unreadable("it is empty");
      if (bytes.length > maxImageBytes) throw tooLarge(maxImageBytes);
      this.#bytes = bytes;
      return bytes;
    } catch (error) {
      if (error instanceof PrefixKvError) throw error;
      throw mediaError(this.name, error, this.#source.path);
    }
  }
}

/** The name of an unusable source: the scheme of an address, or the length of the data. */
function roughName(source: unknown): string {
  if (typeof source !== "string") return `(${typeof source})`;
  const scheme = /^\s*([a-z][a-z0-9+.-]{0,20}):/i.exec(source.slice(0, 64))?.[1];
  if (scheme !== undefined) return `${scheme}:...`;
  return source.length > 100 || /^[\w+/=-]{64,}$/.test(source)
    ? `(a text of ${source.length} characters)`
    : shorten(source);
}

/** Says which image and why, and nothing of what is in it: neither the reason nor a cause may quote it. */
function mediaError(name: string, error: unknown, path?: string): MediaError {
  return new MediaError("image", `cannot read the image ${name}: ${readingReason(error, path)}`, { source: name });
}
