//! The Node-API door: `Native` of `ts/native/contract.ts`, and nothing more. Bun, Deno and Node load it alike.
//!
//! A panic never crosses: every function catches. A refusal is thrown as an `Error` whose message is a `WireError`.

mod engine;
mod refusal;
mod ticket;

// The addon also exports the C ABI, so that one file serves every door.
extern crate prefixkv as _;

use napi::Result;
use napi_derive::napi;
use prefixkv_core::engine::{self as core, Engine};

pub use engine::NativeEngine;
pub use ticket::NativeTicket;

/// JSON of `About`.
#[napi(catch_unwind)]
pub fn about() -> String {
    core::about().to_json().to_string()
}

/// Starts an engine that loads the model of a `LoadRequest`.
#[napi(catch_unwind)]
pub fn open(json: String) -> Result<NativeEngine> {
    Engine::open(&json).map(NativeEngine::new).map_err(refusal::thrown)
}

/// Reads the configuration of the folder in `{ "source": DIR }`.
#[napi(catch_unwind)]
pub fn inspect(json: String) -> Result<NativeTicket> {
    Engine::inspect(&json).map(|ticket| NativeTicket::new(ticket, None)).map_err(refusal::thrown)
}

/// Checks the GPU in `{ "device": NAME, "ceilings": BOOL }`.
#[napi(catch_unwind)]
pub fn check_device(json: String) -> Result<NativeTicket> {
    Engine::check_device(&json).map(|ticket| NativeTicket::new(ticket, None)).map_err(refusal::thrown)
}
