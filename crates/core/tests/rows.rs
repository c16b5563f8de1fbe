//! Rows of a prompt whose way ends between two layers, or that take no part in attention.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prefixkv_core::Error;
use prefixkv_core::cache::{Format, LayerCache, Modality, Piece, Pool, Shape, Span};
use prefixkv_core::engine::about;
use prefixkv_core::method::{Method, Moment, Plan};
use prefixkv_core::model::{LoadOptions, Model, Prompt};
use prefixkv_core::sequence::{Layout, Placing, Sequence};
use prefixkv_kernels::codec::Dtype;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Layers that read everything, and with the two that follow those of the model.
const LAYER: usize = 2;
const N: usize = 130;
/// Positions that are said to show an image.
const IMAGE: std::ops::Range<usize> = 10..100;

/// The embedded model, whose first layers add nothing to what goes through them: what comes to the others is the embeddings, whoever
/// else is on the way.
fn idle_at_first(folder: &Path) -> Model {
    let source = root().join("models/tiny-llava");
    std::fs::create_dir_all(folder).expect("a folder");
    for file in std::fs::read_dir(&source).expect("the model").flatten().filter(|file| file.path().is_file()) {
        std::fs::copy(file.path(), folder.join(file.file_name())).expect("copied");
    }
    let weights = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).expect("weights");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let mut silenced = 0;
    for (name, tensor) in header.as_object().expect("tensors") {
        let first = (0..LAYER).any(|layer| name.contains(&format!("language_model.model.layers.{layer}.")));
        if first && (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight")) {
            let at = |index: usize| 8 + length + tensor["data_offsets"][index].as_u64().expect("an offset") as usize;
            bytes[at(0)..at(1)].fill(0);
            silenced += 1;
        }
    }
    assert_eq!(silenced, 2 * LAYER, "products that are silenced");
    // A link in the source would lead to it.
    std::fs::remove_file(&weights).expect("removed");
    std::fs::write(&weights, bytes).expect("written");
    load(folder)
}

fn load(folder: &Path) -> Model {
    Model::load(&LoadOptions::new(folder), &mut |_| Ok(())).unwrap_or_else(|error| panic!("{folder:?}: {error}"))
}

fn tokens(model: &Model, n: usize) -> Vec<u32> {
    let vocab = model.info().vocab_size as u32;
    (0..n as u32).map(|i| (i * 7919 + i * i * 31) % (vocab - 10) + 5).collect()
}

fn prompt(model: &Model) -> Prompt {
    let span = |modality, range: std::ops::Range<usize>| Span { modality, start: range.start, len: range.len() };
    let image = Modality::Image { index: 0, piece: Piece::base(9, 10) };
    let spans = vec![span(Modality::Text, 0..IMAGE.start), span(image, IMAGE), span(Modality::Text, IMAGE.end..N)];
    Prompt { tokens: tokens(model, N), spans, placing: Placing::InOrder, image_tokens: IMAGE.len() }
}

fn fastv(layer: usize, images: f64) -> Value {
    json!({ "method": "fastv", "layer": layer, "images": images })
}

fn sequence(model: &Model, cache: &Value) -> Sequence {
    let method = Method::parse(cache).unwrap_or_else(|error| panic!("{cache}: {error}"));
    model.new_sequence_with(method, true).unwrap_or_else(|error| panic!("{cache}: {error}"))
}

fn read(model: &Model, prompt: &Prompt, sequence: &mut Sequence) -> Vec<f32> {
    model.prefill(prompt, &[], sequence, &|| Ok(())).expect("reads")
}

/// The positions that a layer holds.
fn held(sequence: &Sequence, layer: usize) -> Vec<u32> {
    sequence.kept()[layer][0].positions.clone()
}

// One test, because all count the rows of the process.
#[test]
fn rows_end_between_layers() {
    let folder = std::env::temp_dir().join(format!("prefixkv-rows-{}", std::process::id()));
    let idle = idle_at_first(&folder);
    std::fs::remove_dir_all(&folder).expect("removed");
    later_layers_see_what_goes_on_and_nothing_else(&idle);
    let model = load(&root().join("models/tiny-llava"));
    what_goes_on_is_what_the_last_position_looks_at(&model);
    work_and_memory_are_saved(&model);
    a_pyramid_saves_work_from_layer_to_layer(&model);
    images_are_merged_before_the_first_layer(&model);
    fewer_attend_than_are_read(&model);
    later_prompts_go_their_own_way(&model);
    what_makes_no_sense_is_refused_with_the_reason();
}

