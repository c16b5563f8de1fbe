//! How a method decides, for pages that set methods side by side.

use super::budget::BudgetRequest;
use super::keep::{Cost, Keep};
use super::score::{PromptView, Score};
use super::{Chooser, Eviction, Lanes, Method};
use crate::cache::{Modality, Piece, Span};

/// The parts of a method, as they are with its options.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The score in words; None where the method is not put together of a score and a budget.
    pub score: Option<&'static str>,
    /// The budget's name; None as with `score`.
    pub budget: Option<&'static str>,
    pub lanes: Lanes,
    /// The entries of a prompt are freed right after the attention of each layer, and not when the whole prompt has been read.
    pub layer_by_layer: bool,
    /// Entries are chosen before the first layer.
    pub before_layers: bool,
    /// Later layers compute nothing for what is freed.
    pub saves_compute: bool,
    /// None where the method evicts by code of its own.
    pub eviction: Option<Eviction>,
    /// None as with `score`.
    pub attention: Option<Attention>,
}

/// The attention of a prompt that a method looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    Nothing,
    /// The attention of some queries, where the prompt has [`Decision::PROMPT`] positions.
    Queries(usize),
    All,
}

impl Decision {
    /// Positions of the prompt that is asked about: text, an image of 576 patches, text.
    pub const PROMPT: usize = 1000;
}

impl Method {
    /// How it decides about a prompt with an image; None where that is code outside of the engine.
    pub fn decision(&self) -> Option<Decision> {
        Some(match &self.chooser {
            Chooser::Recipe { recipe, .. } => Decision {
                score: Some(recipe.score.words()),
                budget: Some(recipe.budget.name()),
                lanes: recipe.lanes,
                layer_by_layer: recipe.budget.ahead(&half(&COST)).is_ok_and(|quotas| quotas.is_some()),
                before_layers: false,
                saves_compute: false,
                eviction: Some(recipe.eviction),
                attention: Some(attention(recipe.score.as_ref())),
            },
            Chooser::External(_) => return None,
            Chooser::Plans(plans) => {
                let needs = plans.clone().planner().needs();
                Decision {
                    score: None,
                    budget: None,
                    lanes: needs.lanes,
                    layer_by_layer: needs.moments.layer,
                    before_layers: needs.moments.images,
                    saves_compute: needs.narrows(),
                    eviction: (needs.moments.step == 0).then_some(Eviction::Never),
                    attention: None,
                }
            }
        })
    }
}

const LAYERS: usize = 8;
const COST: Cost = Cost { layers: LAYERS, entry: 100, fixed: 0, settled: None };

/// Half of the prompt.
fn half(cost: &Cost) -> BudgetRequest<'_> {
    let keep = Keep::Share(0.5);
    BudgetRequest {
        keep,
        cost,
        positions: Decision::PROMPT,
        total: LAYERS * Decision::PROMPT / 2,
        available: &[Decision::PROMPT; LAYERS],
        least: &[1; LAYERS],
    }
}

fn attention(score: &dyn Score) -> Attention {
    let text = |start, len| Span { modality: Modality::Text, start, len };
    let image = Span { modality: Modality::Image { index: 0, piece: Piece::base(24, 24) }, start: 24, len: 576 };
    let spans = [text(0, 24), image, text(600, Decision::PROMPT - 600)];
    let prompt =
        PromptView { past: 0, n: Decision::PROMPT, spans: &spans, allowance: Decision::PROMPT / 2, blocks: false };
    if score.repeats() {
        return Attention::All;
    }
    let gathered = score.queries(&prompt).map_or(0, |weights| weights.iter().filter(|weight| **weight != 0.0).count());
    // One that looks ahead sees queries, but nothing of what they look at.
    let single = if score.ahead().is_some() { 0 } else { score.last_queries() };
    match gathered.max(single) {
        0 => Attention::Nothing,
        Decision::PROMPT => Attention::All,
        some => Attention::Queries(some),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(cache: serde_json::Value) -> Decision {
        Method::parse(&cache).expect("parses").expect("a method").decision().expect("a method of the engine")
    }

    #[test]
    fn the_parts_are_those_of_the_method() {
        let prefixkv = of(json!({ "method": "prefixkv", "keep": 0.5 }));
        assert_eq!(
            (prefixkv.budget, prefixkv.lanes, prefixkv.layer_by_layer),
            (Some("prefix"), Lanes::PerLayer, false)
        );
        assert_eq!(prefixkv.attention, Some(Attention::Queries(32)));
        let h2o = of(json!({ "method": "h2o", "keep": 0.5 }));
        assert_eq!((h2o.attention, h2o.lanes, h2o.layer_by_layer), (Some(Attention::All), Lanes::PerHead, true));
        for name in ["keydiff", "expectedAttention"] {
            assert_eq!(of(json!({ "method": name, "keep": 0.5 })).attention, Some(Attention::Nothing));
        }
        assert_eq!(of(json!({ "method": "tova", "keep": 0.5 })).attention, Some(Attention::Queries(1)));
        let fastv = of(json!({ "method": "fastv" }));
        assert_eq!((fastv.score, fastv.saves_compute, fastv.eviction), (None, true, Some(Eviction::Never)));
        let pyramid = of(json!({ "method": "pyramidInfer" }));
        assert_eq!((pyramid.saves_compute, pyramid.eviction), (true, None));
        let zip = of(json!({ "method": "visionZip" }));
        assert_eq!((zip.saves_compute, zip.before_layers, zip.eviction), (true, true, Some(Eviction::Never)));
        let rkv = of(json!({ "method": "rkv", "keep": 0.5, "every": 20 }));
        assert_eq!(rkv.eviction, Some(Eviction::Together { every: 20, window: Some(8) }));
    }
}
