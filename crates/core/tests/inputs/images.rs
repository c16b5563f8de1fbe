//! Image decoding and processing against Pillow and the Pillow processors of transformers: `tests/golden/data/images.json`.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use prefixkv_core::media::{ClipProcessor, decode};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Golden {
    image_mean: [f32; 3],
    image_std: [f32; 3],
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    image: String,
    /// `load_image` drops transparency and turns by EXIF, which is what ours follows; `open` does not; `both` is the same.
    loader: String,
    /// False where decoders may differ (JPEG, lossy WebP).
    exact: bool,
    width: u32,
    height: u32,
    /// Why Pillow is not followed here.
    quirk: Option<String>,
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    key: String,
    mode: String,
    side: usize,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The sampled elements, as the generator takes them.
fn sampled<T: Copy>(all: &[T], n: usize) -> Vec<T> {
    (0..n).map(|k| all[k * 1_000_003 % all.len()]).collect()
}

/// Mean and largest difference in steps of 1/255.
fn differences(got: &[f32], want: &[u8]) -> (f32, f32) {
    let each: Vec<f32> = got.iter().zip(want).map(|(got, want)| (got - f32::from(*want)).abs()).collect();
    (each.iter().sum::<f32>() / each.len() as f32, each.iter().fold(0.0, |a, b| a.max(*b)))
}

fn bytes(arrays: &std::collections::HashMap<String, Tensor>, key: &str) -> Vec<u8> {
    arrays.get(key).unwrap_or_else(|| panic!("no array {key}")).to_vec1().expect("bytes")
}

fn check(what: &str, exact: bool, got: &[f32], want: &[u8], worst: &mut f32) {
    let (mean, largest) = differences(got, want);
    if exact {
        // One step of 255, the limit that is promised; in fact nothing but rounding of f32.
        assert!(largest < 0.01, "{what}: largest difference {largest} / 255");
    } else {
        assert!(mean < 1.0, "{what}: mean difference {mean} / 255");
        *worst = worst.max(largest);
    }
}

#[test]
fn every_picture_equals_pillow() {
    let text = std::fs::read_to_string(root().join("tests/golden/data/images.json")).expect("readable");
    let golden: Golden = serde_json::from_str(&text).expect("golden");
    let arrays = candle_core::safetensors::load(root().join("tests/golden/data/images.safetensors"), &Device::Cpu);
    let arrays = arrays.expect("arrays");
    let (mut checked, mut worst) = (0, 0.0);
    for case in golden.cases.iter().filter(|case| case.loader != "open" && case.quirk.is_none()) {
        let file = std::fs::read(root().join(&case.image)).expect("readable");
        let rgb = decode(&file, 0).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!((rgb.width(), rgb.height()), (case.width, case.height), "{}", case.name);
        // The generator samples channel by channel.
        let planes: Vec<f32> = (0..3).flat_map(|c| rgb.pixels().map(move |pixel| f32::from(pixel.0[c]))).collect();
        let want = bytes(&arrays, &format!("{}/decoded", case.name));
        check(&case.name, case.exact, &sampled(&planes, want.len()), &want, &mut worst);

        for output in &case.outputs {
            let folder = tempfile::tempdir().expect("temporary folder");
            let (kind, pad) = match output.mode.as_str() {
                "crop" => ("CLIPImageProcessor", false),
                "pad" => ("LlavaImageProcessor", true),
                other => panic!("{}: mode {other}", output.key),
            };
            let config = json!({ "image_processor_type": kind, "do_pad": pad, "size": { "shortest_edge": output.side },
                "crop_size": { "height": output.side, "width": output.side } });
            std::fs::write(folder.path().join("preprocessor_config.json"), config.to_string()).expect("written");
            let processor = ClipProcessor::from_folder(folder.path(), output.side).expect("processor");
            let pixels = processor.process(&file, 0).unwrap_or_else(|e| panic!("{}: {e}", output.key));
            assert_eq!((pixels.width, pixels.height), (output.side, output.side), "{}", output.key);
            let plane = output.side * output.side;
            let levels: Vec<f32> = pixels
                .data
                .iter()
                .enumerate()
                .map(|(i, v)| 255.0 * (v * golden.image_std[i / plane] + golden.image_mean[i / plane]))
                .collect();
            let want = bytes(&arrays, &output.key);
            check(&output.key, case.exact, &sampled(&levels, want.len()), &want, &mut worst);
            checked += 1;
        }
    }
    eprintln!("{checked} outputs; largest difference of a lossy format {worst} / 255");
    assert!(checked > 60);
}
