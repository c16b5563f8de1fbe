import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { OptionError } from "../errors.ts";
import type { HubOptions } from "./options.ts";

/** The options of a download with the environment's share filled in, under the rules of huggingface_hub. */
export interface Settings {
  /** Without a slash at the end. */
  endpoint: string;
  cacheDir: string;
  token: string | undefined;
  offline: boolean;
  /** Snapshots link to their files; where they may not, the files are copied. */
  links: boolean;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Options first, then the environment, then the defaults. */
export async function readSettings(options: HubOptions, env: Environment = process.env): Promise<Settings> {
  const home = expand(env.HF_HOME ?? join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "huggingface"), env);
  const cacheDir = options.cacheDir ?? expand(env.HF_HUB_CACHE ?? env.HUGGINGFACE_HUB_CACHE ?? join(home, "hub"), env);
  const offline = options.offline ?? isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE);
  return {
    endpoint: checkEndpoint(options.endpoint ?? (env.HF_ENDPOINT || "https://huggingface.co")),
    cacheDir: resolve(cacheDir),
    token: offline ? undefined : await findToken(options.token, env, home),
    offline,
    links: !isTrue(env.HF_HUB_DISABLE_SYMLINKS),
  };
}

async function findToken(
  given: string | false | undefined,
  env: Environment,
  home: string,
): Promise<string | undefined> {
  if (given === false) return undefined;
  if (given !== undefined) return checkToken(given);
  if (isTrue(env.HF_HUB_DISABLE_IMPLICIT_TOKEN)) return undefined;
  const named = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  if (named !== undefined && named.trim() !== "") return checkToken(named);
  const file = expand(env.HF_TOKEN_PATH ?? join(home, "token"), env);
  const text = await readFile(file, "utf8").catch(() => "");
  return text.trim() === "" ? undefined : checkToken(text);
}

function checkToken(text: string): string | undefined {
  const token = text.trim();
  // The message never repeats the token.
  if (!/^[\x21-\x7e]*$/.test(token))
    throw new OptionError("option", "the hub's token has characters that no token has", { option: "token" });
  return token === "" ? undefined : token;
}

function checkEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url && /^https?:$/.test(url.protocol) && url.search === "" && url.hash === "" && url.username === "")
    return text.replace(/\/+$/, "");
  throw new OptionError("option", "the hub's endpoint must be an http or https URL without a query or a user", {
    option: "endpoint",
  });
}

function isTrue(value: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes((value ?? "").toUpperCase());
}

/** `~`, `$NAME` and `${NAME}`, as huggingface_hub reads them. */
function expand(path: string, env: Environment): string {
  const absolute = path === "~" || /^~[/\\]/.test(path) ? join(homedir(), path.slice(1)) : path;
  return absolute.replace(
    /\$(?:\{(\w+)\}|(\w+))/g,
    (all, braced?: string, bare?: string) => env[braced ?? bare ?? ""] ?? all,
  );
}
