//! The pool's count against the allocator's: what a sequence says it takes is what it takes.

mod calibrated;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use calibrated::calibration;
use prefixkv_core::cache::{Format, Lane, Modality, Pool, Shape, Span};
use prefixkv_core::device::Cpu;
use prefixkv_core::method::{METHODS, Method, Role};
use prefixkv_core::model::{LoadOptions, Model, WeightFormat};
use prefixkv_core::nn::Loader;
use prefixkv_core::sequence::{Placing, Sequence};
use prefixkv_core::weights::Checkpoint;
use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::rotary::Angles;
use serde_json::{Value, json};

/// Counts the bytes that are allocated, and the most of them. Large buffers of the cache are mappings, which [`mapping`] adds.
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

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

fn mapping(change: isize) {
    let live = LIVE.fetch_add(change as usize, Ordering::Relaxed).wrapping_add(change as usize);
    PEAK.fetch_max(live, Ordering::Relaxed);
}

/// Bytes that go back to the allocator with `sequence`.
fn freed_by(sequence: Sequence) -> usize {
    let before = live();
    drop(sequence);
    before - live()
}

fn method(value: &Value) -> Option<std::sync::Arc<Method>> {
    Method::parse(value).unwrap_or_else(|e| panic!("{value}: {e}"))
}

/// Beside the lanes a sequence has lists of layers and spans, and its method's numbers: a few hundred bytes a layer.
const LISTS_PER_LAYER: usize = 500;

fn close_to_allocator(sequence: Sequence, what: &str) {
    let memory = sequence.memory();
    let freed = freed_by(sequence);
    let lists = LISTS_PER_LAYER * memory.kept_per_layer.len();
    eprintln!("{what}: resident {} allocator {freed} payload {}", memory.resident, memory.payload);
    assert!(freed as u64 >= memory.resident - memory.resident / 100, "{what}: {freed} of {}", memory.resident);
    assert!(freed as u64 <= memory.resident + lists as u64, "{what}: {freed} for {}", memory.resident);
}

// One test, because the allocator is shared by all threads of the process.
#[test]
fn what_is_said_is_what_is_allocated() {
    prefixkv_kernels::os::heap::watch(mapping);
    generation_on_the_embedded_model();
    six_hundred_positions_and_more();
    the_peak_of_a_known_configuration_is_one_layer_more();
    what_forks_share_is_there_once();
    weights_take_what_the_loader_counts();
}

fn generation_on_the_embedded_model() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let source = root.join("models/tiny-llava");
    let options = LoadOptions::new(source);
    let model = Model::load(&options, &mut |_| Ok(())).expect("loads");
    let bytes = std::fs::read(root.join("data/scenes/scene-002.png")).expect("a scene");
    let pixels = model.image_processor().expect("takes images").process(&bytes, 0).expect("a picture");
    let pixels = [pixels];
    let text = "USER: <image>\nDescribe the image in detail. ASSISTANT:";
    let prompt = model.expand(&model.tokenizer().encode_prompt(text).expect("encodes"), 1).expect("one image");
    for spec in METHODS {
        let mut cache = json!({ "method": spec.name });
        if spec.takes_keep() {
            cache["keep"] = json!(0.2);
        }
        if let Some(calibration) = calibration(spec, 10, 6, 32) {
            cache["calibration"] = calibration;
        }
        if spec.role == Role::Shares {
            cache["sources"] = json!({ "6": 2, "7": 2 });
        }
        if spec.role == Role::Refines {
            cache = json!([{ "method": "knorm", "keep": 0.2 }, cache]);
        }
        // The calibrated parts are the method's, which outlives the sequence here.
        let method = method(&cache);
        let mut sequence = model.new_sequence_with(method.clone(), false).expect("a sequence");
        let features = model.encode_images_for(&pixels, sequence.pictures(), &|| Ok(())).expect("encodes");
        model.prefill(&prompt, &features, &mut sequence, &|| Ok(())).expect("reads");
        drop(features);
        for token in 10..70 {
            model.decode(token, &mut sequence).expect("goes on");
        }
        let memory = sequence.memory();
        // Bases are as large for one entry as for many.
        let over = (memory.resident as f64 - bases(&sequence)) / (memory.payload + memory.scales) as f64;
        eprintln!("{}: resident is {over:.4} of payload and scales", spec.name);
        assert!(over <= 1.10, "{}: {over}", spec.name);
        close_to_allocator(sequence, spec.name);
    }
}

