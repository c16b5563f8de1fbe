//! How much of each span a cache has left, beside a plain count.

use prefixkv_core::cache::{KeptSpan, Modality};
use prefixkv_core::method::{METHODS, Method};

use crate::case::{Reference, sized};

/// Each position of each head, one by one.
#[test]
fn spans_have_left_of_them_what_a_count_finds() {
    let case = Reference::of("tiny-llava", "scene-002");
    let kv_heads = case.model.info().kv_heads;
    for spec in METHODS.iter().filter(|spec| spec.takes_keep()) {
        let cache = sized(spec, 0.3, &case.model);
        let method = Method::parse(&cache).unwrap_or_else(|error| panic!("{cache}: {error}"));
        let mut sequence = case.model.new_sequence_with(method, false).expect("room");
        case.model.prefill(&case.prompt, &case.features, &mut sequence, &|| Ok(())).expect("reads");
        for token in &case.answer[..20] {
            case.model.decode(*token, &mut sequence).expect("goes on");
        }
        let lanes = sequence.kept();
        let found = sequence.kept_spans();
        let kinds: Vec<&Modality> = found.iter().map(|span| &span.modality).collect();
        assert!(matches!(
            kinds[..],
            [Modality::Text, Modality::Image { index: 0, .. }, Modality::Text, Modality::Generated]
        ));
        for (KeptSpan { start, len, kept, .. }, span) in found.iter().zip(sequence.spans()) {
            assert_eq!((*start, *len), (span.start, span.len));
            let all = lanes.iter().flatten();
            let count: usize = all
                .map(|lane| {
                    let own = lane.positions.iter().filter(|at| (*start..start + len).contains(&(**at as usize)));
                    own.count() * (lane.heads[1] - lane.heads[0])
                })
                .sum();
            let want = count as f64 / (len * lanes.len() * kv_heads) as f64;
            assert!((kept - want).abs() < 1e-12, "{cache}: {kept} of {start}..{}, counted {want}", start + len);
        }
    }
}
