//! Which layers of a model have lanes, who reads them, and which of them a method may make smaller.

use crate::cache::LayerCache;
use crate::error::Result;
use crate::method::sharing::Sharing;

/// The layers of a model, for all its sequences.
#[derive(Debug)]
pub struct Layout {
    layers: Vec<LayerCache>,
    /// All numbers.
    all: Vec<usize>,
    /// Layers with lanes of their own, ascending.
    owners: Vec<usize>,
    /// Of these, the ones that a method sizes.
    managed: Vec<usize>,
    /// Per layer, the last one that reads its lanes.
    last_reader: Vec<usize>,
    /// Per layer, how far back its lanes are read.
    reach: Vec<Option<u32>>,
    /// How many layers have lanes of their own in the model.
    of_model: usize,
    /// Whether values come through the Hadamard transform that is in the weights of the model.
    folded: bool,
    /// Whether the positions of an image see each other while a prompt is read.
    blocks: bool,
}

impl Layout {
    /// Every layer with lanes of its own, without windows.
    pub fn plain(layers: usize) -> Self {
        Layout::new((0..layers).map(|source| LayerCache { source, window: None, rope: 0 }).collect())
    }

    /// A source must have itself as its source, and not lie behind its readers.
    pub fn new(layers: Vec<LayerCache>) -> Self {
        for (layer, LayerCache { source, .. }) in layers.iter().enumerate() {
            assert!(*source <= layer && layers[*source].source == *source, "layer {layer} reads layer {source}");
        }
        let owners: Vec<usize> = (0..layers.len()).filter(|layer| layers[*layer].source == *layer).collect();
        let read = &layers;
        let readers = |owner: usize| (0..read.len()).filter(move |layer| read[*layer].source == owner);
        let last_reader = (0..layers.len()).map(|layer| readers(layer).next_back().unwrap_or(layer)).collect();
        let farthest =
            |windows: &mut dyn Iterator<Item = Option<u32>>| windows.reduce(|a, b| Some(a?.max(b?))).flatten();
        let reach: Vec<Option<u32>> =
            (0..layers.len()).map(|layer| farthest(&mut readers(layer).map(|reader| layers[reader].window))).collect();
        // A window already bounds its layers; where every layer has one, methods size those with the widest.
        let widest = farthest(&mut owners.iter().map(|layer| reach[*layer]));
        let managed = owners.iter().copied().filter(|layer| reach[*layer] == widest).collect();
        let (all, of_model) = ((0..layers.len()).collect(), owners.len());
        Layout { layers, all, owners, managed, last_reader, reach, of_model, folded: false, blocks: false }
    }

    /// The same layers, whose values come through the Hadamard transform that is in the weights of the model or not.
    pub fn with_folded(self, folded: bool) -> Self {
        Layout { folded, ..self }
    }

    /// Whether values come so.
    pub fn is_folded(&self) -> bool {
        self.folded
    }

    /// The same layers, in which the positions of an image see each other while a prompt is read, or only those before them.
    pub fn with_blocks(self, blocks: bool) -> Self {
        Layout { blocks, ..self }
    }

    /// Whether the positions of an image see each other.
    pub fn has_blocks(&self) -> bool {
        self.blocks
    }

    /// These layers of a model with what a method asks for on top.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for layers that cannot share: [`Sharing::layers`].
    pub fn shared(&self, sharing: &Sharing) -> Result<Layout> {
        let Layout { of_model, folded, blocks, .. } = *self;
        Ok(Layout { of_model, folded, blocks, ..Layout::new(sharing.layers(&self.layers)?) })
    }

    /// Whether `layer` may read the lanes of `source`: both have lanes of one kind.
    pub fn may_share(&self, layer: usize, source: usize) -> bool {
        let (a, b) = (self.layers[layer], self.layers[source]);
        source < layer && self.owns(layer) && self.owns(source) && (a.window, a.rope) == (b.window, b.rope)
    }

    /// The rotary embedding of a layer among those of its model.
    pub fn rope(&self, layer: usize) -> usize {
        self.layers[layer].rope
    }

    /// How many layers have lanes of their own in the model, whatever a method shares.
    pub fn of_model(&self) -> usize {
        self.of_model
    }

    /// Whether every layer has lanes of its own.
    pub fn is_unshared(&self) -> bool {
        self.owners.len() == self.len()
    }

    /// Whether any lanes are read only some positions back.
    pub fn has_windows(&self) -> bool {
        self.reach.iter().any(Option::is_some)
    }

    /// The most layers whose entries of a prompt are all still there for their readers while another layer is compacted, that one's copy
    /// included; 0 where every layer is done before the next one begins.
    pub fn waiting(&self) -> usize {
        let held = |layer: usize| {
            let before = self.owners.iter().take_while(|owner| **owner < layer);
            before.filter(|owner| self.last_reader[**owner] >= layer && **owner != self.source(layer)).count()
        };
        match (0..self.len()).map(held).max().unwrap_or(0) {
            0 => 0,
            waiting => waiting + 1,
        }
    }

    pub fn len(&self) -> usize {
        self.layers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The layer whose lanes `layer` reads.
    pub fn source(&self, layer: usize) -> usize {
        self.layers[layer].source
    }

    /// Whether `layer` has lanes of its own.
    pub fn owns(&self, layer: usize) -> bool {
        self.source(layer) == layer
    }

    /// The numbers of all layers.
    pub fn all(&self) -> &[usize] {
        &self.all
    }

    pub fn owners(&self) -> &[usize] {
        &self.owners
    }

    /// The layers whose lanes a method sizes: those without a window, or where all have one, those with the widest.
    pub fn managed(&self) -> &[usize] {
        &self.managed
    }

    /// The number of a layer among the managed ones.
    pub fn managed_index(&self, layer: usize) -> Option<usize> {
        self.managed.binary_search(&layer).ok()
    }

    /// Whether nobody reads the lanes of `layer`'s source behind `layer`.
    pub fn is_last_reader(&self, layer: usize) -> bool {
        self.last_reader[self.source(layer)] == layer
    }

    /// How many positions back the lanes of an owner are read; None: all.
    pub fn reach(&self, owner: usize) -> Option<u32> {
        self.reach[owner]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(layers: &[(usize, Option<u32>)]) -> Layout {
        Layout::new(layers.iter().map(|&(source, window)| LayerCache { source, window, rope: 0 }).collect())
    }

    #[test]
    fn readers_keep_what_their_source_holds() {
        let layout = layout(&[(0, None), (1, Some(4)), (1, Some(9)), (0, None), (4, Some(4))]);
        assert_eq!(layout.owners(), [0, 1, 4]);
        assert_eq!([0, 1, 2, 3, 4].map(|layer| layout.is_last_reader(layer)), [false, false, true, true, true]);
        assert_eq!((layout.reach(0), layout.reach(1), layout.reach(4)), (None, Some(9), Some(4)));
        assert_eq!((layout.managed(), layout.managed_index(4)), (&[0][..], None));
    }

    #[test]
    fn methods_size_the_layers_that_see_most() {
        assert_eq!(layout(&[(0, Some(4)), (1, Some(8)), (2, Some(8))]).managed(), [1, 2]);
        assert_eq!(Layout::plain(3).managed(), [0, 1, 2]);
    }

    #[test]
    #[should_panic(expected = "layer 2 reads layer 1")]
    fn a_reader_is_no_source() {
        layout(&[(0, None), (0, None), (1, None)]);
    }
}
