//! preprocessor_config.json and processor_config.json, as LLaVA reads them, as SmolVLM does and as LLaVA-OneVision.

use std::path::Path;

use prefixkv_core::media::{Clip, ClipProcessor, Timing, decode, upright_size};
use prefixkv_core::model::image_processor;
use serde_json::{Value, json};

use crate::folder::{files, object, read, scratch, write};
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "preprocessor",
    reads: "preprocessor_config.json and processor_config.json",
    kind: Kind::Json,
    memory: 1 << 30,
    short: 400,
    words: || {
        &[
            "size",
            "crop_size",
            "shortest_edge",
            "height",
            "width",
            "resample",
            "image_mean",
            "image_std",
            "do_resize",
            "do_center_crop",
            "do_rescale",
            "do_normalize",
            "rescale_factor",
            "image_processor_type",
            "do_pad",
            "pad_size",
            "image_aspect_ratio",
            "pad",
            "square",
            "CLIPImageProcessor",
            "image_processor",
            "default_to_square",
            "longest_edge",
            "max_image_size",
            "do_image_splitting",
            "image_seq_len",
            "SmolVLMImageProcessor",
            "Idefics3ImageProcessorPil",
            "image_grid_pinpoints",
            "LlavaOnevisionImageProcessor",
            "SiglipImageProcessor",
            "image_seq_length",
            "do_pan_and_scan",
            "pan_and_scan_min_crop_size",
            "Gemma3ImageProcessor",
            "min_patches",
            "max_patches",
            "crop_to_patches",
            "GotOcr2ImageProcessor",
        ]
    },
    seeds,
    run,
};

const NAMES: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];

fn seeds() -> Vec<Vec<u8>> {
    let nested = json!({ "processor_config.json": { "image_processor": { "size": { "height": 30, "width": 20 },
        "do_center_crop": false, "image_mean": 0.5, "image_std": [0.1, 0.2, 0.3], "resample": 2 } } });
    let padded = json!({ "preprocessor_config.json": { "size": 24, "crop_size": [12, 40], "do_pad": true,
        "image_processor_type": "LlavaImageProcessor", "rescale_factor": 0.01, "do_normalize": false } });
    let scanned = json!({ "preprocessor_config.json": { "size": 32, "do_pan_and_scan": true, "pan_and_scan_min_crop_size": 8,
        "pan_and_scan_max_num_crops": 7, "image_processor_type": "Gemma3ImageProcessorFast" } });
    let all = [
        files("models/tiny-llava", &NAMES),
        files("tests/golden/fixtures/llava-bare", &NAMES),
        files("tests/golden/fixtures/smolvlm-tiles", &NAMES),
        files("tests/golden/fixtures/llava-onevision", &NAMES),
        files("tests/golden/fixtures/gemma3-vision", &NAMES),
        scanned,
        files("tests/golden/fixtures/internvl3", &NAMES),
        files("tests/golden/fixtures/internvl3.5", &NAMES),
        nested,
        padded,
    ];
    all.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Some(files) = object(data) else { return "no files".into() };
    let dir = scratch(&[]);
    write(dir.path(), &files, &NAMES);
    let vision = json!({ "image_size": 32, "patch_size": 8 });
    let internvl = json!({ "image_size": 24, "patch_size": 4 });
    let families = [
        (json!({ "model_type": "smolvlm", "scale_factor": 2, "vision_config": vision }), (32, 8)),
        (json!({ "model_type": "gemma3", "mm_tokens_per_image": 4, "vision_config": vision }), (32, 8)),
        (json!({ "model_type": "internvl", "vision_config": internvl }), (24, 4)),
    ];
    let tiles = families.map(|(config, sizes)| tiles(dir.path(), &config, sizes)).join(", ");
    let tiles = format!("{tiles}, {}", grid(dir.path()));
    let processor = ClipProcessor::from_folder(dir.path(), 16);
    let Ok(found) = &processor else {
        return format!("{tiles}, {}", outcome(&processor, &["model-file", "unsupported-model"]));
    };
    let (height, width) = found.output_size();
    assert!((1..=4096).contains(&height) && (1..=4096).contains(&width));
    if height * width > 1 << 18 {
        return format!("{tiles}, ok, large");
    }
    for picture in PICTURES {
        let pixels =
            found.process(&read(&format!("tests/golden/fixtures/images/{picture}")), 0).expect("a sound image");
        assert_eq!((pixels.height, pixels.width, pixels.data.len()), (height, width, 3 * height * width));
        assert!(pixels.data.iter().all(|value| value.is_finite()), "a sample that is no number");
    }
    format!("{tiles}, ok")
}

