//! Every method on every family that sees pictures: it works on pictures as this family has them, or refuses with its reason.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prefixkv_core::Error;
use prefixkv_core::backend::Activations;
use prefixkv_core::cache::Modality;
use prefixkv_core::device::Cpu;
use prefixkv_core::media::{Clip, Prepared, Timing, decode, upright_size};
use prefixkv_core::method::{METHODS, Method, MethodSpec, Role};
use prefixkv_core::model::{Features, LoadOptions, Model, Prompt};
use prefixkv_core::sequence::Sequence;
use serde_json::{Value, json};

use crate::calibrated::calibration;

/// A family: its fixture, and the methods that cannot do with what it has, each with a part of the reason.
pub(crate) struct Family {
    pub(crate) fixture: &'static str,
    refuses: &'static [(&'static str, &'static str)],
}

pub(crate) const FAMILIES: &[Family] = &[
    Family { fixture: "llava-gqa64", refuses: &[] },
    Family { fixture: "vip-llava", refuses: &[] },
    Family { fixture: "smolvlm-tiles", refuses: &[("visionZip", "no class token")] },
    Family { fixture: "llava-next", refuses: &[("visionZip", "in several tiles")] },
    Family { fixture: "llava-next-siglip", refuses: &[("visionZip", "in several tiles")] },
    Family { fixture: "llava-onevision", refuses: &[("visionZip", "in several tiles")] },
    Family { fixture: "llava-interleave", refuses: &[("visionZip", "no class token")] },
    Family { fixture: "idefics3-plain", refuses: &[("visionZip", "no class token")] },
    Family { fixture: "qwen2-vl", refuses: &[("visionZip", "no class token")] },
    Family { fixture: "qwen2.5-vl", refuses: &[("visionZip", "no class token")] },
    Family { fixture: "qwen3-vl", refuses: &[("visionZip", "no class token"), ("lorc", "normalises its keys")] },
    Family { fixture: "gemma3-vision", refuses: &[("visionZip", "no class token"), ("lorc", "normalises its keys")] },
    Family { fixture: "internvl3", refuses: &[("visionZip", "class token for each tile")] },
    Family {
        fixture: "internvl3.5",
        refuses: &[("visionZip", "class token for each tile"), ("lorc", "normalises its keys")],
    },
    Family {
        fixture: "internvl-original",
        refuses: &[("visionZip", "class token for each tile"), ("lorc", "normalises its keys")],
    },
];

const PICTURES: [&str; 2] = ["photo-300x200.png", "photo-97x211.png"];
/// Tokens that follow.
const STEPS: u32 = 12;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures")
}

/// A model and a prompt about two pictures.
pub(crate) struct Read {
    pub(crate) model: Model,
    pub(crate) prepared: Vec<Prepared>,
    pub(crate) features: Vec<Features<Cpu>>,
    pub(crate) prompt: Prompt,
}

/// How a method has gone.
struct Outcome {
    /// The logits behind the prompt, each token, and a second turn.
    rows: Vec<Vec<f32>>,
    sequence: Sequence,
    /// Bytes of entries and of their scales, and entries of the layers that methods size, after the prompt.
    stored: u64,
    kept: f64,
}

impl Read {
    pub(crate) fn of(fixture: &str) -> Read {
        let folder = fixtures().join(fixture);
        let model = Model::load(&LoadOptions::new(&folder), &mut |_| Ok(())).expect("loads");
        let files = PICTURES.map(|name| std::fs::read(fixtures().join("images").join(name)).expect("readable"));
        let processor = model.image_processor_of(PICTURES.len()).expect("takes images");
        let prepared: Vec<Prepared> = files.iter().map(|file| processor.process(file, 0).expect("an image")).collect();
        let plan = |file: &Vec<u8>| {
            let plan = model.plan_of(PICTURES.len(), &mut || upright_size(file, 0));
            plan.expect("a plan").expect("takes images")
        };
        let plans: Vec<_> = files.iter().map(plan).collect();
        let placeholder = model.image_mark().expect("takes images");
        let text = format!("User:{placeholder} and {placeholder}: which of the two is larger, and why? Assistant:");
        let encoded = model.encode_raw(&text, &plans).expect("encodes");
        let prompt = model.expand_at(&encoded.tokens, &encoded.pictures, &plans, 2).expect("two images");
        let features = model.encode_images(&prepared, &|| Ok(())).expect("encodes");
        Read { model, prepared, features, prompt }
    }

