//! gather.cu against its twin: copies to the bit, norms to 1e-5 of each (sums of up to 256 squares in f32 in another order).

use half::{bf16, f16};
use prefixkv_kernels::cuda::{self, Buffer, Error, GatherItem, MoveItem, NormItem};
use prefixkv_kernels::{gather, reference};
use proptest::prelude::*;

use crate::common::{Format, assert_relatively_close, in_both_orders, narrowed, noise, widened};

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
        let mut items: Vec<GatherItem<'_, T>> = Vec::new();
        for (buffers, (heads, capacity, spare, at, slots)) in buffers.chunks_exact_mut(4).zip(segments) {
            let [keys, to_keys, values, to_values] = buffers else { unreachable!("chunks of four") };
            items.push(GatherItem {
                keys: keys.slice(shift..keys.len()),
                values: values.slice(shift..values.len()),
                capacity: *capacity,
                slots,
                heads: *heads,
                to_keys: to_keys.all_mut().split_at(shift).1,
                to_values: to_values.all_mut().split_at(shift).1,
                to_capacity: at + slots.len() + spare,
                at: *at,
            });
        }
        cuda::gather(shim, &mut items, dim).expect("it runs");
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
        let mut items: Vec<MoveItem<'_, T>> = Vec::new();
        for (buffers, (heads, capacity, moves)) in buffers.chunks_exact_mut(2).zip(segments) {
            let [keys, values] = buffers else { unreachable!("chunks of two") };
            let (keys, values) = (keys.all_mut().split_at(shift).1, values.all_mut().split_at(shift).1);
            items.push(MoveItem { keys, values, capacity: *capacity, heads: *heads, moves });
        }
        cuda::move_entries(shim, &mut items, dim).expect("it runs");
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
        seed in 1u64..1000, format in 0..3,
    ) {
        match format {
            0 => norms::<f32>(heads, len, spare, dim, seed),
            1 => norms::<f16>(heads, len, spare, dim, seed),
            _ => norms::<bf16>(heads, len, spare, dim, seed),
        }
    }
}

