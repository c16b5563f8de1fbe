//! `NativeEngine` of the contract.

use std::sync::Arc;

use napi::Result;
use napi::bindgen_prelude::Uint8ArraySlice;
use napi_derive::napi;
use prefixkv_core::engine::Engine;

use crate::refusal::thrown;
use crate::ticket::NativeTicket;

/// A model on its own thread. Collected without a close, it closes itself, without waiting.
#[napi]
pub struct NativeEngine {
    engine: Arc<Engine>,
}

impl NativeEngine {
    pub(crate) fn new(engine: Engine) -> Self {
        NativeEngine { engine: Arc::new(engine) }
    }
}

#[napi]
impl NativeEngine {
    /// The ticket of the load.
    #[napi(catch_unwind)]
    pub fn loading(&self) -> NativeTicket {
        NativeTicket::new(self.engine.loading(), Some(self.engine.clone()))
    }

    /// Queues an `EngineRequest`; the bytes of its images are copied.
    #[napi(catch_unwind)]
    pub fn submit(&self, json: String, images: Vec<Uint8ArraySlice>) -> Result<NativeTicket> {
        let images = images.iter().map(|image| image.to_vec()).collect();
        let ticket = self.engine.submit(&json, images).map_err(thrown)?;
        Ok(NativeTicket::new(ticket, Some(self.engine.clone())))
    }

    /// Stops intake, cancels what runs, frees the model.
    #[napi(catch_unwind)]
    pub fn close(&self) -> NativeTicket {
        NativeTicket::new(self.engine.close(), Some(self.engine.clone()))
    }
}