const PICTURES: [&str; 4] = ["one-pixel.png", "rgb.png", "tall-1x500.png", "wide-501x1.png"];
/// Most bytes of a picture that is prepared.
const LARGE: u64 = 64 << 20;

/// The same files beside the configuration of a model that cuts pictures into tiles of `side` pixels, in patches of `patch`.
fn tiles(dir: &Path, config: &Value, (side, patch): (usize, usize)) -> String {
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let found = image_processor(dir);
    let Ok(Some((_, processor))) = &found else {
        return outcome(&found.map(|_| ()), &["model-file", "unsupported-model"]);
    };
    for picture in PICTURES {
        let file = read(&format!("tests/golden/fixtures/images/{picture}"));
        let (width, height) = upright_size(&file, 0).expect("a sound image");
        let plan = match processor.plan(&mut || Ok((width, height))) {
            Ok(plan) => plan,
            Err(error) => {
                assert_eq!(error.code(), "image");
                continue;
            }
        };
        assert_eq!(processor.areas(width, height).len(), plan.pieces().count());
        if processor.bytes(width, height) < LARGE {
            let prepared = processor.process(&file, 0).expect("a sound image");
            assert_eq!(prepared.tiles.len(), plan.pieces().count());
            let sound = |tile: &prefixkv_core::media::Pixels| {
                tile.data.len() == 3 * side * side && tile.data.iter().all(|value| value.is_finite())
            };
            // The tower takes tiles of its own size and those that have no more whole patches.
            let whole = side / patch;
            assert!(prepared.tiles.iter().all(|tile| tile.width / patch == whole && tile.height / patch == whole));
            assert!(prepared.tiles.iter().all(|tile| tile.width > side || sound(tile)));
        }
    }
    if let Some(videos) = processor.videos() {
        let timing = Timing::new(2, None, None).expect("two frames");
        let frame = decode(&read("tests/golden/fixtures/images/rgb.png"), 0).expect("a sound image");
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let clip = Clip { width, height, timing: &timing };
        let plan = videos.plan(&clip).expect("frames of any size");
        assert_eq!(plan.pieces().count(), 2);
        if videos.bytes(&clip) < LARGE {
            let tile = videos.prepare(&frame, &clip);
            assert!(tile.width / 8 == 4 && tile.height / 8 == 4 && tile.data.iter().all(|value| value.is_finite()));
        }
    }
    "tiles".into()
}

/// The same files beside the configuration of a LLaVA-OneVision with tiles of 40 pixels.
fn grid(dir: &Path) -> String {
    let vision = json!({ "model_type": "siglip_vision_model", "image_size": 40, "patch_size": 8 });
    let sizes = (1..4).flat_map(|down| (1..4).map(move |across| json!([40 * down, 40 * across])));
    let config = json!({ "model_type": "llava_onevision", "vision_aspect_ratio": "anyres_max_2",
        "image_grid_pinpoints": sizes.collect::<Vec<_>>(), "vision_config": vision });
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    let found = image_processor(dir);
    let Ok(Some((_, alone))) = &found else {
        return outcome(&found.map(|_| ()), &["model-file", "unsupported-model"]);
    };
    for processor in [&**alone, alone.among_others().expect("squares")] {
        for picture in PICTURES {
            let file = read(&format!("tests/golden/fixtures/images/{picture}"));
            let (width, height) = upright_size(&file, 0).expect("a sound image");
            let plan = processor.plan(&mut || Ok((width, height))).expect("9 tiles at most");
            assert_eq!(processor.areas(width, height).len(), plan.pieces().count());
            let prepared = processor.process(&file, 0).expect("a sound image");
            let sound = |tile: &prefixkv_core::media::Pixels| {
                tile.data.len() == 3 * 40 * 40 && tile.data.iter().all(|value| value.is_finite())
            };
            assert!((1..=10).contains(&prepared.tiles.len()) && prepared.tiles.iter().all(sound));
        }
    }
    "grid".into()
}
