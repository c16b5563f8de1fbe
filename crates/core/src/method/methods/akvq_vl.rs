use prefixkv_kernels::codec::{Codec, Dtype, Dual, KvCodec};

use super::super::keep::Price;
use super::super::options::Options;
use super::super::plan::{LanePlan, Plan};
use super::super::spec::common::count;
use super::super::spec::{BudgetKind, MethodSpec, OptionKind, OptionSpec, Role, Stage};
use super::super::store::{BLOCK, Encoder, Store, channels, window};
use super::super::view::View;
use super::super::{Method, Positions};
use crate::cache::{Modality, Shape};
use crate::error::Result;
use crate::fields::refuse;

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "akvqVl",
    title: "AKVQ-VL",
    summary: "stores what stays in 2 bits, text of the first layers in 4, and keeps pivot tokens whole",
    source: "Su et al. 2025, AKVQ-VL: Attention-Aware KV Cache Adaptive 2-Bit Quantization for Vision-Language Models, arXiv 2501.15021",
    page: r#"
A store: it chooses nothing, and stands alone or behind a method that does, `cache: [prefixkv({ keep: 0.4 }), akvqVl()]`.
Attention falls on different entries in different layers. In the first `textLayers` layers text gets more than images do (text-salient attention); behind them a few pivot tokens soak it up, wherever they are (pivot-token-salient attention). The bits of an entry, keys and values alike, follow:

| | the `window` most recent | pivots | other text | images |
| --- | --- | --- | --- | --- |
| the first `textLayers` layers | whole | as the others | 4 | 2 |
| later layers | whole | whole | 2 | 2 |

Keys, after their rotation, and values go through an orthonormal Walsh-Hadamard transform of each head, which spreads outliers over its channels; queries and results through its dual, `(q H)(k H) = q k`. Codes of an entry share a scale and a zero in groups of up to 128 channels:

```
low = clip * min,  high = clip * max,  scale = (high - low) / (2^bits - 1),  x^ = clamp(round((x - low) / scale)) * scale + low
```

with `clip` for 2 bits and 1 for 4.

The paper has no code. Choices that it leaves open:

- Pivots are the `pivots` tokens of a prompt with the largest magnitude in the residual stream behind the last of the text layers (the first layer where there is none), where massive activations show (Sun et al. 2024, arXiv 2402.17762). They are found once per prompt; generated tokens are none. With `textLayers: 0` the first layer is stored before they are known.
- LLaVA-1.5 and LLaVA-NeXT on Vicuna have 2 text layers, LLaVA-NeXT on Mistral none.
- The zero is the low end itself, in f16 as the scale is, not a rounded number of steps; a group of equal numbers has the scale 0.
- `clip` scales both ends of a group.
- The paper folds the transform of values into the weights of the projections. `load(path, { rotateValues: true })` does that ([load.md](../load.md#values-through-a-transform)), and then nothing is done for values while generating. A model that is loaded without it is shared with requests that want no transform, so values go through it when they are stored and results come back through it, once per layer and step, which gives the same numbers. Keys and queries go through it online either way: it stands behind their rotation, which no weights can hold.
- Heads that 128 does not divide have shorter groups; heads that are no power of two are refused, `hadamard: false` takes them.
- Entries leave the window 32 at a time.

`hadamard: false`, `textLayers: 0` and `pivots: 0` leave parts out, which is the order of the paper's ablation read backwards. On SmolLM2-135M and a text of 1,360 tokens (window 32; the full cache has perplexity 30.3) the parts give 184.6 rounded to the nearest, 45.4 with the transform, 36.5 with `clip`, 37.2 with text of two layers in 4 bits, 35.9 with pivots, which are 4.1 bits of a number in all; [TurboQuant](turboquant.md) has 32.4 in 3.4 bits, [KIVI](kivi.md) 36.7 in 4.0 (`npm run bench:stores`). The embedded model shows no difference: its answers are the same in 2 bits. Short prompts are not in 2 bits: with 626 positions, a window of 128 and 15 pivots, `memory.effectiveBits` is above 5.
"#,
    budget: BudgetKind::Outcome,
    role: Role::Stores,
    options: &[
        window("128"),
        count(
            "pivots",
            "15",
            "tokens of a prompt that stay whole for their magnitude, in the layers behind the text layers",
        ),
        count("textLayers", "2", "first layers, in which text takes 4 bits and pivots are as other entries"),
        OptionSpec {
            name: "clip",
            kind: OptionKind::Share,
            default: "0.8",
            text: "the part of a group's range that codes of 2 bits cover, in whole hundredths",
        },
        OptionSpec {
            name: "hadamard",
            kind: OptionKind::Flag,
            default: "true",
            text: "store keys and values through a Hadamard transform of each head",
        },
    ],
    variants: &[],
    build,
};

/// Channels that share a scale and a zero, at most (section 4.1 of the paper).
const GROUP: usize = 128;

fn build(options: &mut Options) -> Result<Stage> {
    let percent = options.share("clip")? * 100.0;
    if percent < 1.0 || (percent - percent.round()).abs() > 1e-9 {
        return Err(refuse(format!("`clip` of akvqVl must be 0.01 to 1 in hundredths, found {}", percent / 100.0)));
    }
    Ok(Stage::Stores(Box::new(Akvq {
        window: options.count("window")?,
        pivots: options.count("pivots")?,
        text_layers: options.count("textLayers")?,
        clip: percent.round() as u8,
        hadamard: options.flag("hadamard")?,
    })))
}

#[derive(Clone, Copy, Debug)]
struct Akvq {
    window: usize,
    pivots: usize,
    text_layers: usize,
    /// In hundredths.
    clip: u8,
    hadamard: bool,
}

impl Store for Akvq {
    fn name(&self) -> &'static str {
        SPEC.name
    }

    fn check(&self, method: &Method) -> Result<()> {
        if self.hadamard && method.recipe().is_some_and(|recipe| recipe.positions == Positions::Cache) {
            return Err(refuse(format!(
                "akvqVl transforms keys that are rotated already, and {} with positions \"cache\" rotates them when they are read; \
                 take `hadamard: false`",
                method.name
            )));
        }
        Ok(())
    }

    fn encoder(&self, shape: &Shape) -> Result<Box<dyn Encoder>> {
        let dim = shape.head_dim;
        let channels = channels(SPEC.name, dim, GROUP)?;
        let dual = if self.hadamard { Dual::Hadamard } else { Dual::None };
        let of = |dtype: Dtype, clip: u8| {
            let codec = Codec::per_entry(dtype, channels).clipped(clip);
            KvCodec::new(codec, codec, dual)
        };
        let (two, four) = (of(Dtype::U2, self.clip), of(Dtype::U4, 100));
        two.check(dim).map_err(|reason| refuse(format!("akvqVl cannot store {reason}")))?;
        let (past, fresh, old) = (0, Vec::new(), Vec::new());
        Ok(Box::new(AkvqEncoder { store: *self, two, four, past, fresh, old }))
    }
}

