// Written by `cargo xtask gen` from the specifications of the engine; edit those instead.

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
  | "device"
  | "aborted"
  | "disposed"
  | "internal";
