//! Images: from a file's bytes to what the vision tower takes.
//!
//! [`decode`] recognises PNG, JPEG, WebP and GIF by content, within limits, and gives upright RGB8. [`ImageProcessor`]
//! then follows the model's `preprocessor_config.json`: pad to a square (LLaVA's option), [`resize()`] as Pillow does
//! it to the bit, crop the centre, rescale, normalise to f32 `[3, height, width]`.

mod config;
mod decode;
mod kernel;
mod png;
mod processor;
mod resemblance;
mod resize;
mod whole;

pub use decode::{MAX_BYTES, MAX_PIXELS, MAX_SIDE, decode, decoding_bytes, upright_size};
pub use kernel::Filter;
pub use processor::{Area, ImageProcessor, Pixels};
pub use resize::{Canvas, resize, resize_part};
