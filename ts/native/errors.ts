import { NativeError, PrefixKvError } from "../errors.ts";
import { type ErrorCode, errorClasses } from "../generated/errors.ts";
import type { WireError } from "../generated/wire.ts";

/** The typed error of what came through a door. */
export function errorFromWire(error: WireError, extra: Record<string, unknown> = {}): PrefixKvError {
  const Class = Object.hasOwn(errorClasses, error.code) ? errorClasses[error.code as ErrorCode] : PrefixKvError;
  return new Class(error.code, error.message, { ...error.details, ...extra });
}

/** The typed error of what a door threw: an Error whose message is the JSON of a WireError, or a defect. */
export function errorFromThrown(thrown: unknown): PrefixKvError {
  if (thrown instanceof PrefixKvError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  try {
    const wire: unknown = JSON.parse(message);
    if (isWireError(wire)) return errorFromWire(wire);
  } catch {
    // Not a wire error: reported as a defect below.
  }
  return new NativeError("internal", `the native code failed: ${message}`, {}, { cause: thrown });
}

function isWireError(value: unknown): value is WireError {
  return typeof value === "object" && value !== null && "code" in value && "message" in value;
}

/** Calls a door; what it throws comes typed. */
export function wire<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw errorFromThrown(error);
  }
}
