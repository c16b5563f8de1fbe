//! The cells of a traced prompt's pictures: which position shows which part of which picture.

use crate::backend::Backend;
use crate::cache::{Modality, Piece, PieceKind, Span};
use crate::error::Result;
use crate::media::{Area, upright_size};
use crate::model::Model;
use crate::wire::{Medium, TraceImage};

/// A picture or a video in the order of placeholders.
pub(super) struct Picture {
    source: usize,
    /// Frames of a piece of a video; 0 of a picture.
    together: usize,
    width: usize,
    height: usize,
    /// The part that each of its pieces shows.
    areas: Vec<Area>,
}

/// The pictures in the order of their placeholders; none of a text-only model.
pub(super) fn pictures<B: Backend>(model: &Model<B>, images: &[Vec<u8>], order: &[Medium]) -> Result<Vec<Picture>> {
    let Some(processor) = model.image_processor_of(order.len()) else { return Ok(Vec::new()) };
    let picture = |medium: &Medium| {
        let source = medium.images().start;
        let (width, height) = upright_size(&images[source], source)?;
        let (together, areas) = match medium {
            Medium::Image(_) => (0, processor.areas(width, height)),
            Medium::Video(video) => {
                let together = model.video_processor()?.together().max(1);
                let whole = Area { x: 0.0, y: 0.0, width: width as f64, height: height as f64 };
                (together, vec![whole; video.frames.len().div_ceil(together)])
            }
        };
        Ok(Picture { source, together, width, height, areas })
    };
    order.iter().map(picture).collect()
}

/// The grids of all pictures: one for each piece that has cells, but tiles of a picture together make one.
pub(super) fn grids(pictures: &[Picture], spans: &[Span]) -> Vec<TraceImage> {
    let mut grids = Vec::new();
    for (number, picture) in pictures.iter().enumerate() {
        let own = spans.iter().filter_map(|span| match span.modality {
            Modality::Image { index, piece } if index == number => Some((piece, span.start, span.len)),
            _ => None,
        });
        let pieces: Vec<((Piece, usize, usize), Area)> =
            own.zip(picture.areas.iter().copied()).filter(|((piece, ..), _)| piece.cells() > 0).collect();
        let alike =
            |a: &((Piece, usize, usize), Area), b: &((Piece, usize, usize), Area)| tile(a).and(tile(b)).is_some();
        grids.extend(pieces.chunk_by(alike).map(|pieces| grid(number, picture, pieces)));
    }
    grids
}

/// The row and the column of a tile.
fn tile(((piece, ..), _): &((Piece, usize, usize), Area)) -> Option<(usize, usize)> {
    match piece.kind {
        PieceKind::Tile { row, column } => Some((row, column)),
        _ => None,
    }
}

