//! A prompt that goes through the layers in pieces, and what they gather until all of it is there.
//!
//! A method sees one prompt: the weights of its queries are those of the whole, sums add up over the pieces, and nothing is decided
//! before the last one.

use prefixkv_kernels::attention::AttentionParams;

use super::{Placing, Sequence, Work};
use crate::cache::{Account, Charge, Lane, Memory, Span};
use crate::error::{Error, Result};
use crate::fields::refuse;

/// How far a prompt of `n` positions is: `done` are through all layers, and `piece` are on their way, with `tail` rows behind them that
/// repeat the prompt and leave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) n: usize,
    pub(super) done: usize,
    pub(super) piece: usize,
    pub(super) tail: usize,
}

impl Reach {
    /// Positions of later pieces.
    pub(super) fn left(self) -> usize {
        self.n - self.done - self.piece
    }

    fn is_cut(self) -> bool {
        self.piece < self.n
    }
}

impl<M: Memory> Sequence<M> {
    /// As [`Sequence::begin_prompt`] for a prompt that comes in pieces: each between [`Sequence::begin_piece`] and
    /// [`Sequence::finish_piece`]. Nothing is freed before the last piece, so there must be room for all of it, whatever the method.
    pub fn begin_cut_prompt(&mut self, spans: &[Span], placing: &Placing) -> Result<()> {
        let n = spans.iter().map(|span| span.len).sum();
        self.require_cuttable()?;
        self.start_prompt(spans, placing, Reach { n, done: 0, piece: 0, tail: 0 })?;
        self.admit_pieces(n)?;
        self.pieces.reserved = Some(self.account.charge(self.compaction_bytes(n))?);
        Ok(())
    }

    fn require_cuttable(&self) -> Result<()> {
        if self.attends_among() {
            return Err(refuse("a store that has only some positions of a prompt attend reads it whole"));
        }
        match self.method.as_ref().map(|method| method.needs) {
            Some(needs) if needs.narrows() => {
                Err(refuse("a method that ends the way of positions of a prompt reads it whole"))
            }
            Some(needs) if needs.repeats => Err(refuse("a method that repeats its prompts reads them whole")),
            _ => Ok(()),
        }
    }

    /// Refuses a prompt that [`Sequence::begin_cut_prompt`] would refuse now for want of room, or for its method; changes nothing.
    pub fn admit_cut(&self, spans: &[Span]) -> Result<()> {
        self.require_cuttable()?;
        self.admit_pieces(spans.iter().map(|span| span.len).sum())
    }

    fn admit_pieces(&self, n: usize) -> Result<()> {
        let whole = self.entry_bytes() * n * self.layout.owners().len();
        self.account.admit(whole as u64 + self.copied_bytes() + self.compaction_bytes(n))
    }

    /// Bytes that the last piece may take for a moment: those of a layer that is copied. They are reserved, since others take memory
    /// between the pieces.
    fn compaction_bytes(&self, n: usize) -> u64 {
        let entries = if self.frees() { self.longest_lane() + n } else { 0 };
        (self.entry_bytes() * entries) as u64
    }

    /// Starts the next `piece` positions of a prompt that comes in pieces.
    pub fn begin_piece(&mut self, piece: usize) -> Result<()> {
        self.require_whole(piece)?;
        match &mut self.work {
            Work::Prompt(reach) if reach.piece == 0 && piece > 0 && reach.done + piece <= reach.n => {
                reach.piece = piece;
                if reach.left() == 0 {
                    self.pieces.reserved = None;
                }
                Ok(())
            }
            _ => Err(Error::Internal(format!("no piece of {piece} positions can come now"))),
        }
    }

    /// All layers hold the piece. After the last one comes [`Sequence::finish_prompt`].
    pub fn finish_piece(&mut self) -> Result<()> {
        match &mut self.work {
            Work::Prompt(reach) if reach.piece > 0 => {
                if reach.left() > 0 {
                    reach.done += std::mem::take(&mut reach.piece);
                }
                Ok(())
            }
            _ => Err(Error::Internal("no piece has begun".into())),
        }
    }

    /// The position of the first row on its way.
    pub(super) fn first_position(&self) -> u32 {
        match self.work {
            Work::Prompt(reach) => self.next_position + reach.done as u32,
            _ => self.next_position,
        }
    }

    /// The last queries of the prompt, or of its piece on the way, that the method or its store wants to see.
    pub fn wanted_queries(&self) -> usize {
        let wanted = self.method.as_ref().map_or(0, |method| method.needs.queries.max(method.last_queries()));
        self.of_the_last(wanted) + self.tail()
    }

    /// How many of a prompt's last `wanted` queries are on their way.
    pub(super) fn of_the_last(&self, wanted: usize) -> usize {
        let Work::Prompt(reach) = self.work else { return 0 };
        wanted.saturating_sub(reach.left()).min(self.way.rows().map_or(reach.piece, <[u32]>::len))
    }