    /// A prompt about a picture and a video of five frames; None of a family that takes no videos.
    pub(crate) fn with_video(fixture: &str) -> Option<Read> {
        let Read { model, mut prepared, mut features, .. } = Read::of(fixture);
        model.video_processor().ok()?;
        prepared.truncate(1);
        features.truncate(1);
        let file = |name: &str| std::fs::read(fixtures().join("images").join(name)).expect("readable");
        let frames: Vec<_> =
            (0..5).map(|frame| decode(&file(&format!("film-{frame}.png")), 0).expect("a frame")).collect();
        let timing = Timing::new(frames.len(), Some(1.0), None).expect("it grows");
        let (width, height) = (frames[0].width() as usize, frames[0].height() as usize);
        let clip = Clip { width, height, timing: &timing };
        let processor = model.video_processor().expect("takes videos");
        let picture = model.plan(&mut || upright_size(&file(PICTURES[0]), 0)).expect("a plan").expect("takes images");
        let plans = [picture, processor.plan(&clip).expect("a plan")];
        let groups: Vec<Prepared> = frames
            .chunks(processor.together())
            .map(|group| {
                let tiles = group.iter().map(|frame| processor.prepare(frame, &clip)).collect();
                Prepared { tiles, width, height }
            })
            .collect();
        let seen = model.encode_images(&groups, &|| Ok(())).expect("encodes");
        features.push(Features::joined(seen).expect("some frames"));
        let image = model.placeholder().and_then(|id| model.tokenizer().token(id)).expect("takes images");
        let video = model.template().video_placeholder().expect("takes videos");
        let text =
            format!("User:{image} and {video}: what falls in the video, and does it stand in the picture? Assistant:");
        let encoded = model.encode_raw(&text, &plans).expect("encodes");
        let prompt = model.expand_at(&encoded.tokens, &encoded.pictures, &plans, 2).expect("a picture and a video");
        Some(Read { model, prepared, features, prompt })
    }

    fn run(&self, cache: &Value) -> prefixkv_core::Result<Outcome> {
        let method = Method::parse(cache)?;
        let mut sequence = self.model.new_sequence_with(method, true)?;
        let features = match sequence.pictures() {
            None => self.features.clone(),
            some => self.model.encode_images_for(&self.prepared, some, &|| Ok(()))?,
        };
        let mut rows = vec![self.model.prefill(&self.prompt, &features, &mut sequence, &|| Ok(()))?];
        let memory = sequence.memory();
        let of = |layer: &usize| memory.kept_per_layer[*layer];
        let (stored, kept) = (memory.payload + memory.scales, self.model.sized_layers().iter().map(of).sum());
        for step in 0..STEPS {
            rows.push(self.model.decode(20 + 7 * step, &mut sequence)?);
        }
        let again = self.model.expand(&[40, 41, 42, 43, 44], 0)?;
        rows.push(self.model.prefill(&again, &[], &mut sequence, &|| Ok(()))?);
        Ok(Outcome { rows, sequence, stored, kept })
    }

    /// Whether a method does what it says; else why not. Refusals are typed.
    fn check(&self, spec: &MethodSpec, plain: &Outcome) -> Result<(), String> {
        let refusal = |error: Error| match error {
            Error::Option { .. } => format!("refused: {error}"),
            error => format!("failed: {error}"),
        };
        let found = self.run(&self.cache(spec, Some(0.5))).map_err(refusal)?;
        let require = |holds: bool, what: &str| {
            let told = || {
                format!("{what}; {} of {} entries, {} of {} bytes", found.kept, plain.kept, found.stored, plain.stored)
            };
            if holds { Ok(()) } else { Err(told()) }
        };
        require(found.rows.iter().flatten().all(|logit| logit.is_finite()), "a logit is no number")?;
        require(found.sequence.next_position() == plain.sequence.next_position(), "positions were lost")?;
        match spec.role {
            // Half of the entries of the whole prompt, text and all tiles.
            Role::Chooses if spec.takes_keep() => {
                require(found.kept <= 0.5 * plain.kept + 1.0 && found.stored < plain.stored, "more than half stays")?;
                let whole = self.run(&self.cache(spec, Some(1.0))).map_err(refusal)?;
                require(whole.rows == plain.rows, "a share of 1 changes something")
            }
            Role::Chooses => require(found.kept <= plain.kept, "more than all stays"),
            Role::Shares => require(found.stored < plain.stored, "nothing is shared"),
            Role::Stores | Role::Refines => require(found.kept > 0.0, "nothing stays"),
        }
    }

