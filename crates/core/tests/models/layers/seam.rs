//! The seam between a model, its layers and a sequence, drawn at random: whose entries a layer reads, how far back, by which rotary
//! embedding, and where a prompt is placed. Attention is compared with a twin in f64 that keeps everything.

use std::ops::Range;
use std::sync::Arc;

use prefixkv_core::backend::{Activations, Backend, Heads, LayerKind};
use prefixkv_core::cache::{Format, LayerCache, Modality, Piece, Pool, Shape, Span};
use prefixkv_core::device::Cpu;
use prefixkv_core::method::Method;
use prefixkv_core::sequence::{BatchItem, Layout, Pass, Placing, Sequence};
use prefixkv_kernels::rotary::{Frequencies, Phase, Sections};
use proptest::prelude::*;
use serde_json::json;

const HEADS: Heads = Heads { query: 4, kv: 2, dim: 8 };
const HALF: usize = 4;
const THETAS: [f32; 2] = [1.0, 0.13];

/// A layer as it is drawn: whether it reads an earlier one, and which; its window; which rope, and with it another scale; a cap.
type Drawn = (bool, usize, Option<u32>, bool, bool);

fn kinds(drawn: &[Drawn]) -> Vec<LayerKind> {
    let mut kinds: Vec<LayerKind> = Vec::new();
    for (layer, (reads, of, window, rope, capped)) in drawn.iter().enumerate() {
        let owners: Vec<&LayerKind> = kinds.iter().filter(|kind| kind.source == kind.layer).collect();
        let softcap = capped.then_some(3.0);
        let kind = match owners.get(of % owners.len().max(1)).filter(|_| *reads) {
            // One that reads another's entries finds them turned as that one has turned them; its window may be its own.
            Some(source) => LayerKind { source: source.layer, rope: source.rope, ..LayerKind::ordinary(layer, HEADS) },
            None => LayerKind { rope: usize::from(*rope), ..LayerKind::ordinary(layer, HEADS) },
        };
        let scale = if *rope { 0.6 } else { kind.scale };
        kinds.push(LayerKind { window: *window, scale, softcap, ..kind });
    }
    kinds
}

fn sections(interleaved: bool) -> Sections {
    Sections { sizes: [2, 1, 1], interleaved }
}

fn inverse(variant: usize) -> Vec<f32> {
    (0..HALF).map(|i| THETAS[variant] * 0.5f32.powi(i as i32)).collect()
}

/// Which axis a frequency turns along, as Qwen2-VL deals them out in runs, and Qwen3-VL to every third.
fn axis(frequency: usize, interleaved: bool) -> usize {
    if interleaved { [0, 1, 2, 0][frequency] } else { [0, 0, 1, 2][frequency] }
}

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The twin's record of a layer with entries of its own: rotated keys and values, `[kv, dim]` each.
#[derive(Clone, Default)]
struct Seen {
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
}

fn turned(row: &[f32], phase: Phase, variant: usize, interleaved: bool) -> Vec<f64> {
    let mut out: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
    for head in out.chunks_mut(HEADS.dim) {
        for (i, frequency) in inverse(variant).iter().enumerate() {
            let angle = f64::from(phase[if variant == 0 { axis(i, interleaved) } else { 0 }]) * f64::from(*frequency);
            let (low, high) = (head[i], head[i + HALF]);
            head[i] = low * angle.cos() - high * angle.sin();
            head[i + HALF] = high * angle.cos() + low * angle.sin();
        }
    }
    out
}

/// Attention of the query at `position` to all that it sees.
fn attend(query: &[f64], position: usize, seen: &Seen, kind: &LayerKind) -> Vec<f64> {
    let since = kind.window.map_or(0, |window| (position + 1).saturating_sub(window as usize));
    let mut out = Vec::new();
    for head in 0..HEADS.query {
        let query = &query[head * HEADS.dim..(head + 1) * HEADS.dim];
        let at = head / (HEADS.query / HEADS.kv) * HEADS.dim;
        let score = |entry: usize| {
            let dot: f64 = query.iter().zip(&seen.keys[entry][at..]).map(|(q, k)| q * k).sum();
            let score = dot * f64::from(kind.scale);
            kind.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        };
        let scores: Vec<f64> = (since..=position).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let whole: f64 = weights.iter().sum();
        for i in 0..HEADS.dim {
            let sum: f64 = weights.iter().enumerate().map(|(j, w)| w * seen.values[since + j][at + i]).sum();
            out.push(sum / whole);
        }
    }
    out
}

