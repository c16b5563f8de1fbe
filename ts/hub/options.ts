import type { Progress } from "../generated/wire.ts";

/**
 * How a Hugging Face Hub model is found and cached; see docs/hub.md. Ignored for a local folder.
 *
 * @example
 * ```ts
 * import { HubError, type HubOptions, load } from "prefixkv";
 *
 * const options: HubOptions = { revision: "main", cacheDir: "models-of-mine", offline: true };
 * const error = await load("org/name", options).catch((error: unknown) => error);
 * if (error instanceof HubError) console.log(error.code); // "hub-offline": nothing is in that folder yet
 * ```
 */
export interface HubOptions {
  /** A branch, a tag or a commit; `main` without. The same as `org/name@revision`. */
  revision?: string;
  /**
   * Of a repository with GGUF files, the one to load: its name, or a pattern with `*` and `?` that only one matches (`*Q4_K_M*`). Not
   * needed where there is only one.
   */
  file?: string;
  /** An access token; false sends none. Without it, `HF_TOKEN` or the file that `hf auth login` writes. */
  token?: string | false;
  /** Uses only what is in the cache; without it, `HF_HUB_OFFLINE`. */
  offline?: boolean;
  /** The cache's folder; without it `HF_HUB_CACHE`, `$HF_HOME/hub` or `~/.cache/huggingface/hub`. */
  cacheDir?: string;
  /** The hub's address; without it `HF_ENDPOINT` or `https://huggingface.co`. */
  endpoint?: string;
  /** Stops the download; see AbortError. Bytes that have come so far stay for the next time. */
  signal?: AbortSignal;
  /** Called as the download proceeds, with bytes. */
  onProgress?: (progress: Progress) => void;
}
