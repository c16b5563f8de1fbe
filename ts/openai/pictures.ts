import type { FetchRule } from "../images/policy.ts";
import { type ImageInput, image } from "../media.ts";
import type { Settings } from "./options.ts";
import { Refusal } from "./refusal.ts";

const dataUrl = /^data:image\/[\w.+-]{1,64}(?:;[\w.+=-]{1,64}){0,4};base64,/i;

/** The settings that are about pictures. */
export type PictureSettings = Pick<Settings, "images" | "imageHosts">;

/** Counts the pictures of a request, and makes images of their addresses. */
export class Pictures {
  readonly #most: number;
  readonly #hosts: readonly string[];
  #count = 0;

  constructor({ images, imageHosts }: PictureSettings) {
    this.#most = images;
    this.#hosts = imageHosts;
  }

  /**
   * A data URL, or an address at one of the allowed hosts. Nothing else is fetched or read for a request: an address or a path from outside
   * would be the caller's hand in our network.
   */
  read(url: string, param: string): ImageInput {
    this.#count += 1;
    if (this.#count > this.#most) {
      throw new Refusal(413, "request_too_large", `a request may have ${this.#most} images`, { param });
    }
    if (dataUrl.test(url.slice(0, 512))) return image(url);
    if (this.#hosts.length === 0) {
      throw invalidImage(
        "images come as data URLs only: data:image/png;base64,...; addresses are not fetched and files not read",
        param,
      );
    }
    // The URL that is judged is the one that is fetched, parsed once, whatever the text was.
    const found = url.length <= 8192 && URL.canParse(url) ? new URL(url) : undefined;
    if (found === undefined || this.#rule(found) === "none") {
      const hosts = this.#hosts.join(", ");
      throw invalidImage(`images come as data URLs, or from https addresses without a port at: ${hosts}`, param);
    }
    return image(found, { fetch: (next) => this.#rule(next) });
  }

  /** For the address and for every redirect. "public" resolves the name once, refuses networks of our own, and connects to what was judged. */
  #rule({ protocol, hostname, port, username, password }: URL): FetchRule {
    if (protocol !== "https:" || port !== "" || username !== "" || password !== "") return "none";
    const allowed = this.#hosts.some((host) =>
      host.startsWith("*.") ? hostname.endsWith(host.slice(1).toLowerCase()) : hostname === host.toLowerCase(),
    );
    return allowed ? "public" : "none";
  }
}

function invalidImage(message: string, param: string): Refusal {
  return new Refusal(400, "invalid_image", message, { param });
}