/// As a prompt of the rows that go on, each turned to its true position.
fn later_layers_see_what_goes_on_and_nothing_else(model: &Model) {
    let layers = model.info().layers;
    let whole = prompt(model);
    for images in [0.0, 0.3, 0.5] {
        let mut cut = sequence(model, &fastv(LAYER, images));
        cut.keep_plans();
        let mut got = read(model, &whole, &mut cut);
        let plans = cut.take_plans();
        assert_eq!(plans.len(), 1);
        assert_eq!(plans[0].moment, Moment::Layer(LAYER - 1));
        let rows = plans[0].plan.rows.clone().expect("rows");
        let kept = IMAGE.len() * (images * 10.0) as usize / 10;
        assert_eq!(rows.len(), N - IMAGE.len() + kept);
        for layer in 0..layers {
            let want: Vec<u32> = if layer < LAYER { (0..N as u32).collect() } else { rows.clone() };
            assert_eq!(held(&cut, layer), want, "layer {layer}");
        }
        let alone = Prompt {
            tokens: rows.iter().map(|row| whole.tokens[*row as usize]).collect(),
            spans: vec![Span { modality: Modality::Text, start: 0, len: rows.len() }],
            placing: Placing::Placed { phases: rows.iter().map(|row| [*row; 3]).collect(), advance: N as u32 },
            image_tokens: 0,
        };
        let mut reference = sequence(model, &json!({ "method": "full" }));
        let mut want = read(model, &alone, &mut reference);
        assert!(got == want, "{images}: the prompt");
        for token in tokens(model, 20) {
            got = model.decode(token, &mut cut).expect("goes on");
            want = model.decode(token, &mut reference).expect("goes on");
            assert!(got == want, "{images}: a token");
        }
        for layer in LAYER..layers {
            let numbers = |sequence: &Sequence| {
                let lane = &sequence.lanes(layer)[0];
                let sorted = lane.sorted();
                (lane.keys(&sorted).expect("read"), lane.values(&sorted).expect("read"))
            };
            assert!(numbers(&cut) == numbers(&reference), "{images}: entries of layer {layer}");
        }
    }
}

fn what_goes_on_is_what_the_last_position_looks_at(model: &Model) {
    let whole = prompt(model);
    let importance = |cache: &Value, layer: usize| {
        let mut sequence = sequence(model, cache);
        sequence.record();
        read(model, &whole, &mut sequence);
        (sequence.take_record().expect("recorded").layers.swap_remove(layer).importance, sequence)
    };
    for layer in [1, LAYER] {
        let window = json!({ "method": "custom", "keep": 0.9, "score": "window", "window": 1, "pool": "none", "decode": "none" });
        let (want, _) = importance(&window, layer - 1);
        let (got, cut) = importance(&fastv(layer, 0.5), layer - 1);
        assert_eq!(got, want, "layer {layer}");
        let left = held(&cut, layer);
        let (on, off): (Vec<usize>, Vec<usize>) = IMAGE.partition(|position| left.contains(&(*position as u32)));
        let least = on.iter().map(|position| got[*position]).fold(f32::INFINITY, f32::min);
        let most = off.iter().map(|position| got[*position]).fold(0.0, f32::max);
        assert!(on.len() == IMAGE.len() / 2 && least >= most, "{least} and {most}");
    }
    // All that go on change nothing.
    let (mut all, mut full) = (sequence(model, &fastv(1, 1.0)), sequence(model, &json!({ "method": "full" })));
    assert!(read(model, &whole, &mut all) == read(model, &whole, &mut full));
}

