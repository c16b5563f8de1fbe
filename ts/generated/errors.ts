// Written by `cargo xtask gen` from the specifications of the engine; edit those instead.
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
  PlanError,
  type PrefixKvError,
  PromptError,
  SnapshotError,
  UnsupportedModelError,
} from "../errors.ts";

/** The codes of the errors that the engine raises. */
export type ErrorCode =
  | "model-not-found"
  | "model-file"
  | "unsupported-model"
  | "numbers"
  | "image"
  | "option"
  | "prompt"
  | "context-overflow"
  | "out-of-memory"
  | "budget"
  | "calibration"
  | "plan"
  | "snapshot"
  | "device"
  | "aborted"
  | "disposed"
  | "internal";

/** The class of every code that the engine raises. */
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
  plan: PlanError,
  snapshot: SnapshotError,
  device: DeviceError,
  aborted: AbortError,
  disposed: DisposedError,
  internal: NativeError,
};
