//! The trace that a generation gives beside its answer.

use serde::Serialize;

use super::report::GenerationResult;
use crate::cache::{Kept, Span};
use crate::media::Area;
use crate::method::{LayerRecord, Moment};
use crate::sequence::Planned;

/// Contents of the cache during a generation, and the order by which its entries were chosen. Positions count from 0 over the prompt and the
/// answer; importance is known for those of the prompt.
///
/// ```ts
/// import { image, load, prefixkv, type Trace } from "prefixkv";
///
/// await using model = await load();
/// const messages = [{ role: "user", content: [image("scene.png"), "Describe the image in detail."] }];
/// const trace: Trace = await model.trace({ messages, cache: prefixkv({ keep: 0.3 }), maxTokens: 8 });
/// const [picture] = trace.images;
/// const first = trace.layers[0]?.kept[0]?.positions.filter((at) => picture?.cells.includes(at));
/// console.log(trace.threshold, picture?.rows, picture?.columns, first?.length);
/// ```
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// The answer, as of `generate` with the same options.
    #[serde(flatten)]
    pub result: GenerationResult,
    /// The score that the method ranks entries by, as [`custom`](CustomOptions.score) names it. The plain cache is ranked by `columns`,
    /// and keeps everything.
    pub score: &'static str,
    /// The score in words, such as "attention from all queries of the prompt".
    pub ranking: &'static str,
    /// Whether the score is attention. Where it is not, shares of it mean nothing, and layers have no `cumulative`.
    pub mass: bool,
    /// The share of importance that PrefixKV's search has found for all layers; null for methods that look for none.
    pub threshold: Option<f64>,
    /// Spans that cover all positions, in order and without gaps; `index` counts the image placeholders of the prompt.
    pub spans: Vec<Span>,
    /// The grids of the pictures, in the order of their placeholders.
    pub images: Vec<TraceImage>,
    /// The layers after the prompt.
    pub layers: Vec<TraceLayer>,
    /// The cache after the prompt, then after each token that was read; the last token of an answer is not.
    pub steps: Vec<TraceStep>,
    /// Decisions of the method, in order; moments that changed nothing are left out.
    pub plans: Vec<TracePlan>,
}

/// A picture of a traced prompt as a grid of cells, each of which has a position. A picture that the model sees in tiles and once as a whole
/// has two: the tiles together, and the whole. A video has one for each of its pieces, a frame or those that are seen as one.
#[derive(Clone, Debug, Serialize)]
pub struct TraceImage {
    /// Which of the prompt's image placeholders it is, from 0.
    pub index: usize,
    /// Its number among the images of the request, where the frames of a video count one by one; of a video the first frame of the piece.
    pub source: usize,
    /// Width of the upright picture, in pixels.
    pub width: usize,
    /// Height of the upright picture, in pixels.
    pub height: usize,
    /// Tiles that the cells lie in, 1 for a picture that is seen as a whole.
    pub tiles: usize,
    /// Rows of cells.
    pub rows: usize,
    /// Columns of cells.
    pub columns: usize,
    /// The position of each cell in the prompt, row by row from the top left.
    pub cells: Vec<usize>,
    /// Area that all cells together cover, in pixels of the picture; it reaches beyond a picture that is padded.
    pub area: Area,
}

/// A layer of a trace.
#[derive(Clone, Debug, Serialize)]
pub struct TraceLayer {
    #[serde(flatten)]
    pub record: LayerRecord,
    /// The layer whose entries it reads: itself, or one before it.
    pub source: usize,
    /// Entries kept after the prompt, per range of heads.
    pub kept: Vec<Kept>,
}

/// The cache at one moment; sizes in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TraceStep {
    /// Positions seen.
    pub positions: usize,
    /// Bytes that the pool holds for the sequence.
    pub resident: u64,
    /// Entries kept x entry bytes.
    pub payload: u64,
    /// Bytes of a cache that keeps everything.
    pub full: u64,
    /// Entries held; the mean over the layers.
    pub kept: f64,
}

/// A method's decision at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct TracePlan {
    /// When.
    pub moment: TraceMoment,
    /// With `layer`: which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// With `token` and `step`: the generated token, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// Lanes that are made small.
    pub lanes: Vec<TraceLanePlan>,
    /// Single entries that go.
    pub evict: Vec<TraceEviction>,
    /// With `layer`: the positions of the prompt that later layers see; with `images`, those that any layer sees. Left out where they
    /// see all that have come so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<u32>>,
}

