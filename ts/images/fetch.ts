import { lookup as systemLookup } from "node:dns/promises";
import { type IncomingMessage, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import type { Readable } from "node:stream";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import { MediaError } from "../errors.ts";
import { factsOf, Unreadable } from "../regular_file.ts";
import { Stop, until } from "../stop.ts";
import { isPublic } from "./addresses.ts";
import { Collected } from "./limits.ts";
import { fetchRule, type ImageRights } from "./policy.ts";

/** As many as browsers allow is more than an image needs. */
const maxRedirects = 10;

/** Where names are looked up, which addresses are public, how long a server may take with its redirects: tests have their own. */
export interface Network {
  lookup(host: string): Promise<{ address: string; family: number }[]>;
  isPublic(address: string): boolean;
  seconds: number;
  /** Certificates to trust instead of the system's. */
  ca?: string;
}

const network: Network = { lookup: (host) => systemLookup(host, { all: true }), isPublic, seconds: 30 };

/**
 * Fetches an image. Names are resolved once, the addresses are judged, and the connection goes to those, so that a name which changes
 * its address in between gains nothing; each redirect is judged anew. Proxies of the environment are not used: they would hide where
 * a request goes.
 */
export async function fetchImage(
  url: URL,
  rights: ImageRights["fetch"],
  signal: AbortSignal | undefined,
  net: Network = network,
): Promise<Uint8Array> {
  const stop = new Stop(signal);
  const late = new MediaError("image", `the server took longer than ${net.seconds} s`);
  const timer = setTimeout(() => stop.end(late), net.seconds * 1000);
  try {
    return await until(follow(url, rights, stop.signal, net), stop.signal);
  } catch (error) {
    throw error === late ? new Unreadable(late.message) : error;
  } finally {
    clearTimeout(timer);
    stop.end(late);
    stop.done();
  }
}

async function follow(
  start: URL,
  rights: ImageRights["fetch"],
  signal: AbortSignal,
  net: Network,
): Promise<Uint8Array> {
  let url = start;
  for (let hops = 0; hops <= maxRedirects; hops++) {
    const addresses = await allowedAddresses(url, rights, net);
    const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : url.port;
    for (const { address, family } of addresses) requireNet(`${family === 6 ? `[${address}]` : address}:${port}`);
    const response = await send(url, addresses, signal, net.ca);
    const { statusCode = 0, headers } = response;
    if (statusCode >= 200 && statusCode < 300) return collect(response, signal);
    response.destroy();
    if (![301, 302, 303, 307, 308].includes(statusCode)) throw new Unreadable(`the server answered ${statusCode}`);
    if (headers.location === undefined || !URL.canParse(headers.location, url)) {
      throw new Unreadable("the server redirects to no address");
    }
    url = new URL(headers.location, url);
  }
  throw new Unreadable(`the server redirects more than ${maxRedirects} times`);
}

/** The addresses to connect to, all of them allowed. */
async function allowedAddresses(
  url: URL,
  rights: ImageRights["fetch"],
  net: Network,
): Promise<{ address: string; family: number }[]> {
  const place = `${url.protocol}//${url.host}`;
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new Unreadable(`it leads to a ${url.protocol} address; only http: and https: are followed`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new Unreadable(
      "the address has a user name or a password in it; leave them out, or fetch it and pass the bytes",
    );
  }
  const rule = await fetchRule(rights, url);
  if (rule === "none") throw new Unreadable(`\`images.fetch\` does not allow ${place}`);
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  const family = isIP(host);
  const found = family > 0 ? [{ address: host, family }] : await resolveName(host, net);
  if (rule === "any") return found;
  // One that is not public may be all that a name is for, however many others it has.
  if (found.length > 0 && found.every(({ address }) => net.isPublic(address))) return found;
  throw new Unreadable(
    `${place} is not on the public internet; if that is meant, write image(url, { fetch: "any" }) or give load \`images.fetch\``,
  );
}

async function resolveName(host: string, net: Network): Promise<{ address: string; family: number }[]> {
  try {
    return await net.lookup(host);
  } catch {
    requireNet(host);
    throw new Unreadable("its host has no address that can be found");
  }
}

/** Deno throws out of reach of any catch where it does not allow a connection, so it is asked before. */
function requireNet(host: string): void {
  const { Deno } = globalThis as { Deno?: { permissions?: { querySync(name: object): { state: string } } } };
  const state = Deno?.permissions?.querySync({ name: "net", host }).state;
  if (state === undefined || state === "granted") return;
  throw new Unreadable(
    "Deno allows it with --allow-net; a list of hosts there does not do, because addresses are connected to",
  );
}

/** The answer to one GET through a connection of its own. */
function send(
  url: URL,
  addresses: readonly { address: string; family: number }[],
  signal: AbortSignal,
  ca: string | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const lookup: LookupFunction = (_, options, found) => {
      const [first] = addresses;
      if (options.all) found(null, [...addresses]);
      else found(null, first?.address ?? "", first?.family);
    };
    const request = (url.protocol === "https:" ? requestHttps : requestHttp)(url, {
      agent: false,
      lookup,
      ...(ca !== undefined && { ca }),
      headers: {
        accept: "image/png, image/jpeg, image/webp, image/gif, */*;q=0.1",
        "accept-encoding": "identity",
        "user-agent": "prefixkv",
      },
    });
    const abandon = (): void => void request.destroy();
    signal.addEventListener("abort", abandon, { once: true });
    request.on("close", () => signal.removeEventListener("abort", abandon));
    request.on("error", (error) => reject(connectionFailure(error)));
    request.on("response", resolve);
    request.end();
  });
}

/** The body, up to the limit in either form, decompressed if the server has compressed it unasked. */
async function collect(response: IncomingMessage, signal: AbortSignal): Promise<Uint8Array> {
  const encoding = (response.headers["content-encoding"] ?? "identity").trim().toLowerCase();
  const collected = new Collected();
  const body = decoded(response, encoding);
  const abandon = (): void => void response.destroy();
  signal.addEventListener("abort", abandon, { once: true });
  try {
    for await (const chunk of body) collected.add(chunk as Uint8Array);
  } catch (error) {
    if (error instanceof Unreadable) throw error;
    throw body === response ? connectionFailure(error) : new Unreadable(`its ${encoding} compression is damaged`);
  } finally {
    response.destroy();
    signal.removeEventListener("abort", abandon);
  }
  const promised = Number(response.headers["content-length"] ?? Number.NaN);
  const bytes = collected.bytes();
  if (body === response && bytes.length < promised) throw new Unreadable("the connection broke before its end");
  return bytes;
}

function decoded(response: IncomingMessage, encoding: string): Readable {
  if (encoding === "identity" || encoding === "") return response;
  const made =
    encoding === "gzip" || encoding === "x-gzip"
      ? createGunzip()
      : encoding === "deflate"
        ? createInflate()
        : encoding === "br"
          ? createBrotliDecompress()
          : undefined;
  if (made === undefined) throw new Unreadable("the server has compressed it in a way that was not asked for");
  response.on("error", () => made.destroy(new Error("the connection broke")));
  response.on("aborted", () => made.destroy(new Error("the connection broke")));
  return response.pipe(made);
}

function connectionFailure(error: unknown): Unreadable {
  if (error instanceof Unreadable) return error;
  const { code = "" } = factsOf(error);
  const certificate = /CERT|SIGNATURE|SSL|TLS/.test(code)
    ? "its certificate is not accepted: "
    : "the connection failed: ";
  return new Unreadable(`${certificate}${/^[A-Z][A-Z0-9_]+$/.test(code) ? code : "no reason is known"}`);
}
