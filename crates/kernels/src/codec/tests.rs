use proptest::prelude::*;

use super::*;
use crate::reference;

fn codecs() -> impl Strategy<Value = Codec> {
    let dtypes = prop::sample::select(vec![Dtype::U8, Dtype::U4, Dtype::U2]);
    let groups = prop::sample::select(vec![8u16, 16, 32]);
    let clips = prop::sample::select(vec![100u8, 80]);
    prop_oneof![
        Just(Codec::F32),
        prop::sample::select(vec![Dtype::F16, Dtype::Bf16, Dtype::F8]).prop_map(Codec::plain),
        (dtypes.clone(), groups.clone(), clips.clone())
            .prop_map(|(dtype, group, clip)| Codec::per_channel(dtype, group).clipped(clip)),
        (dtypes, groups.clone(), clips).prop_map(|(dtype, group, clip)| Codec::per_entry(dtype, group).clipped(clip)),
        (
            prop::sample::select(vec![Dtype::U4, Dtype::U2]),
            groups.prop_union(prop::sample::select(vec![64u16, 96, 128]))
        )
            .prop_map(|(dtype, group)| Codec::of_levels(dtype, Levels::Normal, group)),
    ]
}

/// How far a number is stored from `x` at most, of numbers within `scale` of `offset`.
fn most_off(codec: Codec, x: f32, offset: f32, scale: f32) -> f32 {
    let half_step = |bits: i32| x.abs() * 2f32.powi(-bits);
    match codec.dtype {
        Dtype::F32 => 0.0,
        // Below 2^-14 the steps of f16 no longer shrink.
        Dtype::F16 => half_step(11).max(2f32.powi(-25)),
        Dtype::Bf16 => half_step(8),
        // Steps of 2^-9 at least, and nothing above 448.
        Dtype::F8 => half_step(4).max(2f32.powi(-10)).max(x.abs() - 448.0),
        // Levels are at most 1.06 root mean squares apart, and the outermost ones farther from 0 than from what lies beyond.
        _ if codec.levels == Levels::Normal => x.abs().max(0.54 * (offset.abs() + scale)),
        dtype => {
            let steps = f32::from(dtype.most());
            // Scale and zero in f16, whose smallest scale is 2^-24.
            let beyond = (1.0 - codec.clip()) * (offset.abs() + scale) * 1.001;
            beyond + scale / steps * 1.02 + (offset.abs() + scale) / 1024.0 + 1e-6 + steps / (1 << 25) as f32
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn encoded_entries_read_like_the_reference(
        heads in 1usize..4, blocks in 1usize..4, groups in 0usize..4, spare in 0usize..3, first in 0usize..2, key in codecs(),
        value in codecs(), scale in prop::sample::select(vec![0.0f32, 1e-9, 1e-4, 1.0, 300.0]),
        offset in prop::sample::select(vec![0.0f32, -1.0, 7.5, 1000.0]),
        numbers in prop::collection::vec(-1.0f32..1.0, 97),
    ) {
        let dim = blocks * 32;
        let codec = KvCodec::new(key, value, Dual::None);
        prop_assume!(codec.check(dim).is_ok());
        let (group, n) = (codec.group(), groups * codec.group());
        let first = first * group;
        let of = |i: usize| offset + scale * numbers[i % 97];
        let keys: Vec<f32> = (0..heads * n * dim).map(of).collect();
        let values: Vec<f32> = keys.iter().rev().copied().collect();
        let mut run = OwnedRun::new(codec, heads, dim, first + n + spare * group);
        let zeros = vec![0.0; heads * first * dim];
        run.push(&zeros, &zeros);
        run.push(&keys, &values);
        prop_assert_eq!(run.bytes().len(), codec.bytes(heads, dim, run.capacity()));
        let want = (reference::codec::encoded(key, &keys, n, dim), reference::codec::encoded(value, &values, n, dim));
        for head in 0..heads {
            let (mut got_keys, mut got_values) = (vec![f32::NAN; n * dim], vec![f32::NAN; n * dim]);
            run.run().read_keys(head, first, dim, &mut got_keys);
            run.run().read_values(head, first, dim, &mut got_values);
            let start = head * n * dim;
            for i in 0..n * dim {
                let (slow_key, slow_value) = reference::codec::entry(&run.run(), head, first + i / dim, dim);
                for (codec, got, slow, want, x) in [
                    (key, got_keys[i], slow_key[i % dim], want.0[start + i], keys[start + i]),
                    (value, got_values[i], slow_value[i % dim], want.1[start + i], values[start + i]),
                ] {
                    // Stored entries are read alike.
                    let rounding = 1e-6 * (offset.abs() + scale);
                    prop_assert!((f64::from(got) - slow).abs() <= f64::from(rounding), "{got} for {slow}");
                    // A number half way between two codes may go either way; both are as far from it. So may a root mean square half way
                    // between two numbers of f16, which moves the levels.
                    let (error, least) = ((got - x).abs(), (want - f64::from(x)).abs() as f32);
                    let either = if codec.levels == Levels::Even { 1e-5 } else { 2.8 / 1024.0 };
                    prop_assert!((error - least).abs() <= either * (offset.abs() + scale), "{got} for {want} of {x}");
                    prop_assert!(error <= most_off(codec, x, offset, scale), "{got} for {x}");
                }
            }
            // Any part reads like the whole.
            if n > 2 {
                let (from, len) = (n / 3, n / 2);
                let mut part = vec![f32::NAN; len * dim];
                run.run().read_keys(head, first + from, dim, &mut part);
                prop_assert!(part == got_keys[from * dim..(from + len) * dim]);
                run.run().read_values(head, first + from, dim, &mut part);
                prop_assert!(part == got_values[from * dim..(from + len) * dim]);
            }
        }
    }

    #[test]
    fn the_parts_of_a_layout_fill_it_and_are_aligned(
        key in codecs(), value in codecs(), heads in 1usize..5, eights in 1usize..17, groups in 0usize..9,
    ) {
        let (codec, dim) = (KvCodec::new(key, value, Dual::None), 8 * eights);
        prop_assume!(codec.check(dim).is_ok());
        let capacity = groups * codec.group();
        let Parts { keys, key_scales, values, value_scales } = codec.layout(heads, dim, capacity);
        let mut parts = [(keys, key), (values, value)].map(|(part, codec)| (part, codec.dtype.bits().min(16))).to_vec();
        parts.extend([(key_scales, key), (value_scales, value)].map(|(part, codec)| (part, codec.scales_width())));
        parts.sort_by_key(|(part, _)| (part.start, part.end));
        let end = parts.iter().fold(0, |end, (part, width)| {
            assert!(part.start == end && (part.is_empty() || part.start.is_multiple_of(*width)), "{part:?}");
            part.end
        });
        prop_assert_eq!(end, codec.bytes(heads, dim, capacity));
        let mut bytes = vec![0; end];
        let sizes = parts_mut(codec, &mut bytes, heads, dim, capacity).map(|part| part.len());
        prop_assert_eq!(sizes, codec.layout(heads, dim, capacity).map(|part| part.len()));
    }
}

#[test]
fn sizes_are_those_of_the_field() {
    let kivi = |dtype| KvCodec::new(Codec::per_channel(dtype, 32), Codec::per_entry(dtype, 32), Dual::None);
    assert_eq!(KvCodec::F32.bytes(3, 64, 10), 2 * 3 * 64 * 10 * 4);
    assert_eq!(KvCodec::F16.effective_bits(1, 128), 16.0);
    assert_eq!(kivi(Dtype::U4).effective_bits(1, 128), 5.0);
    assert_eq!(kivi(Dtype::U2).effective_bits(1, 128), 3.0);
    let looked_up = |dtype, group| {
        let codec = Codec::of_levels(dtype, Levels::Normal, group);
        KvCodec::new(codec, codec, Dual::Random).effective_bits(1, 128)
    };
    assert_eq!((looked_up(Dtype::U4, 128), looked_up(Dtype::U2, 64)), (4.125, 2.25));
    assert_eq!((kivi(Dtype::U4).deletion(), KvCodec::F16.deletion()), (Deletion::Group, Deletion::Entry));
    assert_eq!(Codec::channels(128, 64), Some(64));
    assert_eq!(Codec::channels(80, 32), Some(16));
    assert_eq!(Codec::channels(20, 32), None);
}

#[test]
fn what_cannot_be_stored_is_refused_with_the_reason() {
    let refuse = |codec: KvCodec, dim: usize| codec.check(dim).expect_err("refused");
    let both = |codec: Codec| KvCodec::new(codec, codec, Dual::None);
    assert!(refuse(both(Codec::plain(Dtype::U4)), 64).contains("u4"));
    assert!(refuse(both(Codec { scales: Scales::PerEntry { group: 8, clip: 100 }, ..Codec::F16 }), 64).contains("f16"));
    assert!(refuse(both(Codec::of_levels(Dtype::U8, Levels::Normal, 32)), 64).contains("u8 of Normal levels"));
    let channels = Codec { levels: Levels::Normal, ..Codec::per_channel(Dtype::U4, 32) };
    assert!(refuse(both(channels), 64).contains("Normal levels with PerChannel"));
    assert!(refuse(both(Codec { levels: Levels::Normal, ..Codec::F16 }), 64).contains("f16 of Normal"));
    assert!(refuse(both(Codec::of_levels(Dtype::U4, Levels::Normal, 48)), 64).contains("groups of 48"));
    assert!(refuse(both(Codec::per_entry(Dtype::U4, 32)), 80).contains("80 channels in groups of 32"));
    assert!(refuse(both(Codec::per_entry(Dtype::U4, 4)), 80).contains("multiple of 8"));
    assert!(refuse(both(Codec::per_channel(Dtype::U4, 32)), 12).contains("12 channels"));
    let uneven = KvCodec::new(Codec::per_channel(Dtype::U4, 32), Codec::per_channel(Dtype::U4, 16), Dual::None);
    assert!(refuse(uneven, 64).contains("groups of 32"));
    for dual in [Dual::Hadamard, Dual::Random, Dual::HadamardKeys, Dual::HadamardValues] {
        assert!(refuse(KvCodec { dual, ..KvCodec::F16 }, 80).contains("power of two"));
    }
}

#[test]
fn a_transform_spreads_an_outlier_and_is_undone() {
    for (dim, through) in
        [1, 2, 8, 64, 128].into_iter().flat_map(|dim| [(dim, Transform::Hadamard), (dim, Transform::Random)])
    {
        let row: Vec<f32> = (0..dim).map(|i| if i == dim / 2 { 100.0 } else { (i % 7) as f32 * 0.1 }).collect();
        let wide: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        let mut got = row.clone();
        through.apply(&mut got, dim);
        let turned = |i: usize, x: f64| if through == Transform::Random && turns(i as u32) { -x } else { x };
        let signed: Vec<f64> = wide.iter().enumerate().map(|(i, x)| turned(i, *x)).collect();
        let close =
            |got: &[f32], want: &[f64]| got.iter().zip(want).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-4);
        assert!(close(&got, &reference::codec::hadamard(&signed)));
        assert!(dim < 64 || got.iter().all(|x| x.abs() < 20.0));
        through.undo(&mut got, dim);
        assert!(close(&got, &wide));
    }
}

#[test]
fn half_of_the_signs_turn_and_no_two_are_tied() {
    for dim in [64u32, 128, 256] {
        let signs: Vec<i32> = (0..dim).map(|channel| if turns(channel) { -1 } else { 1 }).collect();
        // Sums of independent signs have a deviation of the root of their number.
        let most = 3 * (f64::from(dim).sqrt() as i32);
        assert!(signs.iter().sum::<i32>().abs() < most, "{dim}");
        for apart in 1..8 {
            let tied: i32 = signs.iter().zip(&signs[apart..]).map(|(a, b)| a * b).sum();
            assert!(tied.abs() < most, "{dim}, {apart} apart: {tied}");
        }
    }
}
