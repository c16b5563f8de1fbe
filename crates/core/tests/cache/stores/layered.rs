//! Stores whose codecs, or the order of whose channels, differ from layer to layer.

use prefixkv_core::cache::{Format, Pool};
use prefixkv_core::method::Method;
use serde_json::{Value, json};

use super::{attend, encoded, feed, sequence, shape, told};

#[test]
fn a_cap_in_bytes_is_held_where_layers_differ_in_their_bits() {
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    let bytes = 300_000;
    let mut entries = Vec::new();
    for name in ["h2o", "prefixkv", "adakv"] {
        let method = json!({ "method": name, "keep": { "bytes": bytes } });
        for pairs in
            [json!([[4, 2], [8, 8]]), json!([[8, 8], [2, 4]]), json!([[16, 2], [2, 2]]), json!([[2, 2], [16, 16]])]
        {
            let store = json!({ "method": "kvtuner", "window": 16, "keys": "entry", "pairs": pairs });
            let cache = json!([method, store]);
            let mut small = sequence(shape, &pool, &cache);
            feed(&mut small, &shape, 400, 120, |sequence| {
                let resident = sequence.memory().resident;
                assert!(resident <= bytes, "{cache}: {resident}");
            });
            entries.push(small.memory().kept_per_layer.iter().sum::<f64>());
        }
    }
    // By the layer with the most bits: 8 and 8 hold more than 16 and 2, and those more than full precision.
    assert!(entries[0] > 1.5 * entries[2] && entries[2] > 1.2 * entries[3], "{entries:?}");
}

/// A calibration of SKVQ for two layers of two heads: channels by their remainder, and clips that differ.
fn orders(dim: usize, group: usize) -> Value {
    let order = |step: usize| -> Vec<usize> { (0..step).flat_map(|first| (first..dim).step_by(step)).collect() };
    let side = |step: usize, clip: f64| json!({ "order": [order(step), order(step + 1)], "clip2": clip, "clip4": 1 });
    let layer = |step: usize| json!({ "keys": side(step, 0.8), "values": side(step + 2, 0.9) });
    json!({
        "format": "prefixkv-channels", "version": 1, "model": { "layers": 2 }, "group": group, "sinks": 5,
        "layers": [layer(2), layer(3)],
    })
}

#[test]
fn channels_in_another_order_are_read_as_they_were_and_count_their_bytes() {
    for (dim, group) in [(64, 16), (80, 8), (96, 32), (128, 64)] {
        for bits in [2, 4] {
            let (pool, shape) = (Pool::unlimited(), shape(dim, Format::F32));
            let store = json!({ "method": "skvq", "window": 20, "bits": bits, "calibration": orders(dim, group) });
            let mut small = sequence(shape, &pool, &store);
            small.keep_plans();
            feed(&mut small, &shape, 300, 50, |_| ());
            for (layer, found) in encoded(&mut small, dim).into_iter().enumerate() {
                let [(_, positions)] = &found.into_iter().collect::<Vec<_>>()[..] else { panic!("one codec") };
                assert_eq!(positions.iter().min(), Some(&5), "the first five stay whole");
                assert!((290..=325).contains(&positions.len()), "{} entries", positions.len());
                attend(&small, layer);
            }
            told(&small.memory(), &shape);
        }
    }
    // The orders count, for one lane per layer and for one per head, and are in the price.
    let (pool, shape) = (Pool::unlimited(), shape(64, Format::F32));
    for name in ["h2o", "adakv"] {
        let bytes = 200_000;
        let method = |keep: Value| json!({ "method": name, "keep": keep });
        let ordered = json!({ "method": "skvq", "window": 16, "calibration": orders(64, 16) });
        let plain = json!({ "method": "skvq", "window": 16, "group": 16, "clip": 0.8 });
        let metadata = [&ordered, &plain].map(|store| {
            let mut small = sequence(shape, &pool, &json!([method(json!(0.5)), store]));
            feed(&mut small, &shape, 300, 0, |_| ());
            small.memory().metadata
        });
        let encoder = Method::parse(&ordered).expect("parses").expect("a method").encoder(&shape).expect("stores");
        let beside = encoder.and_then(|encoder| encoder.price()).expect("a price").beside * shape.layers as u64;
        let bases = metadata[0] - metadata[1];
        assert!((1024..=beside).contains(&bases), "{bases} of {beside}");
        let cache = json!([method(json!({ "bytes": bytes })), ordered]);
        let mut small = sequence(shape, &pool, &cache);
        feed(&mut small, &shape, 500, 120, |sequence| {
            let resident = sequence.memory().resident;
            assert!(resident <= bytes, "{cache}: {resident}");
        });
        assert!(small.memory().effective_bits < 10.0, "{cache}: {:?}", small.memory());
    }
}

#[test]
fn every_layer_has_bits_of_its_own_for_keys_and_for_values() {
    for format in [Format::F32, Format::F16] {
        for (dim, keys) in [(64, "channel"), (64, "entry"), (80, "channel"), (128, "entry")] {
            let (pool, shape) = (Pool::unlimited(), shape(dim, format));
            let whole = 8.0 * format.bytes() as f64;
            let group = if dim == 80 { 16.0 } else { 32.0 };
            for pairs in [[[8, 4], [4, 2]], [[2, 16], [16, 4]], [[16, 16], [2, 8]], [[4, 4], [16, 16]]] {
                let cache = json!({ "method": "kvtuner", "window": 20, "keys": keys, "pairs": pairs });
                let mut small = sequence(shape, &pool, &cache);
                small.keep_plans();
                feed(&mut small, &shape, 300, 50, |_| ());
                let found = encoded(&mut small, dim);
                for (layer, [key, value]) in pairs.into_iter().enumerate() {
                    let bits = |bits: u32, group: f64| if bits == 16 { whole } else { f64::from(bits) + 32.0 / group };
                    let key_group = if keys == "channel" { 32.0 } else { group };
                    let mean = (bits(key, key_group) + bits(value, group)) / 2.0;
                    let widths: Vec<u64> = found[layer].keys().copied().collect();
                    let all_whole = [key, value] == [16, 16];
                    assert_eq!(widths, if all_whole { vec![] } else { vec![(mean * 8.0).round() as u64] }, "{cache}");
                    // 330 entries are behind the window; those that groups or blocks of 32 leave stay whole.
                    let stored: usize = found[layer].values().map(Vec::len).sum();
                    assert!(all_whole || (300..=330).contains(&stored), "{cache}: {stored}");
                    attend(&small, layer);
                }
                told(&small.memory(), &shape);
            }
        }
    }
}
