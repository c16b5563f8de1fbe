//! gather.cu and encode of codec.cu against their twins: copies and codes to the bit, norms to 1e-5 of each (sums of up to 256 squares in f32 in another order).

use half::{bf16, f16};
use prefixkv_kernels::codec::{Dual, KvCodec, OwnedRun, Parts, Run};
use prefixkv_kernels::cuda::{self, Buffer, EncodeItem, Error, GatherItem, MoveItem, NormItem, SliceMut, Source};
use prefixkv_kernels::{gather, reference};
use proptest::prelude::*;

use crate::common::{CODES, Format, STORAGES, assert_relatively_close, in_both_orders, narrowed, noise};

/// The shape of one segment: heads, capacity, spare entries of the target, entry of the first, slots.
type Segment = (usize, usize, usize, usize, Vec<u32>);

fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let slots = |capacity: usize| {
        // In any order, some more than once; or ascending, as an eviction keeps them; or none.
        let some = prop::collection::vec(0..capacity as u32, 0..2 * capacity);
        let kept = prop::collection::vec(any::<bool>(), capacity)
            .prop_map(|kept| (0..).zip(kept).filter(|(_, kept)| *kept).map(|(slot, _)| slot).collect::<Vec<u32>>());
        prop_oneof![some, kept, Just(Vec::new())]
    };
    let one = (1usize..4, 1usize..70)
        .prop_flat_map(move |(heads, capacity)| (Just(heads), Just(capacity), 0usize..5, 0usize..5, slots(capacity)));
    prop::collection::vec(one, 1..4)
}

/// Compacts the segments at addresses `shift` elements from an aligned one, and checks them against the twin.
fn check<T: Format + Send + Sync>(segments: &[Segment], dim: usize, shift: usize, processors: u32) -> Vec<String> {
    let numbers = |seed: u64, n: usize| narrowed::<T>(&noise(seed, n));
    let mut want = Vec::new();
    for (i, (heads, capacity, spare, at, slots)) in segments.iter().enumerate() {
        let room = at + slots.len() + spare;
        for part in 0..2 {
            let from = numbers((2 * i + part) as u64 + 1, heads * capacity * dim);
            let mut to = vec![T::narrow(9.0); heads * room * dim];
            gather::gather(&from, *capacity, slots, *heads, dim, &mut to, room, *at);
            want.push(to);
        }
    }
    let mut launched = Vec::new();
    let got = in_both_orders(processors, |shim| {
        let mut buffers = Vec::new();
        for (i, (heads, capacity, spare, at, slots)) in segments.iter().enumerate() {
            let room = at + slots.len() + spare;
            for part in 0..2 {
                let mut from = vec![T::narrow(7.0); shift];
                from.extend(numbers((2 * i + part) as u64 + 1, heads * capacity * dim));
                buffers.push(Buffer::from_slice(shim, &from).expect("room"));
                buffers
                    .push(Buffer::from_slice(shim, &vec![T::narrow(9.0); shift + heads * room * dim]).expect("room"));
            }
        }
        let mut items: Vec<GatherItem<'_>> = Vec::new();
        let segments = segments.iter().flat_map(|segment| [segment; 2]);
        for (buffers, (heads, capacity, spare, at, slots)) in buffers.chunks_exact_mut(2).zip(segments) {
            let [from, to] = buffers else { unreachable!("chunks of two") };
            items.push(GatherItem {
                from: from.slice(shift..from.len()).bytes(),
                capacity: *capacity,
                slots,
                heads: *heads,
                to: to.all_mut().split_at(shift).1.bytes(),
                to_capacity: at + slots.len() + spare,
                at: *at,
                row: dim * size_of::<T>(),
            });
        }
        cuda::gather(shim, &mut items).expect("it runs");
        drop(items);
        let got: Vec<Vec<T>> = buffers.iter().map(|buffer| buffer.read().expect("contents")).collect();
        assert!(got.iter().skip(1).step_by(2).all(|to| to[..shift].iter().all(|x| *x == T::narrow(9.0))));
        let to: Vec<Vec<T>> = got.into_iter().skip(1).step_by(2).map(|mut to| to.split_off(shift)).collect();
        (to, shim.launched())
    });
    assert!(got.0 == want, "entries went astray");
    launched.extend(got.1);
    launched
}