/// The cells of pieces of one size that lie side by side.
fn grid(index: usize, picture: &Picture, pieces: &[((Piece, usize, usize), Area)]) -> TraceImage {
    let places: Vec<(usize, usize)> = pieces.iter().map(|piece| tile(piece).unwrap_or((0, 0))).collect();
    let ((first, ..), mut area) = pieces[0];
    let down = places.iter().map(|(row, _)| row + 1).max().unwrap_or(1);
    let across = places.iter().map(|(_, column)| column + 1).max().unwrap_or(1);
    let (rows, columns) = (down * first.rows, across * first.columns);
    let mut cells = vec![0; rows * columns];
    for (((piece, start, len), shown), (row, column)) in pieces.iter().zip(places) {
        for cell in 0..piece.cells() {
            let at = (row * first.rows + cell / piece.columns, column * first.columns + cell % piece.columns);
            cells[at.0 * columns + at.1] = start + piece.place(cell, *len);
        }
        let (right, bottom) =
            ((area.x + area.width).max(shown.x + shown.width), (area.y + area.height).max(shown.y + shown.height));
        (area.x, area.y) = (area.x.min(shown.x), area.y.min(shown.y));
        (area.width, area.height) = (right - area.x, bottom - area.y);
    }
    let Picture { source, together, width, height, .. } = *picture;
    let (source, tiles) = match first.kind {
        PieceKind::Tiles { down, across } => (source, down * across),
        PieceKind::Frame { frame, .. } => (source + frame * together, 1),
        _ => (source, pieces.len()),
    };
    TraceImage { index, source, width, height, tiles, rows, columns, cells, area }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_make_one_grid_and_the_whole_another() {
        let piece = |kind| Piece { kind, rows: 1, columns: 2 };
        let at = |row, column| PieceKind::Tile { row, column };
        let kinds = [at(0, 0), at(0, 1), at(1, 0), at(1, 1), PieceKind::Base];
        let mut spans: Vec<Span> = Vec::new();
        for (number, kind) in kinds.into_iter().enumerate() {
            let modality = Modality::Image { index: 0, piece: piece(kind) };
            spans.push(Span { modality: Modality::Text, start: 4 * number, len: 2 });
            spans.push(Span { modality, start: 4 * number + 2, len: 2 });
        }
        let quarter = |x: f64, y: f64| Area { x, y, width: 50.0, height: 20.0 };
        let whole = Area { x: 0.0, y: 0.0, width: 100.0, height: 40.0 };
        let areas = vec![quarter(0.0, 0.0), quarter(50.0, 0.0), quarter(0.0, 20.0), quarter(50.0, 20.0), whole];
        let found = grids(&[Picture { source: 3, together: 0, width: 100, height: 40, areas }], &spans);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].rows, found[0].columns, found[0].tiles), (2, 4, 4));
        assert_eq!(found[0].cells, [2, 3, 6, 7, 10, 11, 14, 15]);
        assert_eq!((found[0].area, found[1].area), (whole, whole));
        assert_eq!((found[1].rows, found[1].columns, found[1].tiles, &found[1].cells[..]), (1, 2, 1, &[18, 19][..]));
    }

    #[test]
    fn line_ends_and_the_end_are_no_cells() {
        let span = |piece, start, len| Span { modality: Modality::Image { index: 0, piece }, start, len };
        let tiles = Piece { kind: PieceKind::Tiles { down: 1, across: 2 }, rows: 2, columns: 3 };
        let area = Area { x: 0.0, y: 0.0, width: 9.0, height: 6.0 };
        let picture = Picture { source: 0, together: 0, width: 9, height: 6, areas: vec![area; 3] };
        let spans = [span(Piece::base(1, 1), 5, 1), span(tiles, 6, 8), span(Piece::end(), 14, 1)];
        let found = grids(&[picture], &spans);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].tiles, &found[0].cells[..]), (1, &[5][..]));
        assert_eq!((found[1].tiles, &found[1].cells[..]), (2, &[6, 7, 8, 10, 11, 12][..]));
    }

    #[test]
    fn every_group_of_frames_is_a_grid_of_its_first_frame() {
        let piece = |frame| Piece { kind: PieceKind::Frame { frame, phase: 0 }, rows: 1, columns: 2 };
        let span = |frame: usize| Span {
            modality: Modality::Image { index: 0, piece: piece(frame) },
            start: 2 * frame,
            len: 2,
        };
        let areas = vec![Area { x: 0.0, y: 0.0, width: 8.0, height: 4.0 }; 3];
        let video = Picture { source: 5, together: 2, width: 8, height: 4, areas };
        let found = grids(&[video], &[span(0), span(1), span(2)]);
        let sources: Vec<_> = found.iter().map(|grid| (grid.source, grid.cells.clone())).collect();
        assert_eq!(sources, [(5, vec![0, 1]), (7, vec![2, 3]), (9, vec![4, 5])]);
    }

    #[test]
    fn a_class_token_is_no_cell() {
        let modality = Modality::Image { index: 0, piece: Piece::base(2, 2) };
        let area = Area { x: 0.0, y: 0.0, width: 9.0, height: 9.0 };
        let picture = Picture { source: 0, together: 0, width: 9, height: 9, areas: vec![area] };
        let found = grids(&[picture], &[Span { modality, start: 10, len: 5 }]);
        assert_eq!(found[0].cells, [11, 12, 13, 14]);
    }
}
