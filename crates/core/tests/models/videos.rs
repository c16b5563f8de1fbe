//! Videos against Hugging Face transformers (`tests/golden/videos.py` and `tile_videos.py`): pixels, rows for the language model and for its first layers, tokens,
//! phases, logits and answers; beside a picture, over two turns, and behind an eviction.

use prefixkv_core::cache::{Modality, PieceKind};
use prefixkv_core::device::Cpu;
use prefixkv_core::media::{Clip, Prepared, Timing, decode, upright_size};
use prefixkv_core::model::{Features, Model, Prompt, video_architectures};
use prefixkv_core::sequence::Placing;
use serde::Deserialize;
use serde_json::Value;

use crate::folder::{load, root};
use crate::golden;

const FAMILIES: [&str; 4] = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "smolvlm-tiles"];

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    evicted: Evicted,
    later: Later,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Medium {
    Image { image: String },
    Video { frames: Vec<String>, fps: Option<f64>, times: Option<Vec<f64>> },
}

#[derive(Deserialize)]
struct Case {
    name: String,
    media: Vec<Medium>,
    text: String,
    /// Groups of frames, rows and columns of patches, where the tower takes patches.
    grid: Option<[usize; 3]>,
    input_ids: Vec<u32>,
    /// None where positions are in order.
    phases: Option<Vec<[u32; 3]>>,
    #[serde(default)]
    delta: i64,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Evicted {
    media: Vec<Medium>,
    text: String,
    cache: Value,
    kept: Vec<u32>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Later {
    media: Vec<Medium>,
    text: String,
    answer: Vec<u32>,
    more: Vec<Medium>,
    then: String,
    input_ids: Vec<u32>,
    phases: Option<Vec<[u32; 3]>>,
    tokens: Vec<u32>,
}

type Reference = golden::Reference<Golden>;

fn reference(family: &str) -> Reference {
    Reference::of(&format!("{family}-videos"))
}

/// A prompt with its images and videos.
struct Read {
    prompt: Prompt,
    /// The groups of each video's frames.
    groups: Vec<Prepared>,
    features: Vec<Features<Cpu>>,
}

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(root().join(path)).expect("an image")
}

fn read(model: &Model, media: &[Medium], text: &str) -> Read {
    let (mut plans, mut features, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for medium in media {
        match medium {
            Medium::Image { image } => {
                let image = model.image_processor().expect("sees").process(&bytes(image), 0).expect("decodes");
                plans.push(model.plan(&mut || Ok((image.width, image.height))).expect("fits").expect("sees"));
                features.extend(model.encode_images(&[image], &|| Ok(())).expect("sees"));
            }
            Medium::Video { frames, fps, times } => {
                let processor = model.video_processor().expect("takes videos");
                let timing = Timing::new(frames.len(), *fps, times.clone()).expect("grows");
                let (width, height) = upright_size(&bytes(&frames[0]), 0).expect("an image");
                let clip = Clip { width, height, timing: &timing };
                plans.push(processor.plan(&clip).expect("a plan"));
                let tile = |frame: &String| processor.prepare(&decode(&bytes(frame), 0).expect("decodes"), &clip);
                let group = |group: &[String]| Prepared { tiles: group.iter().map(tile).collect(), width, height };
                let groups: Vec<Prepared> = frames.chunks(processor.together()).map(group).collect();
                let seen = model.encode_images(&groups, &|| Ok(())).expect("sees");
                features.push(Features::joined(seen).expect("some frames"));
                all.extend(groups);
            }
        }
    }
    let encoded = model.encode_raw(text, &plans).expect("encodes");
    let prompt = model.expand_at(&encoded.tokens, &encoded.pictures, &plans, plans.len()).expect("expands");
    Read { prompt, groups: all, features }
}

/// Where transformers keeps a number of the patches of a video: by groups, by cells of two times two patches, in each channel, frame, row and
/// column. The last frame is repeated.
fn patch_value(groups: &[Prepared], patch: usize, index: usize) -> f32 {
    let first = &groups[0].tiles[0];
    let patches = first.width / patch * (first.height / patch);
    let (row, of) = (index / (6 * patch * patch), index % (6 * patch * patch));
    let (group, row) = (&groups[row / patches], row % patches);
    let columns = first.width / patch / 2;
    let (cell, within) = (row / 4, row % 4);
    let (channel, frame) = (of / (2 * patch * patch), of / (patch * patch) % 2);
    let (y, x) = (of / patch % patch, of % patch);
    let pixels = group.tiles.get(frame).unwrap_or_else(|| group.tiles.last().expect("a frame"));
    let line = (cell / columns * 2 + within / 2) * patch + y;
    let column = (cell % columns * 2 + within % 2) * patch + x;
    pixels.data[(channel * pixels.height + line) * pixels.width + column]
}

fn check_case(reference: &Reference, case: &Case) {
    let name = &case.name;
    let read = read(&reference.model, &case.media, &case.text);
    assert_eq!(read.prompt.tokens, case.input_ids, "{name}: tokens");
    match &read.prompt.placing {
        Placing::Placed { phases, advance } => {
            assert_eq!(Some(phases), case.phases.as_ref(), "{name}: phases");
            assert_eq!(i64::from(*advance) - case.input_ids.len() as i64, case.delta, "{name}: delta");
        }
        Placing::InOrder => assert!(case.phases.is_none(), "{name}: phases"),
    }

    let frames: Vec<(usize, usize, usize, usize)> = read
        .prompt
        .spans
        .iter()
        .filter_map(|span| match span.modality {
            Modality::Image { piece, .. } => match piece.kind {
                PieceKind::Frame { frame, .. } => Some((frame, piece.rows, piece.columns, span.len)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    // A tile of the small SmolVLM is two times two cells of two times two patches.
    let [groups, rows, columns] = case.grid.unwrap_or([read.groups.len(), 4, 4]);
    let want: Vec<_> = (0..groups).map(|frame| (frame, rows / 2, columns / 2, rows * columns / 4)).collect();
    assert_eq!(frames, want, "{name}: pieces");

    let indices: Vec<u32> = reference.arrays[&format!("{name}.pixel_indices")].to_vec1().expect("u32");
    let value = |index: &u32| match case.grid {
        Some(_) => patch_value(&read.groups, 4, *index as usize),
        None => {
            let numbers = read.groups[0].tiles[0].data.len();
            read.groups[*index as usize / numbers].tiles[0].data[*index as usize % numbers]
        }
    };
    let got: Vec<f32> = indices.iter().map(value).collect();
    assert_eq!(got, reference.array(&format!("{name}.pixel_values")), "{name}: pixels to the bit");
    let video = read.features.last().expect("the video");
    reference.close(name, &video.rows().to_vec().expect("f32"), &format!("{name}.features"));
    let levels = (0..).take_while(|level| reference.arrays.contains_key(&format!("{name}.deepstack.{level}"))).count();
    assert_eq!(video.behind().len(), levels, "{name}");
    for (level, rows) in video.behind().iter().enumerate() {
        reference.close(name, &rows.to_vec().expect("f32"), &format!("{name}.deepstack.{level}"));
    }

    let mut sequence = reference.model.new_sequence().expect("no cap");
    let row = reference.prefill(&read.prompt, &read.features, &mut sequence);
    reference.close(name, &row, &format!("{name}.logits"));
    assert_eq!(case.tokens.len(), 32);
    assert_eq!(reference.answer(row, &mut sequence, 32), case.tokens, "{name}: answer");
}

#[test]
fn videos_are_as_transformers_computes_them() {
    for family in FAMILIES {
        let reference = reference(family);
        for case in &reference.golden.cases {
            check_case(&reference, case);
        }
    }
}

#[test]
fn what_stays_of_a_video_keeps_its_phases() {
    for family in FAMILIES {
        let reference = reference(family);
        let Evicted { media, text, cache, kept, tokens } = &reference.golden.evicted;
        let read = read(&reference.model, media, text);
        let mut sequence = reference.sequence(cache);
        let row = reference.prefill(&read.prompt, &read.features, &mut sequence);
        assert!(sequence.kept().iter().flatten().all(|lane| lane.positions == *kept), "{family}");
        assert_eq!(&reference.answer(row, &mut sequence, tokens.len()), tokens, "{family}");
    }
}

/// A second turn, with a picture, on the cache of a first one about a video.
#[test]
fn a_later_turn_goes_on_behind_a_video() {
    for family in FAMILIES {
        let reference = reference(family);
        let Later { media, text, answer, more, then, input_ids, phases, tokens } = &reference.golden.later;
        let first = read(&reference.model, media, text);
        let mut sequence = reference.model.new_sequence().expect("no cap");
        let row = reference.prefill(&first.prompt, &first.features, &mut sequence);
        assert_eq!(&reference.answer(row, &mut sequence, answer.len()), answer, "{family}");
        let start = sequence.next_phase();
        let mut second = read(&reference.model, more, then);
        second.prompt.continue_from(answer[answer.len() - 1]);
        let all = [&first.prompt.tokens, &answer[..answer.len() - 1], &second.prompt.tokens].concat();
        assert_eq!(&all, input_ids, "{family}: tokens");
        match (&second.prompt.placing, phases) {
            (Placing::Placed { phases: own, .. }, Some(phases)) => {
                let own: Vec<[u32; 3]> = own.iter().map(|phase| phase.map(|axis| axis + start)).collect();
                assert_eq!(own, phases[phases.len() - own.len()..], "{family}: phases");
            }
            (Placing::InOrder, None) => {}
            (placing, _) => panic!("{family}: {placing:?}"),
        }
        let row = reference.prefill(&second.prompt, &second.features, &mut sequence);
        reference.close(family, &row, "later.logits");
        assert_eq!(&reference.answer(row, &mut sequence, tokens.len()), tokens, "{family}");
    }
}

#[test]
fn a_model_without_videos_names_itself_and_those_that_take_them() {
    for (fixture, architecture) in
        [("llava-gqa64", "LlavaForConditionalGeneration"), ("idefics3-plain", "Idefics3ForConditionalGeneration")]
    {
        let model = load(&root().join("tests/golden/fixtures").join(fixture));
        let error = model.video_processor().err().expect("it takes none");
        let text = error.to_string();
        assert!(error.code() == "prompt" && text.contains(architecture), "{text}");
        assert!(video_architectures().iter().all(|known| text.contains(known)), "{text}");
    }
}