/// Something that goes through the layers.
#[derive(Clone, Debug)]
enum Work {
    Step,
    /// Whole, or in pieces of so many positions.
    Prompt {
        n: usize,
        placed: Option<(Vec<Phase>, u32)>,
        piece: Option<usize>,
    },
}

fn works() -> impl Strategy<Value = Vec<Work>> {
    let phase = [0u32..30, 0u32..30, 0u32..30];
    let placed = prop::collection::vec(phase, 1..25).prop_flat_map(|phases| {
        let n = phases.len();
        let (placed, piece) = (prop::option::of((Just(phases), 1u32..40)), prop::option::of(1usize..9));
        (placed, piece).prop_map(move |(placed, piece)| Work::Prompt { n, placed, piece })
    });
    prop::collection::vec(prop_oneof![1 => placed, 2 => Just(Work::Step)], 1..12)
}

fn spans(n: usize, image: bool) -> Vec<Span> {
    let modality = if image { Modality::Image { index: 0, piece: Piece::base(1, n) } } else { Modality::Text };
    vec![Span { modality, start: 0, len: n }]
}

/// A sequence with what it needs to go through its layers.
struct Runner {
    kinds: Vec<LayerKind>,
    ropes: Vec<Frequencies>,
    /// Whether keys are stored before their rotary embedding, all of them whole.
    before: bool,
}

impl Runner {
    fn new(kinds: Vec<LayerKind>, interleaved: bool, before: bool) -> Runner {
        let ropes = vec![Frequencies::new(inverse(0), Some(sections(interleaved))), Frequencies::new(inverse(1), None)];
        Runner { kinds, ropes, before }
    }

    fn layout(&self) -> Arc<Layout> {
        let of = |kind: &LayerKind| LayerCache { source: kind.source, window: kind.window, rope: kind.rope };
        Arc::new(Layout::new(self.kinds.iter().map(of).collect()))
    }

    fn shape(&self) -> Shape {
        Shape { layers: self.kinds.len(), kv_heads: HEADS.kv, head_dim: HEADS.dim, format: Format::F32 }
    }

    fn sequence(&self, pool: &Pool) -> Sequence {
        let store = json!({ "method": "int8", "window": 1_000_000, "rope": "before" });
        let method = if self.before { Method::parse(&store).expect("a store") } else { None };
        Sequence::with_layout(self.shape(), self.layout(), pool, method, true).expect("no cap")
    }

    /// The attention of every layer to rows that `seed` gives.
    fn run(&self, sequence: &mut Sequence, work: &Work, seed: u64) -> Vec<Vec<f32>> {
        let mut outputs = vec![Vec::new(); self.kinds.len()];
        match work {
            Work::Step => {
                sequence.begin_step().expect("sound");
                let mut members = [BatchItem::new(sequence)];
                self.through(&mut Pass::Step(&mut members), 1, 0..1, seed, &mut outputs);
                assert!(members[0].failed.is_none());
                sequence.finish_step().expect("sound");
            }
            Work::Prompt { n, placed, piece } => {
                let placing = placed.as_ref().map_or(Placing::InOrder, |(phases, advance)| Placing::Placed {
                    phases: phases.clone(),
                    advance: *advance,
                });
                let spans = spans(*n, placed.is_some());
                match piece {
                    None => {
                        sequence.begin_prompt(&spans, &placing).expect("sound");
                        self.through(&mut Pass::Prompt(sequence), *n, 0..*n, seed, &mut outputs);
                    }
                    Some(piece) => {
                        sequence.begin_cut_prompt(&spans, &placing).expect("sound");
                        for first in (0..*n).step_by(*piece) {
                            let rows = first..(first + piece).min(*n);
                            sequence.begin_piece(rows.len()).expect("sound");
                            self.through(&mut Pass::Prompt(sequence), *n, rows, seed, &mut outputs);
                            sequence.finish_piece().expect("sound");
                        }
                    }
                }
                sequence.finish_prompt().expect("sound");
            }
        }
        outputs
    }

