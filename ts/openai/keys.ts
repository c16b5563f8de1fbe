import { createHash, timingSafeEqual } from "node:crypto";
import { Refusal } from "./refusal.ts";

const digest = (key: string): Buffer => createHash("sha256").update(key, "utf8").digest();

/** Checks the key of a request; of the keys themselves it holds digests only. */
export class Keys {
  readonly #digests: readonly Buffer[];

  constructor(keys: readonly string[]) {
    this.#digests = keys.map(digest);
  }

  /** Throws a Refusal unless the request has one of the keys, or none is needed. */
  check(headers: Headers): void {
    if (this.#digests.length === 0) return;
    const bearer = /^Bearer +(.+)$/i.exec(headers.get("authorization") ?? "")?.[1];
    const given = [bearer, headers.get("x-api-key")].filter((key) => typeof key === "string");
    let known = false;
    // All are compared, whichever fits: the time tells nothing of the keys.
    for (const key of given.map(digest)) {
      for (const own of this.#digests) known = timingSafeEqual(key, own) || known;
    }
    if (known) return;
    const reason = given.length === 0 ? "this server needs an API key" : "the API key is not one of this server";
    throw new Refusal(401, "invalid_api_key", `${reason}; send it as \`authorization: Bearer KEY\` or \`x-api-key\``, {
      headers: { "www-authenticate": "Bearer" },
    });
  }
}
