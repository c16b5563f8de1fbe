import { HubError, PrefixKvError } from "../errors.ts";
import type { HubId } from "./ids.ts";

/** A failure that may pass: thrown by an attempt, turned into its error when there is no further one. */
export class Transient extends Error {
  readonly error: HubError;
  /** Milliseconds that the server asks to wait. */
  readonly after: number | undefined;
  /** The attempt brought something: it does not count against the others. */
  readonly progressed: boolean;

  constructor(
    error: HubError,
    { after, progressed = false }: { after?: number | undefined; progressed?: boolean } = {},
  ) {
    super(error.message);
    this.error = error;
    this.after = after;
    this.progressed = progressed;
  }
}

/** The subject of a failed response. */
export interface Subject extends HubId {
  endpoint: string;
  hasToken: boolean;
  file?: string;
}

/** The error of a status that is not a success; `foreign` says that another server than the hub gave it. */
export function statusError(response: Response, url: string, subject: Subject, foreign: boolean): HubError | Transient {
  const { id, revision, file } = subject;
  const { status } = response;
  const what = file === undefined ? id : `${file} of ${id}`;
  const details = { id, revision, url, status, ...(file !== undefined && { file }) };
  const make = (code: string, message: string): HubError => new HubError(code, message, details);
  if (status === 429) {
    const after = retryAfter(response.headers.get("retry-after"));
    const seconds = after === undefined ? "" : ` for ${Math.ceil(after / 1000)} s`;
    const advice = subject.hasToken ? "" : ", or pass a token, which has higher limits";
    const error = new HubError("hub-rate-limited", `the hub asks for a pause${seconds} (429): wait${advice}`, {
      ...details,
      ...(after !== undefined && { retryAfter: Math.ceil(after / 1000) }),
    });
    return new Transient(error, { after });
  }
  // The addresses that a hub redirects to expire; asking the hub again gives a new one.
  if (status === 408 || status >= 500 || (foreign && [400, 401, 403, 404].includes(status)))
    return new Transient(make("hub-network", `the server answered ${status} for ${what}`));
  if (status === 401 || status === 403) return make("hub-unauthorized", refusal(response, subject));
  if (status === 404) return make("hub-not-found", notFound(response, subject));
  return make("hub-response", `the server answered ${status} for ${what}`);
}

const passToken = "pass the option `token`, set HF_TOKEN, or run `hf auth login`";

function refusal(response: Response, { id, endpoint, hasToken }: Subject): string {
  const code = response.headers.get("x-error-code");
  const reason = response.headers.get("x-error-message") ?? "";
  if (code === "GatedRepo") {
    const next = hasToken ? "the token's owner must have been given access" : passToken;
    return `${id} is gated: accept its terms at ${endpoint}/${id}; then ${next}`;
  }
  if (/invalid credentials/i.test(reason)) return `the hub does not know the token (${response.status}): ${passToken}`;
  if (hasToken)
    return `there is no model ${id} that the token may read (${response.status}): check the name and the token's rights`;
  return `there is no public model ${id} (${response.status}): check the name; for a private or gated model ${passToken}`;
}

function notFound(response: Response, { id, revision, file, endpoint }: Subject): string {
  if (response.headers.get("x-error-code") === "RevisionNotFound") return `${id} has no revision ${revision}`;
  if (file !== undefined) return `${id} has no file ${file}`;
  return `there is no model ${id} at ${endpoint} (nor a folder of that name here)`;
}

/** Seconds or a date, as milliseconds from now. */
export function retryAfter(value: string | null, now: number = Date.now()): number | undefined {
  if (value === null) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** Turns an error of the cache's file operations into a HubError; undefined for anything else. */
export function diskError(thrown: unknown, cacheDir: string, needed: number | undefined): HubError | undefined {
  if (thrown instanceof PrefixKvError || !(thrown instanceof Error) || !("code" in thrown)) return undefined;
  const errno = String(thrown.code);
  // Deno does not always say the system call; errors of connections are errors of the hub already.
  if (!/^E[A-Z0-9]+$/.test(errno)) return undefined;
  const room = needed === undefined ? "" : `; ${needed} bytes are needed`;
  const message = ["ENOSPC", "EDQUOT"].includes(errno)
    ? `the disk of ${cacheDir} is full${room}: free some, or set HF_HUB_CACHE or \`cacheDir\` to another disk`
    : errno === "ENAMETOOLONG"
      ? `a path in the cache ${cacheDir} is longer than its disk allows: set HF_HUB_CACHE or \`cacheDir\` to a shorter path`
      : `cannot write to the cache ${cacheDir} (${errno}): make it writable, or set HF_HUB_CACHE or \`cacheDir\``;
  return new HubError(
    "hub-disk",
    message,
    { cacheDir, errno, ...(needed !== undefined && { needed }) },
    { cause: thrown },
  );
}

/** The error for a failure of a server or connection that no HTTP status describes. */
export function networkError(url: string, subject: Subject, why: string, cause?: unknown): HubError {
  const { id, revision, file } = subject;
  const details = { id, revision, url, ...(file !== undefined && { file }) };
  return new HubError("hub-network", `cannot download ${file ?? id}: ${why}`, details, { cause });
}

/** Bytes that are not the promised ones, or an answer that is not one of a hub. */
export function answerError(
  code: "hub-integrity" | "hub-response",
  subject: Subject,
  url: string,
  why: string,
): HubError {
  const { id, revision, file } = subject;
  const what = file === undefined ? id : `${file} of ${id}`;
  return new HubError(code, `${what}: ${why}`, { id, revision, url, ...(file !== undefined && { file }) });
}
