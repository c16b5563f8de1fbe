//! Image files: decoding, and what the vision tower gets of them.

use std::fs;
use std::sync::OnceLock;

use prefixkv_core::media::{ClipProcessor, MAX_PIXELS, MAX_SIDE, decode};

use crate::folder::{repository, scratch, write};
use crate::target::{Kind, Target, outcome};

pub const TARGET: Target = Target {
    name: "image",
    reads: "PNG, JPEG, WebP and GIF files; resizing and preprocessing of what they hold",
    kind: Kind::Image,
    // What `decode` allows a decoder to take, and the RGB copies of 100 megapixels.
    memory: 1600 << 20,
    short: 400,
    words: || &[],
    seeds,
    run,
};

fn seeds() -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(repository("tests/golden/fixtures/images"))
        .expect("the fixtures")
        .map(|entry| entry.expect("a fixture").path())
        .collect();
    files.sort();
    let seed = |(index, file): (usize, &std::path::PathBuf)| {
        let bytes = fs::read(file).expect("a fixture");
        (bytes.len() < 1 << 16).then(|| [&[index as u8][..], &bytes].concat())
    };
    files.iter().enumerate().filter_map(seed).collect()
}

/// Processors of every kind of step.
fn processors() -> &'static [ClipProcessor] {
    const CONFIGS: [&str; 5] = [
        r#"{"size":{"shortest_edge":56},"crop_size":56}"#,
        r#"{"size":336,"crop_size":{"height":20,"width":336},"image_aspect_ratio":"pad","resample":1}"#,
        r#"{"do_resize":false,"crop_size":64,"do_normalize":false}"#,
        r#"{"size":{"height":1,"width":99},"do_center_crop":false,"resample":0}"#,
        r#"{"size":7,"do_center_crop":false,"image_aspect_ratio":"pad","resample":4}"#,
    ];
    static PROCESSORS: OnceLock<Vec<ClipProcessor>> = OnceLock::new();
    PROCESSORS.get_or_init(|| {
        let dir = scratch(&[]);
        let name = "preprocessor_config.json";
        let read = |config: &&str| {
            let files = [(name.to_owned(), (*config).into())].into_iter().collect();
            write(dir.path(), &files, &[name]);
            ClipProcessor::from_folder(dir.path(), 8).expect("a sound processor")
        };
        CONFIGS.iter().map(read).collect()
    })
}

fn run(data: &[u8]) -> String {
    let Some((choice, file)) = data.split_first() else { return "empty".into() };
    let decoded = decode(file, 3);
    if let Ok(image) = &decoded {
        let (width, height) = image.dimensions();
        assert!(width > 0 && height > 0 && width <= MAX_SIDE && height <= MAX_SIDE);
        assert!(u64::from(width) * u64::from(height) <= MAX_PIXELS);
        assert_eq!(image.as_raw().len(), width as usize * height as usize * 3);
        let processors = processors();
        let processor = &processors[usize::from(*choice) % processors.len()];
        let pixels = processor.process_rgb(image);
        assert_eq!((pixels.height, pixels.width), processor.output_size());
        assert_eq!(pixels.data.len(), 3 * pixels.height * pixels.width);
        assert!(pixels.data.iter().all(|value| value.is_finite()));
        let kind = file.iter().take(4).fold(0u32, |kind, byte| kind << 8 | u32::from(*byte));
        return format!("ok {kind:x} {}", (width.ilog2() + height.ilog2()) / 4);
    }
    outcome(&decoded, &["image"])
}