/// A segment with the entries to move: heads, capacity, moves.
type Moves = (usize, usize, Vec<(u32, u32)>);

fn moves() -> impl Strategy<Value = Vec<Moves>> {
    let one = (1usize..4, 1usize..70, 0usize..70).prop_flat_map(|(heads, capacity, n)| {
        let entries = Just((0..capacity as u32).collect::<Vec<u32>>()).prop_shuffle();
        // Targets are no sources; a source may have several targets, and an entry may stay where it is.
        (entries, prop::collection::vec(any::<prop::sample::Index>(), capacity)).prop_map(move |(entries, picks)| {
            let (targets, sources) = entries.split_at(n.min(capacity / 2));
            let moves = targets.iter().zip(&picks).map(|(to, pick)| (*pick.get(sources), *to));
            let stays =
                entries.get(2 * targets.len() + 1).filter(|entry| moves.clone().all(|(from, _)| from != **entry));
            let all: Vec<(u32, u32)> = moves.clone().chain(stays.map(|entry| (*entry, *entry))).collect();
            (heads, capacity, all)
        })
    });
    prop::collection::vec(one, 1..4)
}

/// Moves entries of segments at addresses `shift` elements from an aligned one.
fn check_moves<T: Format>(segments: &[Moves], dim: usize, shift: usize, processors: u32) -> Vec<String> {
    let before: Vec<Vec<T>> = segments
        .iter()
        .flat_map(|(heads, capacity, _)| [heads * capacity * dim; 2])
        .enumerate()
        .map(|(i, n)| narrowed(&noise(i as u64 + 1, shift + n)))
        .collect();
    let mut want = before.clone();
    for (i, all) in want.iter_mut().enumerate() {
        let (heads, capacity, moves) = &segments[i / 2];
        for (head, (from, to)) in (0..*heads).flat_map(|head| moves.iter().map(move |entry| (head, entry))) {
            let at = |entry: u32| shift + (head * capacity + entry as usize) * dim;
            all.copy_within(at(*from)..at(*from) + dim, at(*to));
        }
    }
    let (got, launched) = in_both_orders(processors, |shim| {
        let mut buffers: Vec<_> = before.iter().map(|all| Buffer::from_slice(shim, all).expect("room")).collect();
        let mut items: Vec<MoveItem<'_>> = Vec::new();
        let segments = segments.iter().flat_map(|segment| [segment; 2]);
        for (rows, (heads, capacity, moves)) in buffers.iter_mut().zip(segments) {
            let (rows, row) = (rows.all_mut().split_at(shift).1.bytes(), dim * size_of::<T>());
            items.push(MoveItem { rows, capacity: *capacity, heads: *heads, row, moves });
        }
        cuda::move_entries(shim, &mut items).expect("it runs");
        drop(items);
        let got: Vec<Vec<T>> = buffers.iter().map(|buffer| buffer.read().expect("contents")).collect();
        (got, shim.launched())
    });
    assert!(got == want, "entries went astray");
    launched
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn chosen_entries_equal_the_twin(
        segments in segments(), dim in prop::sample::select(vec![2usize, 6, 8, 32, 64, 80, 96, 128, 256]),
        shift in 0usize..9, format in 0..3, processors in 1u32..5,
    ) {
        let size = if format == 0 { 4 } else { 2 };
        let launched = match format {
            0 => check::<f32>(&segments, dim, shift, processors),
            1 => check::<f16>(&segments, dim, shift, processors),
            _ => check::<bf16>(&segments, dim, shift, processors),
        };
        let some = segments.iter().any(|segment| !segment.4.is_empty());
        let width = [16, 4, 2].into_iter().find(|unit| (dim * size) % unit == 0 && (shift * size) % unit == 0);
        prop_assert_eq!(launched, if some { vec![format!("gather_{}", width.expect("2 fits"))] } else { vec![] });
    }

    #[test]
    fn moved_entries_equal_copies_on_the_host(
        segments in moves(), dim in prop::sample::select(vec![2usize, 6, 8, 32, 80, 128]), shift in 0usize..9, format in 0..3,
        processors in 1u32..5,
    ) {
        let size = if format == 0 { 4 } else { 2 };
        let launched = match format {
            0 => check_moves::<f32>(&segments, dim, shift, processors),
            1 => check_moves::<f16>(&segments, dim, shift, processors),
            _ => check_moves::<bf16>(&segments, dim, shift, processors),
        };
        let some = segments.iter().any(|segment| !segment.2.is_empty());
        let width = [16, 4, 2].into_iter().find(|unit| (dim * size) % unit == 0 && (shift * size) % unit == 0);
        prop_assert_eq!(launched, if some { vec![format!("move_{}", width.expect("2 fits"))] } else { vec![] });
    }

    #[test]
    fn norms_equal_the_reference(
        heads in 1usize..4, len in 0usize..70, spare in 0usize..5, dim in prop::sample::select(vec![8usize, 32, 80, 128, 256]),
        seed in 1u64..1000, storage in 0..STORAGES.len(),
    ) {
        norms(STORAGES[storage](seed as usize, dim), heads, len, spare, dim, seed);
    }

    #[test]
    fn entries_in_codes_equal_those_of_the_cpu_to_the_bit(
        heads in 1usize..4, groups in 1usize..4, before in 0usize..3, spare in 0usize..3,
        dim in prop::sample::select(vec![8usize, 32, 80, 128, 256]), seed in 1u64..1000, from in 0..STORAGES.len(), to in 0usize..8,
    ) {
        encodes(STORAGES[from](seed as usize, dim), CODES(to, dim), [heads, groups, before, spare, dim], seed);
    }
}

