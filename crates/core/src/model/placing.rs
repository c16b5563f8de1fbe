//! Phases along three axes: time, rows and columns. Wang et al. 2024, arXiv 2409.12191.

use prefixkv_kernels::rotary::Phase;

use crate::cache::{Modality, Piece, PieceKind, Span};
use crate::sequence::Placing;

/// Text goes on one by one on all axes. A piece of an image stands still in time while its cells go through rows and columns, and what
/// follows goes on behind its longer side. The frames of a video that follow each other without text lie one behind the other in time, by
/// their own phases, and what follows goes on behind the longer side of one. Positions that are no cell of a piece go on as text does.
pub(super) fn on_grids(spans: &[Span]) -> Placing {
    let mut phases: Vec<Phase> = Vec::with_capacity(spans.iter().map(|span| span.len).sum());
    let mut next = 0;
    // The video whose frames go on, and where it has begun.
    let mut video = None;
    for span in spans {
        let piece = match span.modality {
            Modality::Image { index, piece } if piece.rows * piece.columns == span.len => Some((index, piece)),
            _ => None,
        };
        let Some((index, Piece { kind, rows, columns })) = piece else {
            video = None;
            phases.extend((next..next + span.len as u32).map(|phase| [phase; 3]));
            next += span.len as u32;
            continue;
        };
        let (start, time) = match (kind, video) {
            (PieceKind::Frame { phase, .. }, Some((of, start))) if of == index => (start, start + phase),
            (PieceKind::Frame { phase, .. }, _) => (next, next + phase),
            _ => (next, next),
        };
        video = matches!(kind, PieceKind::Frame { .. }).then_some((index, start));
        let cells = (0..rows as u32).flat_map(|row| (0..columns as u32).map(move |column| (row, column)));
        phases.extend(cells.map(|(row, column)| [time, start + row, start + column]));
        next = start + rows.max(columns) as u32;
    }
    if spans.iter().all(|span| !matches!(span.modality, Modality::Image { .. })) {
        return Placing::InOrder;
    }
    // Time may go further than the sides of a frame and the text behind it; what is generated goes on behind all of them.
    let furthest = phases.iter().flatten().max().map_or(0, |phase| phase + 1);
    Placing::Placed { phases, advance: next.max(furthest) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;

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

    #[test]
    fn frames_lie_behind_each_other_in_time() {
        let frame = |frame, phase| Piece { kind: PieceKind::Frame { frame, phase }, rows: 1, columns: 2 };
        let span = |modality, start, len| Span { modality, start, len };
        let shown = |piece, start| span(Modality::Image { index: 0, piece }, start, 2);
        let text = |start| span(Modality::Text, start, 1);
        let spans = [text(0), shown(frame(0, 0), 1), shown(frame(1, 9), 3), text(5)];
        let phases = [[0, 0, 0], [1, 1, 1], [1, 1, 2], [10, 1, 1], [10, 1, 2], [3, 3, 3]];
        assert_eq!(on_grids(&spans), Placing::Placed { phases: phases.to_vec(), advance: 11 });
        // With text between them each is a picture of its own.
        let spans = [shown(frame(0, 0), 0), text(2), shown(frame(1, 0), 3)];
        let phases = [[0, 0, 0], [0, 0, 1], [2, 2, 2], [3, 3, 3], [3, 3, 4]];
        assert_eq!(on_grids(&spans), Placing::Placed { phases: phases.to_vec(), advance: 5 });
    }
}