    /// Keeps the [wanted](Sequence::wanted_queries) queries of a prompt in `layer`, `[queries, query heads, head_dim]`, for the method, and
    /// shows them to its store.
    pub fn keep_queries(&mut self, layer: usize, params: &AttentionParams, queries: &[f32]) -> Result<()> {
        let all = self.wanted_queries() - self.tail();
        let queries = self.keep_repeated(params, queries)?;
        let (number, Some(method)) = (self.number(layer), &self.method) else { return Ok(()) };
        let of = |wanted: usize| (all - self.of_the_last(wanted)) * (queries.len() / all.max(1));
        let (own, shown) = (of(method.needs.queries), of(method.last_queries()));
        let (past, n_shown) = (self.next_position as usize, self.of_the_last(method.last_queries()));
        let end = match self.work {
            Work::Prompt(reach) => self.first_position() as usize + reach.piece,
            _ => past,
        };
        let first = end - self.of_the_last(method.needs.queries);
        let Some(method) = &mut self.method else { return Ok(()) };
        if let Some(encoder) = method.encoder().filter(|_| shown < queries.len()) {
            encoder.see_queries(layer, past, n_shown, &queries[shown..]);
        }
        // A method that plans knows the layers that it sizes; one that only looks on knows those of the model.
        let sizes = method.needs.external || method.needs.moments.layer;
        let number = if sizes { number } else { Some(layer) };
        match number.filter(|_| own < queries.len()) {
            Some(number) => {
                method.keep_queries(number, self.layout.rope(layer), first, params, &queries[own..], &self.account)
            }
            None => Ok(()),
        }
    }

    /// The weights of the queries of the prompt, or of its piece on the way, in the sums that `layer` is to gather; None when nothing is
    /// asked for.
    pub fn query_weights(&self, layer: usize) -> Option<Vec<f32>> {
        let Work::Prompt(reach) = self.work else { return None };
        let mut weights = self.prompt_weights(layer, reach.n)?;
        if let Some(offsets) = self.offsets() {
            return Some(offsets.map(|offset| weights[offset]).collect());
        }
        if reach.is_cut() {
            weights.truncate(reach.done + reach.piece);
            weights.drain(..reach.done);
            // Where no query counts, the last piece gathers the zeros of a whole prompt.
            let last = reach.left() == 0 && !self.number(layer).is_some_and(|number| self.pieces.has(number));
            (last || weights.iter().any(|weight| *weight != 0.0)).then_some(weights)
        } else {
            Some(weights)
        }
    }

    /// As [`Sequence::query_weights`], of all `n` queries of the prompt.
    fn prompt_weights(&self, layer: usize, n: usize) -> Option<Vec<f32>> {
        let number = self.number(layer)?;
        self.method.as_ref()?.queries(number, &self.view(&self.held(), &self.spans, n))
    }

    /// `layer` has attended to a prompt or a piece of one, and `sums` were gathered: per KV head, all places. Frees what the method frees
    /// now and what is behind the window, once all of the prompt is there; where other layers read the same lanes, behind the last of
    /// them.
    pub fn attended(&mut self, layer: usize, sums: &[Vec<f32>]) -> Result<()> {
        let Work::Prompt(reach) = self.work else {
            return Err(Error::Internal("no prompt has begun".into()));
        };
        let Some((owner, sums)) = self.read_by_all(layer, sums) else { return Ok(()) };
        let sums = if reach.tail > 0 { self.forget_tail(owner)? } else { sums };
        let Some(number) = self.number(owner).filter(|_| self.method.is_some()) else {
            let next = self.next_position + reach.n as u32;
            if reach.left() > 0 {
                return Ok(());
            }
            self.leave_layer_behind(owner, next)?;
            return self.encode_layer(owner);
        };
        if !reach.is_cut() {
            return self.compact(number, &sums);
        }
        if !sums.is_empty() {
            self.pieces.add(number, &sums, &self.layers[owner], reach.left(), &self.account)?;
        }
        if reach.left() > 0 {
            return Ok(());
        }
        let (whole, _charge) = self.pieces.take(number);
        self.compact(number, &whole)
    }
}

/// Sums that the pieces of a prompt have gathered.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Sums of attention, per layer: of every KV head, all places that there will be.
    layers: Vec<Option<(Vec<Vec<f32>>, Charge)>>,
    /// Room for the last piece.
    reserved: Option<Charge>,
}

impl Pieces {
    /// Adds what a piece has gathered in `layer`, a number for every place that is there; `coming` more places follow with later pieces.
    fn add<M: Memory>(
        &mut self,
        layer: usize,
        sums: &[Vec<f32>],
        lanes: &[Lane<M>],
        coming: usize,
        account: &Account<M>,
    ) -> Result<()> {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, || None);
        }
        let (whole, _) = match &mut self.layers[layer] {
            Some(whole) => whole,
            none => {
                let places = || lanes.iter().flat_map(|lane| lane.heads().map(|_| lane.places() + coming));
                let charge = account.charge((places().sum::<usize>() * size_of::<f32>()) as u64)?;
                none.insert((places().map(|places| vec![0.0; places]).collect(), charge))
            }
        };
        for (whole, sums) in whole.iter_mut().zip(sums) {
            whole.iter_mut().zip(sums).for_each(|(whole, sum)| *whole += sum);
        }
        Ok(())
    }

    fn has(&self, layer: usize) -> bool {
        self.layers.get(layer).is_some_and(Option::is_some)
    }

    /// The sums of `layer` over all pieces; none where nothing was asked for.
    fn take(&mut self, layer: usize) -> (Vec<Vec<f32>>, Option<Charge>) {
        match self.layers.get_mut(layer).and_then(Option::take) {
            Some((sums, charge)) => (sums, Some(charge)),
            None => (Vec::new(), None),
        }
    }
}