/// Rows of two segments in one codec become entries in another.
fn encodes(from: KvCodec, to: KvCodec, [heads, groups, before, spare, dim]: [usize; 5], seed: u64) {
    // Encoding is of stored rows, whatever they went through.
    let (from, group) = (KvCodec { dual: Dual::None, ..from }, to.group());
    let sources = [64usize, 96].map(|len| {
        let mut run = OwnedRun::new(from, heads, dim, len);
        run.push(&noise(seed, heads * len * dim), &noise(seed + len as u64, heads * len * dim));
        run
    });
    let rows: Vec<(u32, u32)> =
        (0..(groups * group) as u32).map(|i| if i % 3 == 0 { (1, (i * 7) % 96) } else { (0, (i * 5) % 64) }).collect();
    let read = |keys: bool| -> Vec<f32> {
        let mut wide = vec![f32::NAN; heads * rows.len() * dim];
        for (index, to) in wide.chunks_exact_mut(dim).enumerate() {
            let (source, slot) = rows[index % rows.len()];
            let (run, head, slot) = (sources[source as usize].run(), index / rows.len(), slot as usize);
            if keys { run.read_keys(head, slot, dim, to) } else { run.read_values(head, slot, dim, to) }
        }
        wide
    };
    let (keys, values) = (read(true), read(false));
    let capacity = (before + groups + spare) * group;
    let mut want = OwnedRun::new(to, heads, dim, capacity);
    let first = vec![0.5; heads * before * group * dim];
    want.push(&first, &first);
    let empty = want.bytes().to_vec();
    want.push(&keys, &values);
    let got = in_both_orders(2, |shim| {
        let buffers: Vec<_> = sources.iter().map(|run| Buffer::from_slice(shim, run.bytes()).expect("room")).collect();
        let runs: Vec<_> = sources
            .iter()
            .zip(&buffers)
            .map(|(run, bytes)| Run::of_slice(from, bytes.all(), heads, dim, run.len(), run.capacity()))
            .collect();
        let target = Buffer::from_slice(shim, &empty).expect("room");
        let parts = to.layout(heads, dim, capacity);
        // SAFETY: the parts of a layout do not overlap, and the buffer is used through them only.
        let part = |range: std::ops::Range<usize>| unsafe {
            let part = target.slice(range);
            SliceMut::from_address(part.address(), part.len())
        };
        let source = |keys: bool| -> Vec<Source<'_>> {
            runs.iter()
                .map(|run| {
                    let Parts { keys: of_keys, key_scales, values, value_scales } = run.parts;
                    let (codec, numbers, scales) =
                        if keys { (from.key, of_keys, key_scales) } else { (from.value, values, value_scales) };
                    Source { codec, numbers, scales, capacity: run.capacity }
                })
                .collect()
        };
        let (rows, at) = (&rows[..], before * group);
        let mut items = [
            EncodeItem {
                heads,
                sources: source(true),
                rows,
                codec: to.key,
                numbers: part(parts.keys),
                scales: part(parts.key_scales),
                capacity,
                at,
            },
            EncodeItem {
                heads,
                sources: source(false),
                rows,
                codec: to.value,
                numbers: part(parts.values),
                scales: part(parts.value_scales),
                capacity,
                at,
            },
        ];
        cuda::encode(shim, &mut items, dim).expect("it runs");
        target.read().expect("contents")
    });
    assert!(got == want.bytes(), "entries are encoded otherwise");
}

