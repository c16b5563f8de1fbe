//! One sequence at work: its layers' lanes and who reads them ([`layout`], [`readers`]), its position counter and what each position
//! is, where rotary embedding turns it ([`phases`]); the carrying out of what its method decides ([`compaction`]) and of how its store
//! keeps what stays ([`encoding`]); what goes through the layers together ([`batch`]); prompts that come in pieces ([`pieces`]); rows that go no further ([`rows`]); how far rows see
//! ([`sight`]); sequences as bytes ([`snapshot`]);
//! prompts that are read twice ([`repeat`]), or of which some positions attend ([`among`]); and the room that a prompt needs ([`room`]).

mod ahead;
mod among;
mod batch;
mod compaction;
mod encoding;
mod layout;
mod outside;
mod phases;
mod pieces;
mod readers;
mod repeat;
mod report;
mod room;
mod rows;
mod sight;
mod snapshot;
mod view;

use std::ops::Range;
use std::sync::Arc;

pub use among::Probes;
pub use batch::{BatchItem, Pass};
pub use compaction::Planned;
use compaction::Working;
pub use layout::Layout;
pub use phases::{Phases, Placing};
use phases::{Source, Track};
use pieces::{Pieces, Reach};
use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::codec::{Dual, KvCodec};
use prefixkv_kernels::rotary::Angles;
pub use repeat::Repeat;
use rows::Way;
use view::Held;

use crate::cache::{
    Account, Charge, Entry, Forked, Format, Lane, LaneOptions, Memory, Modality, New, Pool, Rotation, Shape, Span,
};
use crate::device::{Cpu, Cuda};
use crate::error::{Error, Result};
use crate::fields::refuse;
use crate::method::view::{Sums, View};
use crate::method::{Lanes, Method, Moment, Positions, Profile};

/// The cache of one sequence.
///
/// A prompt goes between [`Sequence::begin_prompt`] and [`Sequence::finish_prompt`], a generated token between
/// [`Sequence::begin_step`] and [`Sequence::finish_step`]; in between every layer, in order, stores its new entries and says
/// when it has attended. A prompt may go through the layers in pieces ([`Sequence::begin_cut_prompt`]); its method sees one prompt. An
/// error in between leaves a sequence that refuses further work.
#[derive(Debug)]
pub struct Sequence<M: Memory = Cpu> {
    shape: Shape,
    /// The lanes of each layer, together covering its KV heads in order; none for a layer that reads another's.
    layers: Vec<Vec<Lane<M>>>,
    layout: Arc<Layout>,
    spans: Vec<Span>,
    next_position: u32,
    next_phase: u32,
    /// Of the prompt that is on its way.
    placing: Placing,
    source: Source,
    /// The phases of the positions so far, where keys are rotated to them when they are read.
    track: Option<Track>,
    work: Work,
    method: Option<Working>,
    /// The method, while a prompt is read that it is not to see.
    resting: Option<Working>,
    /// The moment at which a method outside is asked, until its answer comes.
    asked: Option<Asked>,
    /// Sums that the pieces of a prompt have gathered so far.
    pieces: Pieces,
    /// The rows of a prompt that go on through the layers.
    way: Way,
    /// Tokens before a repetition of a prompt, for a method that asks for one.
    instruction: usize,
    /// Sums of layers whose lanes are still to be read by others, by layer.
    waiting: Vec<(usize, Vec<Vec<f32>>)>,
    account: Account<M>,
}

/// A moment whose plan comes from outside.
#[derive(Clone, Copy, Debug)]
struct Asked {
    moment: Moment,
    past: usize,
    n: usize,
}

/// The positions on their way through the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    None,
    Prompt(Reach),
    Step,
}

impl<M: Memory> Sequence<M> {
    /// An empty sequence with the plain full cache.
    pub fn new(shape: Shape, pool: &Pool<M>) -> Result<Self> {
        Sequence::with_method(shape, pool, None, false)
    }

    /// An empty sequence whose size a method decides. `carry` keeps what further prompts on it need.
    pub fn with_method(shape: Shape, pool: &Pool<M>, method: Option<Arc<Method>>, carry: bool) -> Result<Self> {
        Sequence::with_layout(shape, Arc::new(Layout::plain(shape.layers)), pool, method, carry)
    }

