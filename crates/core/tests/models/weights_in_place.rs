//! Weights files that somebody cuts or overwrites while a model is loaded or being loaded.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use prefixkv_core::model::{LoadOptions, Model, Vision};
use prefixkv_core::{Error, Result};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures")
}

/// A copy of a fixture, and its weights file.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join("llava-gqa64")).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    let weights = dir.path().join("model.safetensors");
    (dir, weights)
}

fn load(dir: &Path) -> Result<Model> {
    Model::load(&LoadOptions::new(dir), &mut |_| Ok(()))
}

/// A change to a file in place.
type Deed = (&'static str, fn(&Path));

const DEEDS: [Deed; 5] = [
    ("cut to nothing", |path| open(path).set_len(0).unwrap()),
    ("cut in the middle", |path| open(path).set_len(100_000).unwrap()),
    ("another file copied over it", |path| {
        assert!(std::fs::copy(fixtures().join("llava-head128/model.safetensors"), path).is_ok())
    }),
    ("zeros of the same size", |path| {
        let len = std::fs::metadata(path).unwrap().len() as usize;
        std::os::unix::fs::FileExt::write_all_at(&open(path), &vec![0; len], 0).unwrap();
    }),
    ("removed", |path| std::fs::remove_file(path).unwrap()),
];

fn open(path: &Path) -> std::fs::File {
    std::fs::File::options().write(true).open(path).unwrap()
}

fn features(model: &Model) -> Vec<f32> {
    let picture = std::fs::read(fixtures().join("images/square-168.png")).unwrap();
    let pixels = model.image_processor().unwrap().process(&picture, 0).unwrap();
    model.encode_images(&[pixels], &|| Ok(())).unwrap()[0].rows().to_vec().unwrap()
}

fn logits(model: &Model) -> Vec<f32> {
    let prompt = model.expand(&[1, 5, 9, 13], 0).unwrap();
    let mut sequence = model.new_sequence().unwrap();
    model.prefill(&prompt, &[], &mut sequence, &|| Ok(())).unwrap()
}

#[test]
fn a_loaded_model_does_not_notice() {
    let (dir, _) = folder();
    let sound = load(dir.path()).unwrap();
    let expected = (features(&sound), logits(&sound));
    for (deed, act) in DEEDS {
        let (dir, weights) = folder();
        let model = load(dir.path()).unwrap();
        act(&weights);
        // The first image comes after the deed.
        assert_eq!((features(&model), logits(&model)), expected, "{deed}");
    }
}

#[test]
fn a_load_in_the_middle_of_it_is_an_error() {
    for (deed, act) in DEEDS {
        for at in 1..4 {
            let (dir, weights) = folder();
            std::thread::sleep(Duration::from_millis(15));
            let mut steps = 0;
            let loaded = Model::load(&LoadOptions::new(dir.path()), &mut |_| {
                steps += 1;
                if steps == at {
                    act(&weights);
                }
                Ok(())
            });
            match loaded {
                // An open file outlives its name.
                Ok(_) => assert_eq!(deed, "removed"),
                Err(Error::ModelFile { path, reason }) => {
                    assert_eq!(path, weights, "{deed}");
                    assert!(reason.contains("changed") || reason.contains("NaN"), "{deed}: {reason}");
                }
                Err(other) => panic!("{deed}: {other}"),
            }
        }
    }
}

#[test]
fn the_bytes_of_a_model_include_its_tower() {
    let (dir, _) = folder();
    let (model, inspected) = (load(dir.path()).unwrap(), Model::inspect(dir.path(), &Vision::Beside, None).unwrap());
    let info = model.info();
    // All of the file but for the tower's last layer and the norm behind it, which nothing reads: 2 linear layers of 32 x 64, 4 of
    // 32 x 32, and 13 vectors.
    let unused = 2 * 32 * 64 + 4 * 32 * 32 + 4 * 32 + 64 + 32 + 4 * 32 + 2 * 32;
    assert_eq!(info.weight_bytes, 4 * (info.parameters - unused));
    assert_eq!(inspected.weight_bytes, 4 * info.parameters);
    assert!(info.vision_bytes > 0 && info.vision_bytes < info.weight_bytes);
    assert_eq!(inspected.vision_bytes, info.vision_bytes + 4 * unused);
    // Per layer 4 of the text and 4 of the tower (2 of 3 are read), the head, the patches and the projector's two.
    assert_eq!(info.weight_formats["f32"], 2 * 4 + 2 * 4 + 1 + 1 + 2);
}