/// AKVQ-VL at work on one sequence.
#[derive(Clone, Debug)]
struct AkvqEncoder {
    store: Akvq,
    two: KvCodec,
    four: KvCodec,
    /// Positions before the prompt whose pivots are `fresh`.
    past: usize,
    /// The largest rows of the newest prompt so far, the largest first: magnitude and position.
    fresh: Vec<(f32, u32)>,
    /// The pivots of earlier prompts, ascending.
    old: Vec<u32>,
}

impl AkvqEncoder {
    fn is_pivot(&self, position: u32) -> bool {
        self.fresh.iter().any(|(_, pivot)| *pivot == position) || self.old.binary_search(&position).is_ok()
    }
}

impl Encoder for AkvqEncoder {
    fn dual(&self) -> Dual {
        self.two.dual
    }

    /// The most: text of the first layers, with pivots beside the window.
    fn price(&self) -> Option<Price> {
        let codec = if self.store.text_layers > 0 { self.four } else { self.two };
        Some(Price { codec, window: self.store.window + self.store.pivots, block: BLOCK, beside: 0 })
    }

    fn watches(&self) -> Option<usize> {
        (self.store.pivots > 0).then(|| self.store.text_layers.saturating_sub(1))
    }

    fn see_peaks(&mut self, past: usize, positions: &[u32], peaks: &[f32]) {
        if past != self.past {
            self.past = past;
            self.old.extend(self.fresh.drain(..).map(|(_, position)| position));
            self.old.sort_unstable();
        }
        self.fresh.extend(peaks.iter().copied().zip(positions.iter().copied()));
        self.fresh.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.fresh.truncate(self.store.pivots);
    }

    fn fork(&self) -> Box<dyn Encoder> {
        Box::new(self.clone())
    }

    fn encode(&mut self, layer: usize, view: &View<'_>, plan: &mut Plan) -> Result<()> {
        let in_text_layer = layer < self.store.text_layers;
        for (index, lane) in view.cache.of(layer).enumerate() {
            let settled = lane.unencoded().saturating_sub(self.store.window);
            if settled < BLOCK {
                continue;
            }
            let mut oldest = lane.sorted_unencoded();
            oldest.truncate(settled);
            if !in_text_layer {
                oldest.retain(|entry| !self.is_pivot(entry.position));
            }
            if oldest.len() < BLOCK {
                continue;
            }
            let (mut fine, mut coarse) = (Vec::new(), Vec::new());
            let mut spans = view.spans.iter().peekable();
            for position in oldest.into_iter().map(|entry| entry.position) {
                while spans.next_if(|span| span.start + span.len <= position as usize).is_some() {}
                let shown = spans.peek().is_some_and(|span| matches!(span.modality, Modality::Image { .. }));
                if in_text_layer && !shown { fine.push(position) } else { coarse.push(position) }
            }
            plan.push(LanePlan::encoding(layer, index, [(self.four, fine), (self.two, coarse)]));
        }
        Ok(())
    }
}
