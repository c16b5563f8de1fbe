//! How much memory decoding takes: of files that unfold, and of the largest ones.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use prefixkv_core::media::{decode, decoding_bytes, upright_size};
use prefixkv_core::model::image_processor;
use serde_json::json;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes beside those that were there.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let made = work();
    (PEAK.load(Ordering::Relaxed) - before, made)
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

/// The chunks of a PNG file: where they begin, their types and their data.
fn chunks(file: &[u8]) -> Vec<(usize, [u8; 4], &[u8])> {
    let (mut at, mut all) = (8, Vec::new());
    while at + 12 <= file.len() {
        let length = u32::from_be_bytes(file[at..at + 4].try_into().expect("four")) as usize;
        all.push((at, file[at + 4..at + 8].try_into().expect("four"), &file[at + 8..at + 8 + length]));
        at += 12 + length;
    }
    all
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

/// A zlib stream of some 64 MB of zeros, a thousandth of that.
fn zeros() -> Vec<u8> {
    let file = encode(GrayImage::new(32_000, 2000), ImageFormat::Png);
    chunks(&file).into_iter().filter(|(_, kind, _)| kind == b"IDAT").flat_map(|(_, _, data)| data.to_vec()).collect()
}

fn colours() -> RgbImage {
    RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 3) as u8, (y * 5) as u8, (x * y) as u8]))
}

// One test, because the allocator is shared by all threads of the process.
#[test]
fn decoding_stays_within_bounds() {
    png_metadata_is_not_unpacked();
    metadata_of_other_formats_takes_what_the_file_has();
    no_decoder_takes_more_than_is_reckoned();
    no_processor_takes_more_than_is_reckoned();
}

