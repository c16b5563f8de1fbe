import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { shorten, show } from "../options/show.ts";
import { readRegularFile, tooLarge, Unreadable } from "../regular_file.ts";
import { asBlob, bytesName, readBlob, viewBytes } from "./bytes.ts";
import { readDataUrl } from "./data_url.ts";
import { fetchImage } from "./fetch.ts";
import { maxImageBytes } from "./limits.ts";
import { allowedPath, type ImageRights } from "./policy.ts";

/** A source of an image: what it is called, and how it is read. */
export interface Source {
  /** Short, without what is secret in an address, and without data. */
  name: string;
  /** Where it is read, for systems' reasons. */
  path?: string;
  read(rights: ImageRights, signal: AbortSignal | undefined): Promise<Uint8Array>;
}

/** Reading happens later; what is no source at all is {@link Unreadable} at once. */
export function sourceOf(source: unknown): Source {
  if (typeof source === "string") return fromText(source);
  const bytes = viewBytes(source);
  if (bytes !== undefined) return fromBytes(bytes);
  const blob = asBlob(source);
  if (blob !== undefined) {
    const name = (blob as { name?: unknown }).name;
    return {
      name: typeof name === "string" && name !== "" ? shorten(name) : "(blob)",
      read: (_, signal) => readBlob(blob, signal),
    };
  }
  const href = urlText(source);
  if (href !== undefined) return fromUrl(href);
  throw new Unreadable(`image() takes a path, a URL, bytes or a Blob, found ${show(source)}${advice(source)}`);
}

/** A copy: what happens to the bytes after the call is the caller's affair. */
function fromBytes(bytes: Uint8Array): Source {
  if (bytes.length > maxImageBytes) return { name: bytesName, read: () => Promise.reject(tooLarge(maxImageBytes)) };
  const copy = bytes.slice();
  return { name: bytesName, read: async () => copy };
}

function urlText(source: unknown): string | undefined {
  if (Object.prototype.toString.call(source) !== "[object URL]") return undefined;
  const { href } = source as URL;
  return typeof href === "string" ? href : undefined;
}

function fromText(text: string): Source {
  if (text.trim() === "") throw new Unreadable("the source is empty; give a path, a URL, bytes or a Blob");
  const start = text.slice(0, 256).trimStart();
  if (/^(https?|data|file):/i.test(start)) return fromUrl(text.trim());
  const scheme = /^(?:([a-z][a-z0-9+.-]+):\/\/|(blob|cid|javascript):)/i.exec(start);
  if (scheme) return fromUrl(text.trim());
  const media = /^([\w.+-]+\/[\w.+-]+)(?:;[\w.+-]+=[^;,]*)*;base64,/i.exec(start)?.[1];
  if (media !== undefined) {
    throw new Unreadable(`it is a data URL without its start; write "data:${shorten(media, 40)};base64,..."`);
  }
  const type = base64Type(text);
  if (type !== undefined) {
    throw new Unreadable(
      `it looks like base64 (${text.length} characters), not like a path; write "data:${type};base64,..." or pass Buffer.from(text, "base64")`,
    );
  }
  if (text.length > 4096) throw new Unreadable(`a path of ${text.length} characters is longer than any system takes`);
  const path = resolve(text);
  return fromFile(shorten(text), path);
}

/** The media type of what seems to be bare base64. */
function base64Type(text: string): string | undefined {
  if (text.length < 64 || !/^[A-Za-z0-9+/_=\s-]+$/.test(text.slice(0, 1024) + text.slice(-8))) return undefined;
  const start = text.trimStart();
  const known = Object.entries(base64Starts).find(([opening]) => start.startsWith(opening));
  // No part of a path is longer than 255 bytes.
  return known?.[1] ?? (/[^/\s]{256}/.test(text.slice(0, 4096)) ? "image/png" : undefined);
}

const base64Starts: Record<string, string> = {
  iVBORw0KGgo: "image/png",
  "/9j/": "image/jpeg",
  R0lGOD: "image/gif",
  UklGR: "image/webp",
};

function fromFile(name: string, path: string): Source {
  return {
    name,
    path,
    read: async ({ files }, signal) => readRegularFile(await allowedPath(path, files), maxImageBytes, signal),
  };
}

function fromUrl(text: string): Source {
  if (/^\s*data:/i.test(text.slice(0, 64))) {
    return { name: dataName(text), read: async () => readDataUrl(text) };
  }
  if (text.length > 65_536) throw new Unreadable(`a URL of ${text.length} characters is longer than any server takes`);
  if (!URL.canParse(text)) throw new Unreadable("it is not a valid URL");
  const url = new URL(text);
  const name = addressName(url);
  if (url.protocol === "http:" || url.protocol === "https:") {
    return { name, read: ({ fetch }, signal) => fetchImage(url, fetch, signal) };
  }
  if (url.protocol === "file:") return fromFile(name, fileOf(url));
  const scheme = shorten(url.protocol, 24);
  if (scheme === "blob:")
    throw new Unreadable("a blob: address means something within its own program only; pass the Blob itself");
  throw new Unreadable(`${scheme} addresses are not read; use a file:, data:, http: or https: URL, or pass the bytes`);
}

function fileOf(url: URL): string {
  try {
    return fileURLToPath(url);
  } catch {
    throw new Unreadable("a file: URL of another machine, or with an escaped slash, is no path here");
  }
}

/** Origin and path: a query often holds a key, and a user name its password. */
function addressName(url: URL): string {
  const origin = url.protocol === "file:" ? "file://" : `${url.protocol}//${url.host}`;
  return shorten(`${origin}${url.pathname}`);
}

/** The media type and no data. */
function dataName(text: string): string {
  const head = /^\s*data:([^,;]{0,40})((?:;[^,;]{0,40}){0,3}?)(;\s*base64)?\s*,/i.exec(text.slice(0, 256));
  return head === null ? "data:..." : shorten(`data:${head[1]}${head[3] === undefined ? "" : ";base64"},...`, 80);
}

function advice(source: unknown): string {
  const kind = Object.prototype.toString.call(source);
  if (kind === "[object Promise]") return "; await it first";
  if (kind === "[object Response]" || kind === "[object Request]") return "; pass await response.blob()";
  if (kind === "[object ReadableStream]") return "; pass await new Response(stream).blob()";
  if (kind === "[object ImageData]") return "; it takes encoded bytes (PNG, JPEG, WebP, GIF), not pixels";
  if (Array.isArray(source)) return "; pass numbers as Uint8Array.from(numbers), and several images one by one";
  if (typeof source === "object" && source !== null && "data" in source)
    return "; pass its bytes: Uint8Array.from(it.data)";
  return "";
}
