import {
  AbortError,
  BudgetError,
  CalibrationError,
  ContextOverflowError,
  DeviceError,
  DisposedError,
  MediaError,
  ModelError,
  NativeError,
  OptionError,
  OutOfMemoryError,
  PrefixKvError,
  PromptError,
  UnsupportedModelError,
} from "../errors.ts";
import type { ErrorCode } from "../generated/errors.ts";
import type { WireError } from "../generated/wire.ts";

/** The class of every code that the engine can raise; {@link errorFromWire} builds from it. */
export const errorClasses: Readonly<Record<ErrorCode, typeof PrefixKvError>> = {
  "model-not-found": ModelError,
  "model-file": ModelError,
  "unsupported-model": UnsupportedModelError,
  numbers: ModelError,
  image: MediaError,
  option: OptionError,
  prompt: PromptError,
  "context-overflow": ContextOverflowError,
  "out-of-memory": OutOfMemoryError,
  budget: BudgetError,
  calibration: CalibrationError,
  device: DeviceError,
  aborted: AbortError,
  disposed: DisposedError,
  internal: NativeError,
};

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
