import { Refusal } from "./refusal.ts";

/** Names of this machine, which no name server on the outside gives a page. */
export const loopbackNames: readonly string[] = ["localhost", "127.0.0.1", "[::1]"];

/** Who may ask, by the request's `host` and `origin`, before any key is looked at. */
export class Guard {
  readonly #hosts: ReadonlySet<string> | undefined;
  readonly #origins: ReadonlySet<string>;

  /** Without `hosts` every name is as good. */
  constructor(hosts: readonly string[] | undefined, origins: readonly string[]) {
    this.#hosts = hosts && new Set(hosts.map((host) => host.toLowerCase()));
    this.#origins = new Set(origins);
  }

  /** Throws a Refusal for a name that is none of ours: a page may have its own name lead to this machine (DNS rebinding). */
  check(headers: Headers): void {
    if (this.#hosts === undefined) return;
    const host = (headers.get("host") ?? "").toLowerCase();
    if (this.#hosts.has(host) || this.#hosts.has(host.replace(/:\d{1,5}$/, ""))) return;
    throw new Refusal(403, "host_not_allowed", "this server does not answer to the name in the header `host`");
  }

  /** The answer to the question of a browser whether a page of another origin may ask; it comes without a key. */
  preflight(request: Request): Response | undefined {
    if (request.method !== "OPTIONS" || !this.#welcome(request)) return undefined;
    if (!request.headers.has("access-control-request-method")) return undefined;
    const asked = request.headers.get("access-control-request-headers") ?? "";
    const names = /^[\w\-, ]{1,1024}$/.test(asked) ? { "access-control-allow-headers": asked } : {};
    return new Response(null, {
      status: 204,
      headers: { "access-control-allow-methods": "GET, POST", "access-control-max-age": "600", ...names },
    });
  }

  /** Lets a page of a welcome origin read an answer. */
  open(request: Request, response: Response): void {
    if (this.#origins.size === 0) return;
    response.headers.append("vary", "origin");
    if (!this.#welcome(request)) return;
    response.headers.set("access-control-allow-origin", request.headers.get("origin") ?? "");
    response.headers.set("access-control-expose-headers", "retry-after, x-request-id, x-prefixkv-ignored");
  }

  #welcome(request: Request): boolean {
    return this.#origins.has(request.headers.get("origin") ?? "");
  }
}
