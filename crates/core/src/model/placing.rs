//! Phases along three axes: time, rows and columns. Wang et al. 2024, arXiv 2409.12191.

use prefixkv_kernels::rotary::Phase;

use crate::cache::{Modality, Span};
use crate::sequence::Placing;

/// Text goes on one by one on all axes. A piece of an image stands still in time while its cells go through rows and columns, and what
/// follows goes on behind its longer side. Positions that are no cell of a piece go on as text does.
pub(super) fn on_grids(spans: &[Span]) -> Placing {
    let mut phases: Vec<Phase> = Vec::with_capacity(spans.iter().map(|span| span.len).sum());
    let mut next = 0;
    for span in spans {
        let grid = match span.modality {
            Modality::Image { piece, .. } if piece.rows * piece.columns == span.len => {
                Some((piece.rows, piece.columns))
            }
            _ => None,
        };
        match grid {
            Some((rows, columns)) => {
                let cells = (0..rows as u32).flat_map(|row| (0..columns as u32).map(move |column| (row, column)));
                phases.extend(cells.map(|(row, column)| [next, next + row, next + column]));
                next += rows.max(columns) as u32;
            }
            None => {
                phases.extend((next..next + span.len as u32).map(|phase| [phase; 3]));
                next += span.len as u32;
            }
        }
    }
    if spans.iter().all(|span| !matches!(span.modality, Modality::Image { .. })) {
        return Placing::InOrder;
    }
    Placing::Placed { phases, advance: next }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cache::Piece;

    #[test]
    fn grids_are_placed_as_by_transformers() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/data/layers.json");
        let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let case = golden["cases"].as_array().unwrap().iter().find(|case| case["name"] == "sections").unwrap();
        let mut start = 0;
        let mut span = |modality: Modality, len: usize| {
            start += len;
            Span { modality, start: start - len, len }
        };
        let image = |index, rows, columns| Modality::Image { index, piece: Piece::base(rows, columns) };
        let spans = [
            span(Modality::Text, 5),
            span(image(0, 3, 4), 12),
            span(Modality::Text, 6),
            span(image(1, 2, 2), 4),
            span(Modality::Text, 3),
        ];
        let phases: Vec<Phase> = serde_json::from_value(case["phases"].clone()).unwrap();
        let advance = case["advance"].as_u64().unwrap() as u32;
        assert_eq!(on_grids(&spans), Placing::Placed { phases, advance });
        assert_eq!(on_grids(&spans[..1]), Placing::InOrder);
    }
}
