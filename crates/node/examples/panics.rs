//! The addon, both doors included, over a model that panics when a prompt says so: for `tests/contract`.

use std::sync::Arc;

use prefixkv_core::engine::{Codec, Events, Loader, Runner, Started, stand_in};
use prefixkv_core::model::ModelInfo;
use prefixkv_core::wire::{Event, ModelRequest, SourceText};
use prefixkv_core::{Error, Result};

// Links the addon's functions in.
pub use prefixkv_node::*;

struct Panics;

impl Codec for Panics {
    fn encode(&self, _text: &str, _special: bool) -> Result<Vec<u32>> {
        panic!("in the tokenizer")
    }

    fn decode(&self, _tokens: &[u32], _skip_special: bool) -> Result<String> {
        Ok("decoded".into())
    }
}

impl Runner for Panics {
    fn info(&self) -> ModelInfo {
        ModelInfo::default()
    }

    fn codec(&self) -> Arc<dyn Codec> {
        Arc::new(Panics)
    }

    fn start(&mut self, _: u64, request: &ModelRequest, _images: &[Vec<u8>], events: &Events) -> Result<Started> {
        match request {
            ModelRequest::Generate(request) if matches!(&request.source.text, SourceText::Raw(text) if text == "panic") =>
            {
                panic!("in the model")
            }
            ModelRequest::Generate(_) => events.finish(Event::Text { text: "sound".into() }),
            _ => return Err(Error::Internal("only generate".into())),
        }
        Ok(Started::Finished)
    }

    fn is_sound(&self) -> bool {
        true
    }
}

fn loader() -> Loader {
    Box::new(|_| Ok(Box::new(Panics)))
}

extern "C" fn start() {
    stand_in(loader);
}

/// Run when the library is opened, through whichever door.
#[used]
// SAFETY: the loader calls each entry of this section once, without arguments; `start` sets a cell and cannot panic.
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
#[cfg_attr(windows, unsafe(link_section = ".CRT$XCU"))]
static START: extern "C" fn() = start;