fn png_metadata_is_not_unpacked() {
    let plain = encode(colours(), ImageFormat::Png);
    let zeros = zeros();
    assert!(zeros.len() < 400_000, "{}", zeros.len());
    let with = |kind: &[u8; 4], head: &[u8]| chunk(kind, &[head, &zeros].concat());
    let bombs = [
        with(b"iCCP", b"profile\0\0"),
        with(b"zTXt", b"Comment\0\0"),
        with(b"iTXt", b"Comment\0\x01\0\0\0"),
        with(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0"),
        chunk(b"tEXt", &vec![b'a'; 4 << 20]),
        chunk(b"eXIf", &vec![b'a'; 4 << 20]),
    ];
    let end = chunks(&plain).iter().find(|(_, kind, _)| kind == b"IEND").expect("an end").0;
    let start = chunks(&plain).iter().find(|(_, kind, _)| kind == b"IDAT").expect("data").0;
    for (number, bomb) in bombs.iter().enumerate() {
        for at in [start, end] {
            // A dozen of the same: the limit of one chunk is not the limit of all.
            let file = [&plain[..at], &bomb.repeat(12), &plain[at..]].concat();
            let (taken, image) = peak(|| decode(&file, 0).expect("an image"));
            assert_eq!(image, colours(), "bomb {number}");
            assert!(
                taken < file.len() + (2 << 20),
                "bomb {number} at {at}: {taken} bytes for a file of {}",
                file.len()
            );
            let (taken, size) = peak(|| upright_size(&file, 0).expect("an image"));
            assert_eq!(size, (64, 48));
            assert!(taken < file.len() + (2 << 20), "the head of bomb {number}: {taken}");
        }
    }
}

fn metadata_of_other_formats_takes_what_the_file_has() {
    let jpeg = encode(colours(), ImageFormat::Jpeg);
    let segment = |marker: u8, head: &[u8]| {
        let data = [head, &vec![7; 65_000]].concat();
        [&[0xff, marker][..], &((data.len() + 2) as u16).to_be_bytes(), &data].concat()
    };
    let gif = encode(colours(), ImageFormat::Gif);
    let webp = encode(colours(), ImageFormat::WebP);
    let mut riff = webp.clone();
    for kind in [b"ICCP", b"EXIF", b"XMP ", b"junk"] {
        riff.extend(kind);
        riff.extend((2u32 << 20).to_le_bytes());
        riff.extend(vec![7; 2 << 20]);
    }
    // The picture's own length, and a comment of as many blocks as there are.
    let comments = [&b"\x21\xfe"[..], &[&[255u8][..], &[7; 255]].concat().repeat(30_000), &[0]].concat();
    let gif_body = gif.iter().rposition(|byte| *byte == b';').expect("a trailer");
    let files = [
        (
            "JPEG",
            [
                &jpeg[..2],
                &segment(0xe2, b"ICC_PROFILE\0\x01\x01").repeat(100),
                &segment(0xe1, b"Exif\0\0").repeat(30),
                &jpeg[2..],
            ]
            .concat(),
        ),
        ("GIF", [&gif[..gif_body], &comments, &gif[gif_body..]].concat()),
        ("WebP", riff),
    ];
    for (name, file) in files {
        let (taken, _) = peak(|| decode(&file, 0));
        assert!(taken < 3 * file.len() + (4 << 20), "{name}: {taken} bytes for a file of {}", file.len());
    }
}

fn no_decoder_takes_more_than_is_reckoned() {
    let noise =
        |n: usize| -> Vec<u8> { (0..n as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect() };
    let (width, height) = (1500, 1100);
    let rgb = RgbImage::from_raw(width, height, noise((3 * width * height) as usize)).expect("as long");
    let rgba = image::RgbaImage::from_raw(width, height, noise((4 * width * height) as usize)).expect("as long");
    let deep: Vec<u16> = noise((4 * width * height) as usize).into_iter().map(|byte| u16::from(byte) * 257).collect();
    let deep = image::ImageBuffer::<image::Rgba<u16>, _>::from_raw(width, height, deep).expect("as long");
    let small = image::imageops::resize(&rgb, 700, 500, image::imageops::FilterType::Nearest);
    let files = [
        ("PNG", encode(rgb.clone(), ImageFormat::Png)),
        ("PNG with alpha", encode(rgba.clone(), ImageFormat::Png)),
        ("PNG of 16 bits", encode(DynamicImage::ImageRgba16(deep), ImageFormat::Png)),
        ("JPEG", encode(rgb.clone(), ImageFormat::Jpeg)),
        ("WebP", encode(rgba, ImageFormat::WebP)),
        ("GIF", encode(small, ImageFormat::Gif)),
        ("turned JPEG", turned(&encode(rgb, ImageFormat::Jpeg))),
    ];
    for (name, file) in files {
        let reckoned = decoding_bytes(&file, 0).expect("an image") as usize;
        let (taken, image) = peak(|| decode(&file, 0).expect("an image"));
        let size = (image.width() as usize, image.height() as usize);
        assert_eq!(upright_size(&file, 0).expect("an image"), size, "{name}");
        eprintln!("{name}: {taken} of {reckoned}, {:.1} bytes a pixel", taken as f64 / (size.0 * size.1) as f64);
        assert!(taken <= reckoned, "{name}: {taken} bytes, {reckoned} were reckoned");
        assert!(reckoned < 24 * size.0 * size.1 + file.len() + (2 << 20), "{name}: {reckoned}");
    }
}

fn no_processor_takes_more_than_is_reckoned() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures");
    // As the hub has SmolVLM-256M: 16 tiles of 512 pixels and one more.
    let folder = tempfile::tempdir().expect("a folder");
    let vision = json!({ "image_size": 512, "patch_size": 16 });
    let config = json!({ "model_type": "smolvlm", "scale_factor": 4, "vision_config": vision });
    let settings = json!({ "size": { "longest_edge": 2048 }, "max_image_size": { "longest_edge": 512 } });
    for (name, content) in [("config.json", config), ("preprocessor_config.json", settings)] {
        std::fs::write(folder.path().join(name), content.to_string()).expect("written");
    }
    // As the hub has LLaVA-NeXT.
    let next = tempfile::tempdir().expect("a folder");
    std::fs::write(next.path().join("config.json"), json!({ "model_type": "llava_next" }).to_string())
        .expect("written");
    // And InternVL3: 12 tiles of 448 pixels and a thumbnail.
    let internvl = tempfile::tempdir().expect("a folder");
    let settings = json!({ "size": { "height": 448, "width": 448 } });
    for (name, content) in
        [("config.json", json!({ "model_type": "internvl" })), ("preprocessor_config.json", settings)]
    {
        std::fs::write(internvl.path().join(name), content.to_string()).expect("written");
    }
    for folder in [folder.path(), next.path(), internvl.path(), &fixtures.join("llava-gqa64")] {
        let (_, processor) = image_processor(folder).expect("sound").expect("takes images");
        for (width, height) in [(2000, 1500), (64, 48), (1, 3000), (3000, 40), (1, 1)] {
            let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, (x ^ y) as u8]));
            let reckoned = processor.bytes(width as usize, height as usize) as usize;
            let (taken, prepared) = peak(|| processor.prepare(&image));
            let held: usize = prepared.tiles.iter().map(|tile| 4 * tile.data.len()).sum();
            eprintln!("{width} x {height}: {taken} of {reckoned} for {} tiles", prepared.tiles.len());
            // Filters have some weights of their own.
            assert!(taken <= reckoned + (1 << 20), "{width} x {height}: {taken} bytes, {reckoned} were reckoned");
            assert!(
                reckoned < 2 * held + 12 * (width.max(2048) * height.max(2048)) as usize,
                "{width} x {height}: {reckoned}"
            );
        }
    }
}

/// The file with an EXIF orientation of 6.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    let entry = [0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0];
    let exif = [&b"Exif\0\0II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat();
    [&jpeg[..2], &[0xff, 0xe1], &((exif.len() + 2) as u16).to_be_bytes(), &exif, &jpeg[2..]].concat()
}