/// When a method has decided: before the first layer, by what the vision tower has seen of the images; once a layer has read the prompt, once all have, before a generated token is added, or after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceMoment {
    Images,
    Layer,
    Prompt,
    Token,
    Step,
}

/// Changes to the entries of a lane.
#[derive(Clone, Debug, Serialize)]
pub struct TraceLanePlan {
    /// The layer.
    pub layer: usize,
    /// The lane, counted in its layer.
    pub lane: usize,
    /// The positions of the entries that stay; left out where all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Vec<u32>>,
    /// Entries that are added to ones that stay.
    pub merge: Vec<TraceMerge>,
    /// Entries that are stored in other codecs from now on.
    pub encode: Vec<TraceEncode>,
}

/// Entries that are stored in another codec.
#[derive(Clone, Debug, Serialize)]
pub struct TraceEncode {
    /// Bits that each of their numbers takes from now on, scales included; the mean over keys and values.
    pub bits: f64,
    /// The positions of the entries.
    pub positions: Vec<u32>,
    /// The layer that they are stored together with from now on; left out where they are those of one layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<usize>,
}

/// An entry that is merged into another.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TraceMerge {
    /// The position of the entry that goes.
    pub from: u32,
    /// The position of the one that it is added to.
    pub into: u32,
    /// Its weight beside the one that stays, which counts 1.
    pub weight: f32,
}

/// An entry that goes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TraceEviction {
    /// The layer.
    pub layer: usize,
    /// The lane, counted in its layer.
    pub lane: usize,
    /// Where the entry stands.
    pub position: u32,
}

impl TracePlan {
    /// `head_dim` is the width of the model's heads.
    pub fn new(Planned { moment, plan }: &Planned, head_dim: usize) -> TracePlan {
        let (moment, layer, step) = match *moment {
            Moment::Images => (TraceMoment::Images, None, None),
            Moment::Layer(layer) => (TraceMoment::Layer, Some(layer), None),
            Moment::Prompt => (TraceMoment::Prompt, None, None),
            Moment::Token(step) => (TraceMoment::Token, None, Some(step)),
            Moment::Step(step) => (TraceMoment::Step, None, Some(step)),
        };
        let changed = plan.lanes.iter().filter_map(|lane| {
            let keep = lane.keep.as_ref().map(|keep| keep.iter().map(|entry| entry.position).collect());
            let encode = lane.encode.iter().map(|part| TraceEncode {
                bits: part.effective_bits(head_dim),
                positions: part.positions.clone(),
                with: None,
            });
            let merge = lane.merge.iter().map(|merge| TraceMerge {
                from: merge.from.position,
                into: merge.into.position,
                weight: merge.weight,
            });
            let (merge, encode) = (merge.collect(), encode.collect::<Vec<_>>());
            let seen = keep.is_some() || !encode.is_empty();
            seen.then_some(TraceLanePlan { layer: lane.layer, lane: lane.lane, keep, merge, encode })
        });
        let mut lanes: Vec<TraceLanePlan> = changed.collect();
        for join in &plan.join {
            let [first, second] = join.layers;
            for (layer, with) in [(first, second), (second, first)] {
                let (bits, positions) = (join.effective_bits(head_dim), join.positions.clone());
                let part = TraceEncode { bits, positions, with: Some(with) };
                match lanes.iter_mut().find(|plan| (plan.layer, plan.lane) == (layer, join.lane)) {
                    Some(plan) => plan.encode.push(part),
                    None => lanes.push(TraceLanePlan {
                        layer,
                        lane: join.lane,
                        keep: None,
                        merge: Vec::new(),
                        encode: vec![part],
                    }),
                }
            }
        }
        let evict = plan.evict.iter().map(|gone| TraceEviction {
            layer: gone.layer as usize,
            lane: gone.lane as usize,
            position: gone.entry.position,
        });
        TracePlan { moment, layer, step, lanes, evict: evict.collect(), rows: plan.rows.clone() }
    }

    /// Whether it changes nothing that is seen.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.evict.is_empty() && self.rows.is_none()
    }
}
