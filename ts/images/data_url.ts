import { Buffer } from "node:buffer";
import { tooLarge, Unreadable } from "../regular_file.ts";
import { maxImageBytes } from "./limits.ts";

/** Percent-encoding has 3 characters for a byte; the media type comes to that. */
const maxLength = 3 * maxImageBytes + 1024;

/**
 * The bytes of a data URL by the rules of the WHATWG (fetch, "data: URLs"; infra, "forgiving-base64 decode"), on every runtime alike:
 * spaces in base64 do not count, the fragment is no part, and the media type does not matter, because images are known by content.
 */
export function readDataUrl(url: string): Uint8Array {
  if (url.length > maxLength) throw tooLarge(maxImageBytes);
  // As the URL parser does it: no spaces at the ends, no tabs and line ends anywhere, nothing from the fragment on.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is dropped
  const text = url.replace(/^[\u0000- ]+|[\u0000- ]+$/g, "").replace(/[\t\n\r]+/g, "");
  const [whole = ""] = text.split("#", 1);
  const comma = whole.indexOf(",");
  if (comma < 0) throw new Unreadable("a data URL has a comma before its data: data:image/png;base64,...");
  const body = whole.slice(comma + 1);
  if (!/; *base64 *$/i.test(whole.slice("data:".length, comma))) return percentDecode(body);
  return fromBase64(body.includes("%") ? percentDecode(body).toString("latin1") : body);
}

function percentDecode(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  if (!bytes.includes(0x25)) return bytes;
  let length = 0;
  for (let at = 0; at < bytes.length; at++) {
    const code = bytes[at] === 0x25 ? bytes.toString("latin1", at + 1, at + 3) : "";
    const escaped = /^[0-9a-f]{2}$/i.test(code);
    bytes[length++] = escaped ? Number.parseInt(code, 16) : (bytes[at] ?? 0);
    if (escaped) at += 2;
  }
  return bytes.subarray(0, length);
}

function fromBase64(text: string): Uint8Array {
  let plain = text.replace(/[\t\n\f\r ]+/g, "");
  if (plain.length % 4 === 0) plain = plain.replace(/={1,2}$/, "");
  if (/[-_]/.test(plain)) throw new Unreadable("its data are base64url; write + for - and / for _");
  if (/[^A-Za-z0-9+/]/.test(plain)) throw new Unreadable("its data have characters that base64 does not have");
  if (plain.length % 4 === 1) throw new Unreadable("its base64 is cut off");
  return Buffer.from(plain, "base64");
}