fn work_and_memory_are_saved(model: &Model) {
    let (whole, layers) = (prompt(model), model.info().layers);
    let rows = |cache: &Value| {
        let before = about().live.rows_run;
        let mut sequence = sequence(model, cache);
        read(model, &whole, &mut sequence);
        (about().live.rows_run - before, sequence.memory())
    };
    let (all, full) = rows(&json!({ "method": "full" }));
    let (some, memory) = rows(&fastv(LAYER, 0.5));
    assert_eq!(all as usize, N * layers);
    assert_eq!(some as usize, N * layers - IMAGE.len() / 2 * (layers - LAYER));
    assert_eq!(memory.payload * all, full.payload * some, "entries are those of the rows");
    assert!(memory.peak < full.peak, "{} and {}", memory.peak, full.peak);
    let kept: Vec<f64> = (0..layers).map(|layer| if layer < LAYER { N } else { N - IMAGE.len() / 2 } as f64).collect();
    assert_eq!(memory.kept_per_layer, kept);
    // A prompt is admitted with the room that it needs: room for the rows that there are, and a little beside it.
    let folder = root().join("models/tiny-llava");
    let limit = Some(memory.peak + 4096);
    let limited =
        Model::load(&LoadOptions { cache_limit: limit, ..LoadOptions::new(folder) }, &mut |_| Ok(())).expect("loads");
    read(&limited, &whole, &mut sequence(&limited, &fastv(LAYER, 0.5)));
    let refused = limited.prefill(&whole, &[], &mut limited.new_sequence().expect("fits"), &|| Ok(()));
    assert!(matches!(refused, Err(Error::OutOfMemory { .. })));
    assert_eq!(limited.pool().used(), 0);
}

/// As many rows are computed as are held, and the room that they take is known before.
fn a_pyramid_saves_work_from_layer_to_layer(model: &Model) {
    let (whole, layers) = (prompt(model), model.info().layers);
    for (options, least) in [(json!({}), 0.97), (json!({ "share": 0.5, "least": 4, "interval": 2, "block": 0 }), 0.87)]
    {
        let mut cache = options;
        cache["method"] = json!("pyramidInfer");
        let before = about().live.rows_run;
        let mut pyramid = sequence(model, &cache);
        read(model, &whole, &mut pyramid);
        let run = about().live.rows_run - before;
        let memory = pyramid.memory();
        let held: Vec<usize> = (0..layers).map(|layer| held(&pyramid, layer).len()).collect();
        assert_eq!(run as usize, held.iter().sum::<usize>(), "{cache}: {held:?}");
        assert!((run as f64) < least * (N * layers) as f64 && held.is_sorted_by(|a, b| a >= b), "{cache}: {held:?}");
        assert_eq!(memory.payload as usize * N * layers, memory.full as usize * run as usize, "{cache}");
        let folder = root().join("models/tiny-llava");
        let limit = Some(memory.peak + 4096);
        let limited = Model::load(&LoadOptions { cache_limit: limit, ..LoadOptions::new(folder) }, &mut |_| Ok(()))
            .expect("loads");
        read(&limited, &whole, &mut sequence(&limited, &cache));
        eprintln!("{cache}: {run} of {} rows, {held:?}", N * layers);
    }
    // Nobody goes: the plain cache to the bit.
    let (mut all, mut full) = (
        sequence(model, &json!({ "method": "pyramidInfer", "share": 1, "block": 0 })),
        sequence(model, &json!({ "method": "full" })),
    );
    assert!(read(model, &whole, &mut all) == read(model, &whole, &mut full));
    assert!(model.decode(7, &mut all).expect("goes on") == model.decode(7, &mut full).expect("goes on"));
}