/// Bytes of the bases that the lanes of a sequence have.
fn bases(sequence: &Sequence) -> f64 {
    let layers = sequence.memory().kept_per_layer.len();
    let of_lane = |lane: &Lane| -> usize {
        let mut known: Vec<(u32, usize)> = Vec::new();
        for basis in lane.view(None).runs.iter().filter_map(|run| run.basis) {
            known.push((basis.based().id, basis.bytes()));
        }
        known.sort_unstable();
        known.dedup();
        known.iter().map(|(_, bytes)| bytes).sum()
    };
    (0..layers).flat_map(|layer| sequence.lanes(layer)).map(of_lane).sum::<usize>() as f64
}

/// A sequence that is fed by hand, so that nothing else is allocated: every layer gets the same rows, and sums that differ
/// from layer to layer.
fn feed(sequence: &mut Sequence, shape: &Shape, angles: &Angles, rows: &[f32], sums: &[Vec<Vec<f32>>]) {
    let width = shape.kv_heads * shape.head_dim;
    let n = angles.positions();
    sequence.begin_prompt(&[Span { modality: Modality::Text, start: 0, len: n }], &Placing::InOrder).expect("begins");
    for (layer, sums) in sums.iter().enumerate() {
        sequence.store(layer, Rows::dense(rows, width), Rows::dense(rows, width), Some(angles)).expect("stores");
        sequence.attended(layer, sums).expect("frees");
    }
    sequence.finish_prompt().expect("ends");
}

fn angles(shape: &Shape, n: usize) -> Angles {
    Angles::new(0..n as u32, &vec![0.1; shape.head_dim / 2], 1.0)
}

fn noise(n: usize, power: i32) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0).map(|x| x.powi(power)).collect()
}

fn sums(shape: &Shape, n: usize) -> Vec<Vec<Vec<f32>>> {
    (0..shape.layers).map(|layer| vec![noise(n, 1 + 3 * layer as i32); shape.kv_heads]).collect()
}

fn six_hundred_positions_and_more() {
    for format in [Format::F32, Format::F16] {
        let shape = Shape { layers: 4, kv_heads: 4, head_dim: 64, format };
        for n in [600, 1000] {
            let rows = noise(n * shape.kv_heads * shape.head_dim, 1);
            let (sums, angles) = (sums(&shape, n), angles(&shape, n));
            for (name, keep) in [
                ("prefixkv", 0.99),
                ("prefixkv", 0.6),
                ("h2o", 0.99),
                ("snapkv", 0.99),
                ("full", 1.0),
                ("int8", 1.0),
                ("int4", 1.0),
                ("int2", 1.0),
            ] {
                let mut cache = json!({ "method": name });
                if keep < 1.0 {
                    cache["keep"] = json!(keep);
                }
                let pool = Pool::unlimited();
                let mut sequence = Sequence::with_method(shape, &pool, method(&cache), false).expect("a sequence");
                feed(&mut sequence, &shape, &angles, &rows, &sums);
                let row = &rows[..shape.kv_heads * shape.head_dim];
                for step in 0..50 {
                    sequence.begin_step().expect("begins");
                    for layer in 0..shape.layers {
                        let angles = Angles::new([(n + step) as u32], &vec![0.1; shape.head_dim / 2], 1.0);
                        let rows = Rows::dense(row, row.len());
                        sequence.store(layer, rows, rows, Some(&angles)).expect("stores");
                        sequence.stepped(layer, &[]);
                    }
                    sequence.finish_step().expect("ends");
                    let memory = sequence.memory();
                    let over = memory.resident as f64 / (memory.payload + memory.scales) as f64;
                    assert!(over <= 1.05, "{cache} {format:?}: {over} after {step} steps");
                }
                close_to_allocator(sequence, &format!("{cache} {format:?} {n}"));
            }
        }
    }
}