fn norms<T: Format>(heads: usize, len: usize, spare: usize, dim: usize, seed: u64) {
    // Two segments of different lengths in one launch.
    let shapes = [(heads, len, len + spare), (heads + 1, len / 2, len / 2 + spare)];
    let keys: Vec<Vec<T>> =
        shapes.iter().map(|(heads, _, capacity)| narrowed(&noise(seed, heads * capacity * dim))).collect();
    let got = in_both_orders(2, |shim| {
        let keys: Vec<_> = keys.iter().map(|keys| Buffer::from_slice(shim, keys).expect("room")).collect();
        let mut out: Vec<_> =
            shapes.iter().map(|(heads, len, _)| Buffer::<f32>::new(shim, heads * len).expect("room")).collect();
        let mut items: Vec<NormItem<'_, T>> = out
            .iter_mut()
            .zip(&keys)
            .zip(&shapes)
            .map(|((out, keys), (heads, len, capacity))| NormItem {
                keys: keys.all(),
                capacity: *capacity,
                len: *len,
                heads: *heads,
                out: out.all_mut(),
            })
            .collect();
        cuda::key_norms(shim, &mut items, dim).expect("it runs");
        drop(items);
        out.iter().map(|out| out.read().expect("contents")).collect::<Vec<_>>()
    });
    for ((got, keys), (heads, len, capacity)) in got.iter().zip(&keys).zip(&shapes) {
        let want = reference::key_norms(&widened(keys), *capacity, *len, *heads, dim);
        assert_relatively_close(got, &want, 1e-5);
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_a_launch() {
    let shim = prefixkv_cuda_shim::Shim::new(prefixkv_cuda_shim::Order::FirstToLast, 1);
    let refuse = |slots: &[u32], to_capacity: usize, at: usize, dim: usize| {
        let from = Buffer::from_slice(&shim, &[0.0f32; 2 * 5 * 8]).expect("room");
        let (mut a, mut b) =
            (Buffer::new(&shim, 2 * 4 * 8).expect("room"), Buffer::new(&shim, 2 * 4 * 8).expect("room"));
        let item = GatherItem {
            keys: from.all(),
            values: from.all(),
            capacity: 5,
            slots,
            heads: 2,
            to_keys: a.all_mut(),
            to_values: b.all_mut(),
            to_capacity,
            at,
        };
        match cuda::gather(&shim, &mut [item], dim) {
            Err(Error::Argument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refuse(&[5], 4, 0, 8), "entry 5 of 5");
    assert_eq!(refuse(&[0, 1], 4, 3, 8), "2 entries at 3 of 4");
    assert!(refuse(&[0], 3, 0, 8).contains("2 heads of 3 entries of 8"));
    assert!(refuse(&[0], 4, 0, 16).contains("2 heads of 5 entries of 16"));
    assert!(shim.launched().is_empty());
}

/// A segment without heads has slots and moves too, which must not be taken for those of the next.
#[test]
fn a_stretch_without_heads_is_passed_over() {
    let shim = prefixkv_cuda_shim::Shim::new(prefixkv_cuda_shim::Order::FirstToLast, 1);
    let numbers = noise(3, 4 * 8);
    let from = Buffer::from_slice(&shim, &numbers).expect("room");
    let mut to = [(); 2].map(|()| Buffer::<f32>::new(&shim, 8).expect("room"));
    let [to_keys, to_values] = &mut to;
    let (mut none, mut nor) = (Buffer::new(&shim, 0).expect("room"), Buffer::new(&shim, 0).expect("room"));
    let item = |heads: usize, slots, to_keys, to_values| {
        let part = from.slice(0..heads * 4 * 8);
        GatherItem { keys: part, values: part, capacity: 4, slots, heads, to_keys, to_values, to_capacity: 1, at: 0 }
    };
    let mut items =
        [item(0, &[2], none.all_mut(), nor.all_mut()), item(1, &[3], to_keys.all_mut(), to_values.all_mut())];
    cuda::gather(&shim, &mut items, 8).expect("it runs");
    assert_eq!(to[0].read().expect("contents"), numbers[24..]);

    let mut segment = [(); 2].map(|()| Buffer::from_slice(&shim, &numbers).expect("room"));
    let [keys, values] = &mut segment;
    let mut items = [
        MoveItem { keys: none.all_mut(), values: nor.all_mut(), capacity: 4, heads: 0, moves: &[(1, 0)] },
        MoveItem { keys: keys.all_mut(), values: values.all_mut(), capacity: 4, heads: 1, moves: &[(2, 1)] },
    ];
    cuda::move_entries(&shim, &mut items, 8).expect("it runs");
    let want = [&numbers[..8], &numbers[16..24], &numbers[16..]].concat();
    assert!(segment.iter().all(|all| all.read().expect("contents") == want));
}

#[test]
fn moves_that_depend_on_their_order_are_refused_before_a_launch() {
    let shim = prefixkv_cuda_shim::Shim::new(prefixkv_cuda_shim::Order::FirstToLast, 1);
    let (mut a, mut b) =
        (Buffer::<f32>::new(&shim, 2 * 5 * 8).expect("room"), Buffer::new(&shim, 2 * 5 * 8).expect("room"));
    let mut refuse = |moves: &[(u32, u32)], capacity: usize| {
        let item = MoveItem { keys: a.all_mut(), values: b.all_mut(), capacity, heads: 2, moves };
        match cuda::move_entries(&shim, &mut [item], 8) {
            Err(Error::Argument(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refuse(&[(0, 1), (5, 2)], 5), "entry 5 to 2 of 5");
    assert_eq!(refuse(&[(0, 1), (3, 5)], 5), "entry 3 to 5 of 5");
    assert_eq!(refuse(&[(0, 1), (3, 1)], 5), "entry 1 is the target of two moves");
    assert_eq!(refuse(&[(0, 1), (1, 2)], 5), "entry 1 is the target of one move and the source of another");
    assert_eq!(refuse(&[(4, 4), (4, 2)], 5), "entry 4 is the target of one move and the source of another");
    assert!(refuse(&[(0, 1)], 4).contains("2 heads of 4 entries of 8"));
    assert!(shim.launched().is_empty());
}