    /// As [`Sequence::with_method`], of a model whose layers are not all of one kind. Layers that the method shares read those of others
    /// too.
    pub fn with_layout(
        shape: Shape,
        layout: Arc<Layout>,
        pool: &Pool<M>,
        method: Option<Arc<Method>>,
        carry: bool,
    ) -> Result<Self> {
        let layout = match method.as_ref().and_then(|method| method.sharing()) {
            Some(sharing) => Arc::new(layout.shared(sharing)?),
            None => layout,
        };
        let sized = Shape { layers: layout.managed().len(), ..shape };
        let encoder = method.as_ref().map_or(Ok(None), |method| method.encoder(&sized))?;
        let asked = encoder.as_ref().map_or(Dual::None, |encoder| encoder.dual());
        let dual = if layout.is_folded() && encoder.is_some() { asked.of_folded() } else { asked };
        let based = encoder.as_ref().is_some_and(|encoder| encoder.has_bases());
        let before = method.as_ref().and_then(|method| method.store()).is_some_and(|store| store.before_rope());
        let joins = encoder.as_ref().is_some_and(|encoder| encoder.joins());
        let among = encoder.as_ref().is_some_and(|encoder| encoder.attends_among());
        let method = method.map(|method| Working::new::<M>(method, &sized, carry, encoder));
        let needs = method.as_ref().map(|method| method.needs);
        if based && !M::READS_BASES {
            return Err(refuse(
                "this store keeps entries in coordinates of its own, which the CUDA kernels do not read; use another store, or the CPU",
            ));
        }
        if joins && !M::READS_GAINS {
            return Err(refuse(
                "this store keeps entries of two layers once, with a size for each, which the CUDA kernels do not read; use another store, or \
                 the CPU",
            ));
        }
        if among && !M::ATTENDS_AMONG {
            return Err(refuse(
                "this store has only some positions of a prompt attend, which the CUDA kernels do not; use `prefill: \"whole\"`, or the CPU",
            ));
        }
        let per_head = needs.is_some_and(|needs| needs.lanes == Lanes::PerHead);
        let ranks = needs.is_some_and(|needs| needs.positions == Positions::Cache);
        if ranks && !M::ROTATES_ON_READ {
            return Err(refuse(
                "with positions \"cache\" keys are rotated when they are read, which the CUDA kernels do not; use positions \
                 \"true\", or the CPU",
            ));
        }
        if before && !M::ROTATES_ON_READ {
            return Err(refuse(
                "keys that are stored before their rotary embedding are rotated when they are read, which the CUDA kernels do not; use the \
                 CPU, or a store of rotated keys (`rope: \"after\"`)",
            ));
        }
        let on_read = ranks || before;
        if needs.is_some_and(|needs| needs.rows || needs.repeats) && !layout.is_unshared() {
            return Err(refuse(
                "this model has layers that read the entries of others, which a method cannot follow that ends the way of positions between layers, or repeats prompts; use another method",
            ));
        }
        let source = match needs {
            _ if ranks => Source::Rank,
            Some(needs) if needs.positions == Positions::Official => Source::Held,
            _ => Source::Family,
        };
        let options = LaneOptions {
            head_dim: shape.head_dim,
            codec: KvCodec { dual, ..shape.format.codec() },
            folded: layout.is_folded(),
            rotation: if on_read { Rotation::OnRead } else { Rotation::Stored },
            scored: needs.is_some_and(|needs| needs.scores),
        };
        let split = |_| -> Vec<Range<usize>> {
            if per_head {
                (0..shape.kv_heads).map(|head| head..head + 1).collect()
            } else {
                std::iter::once(0..shape.kv_heads).collect()
            }
        };
        let mut sequence = Sequence::with_lanes(shape, layout, pool, options, split)?;
        (sequence.method, sequence.source) = (method, source);
        sequence.track = (before && !ranks).then(Track::default);
        Ok(sequence)
    }

