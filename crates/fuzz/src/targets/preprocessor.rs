//! preprocessor_config.json and processor_config.json.

use prefixkv_core::media::ClipProcessor;
use serde_json::json;

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
    let all = [files("models/tiny-llava", &NAMES), files("tests/golden/fixtures/llava-bare", &NAMES), nested, padded];
    all.iter().map(|seed| seed.to_string().into_bytes()).collect()
}

fn run(data: &[u8]) -> String {
    let Some(files) = object(data) else { return "no files".into() };
    let dir = scratch(&[]);
    write(dir.path(), &files, &NAMES);
    let processor = ClipProcessor::from_folder(dir.path(), 16);
    let Ok(found) = &processor else { return outcome(&processor, &["model-file", "unsupported-model"]) };
    let (height, width) = found.output_size();
    assert!((1..=4096).contains(&height) && (1..=4096).contains(&width));
    if height * width > 1 << 18 {
        return "ok, large".into();
    }
    for picture in ["one-pixel.png", "rgb.png", "tall-1x500.png", "wide-501x1.png"] {
        let pixels =
            found.process(&read(&format!("tests/golden/fixtures/images/{picture}")), 0).expect("a sound image");
        assert_eq!((pixels.height, pixels.width, pixels.data.len()), (height, width, 3 * height * width));
        assert!(pixels.data.iter().all(|value| value.is_finite()), "a sample that is no number");
    }
    "ok".into()
}
