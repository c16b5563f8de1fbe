import { AbortError, ContextOverflowError, PrefixKvError } from "../errors.ts";

/** Why a request gets no answer, as HTTP says it. */
export class Refusal extends Error {
  readonly status: number;
  readonly type: string;
  readonly code: string | null;
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    code: string | null,
    message: string,
    { param = null, type = "invalid_request_error", headers = {} }: Facts = {},
  ) {
    super(message);
    this.status = status;
    this.type = type;
    this.code = code;
    this.param = param;
    this.headers = headers;
  }

  /** The body: what the clients of OpenAI read. */
  get body(): { error: { message: string; type: string; param: string | null; code: string | null } } {
    return { error: { message: this.message, type: this.type, param: this.param, code: this.code } };
  }
}

interface Facts {
  param?: string | null;
  type?: string;
  headers?: Readonly<Record<string, string>>;
}

/** A field that would change the answer and cannot be honoured. */
export function unsupported(param: string, message: string): Refusal {
  return new Refusal(400, "unsupported_parameter", message, { param });
}

/** A field that is not what it must be. */
export function invalid(param: string, message: string): Refusal {
  return new Refusal(400, "invalid_value", `\`${param}\` ${message}`, { param });
}

/** The server ends, or is not able to answer any more. */
export function unavailable(code: string, message: string): Refusal {
  return new Refusal(503, code, message, { type: "server_error", headers: { "retry-after": "30" } });
}

const badRequests = new Map([
  ["option", "invalid_option"],
  ["prompt", "invalid_prompt"],
  ["image", "invalid_image"],
  ["budget", "invalid_budget"],
  ["calibration", "invalid_calibration"],
  ["plan", "invalid_option"],
  ["out-of-memory", "out_of_memory"],
]);

/** The meaning of an error, of the library or any other, over HTTP. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof ContextOverflowError) {
    const { needed, available, imageTokens } = error;
    const message = `the request needs ${needed} positions and the model has ${available}; ${imageTokens} of those are image tokens`;
    return new Refusal(400, "context_length_exceeded", message, { param: "messages" });
  }
  if (error instanceof AbortError) return new Refusal(499, "client_closed_request", "the client has gone");
  if (error instanceof PrefixKvError) {
    const code = badRequests.get(error.code);
    if (code !== undefined) {
      const param = error.code === "image" || error.code === "prompt" ? "messages" : null;
      return new Refusal(400, code, error.message, { param });
    }
    if (error.code === "device") return unavailable("device", "the device failed; try again later");
    if (error.code === "disposed") return unavailable("model_unloaded", "the model is not loaded any more");
  }
  // Nothing of an unknown error goes out: it may quote paths, addresses or prompts.
  const message = "the server failed to answer; quote the header x-request-id when you report it";
  return new Refusal(500, "internal", message, { type: "server_error", headers: { "x-should-retry": "false" } });
}
