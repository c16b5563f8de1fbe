//! What a traced generation says beside its answer.

use serde::Serialize;

use super::report::GenerationResult;
use crate::cache::{Kept, Span};
use crate::media::Area;
use crate::method::LayerRecord;

/// What the cache held during a generation, and by what order its entries were chosen. Positions count from 0 over the prompt and the
/// answer; importance is known for those of the prompt.
///
/// ```ts
/// import { image, load, prefixkv, type Trace } from "prefixkv";
///
/// await using model = await load();
/// const messages = [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }];
/// const trace: Trace = await model.trace({ messages, cache: prefixkv({ keep: 0.3 }), maxTokens: 8 });
/// const [picture] = trace.images;
/// const patches = trace.spans.find(({ modality }) => modality.type === "image");
/// const first = trace.layers[0]?.kept[0]?.positions.filter((at) => at >= (patches?.start ?? 0));
/// console.log(trace.threshold, picture?.rows, picture?.columns, first?.length);
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// The answer, as of `generate` with the same options.
    #[serde(flatten)]
    pub result: GenerationResult,
    /// What the method ranks entries by: `columns`, `window` or `text` (attention of all queries, of the last ones, of the text),
    /// `key-norm`, `recency` or `random`. The plain cache is ranked by `columns`, and keeps everything.
    pub score: &'static str,
    /// Whether the score is attention. Where it is not, shares of it mean nothing, and layers have no `cumulative`.
    pub mass: bool,
    /// The share of importance that PrefixKV's search has found for all layers; null for methods that look for none.
    pub threshold: Option<f64>,
    /// What the positions are, in order and without gaps; `index` counts the image placeholders of the prompt.
    pub spans: Vec<Span>,
    /// The pictures in the order of their placeholders.
    pub images: Vec<TraceImage>,
    /// The layers after the prompt.
    pub layers: Vec<TraceLayer>,
    /// The cache after the prompt, then after each token that was read; the last token of an answer is not.
    pub steps: Vec<TraceStep>,
}

/// A picture of a traced prompt. Its patches are numbered by rows from the top left, after `lead` other positions.
#[derive(Clone, Debug, Serialize)]
pub struct TraceImage {
    /// Its number among the images of the request.
    pub source: usize,
    /// Width of the upright picture, in pixels.
    pub width: usize,
    /// Height of the upright picture, in pixels.
    pub height: usize,
    /// Rows of patches.
    pub rows: usize,
    /// Columns of patches.
    pub columns: usize,
    /// Positions of the picture before its first patch.
    pub lead: usize,
    /// What all patches together cover, in pixels of the picture; it reaches beyond a picture that is padded.
    pub area: Area,
}

/// A layer of a trace.
#[derive(Clone, Debug, Serialize)]
pub struct TraceLayer {
    #[serde(flatten)]
    pub record: LayerRecord,
    /// What is kept after the prompt, per range of heads.
    pub kept: Vec<Kept>,
}

/// The cache at one moment; sizes in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TraceStep {
    /// Positions seen.
    pub positions: usize,
    /// What the pool holds for the sequence.
    pub resident: u64,
    /// Entries kept x entry bytes.
    pub payload: u64,
    /// What a cache that keeps everything takes.
    pub full: u64,
    /// Entries held; the mean over the layers.
    pub kept: f64,
}
