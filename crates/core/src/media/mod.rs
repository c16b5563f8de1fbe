//! Images: from a file's bytes to what the vision tower takes.
//!
//! [`decode`] recognises PNG, JPEG, WebP and GIF by content, within limits, and gives upright RGB8. An image processor
//! then follows the model's `preprocessor_config.json`. Each family of models has its own ([`crate::model::ImageProcessor`]), made of
//! what is here: [`resize()`] as Pillow does it to the bit, and rescaling and normalising to f32 `[3, height, width]`. [`ClipProcessor`] pads
//! to a square (LLaVA's option) or crops the centre.

mod clip;
mod decode;
mod kernel;
pub(crate) mod normalise;
mod png;
mod prepared;
mod resemblance;
mod resize;
pub(crate) mod settings;
mod video;
mod whole;

pub use clip::ClipProcessor;
pub use decode::{MAX_BYTES, MAX_PIXELS, MAX_SIDE, decode, decoding_bytes, upright_size};
pub use kernel::Filter;
pub use prepared::{Area, Pixels, Prepared};
pub use resize::{Canvas, resize, resize_part};
pub use settings::SettingsOf;
pub use video::{Clip, MAX_SECONDS, MAX_VIDEO_BYTES, MOST_FRAMES, Timing, require_light};