    /// An empty sequence whose layer `l`, if it has lanes, has the lanes `split(l)`; the ranges must cover the KV heads in order.
    pub fn with_lanes(
        shape: Shape,
        layout: Arc<Layout>,
        pool: &Pool<M>,
        options: LaneOptions,
        split: impl Fn(usize) -> Vec<Range<usize>>,
    ) -> Result<Self> {
        assert_eq!(layout.len(), shape.layers, "layers of the layout");
        let account = pool.account();
        let mut layers = Vec::with_capacity(shape.layers);
        for layer in 0..shape.layers {
            if !layout.owns(layer) {
                layers.push(Vec::new());
                continue;
            }
            let ranges = split(layer);
            let mut next = 0;
            for range in &ranges {
                assert_eq!(range.start, next, "lanes of layer {layer} must cover its heads in order");
                next = range.end;
            }
            assert_eq!(next, shape.kv_heads, "lanes of layer {layer} must cover its heads");
            let managed = layout.managed_index(layer).is_some();
            let options = LaneOptions { scored: options.scored && managed, ..options };
            let mut lanes = exactly(ranges.into_iter().map(|heads| Lane::new(heads, options, account.clone())))?;
            if let Some(window) = layout.reach(layer).filter(|_| !managed) {
                lanes.iter_mut().for_each(|lane| lane.set_limit(window as usize));
            }
            layers.push(lanes);
        }
        Ok(Sequence {
            shape,
            layers,
            layout,
            spans: Vec::new(),
            next_position: 0,
            next_phase: 0,
            placing: Placing::InOrder,
            source: if options.rotation == Rotation::OnRead { Source::Rank } else { Source::Family },
            track: None,
            work: Work::None,
            method: None,
            resting: None,
            asked: None,
            pieces: Pieces::default(),
            way: Way::default(),
            instruction: 0,
            waiting: Vec::new(),
            account,
        })
    }

    /// A second sequence that goes on from what this one holds. Entries are shared, and counted in the pool once, until one of the two
    /// changes them; on both accounts they count in full. Only between two pieces of work.
    pub fn fork(&self) -> Result<Self> {
        if self.work != Work::None || self.asked.is_some() {
            return Err(Error::Internal("a sequence cannot be forked in the middle of its work".into()));
        }
        let account = self.account.another();
        let mut forked = Forked::default();
        let mut fork = |lanes: &Vec<Lane<M>>| exactly(lanes.iter().map(|lane| lane.fork_beside(&account, &mut forked)));
        let layers = self.layers.iter().map(&mut fork).collect::<Result<_>>()?;
        Ok(Sequence {
            shape: self.shape,
            layers,
            layout: self.layout.clone(),
            spans: self.spans.clone(),
            next_position: self.next_position,
            next_phase: self.next_phase,
            placing: Placing::InOrder,
            source: self.source,
            track: self.track.as_ref().map(|track| track.fork(&account)).transpose()?,
            work: Work::None,
            method: self.method.as_ref().map(Working::fork),
            resting: None,
            asked: None,
            pieces: Pieces::default(),
            way: Way::default(),
            instruction: self.instruction,
            waiting: Vec::new(),
            account,
        })
    }

    /// The position that the next token gets, which is the number of positions seen so far; independent of what is kept.
    pub fn next_position(&self) -> u32 {
        self.next_position
    }

    /// Entries of the longest lane.
    pub fn longest_lane(&self) -> usize {
        self.layers.iter().flatten().map(Lane::len).max().unwrap_or(0)
    }

    /// How many positions the sequence may have in all, a prompt of `spans` and what follows it included, when a model knows `most`:
    /// more where keys are rotated to their ranks and entries go.
    pub fn positions_within(&self, spans: &[Span], most: usize) -> Result<usize> {
        let Some(method) = self.method.as_ref().filter(|_| self.rotates_to_ranks()) else { return Ok(most) };
        let (all, n) = self.with(spans);
        method.planner.positions_within(&self.view(&self.held(), &all, n), most)
    }

    /// Starts a prompt whose positions are `spans`, numbered from 0. Refuses a budget that does not hold what is protected.
    pub fn begin_prompt(&mut self, spans: &[Span], placing: &Placing) -> Result<()> {
        let n = spans.iter().map(|span| span.len).sum();
        let tail = self.repeats(n).map_or(0, |repeat| repeat.rows);
        let growth = self.start_prompt(spans, placing, Reach { n, done: 0, piece: n, tail })?;
        self.account.admit(self.prompt_bytes(n, growth))
    }

