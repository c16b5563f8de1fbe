//! The models against Hugging Face transformers: every file of `tests/golden/data` that names a model and has cases.
//!
//! The goldens are made by scripts in `tests/golden` that share no code with this project.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device as TensorDevice, IndexOp, Tensor};
use prefixkv_core::media::{Prepared, upright_size};
use prefixkv_core::model::{ImagePlan, LoadOptions, Model};
use prefixkv_core::sample::argmax;
use serde::Deserialize;

use crate::folder::root;

/// The largest difference allowed for features, projections and logits in f32.
const TOLERANCE: f32 = 1e-3;
/// The reference's best two logits may be this close for a greedy token to differ.
const NEAR_TIE: f32 = 1e-4;

#[derive(Deserialize)]
struct Golden {
    /// A folder, relative to the repository.
    model: String,
    /// Folders of adapters, likewise.
    #[serde(default)]
    adapters: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    images: Vec<String>,
    text: String,
    input_ids: Vec<u32>,
    /// The rows of the features that are stored, of every image the same.
    #[serde(default)]
    feature_rows: Vec<u32>,
    /// Those of each image, where images differ in size.
    #[serde(default)]
    image_feature_rows: Vec<Vec<u32>>,
    /// Those of the projections, where a picture's tiles become other rows.
    #[serde(default)]
    projected_rows: Vec<Vec<u32>>,
    /// Rows and columns of the tiles of each image; 0 where it is one tile.
    #[serde(default)]
    grids: Vec<(usize, usize)>,
    /// The rows of the logits that are stored; the last one always is.
    logit_rows: Vec<u32>,
    /// Greedy tokens.
    tokens: Vec<u32>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    best: (u32, f32),
    second: (u32, f32),
}

fn load(golden: &Golden) -> Model {
    let adapters = golden.adapters.iter().map(|folder| root().join(folder)).collect();
    let options = LoadOptions { adapters, ..LoadOptions::new(root().join(&golden.model)) };
    Model::load(&options, &mut |_| Ok(())).unwrap_or_else(|e| panic!("{}: {e}", golden.model))
}

fn worst(got: &Tensor, want: &Tensor) -> f32 {
    assert_eq!(got.dims(), want.dims());
    let difference = got.sub(want).and_then(|d| d.abs()).and_then(|d| d.flatten_all()).and_then(|d| d.max(0));
    difference.and_then(|d| d.to_scalar()).expect("two f32 tensors of one shape")
}

fn close(what: &str, got: &Tensor, want: &Tensor) {
    let worst = worst(got, want);
    eprintln!("{what}: largest difference {worst:e}");
    assert!(worst <= TOLERANCE, "{what}: largest difference {worst} is over {TOLERANCE}");
}