    /// Some of `n` rows through all layers.
    fn through(&self, pass: &mut Pass<'_, '_>, n: usize, rows: Range<usize>, seed: u64, outputs: &mut [Vec<f32>]) {
        let rotary = Cpu.rotary(&self.ropes, &[], pass, rows.len()).expect("angles");
        for ((layer, kind), out) in self.kinds.iter().enumerate().zip(outputs) {
            let whole = Cpu.matrix(noise(seed + layer as u64, n * kind.fused()), n, kind.fused()).expect("rows");
            let fused = whole.narrow(rows.start, rows.len()).expect("rows");
            let attended = Cpu.causal(&fused, kind, &rotary, pass, &|| Ok(())).expect("attends");
            out.extend(attended.to_vec().expect("on the CPU"));
        }
    }
}

fn near(got: &[f32], want: &[f64]) -> bool {
    got.len() == want.len() && got.iter().zip(want).all(|(got, want)| (f64::from(*got) - want).abs() < 2e-4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_layers_attend_to_what_they_see(
        drawn in prop::collection::vec(
            (any::<bool>(), 0usize..4, prop::option::of(1u32..20), any::<bool>(), any::<bool>()), 1..6,
        ),
        works in works(),
        interleaved: bool,
        before: bool,
        seed in 0u64..1 << 40,
    ) {
        let runner = Runner::new(kinds(&drawn), interleaved, before);
        let (kinds, layout) = (&runner.kinds, runner.layout());
        let pool = Pool::unlimited();
        let mut sequence = runner.sequence(&pool);
        let mut seen = vec![Seen::default(); kinds.len()];
        let (mut position, mut phase) = (0, 0);
        for (number, work) in works.iter().enumerate() {
            let seed = seed + 100 * number as u64;
            let (phases, advance): (Vec<Phase>, u32) = match work {
                Work::Step => (vec![[phase; 3]], 1),
                Work::Prompt { placed: Some((phases, advance)), .. } => {
                    (phases.iter().map(|of| of.map(|axis| axis + phase)).collect(), *advance)
                }
                Work::Prompt { n, .. } => ((0..*n as u32).map(|i| [phase + i; 3]).collect(), *n as u32),
            };
            let got = runner.run(&mut sequence, work, seed);
            for (layer, kind) in kinds.iter().enumerate() {
                let rows = noise(seed + layer as u64, phases.len() * kind.fused());
                let mut want = Vec::new();
                let rows: Vec<&[f32]> = rows.chunks(kind.fused()).collect();
                let width = HEADS.width();
                for (row, phase) in rows.iter().zip(&phases).filter(|_| kind.stores()) {
                    let (keys, values) = row[width..].split_at(HEADS.kv * HEADS.dim);
                    seen[layer].keys.push(turned(keys, *phase, kind.rope, interleaved));
                    seen[layer].values.push(values.iter().map(|x| f64::from(*x)).collect());
                }
                for (i, (row, phase)) in rows.iter().zip(&phases).enumerate() {
                    let query = turned(&row[..width], *phase, kind.rope, interleaved);
                    want.extend(attend(&query, position + i, &seen[kind.source], kind));
                }
                prop_assert!(near(&got[layer], &want), "layer {layer} of {kinds:?}, {work:?}");
            }
            position += phases.len();
            phase += advance;
            prop_assert_eq!((sequence.next_position() as usize, sequence.next_phase()), (position, phase));
            // Entries that somebody still sees, and no others; after a token the one that only it has seen is still there.
            let spare = usize::from(matches!(work, Work::Step));
            for (layer, kind) in kinds.iter().enumerate() {
                let reach = layout.reach(kind.source);
                let most = reach.map_or(position, |window| position.min(window as usize - 1 + spare));
                prop_assert_eq!(sequence.lanes(layer)[0].len(), most, "layer {} of {:?}", layer, kinds);
            }
        }
        let held: usize = layout.owners().iter().map(|owner| sequence.lanes(*owner)[0].len()).sum();
        let memory = sequence.memory();
        prop_assert_eq!(memory.payload as usize, held * 2 * HEADS.kv * HEADS.dim * 4);
        drop(sequence);
        prop_assert_eq!(pool.used(), 0);
    }

    /// Phases that are the positions are what a sequence counts by itself, to the bit, also along three axes.
    #[test]
    fn placing_in_order_changes_nothing(works in works(), interleaved: bool, seed in 0u64..1 << 40) {
        let drawn = [(false, 0, None, false, false), (false, 0, Some(9), true, false), (true, 0, None, false, false)];
        let runner = Runner::new(kinds(&drawn), interleaved, false);
        let plain = Runner {
            before: false,
            kinds: runner.kinds.clone(),
            ropes: vec![Frequencies::new(inverse(0), None), Frequencies::new(inverse(1), None)],
        };
        let pool = Pool::unlimited();
        let (mut counted, mut placed, mut without) =
            (runner.sequence(&pool), runner.sequence(&pool), plain.sequence(&pool));
        for (number, work) in works.iter().enumerate() {
            let seed = seed + 100 * number as u64;
            let (in_order, same) = match work {
                Work::Step => (Work::Step, Work::Step),
                Work::Prompt { n, .. } => {
                    let phases = (0..*n as u32).map(|phase| [phase; 3]).collect();
                    let whole = |placed| Work::Prompt { n: *n, placed, piece: None };
                    (whole(None), whole(Some((phases, *n as u32))))
                }
            };
            let want = runner.run(&mut counted, &in_order, seed);
            prop_assert_eq!(&runner.run(&mut placed, &same, seed), &want);
            prop_assert_eq!(&plain.run(&mut without, &in_order, seed), &want, "three axes of text are one");
        }
    }

    /// Entries that are shared between two sequences, and read by several layers or left behind by a window, are those of each alone.
    #[test]
    fn forks_of_shared_and_windowed_layers_go_on_alone(
        drawn in prop::collection::vec(
            (any::<bool>(), 0usize..4, prop::option::of(1u32..20), any::<bool>(), any::<bool>()), 1..6,
        ),
        first in works(),
        before: bool,
        after in prop::collection::vec((any::<bool>(), prop_oneof![Just(1usize), 1usize..20]), 1..12),
        seed in 0u64..1 << 40,
    ) {
        let runner = Runner::new(kinds(&drawn), false, before);
        let pool = Pool::unlimited();
        let fresh = |pool: &Pool| {
            let mut sequence = runner.sequence(pool);
            for (number, work) in first.iter().enumerate() {
                runner.run(&mut sequence, work, seed + number as u64);
            }
            sequence
        };
        let mut a = fresh(&pool);
        let mut b = a.fork().expect("no cap");
        let (mut alone_a, mut alone_b) = (fresh(&Pool::unlimited()), fresh(&Pool::unlimited()));
        for (number, (in_a, n)) in after.iter().enumerate() {
            let work = if *n == 1 { Work::Step } else { Work::Prompt { n: *n, placed: None, piece: None } };
            let seed = seed + 1000 + number as u64;
            let (one, alone) = if *in_a { (&mut a, &mut alone_a) } else { (&mut b, &mut alone_b) };
            prop_assert_eq!(runner.run(one, &work, seed), runner.run(alone, &work, seed));
            prop_assert_eq!((a.kept(), b.kept()), (alone_a.kept(), alone_b.kept()));
            let (of_a, of_b) = (a.memory(), b.memory());
            prop_assert_eq!(pool.used(), of_a.resident + of_b.resident - of_a.shared);
        }
        drop((a, b));
        prop_assert_eq!(pool.used(), 0);
    }
}
