//! A sequence between two prompts as bytes, and back: its positions, what they are, their phases, and its lanes.
//!
//! Knowledge of a method beyond the scores that entries carry is made anew by the next prompt, and a store whose encoder knows more is refused
//! before ([`Method::require_saved`](crate::method::Method::require_saved)). So what comes next on a restored sequence is a prompt.

use super::phases::Track;
use super::{Sequence, Work};
use crate::cache::{Get, Lane, Memory, Modality, Piece, PieceKind, Put, Span};
use crate::error::{Error, Result};
use crate::fields::refuse;

/// Bytes of a span.
const SPAN: u64 = 1 + 8 * 4;
/// Phases may run ahead of positions: those of the frames of a video do.
const PHASES: u32 = 1 << 30;

fn put_span(span: &Span, to: &mut dyn Put) -> Result<()> {
    let (kind, numbers) = match span.modality {
        Modality::Text => (0, [0; 7]),
        Modality::Generated => (1, [0; 7]),
        Modality::Image { index, piece: Piece { kind, rows, columns } } => {
            let (kind, a, b) = match kind {
                PieceKind::Base => (2, 0, 0),
                PieceKind::Tile { row, column } => (3, row, column),
                PieceKind::Tiles { down, across } => (4, down, across),
                PieceKind::End => (5, 0, 0),
                PieceKind::Frame { frame, phase } => (6, frame, phase as usize),
            };
            (kind, [index, rows, columns, a, b, 0, 0])
        }
    };
    to.put(&[kind])?;
    to.put_u32(span.len as u32)?;
    numbers.iter().try_for_each(|number| to.put_u32(*number as u32))
}

fn span(start: usize, from: &mut dyn Get) -> Result<Span> {
    let tag = from.get_u8()?;
    let len = from.get_u32()? as usize;
    let mut numbers = [0usize; 7];
    for number in &mut numbers {
        *number = from.get_u32()? as usize;
    }
    let [index, rows, columns, a, b, ..] = numbers;
    let piece = |kind| Ok(Modality::Image { index, piece: Piece { kind, rows, columns } });
    let modality = match tag {
        0 => Ok(Modality::Text),
        1 => Ok(Modality::Generated),
        2 => piece(PieceKind::Base),
        3 => piece(PieceKind::Tile { row: a, column: b }),
        4 => piece(PieceKind::Tiles { down: a, across: b }),
        5 => piece(PieceKind::End),
        6 => piece(PieceKind::Frame { frame: a, phase: b as u32 }),
        tag => Err(from.corrupt(format!("a span of unknown kind {tag}"))),
    }?;
    // Cells beyond the positions would be looked for there.
    let cells = rows.checked_mul(columns).is_some_and(|cells| cells <= len);
    if len == 0 || !cells || (matches!(modality, Modality::Image { piece, .. } if piece.columns == 0 && piece.rows > 0))
    {
        return Err(from.corrupt(format!("a span of {len} positions with {rows} x {columns} cells")));
    }
    Ok(Span { modality, start, len })
}

impl<M: Memory> Sequence<M> {
    /// Makes an empty sequence ready for a prompt behind which questions come. A method that [asks for a
    /// question](Sequence::asks_question) rests while that prompt is read, all of which stays, and the first prompt that it sees is the question;
    /// true where it does.
    ///
    /// # Errors
    /// [`Error::Option`] for a method that can do neither.
    pub fn begin_prefix(&mut self, name: &str) -> Result<bool> {
        let Some(method) = &self.method else { return Ok(false) };
        if method.needs.external {
            return Err(refuse(format!(
                "{name} is a function of yours, which a prefix cannot ask about each of its questions; give it to generate, or to a chat"
            )));
        }
        if !method.asks_question() {
            return Ok(false);
        }
        let watches = method.watches().is_some() || method.sees_inputs();
        if method.needs.narrows() || watches {
            let why = if watches {
                "and at the rows of what comes before it"
            } else {
                "to end the way of what comes before it"
            };
            return Err(refuse(format!(
                "{name} looks at the question {why}, so nothing can be read before the question is there; take a method that needs none for a \
                 prefix, such as prefixkv with variant: \"paper\", kvzip or knorm, or one that only frees entries, such as snapkv"
            )));
        }
        self.resting = self.method.take();
        Ok(true)
    }

    /// Whether the method or its store chooses by the queries of some positions of a prompt, those at its end or those of its text: by the question,
    /// that is, which a prefix does not have.
    pub fn asks_question(&self) -> bool {
        self.method.as_ref().is_some_and(|method| method.asks_question())
    }

    /// Writes the sequence, which must be between two pieces of work.
    pub fn save(&self, to: &mut dyn Put) -> Result<()> {
        if self.work != Work::None || self.asked.is_some() || self.resting.is_some() {
            return Err(Error::Internal("a sequence cannot be saved in the middle of its work".into()));
        }
        to.put_u32(self.next_position)?;
        to.put_u32(self.next_phase)?;
        to.put_u32(self.spans.len() as u32)?;
        self.spans.iter().try_for_each(|span| put_span(span, to))?;
        to.put(&[u8::from(self.track.is_some())])?;
        self.track.iter().try_for_each(|track| track.save(to))?;
        to.put_u32(self.layers.len() as u32)?;
        for lanes in &self.layers {
            to.put_u32(lanes.len() as u32)?;
            lanes.iter().try_for_each(|lane: &Lane<M>| lane.save(to))?;
        }
        Ok(())
    }

    /// Fills an empty sequence with what [`Sequence::save`] has written of one of the same model and method, which knows `most` positions.
    pub fn restore(&mut self, from: &mut dyn Get, most: usize) -> Result<()> {
        let end = from.get_u32()?;
        if end == 0 || end as usize > most {
            return Err(from.corrupt(format!("{end} positions, of which the model has {most}")));
        }
        let phase = from.get_u32()?;
        if phase > PHASES {
            return Err(from.corrupt(format!("a next phase {phase}")));
        }
        let mut start = 0;
        let count = from.get_count(SPAN, "spans")?;
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let next = span(start, from)?;
            start += next.len;
            spans.push(next);
        }
        if start != end as usize {
            return Err(from.corrupt(format!("spans of {start} positions, of {end}")));
        }
        let tracked = from.get_u8()?;
        if tracked != u8::from(self.track.is_some()) {
            return Err(from.corrupt(format!("a mark {tracked} of phases in a cache that is otherwise")));
        }
        if let Some(track) = &mut self.track {
            *track = Track::restore(from, end, &self.account)?;
        }
        let layers = from.get_u32()? as usize;
        if layers != self.layers.len() {
            return Err(from.corrupt(format!("{layers} layers, of {}", self.layers.len())));
        }
        for lanes in &mut self.layers {
            let count = from.get_u32()? as usize;
            if count != lanes.len() {
                return Err(from.corrupt(format!("{count} lanes in a layer of {}", lanes.len())));
            }
            lanes.iter_mut().try_for_each(|lane| lane.restore(from, end))?;
        }
        if from.left() > 0 {
            return Err(from.corrupt(format!("{} bytes behind the last lane", from.left())));
        }
        (self.next_position, self.next_phase, self.spans) = (end, phase, spans);
        // The prompt that it was to rest through has been read.
        self.method = self.resting.take().or(self.method.take());
        Ok(())
    }
}