    /// Gives the most entries that the prompt adds to those held, where layers are compacted one by one.
    fn start_prompt(&mut self, spans: &[Span], placing: &Placing, reach: Reach) -> Result<Option<usize>> {
        self.require_placeable(placing, reach.n)?;
        self.require_repeatable()?;
        self.begin(Work::Prompt(reach))?;
        self.placing.clone_from(placing);
        self.way = Way::default();
        self.track_prompt(reach.n)?;
        let (all, n) = self.with(spans);
        self.spans = all;
        match &mut self.method {
            Some(method) => {
                method.steps = 0;
                let held = Held { layers: &self.layers, owners: self.layout.managed() };
                let past = self.next_position as usize;
                method.planner.begin(&View {
                    cache: &held,
                    past,
                    n,
                    spans: &self.spans,
                    sums: Sums::None,
                    queries: &[],
                    shown: None,
                    blocks: self.layout.has_blocks(),
                })
            }
            None => Ok(None),
        }
    }

    /// The number of a layer among those that the method sizes.
    fn number(&self, layer: usize) -> Option<usize> {
        self.layout.managed_index(layer)
    }

    fn held(&self) -> Held<'_, M> {
        Held { layers: &self.layers, owners: self.layout.managed() }
    }

    fn view<'a>(&self, cache: &'a Held<'a, M>, spans: &'a [Span], n: usize) -> View<'a> {
        let (past, blocks) = (self.next_position as usize, self.layout.has_blocks());
        View { cache, past, n, spans, sums: Sums::None, queries: &[], shown: None, blocks }
    }

    /// Asks the method what is to be done at a moment, and does it.
    fn at(&mut self, moment: Moment, sums: Sums<'_>) -> Result<()> {
        let n = self.positions_on_the_way();
        let Some(method) = &mut self.method else { return Ok(()) };
        let past = self.next_position as usize;
        if method.needs.external {
            let asked = method.needs.moments.has(moment);
            self.asked = self.asked.or(asked.then_some(Asked { moment, past, n }));
            return Ok(());
        }
        let held = Held { layers: &self.layers, owners: self.layout.managed() };
        let queries = std::mem::take(&mut method.queries);
        let shown = self.way.shown();
        let blocks = self.layout.has_blocks();
        let view = View { cache: &held, past, n, spans: &self.spans, sums, queries: &queries, shown, blocks };
        let asked = method.ask(moment, &view, self.layout.managed(), &self.account);
        method.queries = queries;
        if !asked? {
            return Ok(());
        }
        if let Moment::Layer(layer) = moment {
            method.forget_queries(layer);
        }
        let plan = method.plan();
        // A plan of one layer is not worth counting.
        let bytes = if moment == Moment::Prompt { plan.bytes() } else { 0 };
        let _plan = if bytes > 0 { Some(self.account.charge(bytes as u64)?) } else { None };
        let rows = plan.rows.clone();
        compaction::carry_out(plan, &mut self.layers, self.layout.managed())?;
        if matches!(moment, Moment::Images | Moment::Layer(_) | Moment::Prompt) || !plan.lanes.is_empty() {
            // Plans of whole lanes name all their entries.
            method.drop_plan();
        }
        if moment == Moment::Prompt {
            method.drop_queries();
        }
        rows.map_or(Ok(()), |rows| self.narrow(moment, rows))
    }

    /// Positions of the prompt that is read, or 1.
    fn positions_on_the_way(&self) -> usize {
        match self.work {
            Work::Prompt(Reach { n, .. }) => n,
            _ => 1,
        }
    }

    /// All spans with those of a prompt, and how many positions that has.
    fn with(&self, spans: &[Span]) -> (Vec<Span>, usize) {
        let mut all = self.spans.clone();
        spans.iter().for_each(|span| see(&mut all, span.modality, span.len));
        (all, spans.iter().map(|span| span.len).sum())
    }

    /// Starts a generated token.
    pub fn begin_step(&mut self) -> Result<()> {
        self.begin(Work::Step)?;
        see(&mut self.spans, Modality::Generated, 1);
        self.at(Moment::Token(self.steps()), Sums::None)?;
        self.track_step()
    }

    /// Generated tokens since the last prompt.
    fn steps(&self) -> u64 {
        self.method.as_ref().map_or(0, |method| method.steps)
    }

    fn begin(&mut self, work: Work) -> Result<()> {
        if !self.is_sound() {
            return Err(Error::Internal("the sequence was left in the middle of its work".into()));
        }
        self.work = work;
        self.leave_behind()
    }

    /// Whether a prompt, and not a generated token, is on its way.
    pub fn in_prompt(&self) -> bool {
        matches!(self.work, Work::Prompt(_))
    }

    /// Whether the sequence can go on: nothing was left unfinished, and no plan is waited for.
    pub fn is_sound(&self) -> bool {
        self.work == Work::None && self.asked.is_none()
    }

    /// The new entries of `layer`, one per lane for a generated token.
    fn place(&mut self, layer: usize, new: M::New<'_>) -> Result<Vec<Entry>> {
        // A layer that reads another's lanes has none.
        let first = self.first_position();
        let lanes = &mut self.layers[layer];
        let mut entries = Vec::new();
        for lane in lanes {
            match self.work {
                Work::Prompt(_) if let Some(rows) = self.way.rows() => lane.append_rows(new, rows)?,
                Work::Prompt(reach) => lane.append_piece(new, reach.piece + reach.tail, first, reach.left())?,
                Work::Step => entries.push(Entry { position: first, place: lane.append_one(new, first)? }),
                Work::None => return Err(Error::Internal("no prompt and no token has begun".into())),
            }
        }
        Ok(entries)
    }

    /// The keys and values of `entries` are in the lanes of `layer`.
    pub(crate) fn written(&mut self, layer: usize, entries: &[Entry]) -> Result<()> {
        match self.method.as_ref().filter(|_| self.layout.managed_index(layer).is_some()) {
            Some(method) => method.appended(layer, &mut self.layers[layer], entries),
            None => Ok(()),
        }
    }

    /// Whether `layer` is to gather the attention of a generated token.
    pub fn gathers_step(&self, layer: usize) -> bool {
        let accumulates = self.method.as_ref().is_some_and(|method| method.needs.accumulates);
        self.work == Work::Step && self.number(layer).is_some() && accumulates
    }

    /// The attention of a whole prompt in a layer is done.
    fn compact(&mut self, number: usize, sums: &[Vec<f32>]) -> Result<()> {
        self.show_sums(self.layout.managed()[number], sums);
        match self.method.as_mut().filter(|method| method.needs.external && !sums.is_empty()) {
            Some(method) => method.keep_sums(number, sums, &self.account)?,
            None => self.at(Moment::Layer(number), Sums::Layer(number, sums))?,
        }
        match &self.method {
            Some(method) if method.planner.is_settled() => self.encode_layer(self.layout.managed()[number]),
            _ => Ok(()),
        }
    }

    /// `layer` has attended to a generated token, and `sums` were gathered: per lane, all places; empty when nothing was.
    pub fn stepped(&mut self, layer: usize, sums: &[Vec<f32>]) {
        let left = self.method.as_ref().map_or(1.0, |method| method.needs.left);
        compaction::add_sums(&mut self.layers[layer], sums, left);
    }

    /// All layers hold the prompt: frees what could not be freed before, and counts the positions as seen.
    pub fn finish_prompt(&mut self) -> Result<()> {
        let n = match self.work {
            Work::Prompt(reach) if reach.left() == 0 => reach.n,
            Work::Prompt(_) => return Err(Error::Internal("a prompt ends before its last piece".into())),
            _ => return Err(Error::Internal("no prompt has begun".into())),
        };
        self.at(Moment::Prompt, Sums::None)?;
        let past = self.next_position as usize;
        self.next_position += n as u32;
        self.way = Way::default();
        self.next_phase += match std::mem::take(&mut self.placing) {
            Placing::InOrder => n as u32,
            Placing::Placed { advance, .. } => advance,
        };
        if self.asked.is_none() {
            self.leave_behind()?;
            self.encode_all(Moment::Prompt, past, n)?;
        }
        self.method = self.resting.take().or(self.method.take());
        self.work = Work::None;
        Ok(())
    }

    /// All layers hold the generated token: frees what the method frees now.
    pub fn finish_step(&mut self) -> Result<()> {
        if self.work != Work::Step {
            return Err(Error::Internal("no token has begun".into()));
        }
        let moment = Moment::Step(self.steps());
        self.at(moment, Sums::None)?;
        self.encode_all(moment, self.next_position as usize, 1)?;
        if let Some(method) = &mut self.method {
            method.steps += 1;
        }
        self.next_position += 1;
        self.next_phase += 1;
        self.work = Work::None;
        Ok(())
    }

    /// At the next prompt finds the sizes for each of `keeps` instead of evicting; [`Sequence::take_profile`] gives them.
    pub fn profile(&mut self, keeps: Vec<f64>) {
        if let Some(method) = &mut self.method {
            method.planner.profile(keeps);
        }
    }

    /// The retained share of every layer for each profiled size.
    pub fn take_profile(&mut self) -> Profile {
        self.method.as_mut().map(|method| method.planner.take_profile()).unwrap_or_default()
    }

    /// The layer whose entries `layer` reads: itself, or one before it.
    pub fn source(&self, layer: usize) -> usize {
        self.layout.source(layer)
    }

    /// Whether a method may have `layer` read the entries of `source`.
    pub fn may_share(&self, layer: usize, source: usize) -> bool {
        self.layout.may_share(layer, source)
    }

    /// The content of each position, in order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The lanes that a layer reads.
    pub fn lanes(&self, layer: usize) -> &[Lane<M>] {
        &self.layers[self.layout.source(layer)]
    }

    /// The one lane that a layer of a full cache reads, with all heads.
    pub fn whole_lane(&self, layer: usize) -> Result<&Lane<M>> {
        match self.lanes(layer) {
            [lane] => Ok(lane),
            lanes => Err(Error::Internal(format!("{} lanes in layer {layer} of a full cache", lanes.len()))),
        }
    }

    /// The lanes that a layer has, to change them; none for one that reads another's.
    pub fn lanes_mut(&mut self, layer: usize) -> &mut [Lane<M>] {
        &mut self.layers[layer]
    }

    /// The lanes that some layers have, to change them.
    pub(crate) fn all_lanes_mut(&mut self, layers: Range<usize>) -> impl Iterator<Item = &mut Lane<M>> {
        self.layers[layers].iter_mut().flatten()
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.shape.head_dim
    }

    /// The dimensions of the model's cache.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The number format of the entries.
    pub fn format(&self) -> Format {
        self.shape.format
    }

    /// Counts the sums that a layer's attention gathers, one per head and place, until the charge is dropped.
    pub(crate) fn charge_sums(&self, layer: usize) -> Result<Charge> {
        let sums: usize = self.lanes(layer).iter().map(|lane| lane.places() * lane.heads().len()).sum();
        self.account.charge((sums * size_of::<f32>()) as u64)
    }

    /// Counts bytes of working memory on the sequence's account until the charge is dropped.
    pub fn account(&self) -> &Account<M> {
        &self.account
    }
}