fn norms(codec: KvCodec, heads: usize, len: usize, spare: usize, dim: usize, seed: u64) {
    // Two segments of different lengths in one launch.
    let codec = KvCodec { dual: Dual::None, ..codec };
    let len = len.next_multiple_of(2 * codec.group());
    let runs: Vec<(usize, OwnedRun)> = [(heads, len), (heads + 1, len / 2)]
        .into_iter()
        .map(|(heads, len)| {
            let mut run = OwnedRun::new(codec, heads, dim, len + spare * codec.group());
            let rows = noise(seed, heads * len * dim);
            run.push(&rows, &rows);
            (heads, run)
        })
        .collect();
    let got = in_both_orders(2, |shim| {
        let up = |bytes: &[u8]| Buffer::from_slice(shim, bytes).expect("room");
        let parts: Vec<_> = runs.iter().map(|(_, run)| (up(run.parts().keys), up(run.parts().key_scales))).collect();
        let mut out: Vec<_> =
            runs.iter().map(|(heads, run)| Buffer::<f32>::new(shim, heads * run.len()).expect("room")).collect();
        let mut items: Vec<NormItem<'_>> = out
            .iter_mut()
            .zip(&parts)
            .zip(&runs)
            .map(|((out, (keys, scales)), (heads, run))| NormItem {
                codec: codec.key,
                keys: keys.all(),
                scales: scales.all(),
                capacity: run.capacity(),
                len: run.len(),
                heads: *heads,
                out: out.all_mut(),
            })
            .collect();
        cuda::key_norms(shim, &mut items, dim).expect("it runs");
        drop(items);
        out.iter().map(|out| out.read().expect("contents")).collect::<Vec<_>>()
    });
    for (got, (heads, run)) in got.iter().zip(&runs) {
        assert_relatively_close(got, &reference::key_norms(&run.run(), run.len(), *heads, dim), 1e-5);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_a_launch() {
    let shim = prefixkv_cuda_shim::Shim::new(prefixkv_cuda_shim::Order::FirstToLast, 1);
    let refuse = |slots: &[u32], to_capacity: usize, at: usize, dim: usize| {
        let from = Buffer::from_slice(&shim, &[0.0f32; 2 * 5 * 8]).expect("room");
        let mut to = Buffer::<f32>::new(&shim, 2 * 4 * 8).expect("room");
        let (from, to) = (from.all().bytes(), to.all_mut().bytes());
        let item = GatherItem { from, capacity: 5, slots, heads: 2, to, to_capacity, at, row: dim * 4 };
        match cuda::gather(&shim, &mut [item]) {
            Err(Error::Argument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refuse(&[5], 4, 0, 8), "entry 5 of 5");
    assert_eq!(refuse(&[0, 1], 4, 3, 8), "2 entries at 3 of 4");
    assert!(refuse(&[0], 3, 0, 8).contains("2 heads of 3 entries of 32"));
    assert!(refuse(&[0], 4, 0, 16).contains("2 heads of 5 entries of 64"));
    assert!(shim.launched().is_empty());
}

/// A segment without heads has slots and moves too, which must not be taken for those of the next.
#[test]
fn a_stretch_without_heads_is_passed_over() {
    let shim = prefixkv_cuda_shim::Shim::new(prefixkv_cuda_shim::Order::FirstToLast, 1);
    let numbers = noise(3, 4 * 8);
    let from = Buffer::from_slice(&shim, &numbers).expect("room");
    let mut to = Buffer::<f32>::new(&shim, 8).expect("room");
    let mut none = Buffer::<f32>::new(&shim, 0).expect("room");
    let item = |heads: usize, slots, to| {
        let from = from.slice(0..heads * 4 * 8).bytes();
        GatherItem { from, capacity: 4, slots, heads, to, to_capacity: 1, at: 0, row: 32 }
    };
    let mut items = [item(0, &[2], none.all_mut().bytes()), item(1, &[3], to.all_mut().bytes())];
    cuda::gather(&shim, &mut items).expect("it runs");
    assert_eq!(to.read().expect("contents"), numbers[24..]);

    let mut segment = Buffer::from_slice(&shim, &numbers).expect("room");
    let mut items = [
        MoveItem { rows: none.all_mut().bytes(), capacity: 4, heads: 0, row: 32, moves: &[(1, 0)] },
        MoveItem { rows: segment.all_mut().bytes(), capacity: 4, heads: 1, row: 32, moves: &[(2, 1)] },
    ];
    cuda::move_entries(&shim, &mut items).expect("it runs");
    let want = [&numbers[..8], &numbers[16..24], &numbers[16..]].concat();
    assert_eq!(segment.read().expect("contents"), want);
}

#[test]
fn moves_that_depend_on_their_order_are_refused_before_a_launch() {
    let shim = prefixkv_cuda_shim::Shim::new(prefixkv_cuda_shim::Order::FirstToLast, 1);
    let mut rows = Buffer::<f32>::new(&shim, 2 * 5 * 8).expect("room");
    let mut refuse = |moves: &[(u32, u32)], capacity: usize| {
        let item = MoveItem { rows: rows.all_mut().bytes(), capacity, heads: 2, row: 32, moves };
        match cuda::move_entries(&shim, &mut [item]) {
            Err(Error::Argument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refuse(&[(0, 1), (5, 2)], 5), "entry 5 to 2 of 5");
    assert_eq!(refuse(&[(0, 1), (3, 5)], 5), "entry 3 to 5 of 5");
    assert_eq!(refuse(&[(0, 1), (3, 1)], 5), "entry 1 is the target of two moves");
    assert_eq!(refuse(&[(0, 1), (1, 2)], 5), "entry 1 is the target of one move and the source of another");
    assert_eq!(refuse(&[(4, 4), (4, 2)], 5), "entry 4 is the target of one move and the source of another");
    assert!(refuse(&[(0, 1)], 4).contains("2 heads of 4 entries of 32"));
    assert!(shim.launched().is_empty());
}