/// The images of a case through our own image processor, checked against the reference's pixel values.
fn pixels(model: &Model, case: &Case, arrays: &HashMap<String, Tensor>) -> Vec<Prepared> {
    let Some(processor) = model.image_processor_of(case.images.len()) else {
        assert!(case.images.is_empty());
        return Vec::new();
    };
    let images: Vec<Prepared> = case
        .images
        .iter()
        .enumerate()
        .map(|(index, path)| {
            let bytes = std::fs::read(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
            processor.process(&bytes, index).unwrap_or_else(|e| panic!("{path}: {e}"))
        })
        .collect();
    if let (Some(indices), Some(values)) =
        (arrays.get(&format!("{}.pixel_indices", case.name)), arrays.get(&format!("{}.pixel_values", case.name)))
    {
        let indices: Vec<u32> = indices.flatten_all().and_then(|t| t.to_vec1()).expect("u32 indices");
        let values: Vec<f32> = values.flatten_all().and_then(|t| t.to_vec1()).expect("f32 values");
        let all: Vec<f32> =
            images.iter().flat_map(|image| &image.tiles).flat_map(|tile| tile.data.iter().copied()).collect();
        // 1/255 of the range: normalised values span at least 1 / 0.5.
        let (limit, jpeg) = (
            1.0 / 255.0 / if case.grids.is_empty() { 0.26 } else { 0.5 },
            case.images.iter().any(|path| path.ends_with(".jpg")),
        );
        let differences: Vec<f32> = indices.iter().zip(&values).map(|(i, v)| (all[*i as usize] - v).abs()).collect();
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        let largest = differences.iter().fold(0.0f32, |a, b| a.max(*b));
        eprintln!("{} pixels: mean difference {mean:e}, largest {largest:e}", case.name);
        assert!(if jpeg { mean < limit } else { largest <= limit }, "{}: mean {mean}, largest {largest}", case.name);
    }
    images
}

/// The form that a picture takes in a prompt with so many.
fn plan(model: &Model, path: &str, pictures: usize) -> Option<ImagePlan> {
    let bytes = std::fs::read(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    model.plan_of(pictures, &mut || upright_size(&bytes, 0)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn check_case(model: &Model, case: &Case, arrays: &HashMap<String, Tensor>) {
    let named = |suffix: &str| arrays.get(&format!("{}.{suffix}", case.name));
    let plans: Vec<ImagePlan> = case.images.iter().filter_map(|path| plan(model, path, case.images.len())).collect();
    let encoded = model.encode_raw(&case.text, &plans).expect("encodes");
    let prompt = model.expand_at(&encoded.tokens, &encoded.pictures, &plans, case.images.len());
    let prompt = prompt.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    assert_eq!(prompt.tokens, case.input_ids, "{}: prompt tokens", case.name);
    for (plan, (rows, columns)) in plans.iter().zip(&case.grids) {
        assert_eq!(plan.pieces().count(), rows * columns + 1, "{}: tiles", case.name);
    }

    let pixels = pixels(model, case, arrays);
    let rows = |of_images: &[Vec<u32>], index: usize| {
        let rows = of_images.get(index).or(case.image_feature_rows.get(index)).unwrap_or(&case.feature_rows);
        Tensor::new(rows.as_slice(), &TensorDevice::Cpu).expect("rows")
    };
    let of_image = |kind: &str, index: usize| {
        let whole = named(kind).map(|all| all.i(index).expect("per image"));
        whole.or_else(|| named(&format!("{kind}.{index}")).cloned())
    };
    let mut compared = 0;
    for (index, pixels) in pixels.iter().enumerate() {
        if let Some(want) = of_image("vision", index) {
            let got = model.image_features(pixels).and_then(|f| Ok(f.0.index_select(&rows(&[], index), 0)?));
            close(&format!("{} vision of image {index}", case.name), &got.expect("features"), &want);
            compared += 1;
        }
    }
    let features = model.encode_images(&pixels, &|| Ok(())).expect("encodes images");
    for (index, features) in features.iter().enumerate() {
        if let Some(want) = of_image("projected", index) {
            let got = features.rows().0.index_select(&rows(&case.projected_rows, index), 0).expect("rows");
            close(&format!("{} projection of image {index}", case.name), &got, &want);
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * case.images.len(), "{}: features to compare with", case.name);

    let mut sequence = model.new_sequence().expect("no cap");
    let logits = model.prefill_all(&prompt, &features, &mut sequence, &|| Ok(())).map(|logits| logits.0).expect("runs");
    let last = logits.i(logits.dims()[0] - 1).expect("last row");
    let rows = Tensor::new(case.logit_rows.as_slice(), &TensorDevice::Cpu).expect("rows");
    assert_eq!(case.logit_rows.last().map(|row| *row as usize + 1), Some(prompt.tokens.len()), "{}", case.name);
    let want = named("logits").unwrap_or_else(|| panic!("{} has no logits", case.name));
    close(&format!("{} logits", case.name), &logits.index_select(&rows, 0).expect("rows"), want);
    // The path that generation takes must agree with the one just checked.
    let mut again = model.new_sequence().expect("no cap");
    let row = model.prefill(&prompt, &features, &mut again, &|| Ok(())).expect("runs");
    // One row takes another product than many, so equal up to rounding.
    let last: Vec<f32> = last.to_vec1().expect("f32 logits");
    assert!(row.iter().zip(&last).all(|(a, b)| (a - b).abs() < 1e-4), "{}: prefill and prefill_all", case.name);

    let mut row = row;
    assert!(case.tokens.len() >= 8 && case.steps.len() >= case.tokens.len(), "{}: too few tokens", case.name);
    for (i, (want, step)) in case.tokens.iter().zip(&case.steps).enumerate() {
        let got = argmax(&row) as u32;
        if got != *want {
            let gap = step.best.1 - step.second.1;
            assert!(gap < NEAR_TIE, "{}: token {i} is {got}, the reference says {want} by {gap}", case.name);
            assert_eq!(got, step.second.0, "{}: token {i}", case.name);
            eprintln!("{}: a near-tie at token {i}; the rest is another text", case.name);
            break;
        }
        row = model.decode(got, &mut again).expect("decodes");
    }
}

fn check_file(path: &Path) {
    let text = std::fs::read_to_string(path).expect("readable");
    let golden: Golden = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let arrays =
        candle_core::safetensors::load(path.with_extension("safetensors"), &TensorDevice::Cpu).expect("arrays load");
    let model = load(&golden);
    assert!(!golden.cases.is_empty());
    for case in &golden.cases {
        check_case(&model, case, &arrays);
    }
}

macro_rules! parity {
    ($($name:ident: $file:literal),* $(,)?) => {$(
        #[test]
        fn $name() {
            check_file(&root().join("tests/golden/data").join($file));
        }
    )*

        #[test]
        fn every_fixture_is_tested() {
            let fixtures = std::fs::read_dir(root().join("tests/golden/fixtures")).expect("fixtures");
            let models = fixtures.filter_map(|entry| {
                let path = entry.expect("readable").path();
                path.join("config.json").exists().then(|| path.file_name()?.to_str().map(|name| format!("{name}.json")))?
            });
            // Their goldens are of eviction, of layers that share, of pictures of any size and of those that are seen whole, which tests of their own
            // compare.
            let others = ["gemma3-vision.json", "llama-planted.json", "llama-deep.json"];
            let own = |name: &str| name.ends_with("-vl.json") || others.contains(&name);
            for name in models.filter(|name| !own(name)) {
                assert!([$($file),*].contains(&name.as_str()), "{name} has no test");
            }
        }
    };
}

parity! {
    tiny_llava: "tiny-llava.json",
    grouped_queries_of_64: "llava-gqa64.json",
    heads_of_128: "llava-head128.json",
    several_feature_layers_in_shards: "llava-layers-sharded.json",
    what_hub_configs_leave_out: "llava-bare.json",
    several_feature_layers_behind_a_norm: "vip-llava.json",
    a_mistral_that_sees: "llava-mistral.json",
    a_phi_that_sees: "llava-phi3.json",
    text_only_with_linear_rope: "llama-linear-tied.json",
    text_only_with_llama3_rope: "llama3-rope.json",
    windows_on_all_layers: "mistral-window.json",
    windows_on_layers_by_type: "ministral-types.json",
    biases_and_windows_on_some_layers: "qwen2-mixed.json",
    normalised_heads: "qwen3-norms.json",
    layers_without_positions: "smollm3-nope.json",
    weights_in_one_tensor: "phi3-fused.json",
    factors_of_frequencies_and_a_part_of_each_head: "phi3-long.json",
    capped_scores_and_logits: "gemma2-caps.json",
    local_layers_with_a_rope_of_their_own: "gemma3-local.json",
    pictures_in_tiles_with_marks: "smolvlm-tiles.json",
    pictures_in_tiles_whose_marks_are_text: "idefics3-plain.json",
    pictures_in_tiles_that_become_one_grid: "llava-next.json",
    several_feature_layers_of_siglip_in_a_grid: "llava-next-siglip.json",
    grids_of_few_tiles_and_pictures_beside_others: "llava-onevision.json",
    siglip_and_qwen2_in_a_llava: "llava-interleave.json",
    an_adapter_of_text: "adapted-llama.json",
    an_adapter_of_embeddings_that_are_the_head: "adapted-tied.json",
    an_adapter_of_fused_weights: "adapted-fused.json",
    an_adapter_of_text_and_tower: "adapted-llava.json",
    two_adapters_with_old_and_new_names: "adapted-twice.json",
    tiles_with_a_thumbnail: "internvl3.json",
    a_tower_with_norms_of_whole_queries: "internvl3.5.json",
    the_same_under_its_first_names: "internvl-original.json",
}
