// Written by `cargo xtask gen` from crates/capi/src; edit that instead.

/** The version of the ABI that {@link functions} describes. */
export const abiVersion = 2;

/** Statuses that the functions return. */
export const status = {
  ok: 0,
  end: -1,
  tooSmall: -2,
  refused: -3,
  stale: -4,
  invalid: -5,
  busy: -6,
  panic: -7,
} as const;

/** The functions with their parameters: numbers by their width, and pointers to bytes. */
export const functions = {
  pkv_abi_version: { parameters: [], result: "u32" },
  pkv_about: { parameters: ["buffer", "usize", "buffer"], result: "i32" },
  pkv_open: { parameters: ["buffer", "usize", "buffer", "buffer", "usize", "buffer"], result: "i32" },
  pkv_inspect: { parameters: ["buffer", "usize", "buffer", "buffer", "usize", "buffer"], result: "i32" },
  pkv_check_device: { parameters: ["buffer", "usize", "buffer", "buffer", "usize", "buffer"], result: "i32" },
  pkv_loading: { parameters: ["u32", "buffer", "buffer", "usize", "buffer"], result: "i32" },
  pkv_submit: {
    parameters: ["u32", "buffer", "usize", "buffer", "buffer", "usize", "buffer", "buffer", "usize", "buffer"],
    result: "i32",
  },
  pkv_next: { parameters: ["u32", "u32", "buffer", "usize", "buffer"], result: "i32" },
  pkv_cancel: { parameters: ["u32"], result: "i32" },
  pkv_close: { parameters: ["u32", "buffer", "buffer", "usize", "buffer"], result: "i32" },
  pkv_release: { parameters: ["u32"], result: "i32" },
} as const;