impl Sequence {
    /// Stores the new positions' keys and values, all KV heads of `layer` per row, unless the layer reads another's. `angles` rotate the
    /// keys; none where that happens whenever they are read.
    pub fn store(&mut self, layer: usize, keys: Rows<'_>, values: Rows<'_>, angles: Option<&Angles>) -> Result<()> {
        let entries = self.place(layer, New { keys, values, angles })?;
        self.written(layer, &entries)
    }
}

impl Sequence<Cuda> {
    /// Makes the places of the new positions in the lanes of `layer`, to be written on the GPU; then [`Sequence::written`] gets
    /// the entries.
    pub(crate) fn reserve(&mut self, layer: usize) -> Result<Vec<Entry>> {
        self.place(layer, ())
    }
}

/// The items in a list without spare room, which `collect` would leave: it does not see the length through errors.
fn exactly<T>(items: impl ExactSizeIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        list.push(item?);
    }
    Ok(list)
}

/// Adds `n` positions of one modality to `spans`.
fn see(spans: &mut Vec<Span>, modality: Modality, n: usize) {
    match spans.last_mut() {
        Some(last) if last.modality == modality => last.len += n,
        _ => {
            let start = spans.last().map_or(0, |last| last.start + last.len);
            spans.push(Span { modality, start, len: n });
        }
    }
}