/// No layer computes a row that does not go on, and there is room for the others alone.
fn images_are_merged_before_the_first_layer(model: &Model) {
    let layers = model.info().layers;
    let bytes = std::fs::read(root().join("data/scenes/scene-003.png")).expect("a scene");
    let pixels = [model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture")];
    let text = "USER: <image>\nDescribe the image in detail. ASSISTANT:";
    let whole = model.expand(&model.tokenizer().encode_prompt(text).expect("encodes"), 1).expect("one image");
    let n = whole.tokens.len();
    let read = |model: &Model, sequence: &mut Sequence| {
        let features = model.encode_images_for(&pixels, sequence.pictures(), &|| Ok(())).expect("encodes");
        model.prefill(&whole, &features, sequence, &|| Ok(()))
    };
    for (images, kept) in [(0.3333, 48), (0.05, 7), (0.0, 1), (1.0, 144)] {
        let cache = json!({ "method": "visionZip", "images": images });
        let before = about().live.rows_run;
        let mut zipped = sequence(model, &cache);
        read(model, &mut zipped).expect("reads");
        let rows = n - 144 + kept;
        assert_eq!((about().live.rows_run - before) as usize, rows * layers, "{cache}");
        let memory = zipped.memory();
        assert_eq!(memory.kept_per_layer, vec![rows as f64; layers], "{cache}");
        assert_eq!(memory.payload as usize * n, memory.full as usize * rows, "{cache}");
        let limit = Some(memory.peak + 4096);
        let folder = LoadOptions::new(root().join("models/tiny-llava"));
        let limited = Model::load(&LoadOptions { cache_limit: limit, ..folder }, &mut |_| Ok(())).expect("loads");
        read(&limited, &mut sequence(&limited, &cache)).expect("there is room");
        let full = read(&limited, &mut limited.new_sequence().expect("fits"));
        assert_eq!(full.is_err(), kept < 144, "{cache}");
        assert_eq!(limited.pool().used(), 0);
    }
}

/// Every layer computes all rows, and attention of those that its plan stores in 4 bits, beside the scores of the probes.
fn fewer_attend_than_are_read(model: &Model) {
    let (whole, layers, heads) = (prompt(model), model.info().layers, model.info().heads);
    let read = |cache: &Value| {
        let before = about().live;
        let mut sequence = sequence(model, cache);
        sequence.keep_plans();
        read(model, &whole, &mut sequence);
        let after = about().live;
        let first = |plan: &Plan| -> Vec<u32> {
            let part = plan.lanes[0].encode.iter().find(|part| part.codec.key.dtype == Dtype::U4);
            part.map_or_else(Vec::new, |part| part.positions.clone())
        };
        let classes: Vec<Vec<u32>> = sequence.take_plans().iter().map(|planned| first(&planned.plan)).collect();
        ((after.rows_run - before.rows_run, after.pairs_run - before.pairs_run), classes)
    };
    let pairs = |n: usize| (heads * n * (n + 1) / 2) as u64;
    let zip = |mass: f64, prefill: &str| json!({ "method": "zipvl", "mass": mass, "probes": 10, "prefill": prefill });
    let all = ((N * layers) as u64, layers as u64 * pairs(N));
    assert_eq!(read(&json!({ "method": "full" })).0, all);
    assert_eq!(read(&zip(0.5, "whole")).0, all);
    for mass in [0.3, 0.5, 0.9] {
        let ((rows, run), classes) = read(&zip(mass, "sparse"));
        assert_eq!((rows, classes.len()), (all.0, layers));
        // The last position attends in any case.
        let part = |first: &Vec<u32>| first.len() + usize::from(first.last() != Some(&(N as u32 - 1)));
        let attention: u64 = classes.iter().map(|first| pairs(part(first))).sum();
        // Ten last queries are probes, and ten of the others.
        let scores = run - attention;
        let (least, most) = (pairs(N) - pairs(N - 10) + pairs(10), pairs(N) - pairs(N - 20));
        let bounds = layers as u64 * least / 2..=layers as u64 * most / 2;
        assert!(bounds.contains(&scores), "{mass}: {scores} for probes, of {bounds:?}");
        assert!(mass > 0.5 || run < all.1 / 2, "{mass}: {run} of {}", all.1);
        eprintln!("zipvl, mass {mass}: {run} of {} pairs", all.1);
    }
    // A prompt is admitted with the room that copies of a layer's entries take.
    let limited = |limit: u64| {
        let folder = LoadOptions::new(root().join("models/tiny-llava"));
        Model::load(&LoadOptions { cache_limit: Some(limit), ..folder }, &mut |_| Ok(())).expect("loads")
    };
    let needed = |prefill: &str| {
        let model = limited(1 << 16);
        match model.prefill(&whole, &[], &mut sequence(&model, &zip(0.9, prefill)), &|| Ok(())) {
            Err(Error::OutOfMemory { needed, .. }) => needed,
            other => panic!("{other:?}"),
        }
    };
    let room = needed("sparse");
    assert_eq!(room - needed("whole"), (2 * N * heads * model.info().head_dim * size_of::<f32>()) as u64);
    let small = limited(room + 4096);
    self::read(&small, &whole, &mut sequence(&small, &zip(0.9, "sparse")));
    assert_eq!(small.pool().used(), 0);
    // The probes of a prompt are its last positions, which a first piece does not have.
    let mut sequence = sequence(model, &zip(0.5, "sparse"));
    assert!(matches!(model.begin_prefill(&whole, &[], &mut sequence, 64), Err(Error::Option { .. })));
    self::read(model, &whole, &mut sequence);
}

fn later_prompts_go_their_own_way(model: &Model) {
    let whole = prompt(model);
    let mut one = sequence(model, &fastv(LAYER, 0.5));
    read(model, &whole, &mut one);
    model.decode(7, &mut one).expect("goes on");
    let first = held(&one, LAYER);
    let mut two = one.fork().expect("between two pieces of work");
    // A text: all of it goes on.
    let text = model.expand(&tokens(model, 40), 0).expect("text");
    read(model, &text, &mut two);
    let after = N as u32 + 1;
    assert_eq!(held(&two, LAYER), first.iter().copied().chain(after..after + 40).collect::<Vec<u32>>());
    // Another image: its own positions are ranked, those of the first are left alone.
    read(model, &whole, &mut one);
    let second: Vec<u32> = held(&one, LAYER)[first.len()..].to_vec();
    assert_eq!(held(&one, LAYER)[..first.len()], first);
    assert_eq!(second.len(), N - IMAGE.len() / 2);
    let text = (0..N).filter(|row| !IMAGE.contains(row)).map(|row| after + row as u32);
    assert!(text.into_iter().all(|row| second.contains(&row)));
    assert_eq!(held(&one, 0).len(), 2 * N + 1);
    model.decode(9, &mut one).expect("goes on");
    assert_eq!(held(&one, LAYER).last(), Some(&(2 * N as u32 + 1)));
}

fn what_makes_no_sense_is_refused_with_the_reason() {
    let refused = |cache: Value, part: &str| match Method::parse(&cache) {
        Err(Error::Option { reason, .. }) => assert!(reason.contains(part), "{cache}: {reason}"),
        other => panic!("{cache} gave {other:?}"),
    };
    let (fast, h2o) = (fastv(2, 0.5), json!({ "method": "h2o", "keep": 0.5 }));
    refused(json!([fast, { "method": "merge" }]), "frees no entries");
    refused(json!([fast, h2o]), "both choose");
    refused(json!([h2o, fast]), "both choose");
    refused(json!([fast, fast]), "both choose");
    refused(json!({ "method": "fastv", "keep": 0.5 }), "takes no `keep`");
    refused(fastv(0, 0.5), "from 1");
    refused(fastv(2, 1.5), "from 0 to 1");
    let model = load(&root().join("models/tiny-llava"));
    let all = Method::parse(&fastv(model.info().layers, 0.5)).expect("parses");
    let error = model.new_sequence_with(all, false).expect_err("no layer is left");
    assert!(error.to_string().contains("leaves no layer"), "{error}");
    let shape = Shape { layers: 3, kv_heads: 2, head_dim: 8, format: Format::F32 };
    let shared = Layout::new([0, 0, 2].map(|source| LayerCache { source, window: None, rope: 0 }).to_vec());
    let method = Method::parse(&fastv(1, 0.5)).expect("parses");
    let error = Sequence::with_layout(shape, Arc::new(shared), &Pool::unlimited(), method, false).expect_err("shared");
    assert!(error.to_string().contains("read the entries of others"), "{error}");
    // In pieces later layers would have seen rows that go no further.
    let mut sequence = sequence(&model, &fastv(2, 0.5));
    assert!(matches!(model.begin_prefill(&prompt(&model), &[], &mut sequence, 64), Err(Error::Option { .. })));
    read(&model, &prompt(&model), &mut sequence);
}