fn the_peak_of_a_known_configuration_is_one_layer_more() {
    let shape = Shape { layers: 8, kv_heads: 4, head_dim: 64, format: Format::F32 };
    let n = 1024;
    let rows = noise(n * shape.kv_heads * shape.head_dim, 1);
    let (sums, angles) = (sums(&shape, n), angles(&shape, n));
    let retained: Vec<f64> = (0..shape.layers).map(|layer| 0.05 + 0.1 * layer as f64).collect();
    let keep = retained.iter().sum::<f64>() / shape.layers as f64;
    let calibration = json!({
        "format": "prefixkv-calibration", "version": 1, "model": { "layers": shape.layers },
        "rows": [{ "keep": keep, "retained": retained }],
    });
    let online = json!({ "method": "prefixkv", "keep": keep });
    let mut offline = online.clone();
    offline["calibration"] = calibration;
    let layer = n * 2 * shape.kv_heads * shape.head_dim * 4;
    // Scores, order and safety of one layer's entries, and their places while they are chosen; two numbers for each head of an entry, and
    // the keys and values of 64 entries at a time, which the score looks at.
    let workspace = (64 + 8 * shape.kv_heads) * n + 64 * layer / n;
    for (cache, layers_at_once) in [(offline, 1), (online, shape.layers)] {
        let pool = Pool::unlimited();
        let mut sequence = Sequence::with_method(shape, &pool, method(&cache), false).expect("a sequence");
        let base = live();
        PEAK.store(base, Ordering::Relaxed);
        feed(&mut sequence, &shape, &angles, &rows, &sums);
        let peak = PEAK.load(Ordering::Relaxed) - base;
        let memory = sequence.memory();
        let kept = memory.payload as usize;
        eprintln!("peak {peak} by the allocator, {} by the pool; kept {kept}, a layer {layer}", memory.peak);
        if layers_at_once == 1 {
            assert!(peak <= kept + layer + workspace, "{peak} over {kept} + {layer}");
            assert!(memory.peak as usize <= kept + layer + workspace);
        } else {
            assert!(peak >= layer * shape.layers, "the search needs the scores of all layers");
            // Never two copies of more than one layer.
            assert!(peak <= layer * (shape.layers + 1) + workspace * shape.layers);
        }
        assert!(memory.peak as usize <= peak + 2000, "the pool does not count more than there is");
        assert!(memory.peak as usize + workspace * shape.layers >= peak, "nor less");
    }
}

fn what_forks_share_is_there_once() {
    let shape = Shape { layers: 4, kv_heads: 4, head_dim: 64, format: Format::F16 };
    let n = 800;
    let rows = noise(n * shape.kv_heads * shape.head_dim, 1);
    let (sums, angles) = (sums(&shape, n), angles(&shape, n));
    for cache in [json!({ "method": "full" }), json!({ "method": "h2o", "keep": 0.5 })] {
        let pool = Pool::unlimited();
        let mut first = Sequence::with_method(shape, &pool, method(&cache), true).expect("a sequence");
        feed(&mut first, &shape, &angles, &rows, &sums);
        let forks: Vec<Sequence> = (0..3).map(|_| first.fork().expect("no cap")).collect();
        let memory = first.memory();
        let lists = LISTS_PER_LAYER * shape.layers;
        assert!(memory.shared >= memory.payload, "{memory:?}");
        for fork in forks.into_iter().chain([first]) {
            let (own, pooled) = (fork.memory().resident - fork.memory().shared, pool.used());
            let freed = freed_by(fork) as u64;
            eprintln!("{cache}: {own} of its own, {freed} by the allocator");
            assert!(freed >= own && freed <= own + lists as u64, "{cache}: {freed} for {own}");
            assert_eq!(pooled - pool.used(), own);
        }
        assert_eq!(pool.used(), 0);
    }
}

/// Layers of the embedded model in every format, of which some fill no whole blocks and some no whole tiles.
fn weights_take_what_the_loader_counts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let checkpoint = Checkpoint::open(&root.join("models/tiny-llava")).expect("opens");
    let config = std::fs::read_to_string(root.join("models/tiny-llava/config.json")).expect("a configuration");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let of = |key: &str| config["text_config"][key].as_u64().expect("a number") as usize;
    let (hidden, inner, vocabulary) = (of("hidden_size"), of("intermediate_size"), of("vocab_size"));
    let prefix = checkpoint
        .find_prefix(&["model.language_model.", "language_model.model."], "norm.weight")
        .expect("a text model");
    let layer = format!("{prefix}layers.0.mlp");
    let (gate, up, down) = (format!("{layer}.gate_proj"), format!("{layer}.up_proj"), format!("{layer}.down_proj"));
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K] {
        let loader = Loader::new(&checkpoint, format, Cpu);
        let held = [
            loader.linear(&[(&gate, inner), (&up, inner)], hidden, false).expect("a layer"),
            loader.linear(&[(&down, hidden)], inner, false).expect("a layer"),
        ];
        let table = loader.table(&format!("{prefix}embed_tokens.weight"), vocabulary, hidden).expect("a table");
        let (counted, before) = (loader.tally().bytes as usize, live());
        drop((held, table));
        let freed = before - live();
        eprintln!("{format:?}: counted {counted} allocator {freed}");
        // Beside the numbers, what says where they lie.
        assert!(freed >= counted && freed - counted < 2048, "{format:?}: {freed} for {counted}");
    }
}