    /// A method at a size, with the calibration that it needs.
    pub(crate) fn cache(&self, spec: &MethodSpec, keep: Option<f64>) -> Value {
        let (info, mut cache) = (self.model.info(), json!({ "method": spec.name }));
        if let Some(keep) = keep.filter(|_| spec.takes_keep()) {
            cache["keep"] = json!(keep);
        }
        if spec.options.iter().any(|option| option.name == "layer") {
            // The fixtures have few layers.
            cache["layer"] = json!(1);
        }
        if spec.role == Role::Stores {
            cache["window"] = json!(8);
        }
        if spec.role == Role::Shares {
            cache["sources"] = json!({ "1": 0 });
        }
        // Scores of heads are of the layers that methods size.
        let layers = if spec.role == Role::Chooses { self.model.sized_layers().len() } else { info.layers };
        if let Some(calibration) = calibration(spec, layers, info.kv_heads, info.head_dim) {
            cache["calibration"] = calibration;
        }
        cache
    }
}

pub(crate) fn by_hand(spec: &MethodSpec) -> bool {
    spec.name == "custom"
}

#[test]
fn every_method_works_on_pictures_of_every_family_or_says_why_not() {
    let (pictures, mut videos) = (FAMILIES.iter().map(|family| (family, Some(Read::of(family.fixture)))), 0);
    let both = pictures.chain(FAMILIES.iter().map(|family| (family, Read::with_video(family.fixture))));
    for (Family { fixture, refuses }, read) in both {
        let Some(read) = read else { continue };
        videos += usize::from(read.prepared.len() == 1);
        let plain = read.run(&json!({ "method": "full" })).expect("the plain cache");
        let mut refused = BTreeSet::new();
        let mut wrong = Vec::new();
        for spec in METHODS.iter().filter(|spec| spec.role != Role::Refines && !by_hand(spec)) {
            match read.check(spec, &plain) {
                Ok(()) => {}
                Err(reason) => match refuses.iter().find(|(name, _)| *name == spec.name) {
                    Some((_, part)) if reason.contains(part) => {
                        refused.insert(spec.name);
                    }
                    _ => wrong.push(format!("{}: {reason}", spec.name)),
                },
            }
        }
        assert!(wrong.is_empty(), "{fixture}:\n{}", wrong.join("\n"));
        let named: BTreeSet<&str> = refuses.iter().map(|(name, _)| *name).collect();
        assert_eq!(refused, named, "{fixture}: methods that were to refuse");
    }
    assert!(videos >= 4, "{videos} families with videos");
}

/// Every piece of a picture is a span of its own, and the text between pieces is text.
#[test]
fn pieces_are_spans_and_marks_are_text() {
    for Family { fixture, .. } in FAMILIES {
        let read = Read::of(fixture);
        let placeholder = read.model.placeholder().expect("takes images");
        let mut covered = 0;
        for span in &read.prompt.spans {
            assert_eq!(span.start, covered, "{fixture}: spans without gaps");
            covered += span.len;
            let tokens = &read.prompt.tokens[span.start..covered];
            match span.modality {
                Modality::Image { piece, .. } => {
                    assert!(tokens.iter().all(|token| *token == placeholder), "{fixture}");
                    assert!(piece.rows * piece.columns <= span.len, "{fixture}: {piece:?}");
                }
                _ => assert!(!tokens.contains(&placeholder), "{fixture}"),
            }
        }
        assert_eq!(covered, read.prompt.tokens.len(), "{fixture}");
        let rows: usize = read.features.iter().map(|image| image.rows().rows()).sum();
        assert_eq!(rows, read.prompt.image_tokens, "{fixture}: a row for each position");
    }
}

/// Read in pieces, a prompt with tiles gives what it gives read whole.
#[test]
fn prompts_with_pictures_are_read_in_pieces() {
    for Family { fixture, .. } in FAMILIES {
        let read = Read::of(fixture);
        for cache in [json!({ "method": "full" }), json!({ "method": "snapkv", "keep": 0.5 })] {
            let method = Method::parse(&cache).expect("a method");
            let mut whole = read.model.new_sequence_with(method.clone(), false).expect("no cap");
            let want = read.model.prefill(&read.prompt, &read.features, &mut whole, &|| Ok(())).expect("reads");
            let mut sequence = read.model.new_sequence_with(method, false).expect("no cap");
            let mut prefill =
                read.model.begin_prefill(&read.prompt, &read.features, &mut sequence, 50).expect("begins");
            let got = loop {
                if let Some(logits) = read.model.prefill_piece(&mut prefill, &mut sequence, &|| Ok(())).expect("reads")
                {
                    break logits;
                }
            };
            let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            assert!(worst < 1e-4, "{fixture}, {cache}: {worst}");
            assert_eq!(sequence.kept(), whole.kept(), "{fixture}, {cache}");
        }
    }
}
