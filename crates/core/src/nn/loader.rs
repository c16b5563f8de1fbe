//! Reads layers from a checkpoint into the formats they are held in.

use std::cell::RefCell;
use std::collections::BTreeMap;

use prefixkv_kernels::fold::Fold;

use super::linear::Linear;
use crate::backend::{Backend, Held};
use crate::error::Result;
use crate::weights::{Checkpoint, Folding, Role, Tensors, WeightFormat};

/// Reads layers from a checkpoint to a back end and counts what they take.
pub struct Loader<'a, B: Backend> {
    pub checkpoint: &'a Checkpoint,
    pub format: WeightFormat,
    /// Where the layers are to be.
    pub backend: B,
    /// Whether the Hadamard transform of values is to be folded into the weights.
    pub rotates_values: bool,
    /// Loaded so far: layers, and bytes by format.
    tally: RefCell<Tally>,
}

/// Linear layers by the format they are really held in, those of several parts part by part, and the bytes of all tensors.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub layers: BTreeMap<&'static str, usize>,
    pub bytes: u64,
}

impl Tally {
    fn note(&mut self, weights: &impl Held) {
        weights.formats().into_iter().for_each(|format| *self.layers.entry(format).or_default() += 1);
    }
}

impl<'a, B: Backend> Loader<'a, B> {
    /// `backend` is one for weights of `format`.
    pub fn new(checkpoint: &'a Checkpoint, format: WeightFormat, backend: B) -> Self {
        Loader { checkpoint, format, backend, rotates_values: false, tally: RefCell::default() }
    }

    /// The same, which folds the Hadamard transform of values into the weights or not.
    pub fn rotating(self, rotates_values: bool) -> Self {
        Loader { rotates_values, ..self }
    }

    pub fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    fn count(&self, bytes: usize) {
        self.tally.borrow_mut().bytes += bytes as u64;
    }

    /// The `width` elements of a tensor in f32.
    pub fn vector(&self, name: &str, width: usize) -> Result<B::Vector> {
        let data = self.checkpoint.f32(name, &[width])?;
        self.count(size_of_val(&data[..]));
        self.backend.vector(data)
    }

    /// [`Loader::vector`] with a number added to each element, in f32.
    pub fn offset(&self, name: &str, width: usize, offset: f32) -> Result<B::Vector> {
        let mut data = self.checkpoint.f32(name, &[width])?;
        if offset != 0.0 {
            data.iter_mut().for_each(|x| *x += offset);
        }
        self.count(size_of_val(&data[..]));
        self.backend.vector(data)
    }

    /// A tensor of `[rows, columns]` elements, or of any shape with as many, in f32.
    pub fn matrix(&self, name: &str, shape: &[usize], rows: usize, columns: usize) -> Result<B::Matrix> {
        let data = self.checkpoint.f32(name, shape)?;
        self.count(size_of_val(&data[..]));
        self.backend.matrix(data, rows, columns)
    }

    /// As [`Loader::matrix`] of a tensor of `[order.len(), columns]` elements in the given `shape`, its rows in the given order.
    pub fn ordered(&self, name: &str, shape: &[usize], order: &[usize], columns: usize) -> Result<B::Matrix> {
        let data = self.checkpoint.f32(name, shape)?;
        self.count(size_of_val(&data[..]));
        let rows = order.iter().flat_map(|row| &data[row * columns..(row + 1) * columns]).copied().collect();
        self.backend.matrix(rows, order.len(), columns)
    }

    /// A table from which rows are taken.
    pub fn table(&self, name: &str, rows: usize, width: usize) -> Result<B::Table> {
        let parts = [(name.to_owned(), vec![rows, width])];
        let table = self.backend.table(&self.tensors(&parts, Role::Table), rows, width)?;
        self.tally.borrow_mut().bytes += self.backend.table_bytes(&table);
        Ok(table)
    }

    /// One linear layer made of the rows of `names`, each `[rows, columns]`, one below the other; biases likewise.
    pub fn linear(&self, names: &[(&str, usize)], columns: usize, bias: bool) -> Result<Linear<B>> {
        self.folded(names, columns, bias, None)
    }

    /// As [`Loader::linear`], with a transform folded into one of `names`, and into its bias if it is of its rows.
    pub fn folded(
        &self,
        names: &[(&str, usize)],
        columns: usize,
        bias: bool,
        folding: Option<Folding>,
    ) -> Result<Linear<B>> {
        let weights: Vec<_> =
            names.iter().map(|(name, rows)| (format!("{name}.weight"), vec![*rows, columns])).collect();
        let rows: usize = names.iter().map(|(_, rows)| rows).sum();
        let of_rows = folding.filter(|folding| matches!(folding.fold, Fold::Rows(_)));
        let bias = if bias { Some(self.folded_bias(names, rows, of_rows)?) } else { None };
        let tensors = self.tensors(&weights, Role::Rows(columns));
        self.keep(&folding.map_or(tensors, |folding| tensors.folded(folding, columns)), rows, columns, bias)
    }

    /// A linear layer without a bias whose rows are those of the tensor `name` in the given order, multiplied by `factors`; what is folded into it is so in that order.
    pub fn in_order(
        &self,
        name: &str,
        order: &[u32],
        factors: Option<&[f32]>,
        columns: usize,
        folding: Option<Folding>,
    ) -> Result<Linear<B>> {
        let parts = [(format!("{name}.weight"), vec![order.len(), columns])];
        let tensors = self.tensors(&parts, Role::Rows(columns)).in_order(order, columns);
        let tensors = factors.map_or(tensors, |factors| tensors.scaled(factors, columns));
        let tensors = folding.map_or(tensors, |folding| tensors.folded(folding, columns));
        self.keep(&tensors, order.len(), columns, None)
    }

    fn bias(&self, names: &[(&str, usize)], rows: usize) -> Result<B::Vector> {
        self.folded_bias(names, rows, None)
    }

    fn folded_bias(&self, names: &[(&str, usize)], rows: usize, folding: Option<Folding>) -> Result<B::Vector> {
        self.count(size_of::<f32>() * rows);
        let parts: Vec<_> = names.iter().map(|(name, rows)| (format!("{name}.bias"), vec![*rows])).collect();
        let tensors = self.tensors(&parts, Role::Plain);
        let mut data = Vec::with_capacity(rows);
        for part in folding.map_or(tensors, |folding| tensors.folded(folding, 1)).each_f32() {
            data.extend(part?);
        }
        self.backend.vector(data)
    }

    /// The output layer of a model whose embeddings are its weights, the tensor `name`. Where the formats allow it, both share
    /// their memory.
    pub fn tied(&self, table: &B::Table, name: &str, rows: usize, columns: usize) -> Result<Linear<B>> {
        match self.backend.tied(table, self.format) {
            Some(weights) => {
                self.tally.borrow_mut().note(&weights);
                Ok(Linear { backend: self.backend.clone(), weights, bias: None })
            }
            None => self.hold(&[(name.to_owned(), vec![rows, columns])], rows, columns, None),
        }
    }

    /// A linear layer whose rows are those of a tensor of another shape.
    pub fn reshaped(&self, name: &str, shape: &[usize], rows: usize, columns: usize) -> Result<Linear<B>> {
        self.hold(&[(name.to_owned(), shape.to_vec())], rows, columns, None)
    }

    /// A linear layer without a bias whose tensor has the columns of the layer as its rows, `[columns, rows]`.
    pub fn transposed(&self, name: &str, rows: usize, columns: usize) -> Result<Linear<B>> {
        let parts = [(name.to_owned(), vec![columns, rows])];
        self.keep(&self.tensors(&parts, Role::Rows(columns)).transposed(), rows, columns, None)
    }

    /// A linear layer with a bias, its results multiplied by the `rows` elements of the tensor `factors`. These go into weights and bias, in
    /// f32, before they are rounded to any format.
    pub fn scaled(&self, name: &str, factors: &str, rows: usize, columns: usize) -> Result<Linear<B>> {
        let factors = self.checkpoint.f32(factors, &[rows])?;
        let mut bias = self.checkpoint.f32(&format!("{name}.bias"), &[rows])?;
        bias.iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor);
        self.count(size_of_val(&bias[..]));
        let parts = [(format!("{name}.weight"), vec![rows, columns])];
        let tensors = self.tensors(&parts, Role::Rows(columns)).scaled(&factors, columns);
        self.keep(&tensors, rows, columns, Some(self.backend.vector(bias)?))
    }

    /// A convolution whose stride is its kernel, with a bias, as a product with the elements below the kernel. `shape` is the kernel's, outputs
    /// first.
    pub fn convolution(&self, name: &str, shape: &[usize]) -> Result<Linear<B>> {
        let (rows, columns) = (shape[0], shape[1..].iter().product());
        let bias = self.bias(&[(name, rows)], rows)?;
        self.hold(&[(format!("{name}.weight"), shape.to_vec())], rows, columns, Some(bias))
    }

    fn tensors<'p>(&self, parts: &'p [(String, Vec<usize>)], role: Role) -> Tensors<'p>
    where
        'a: 'p,
    {
        Tensors::new(self.checkpoint, parts, role, self.format)
    }

    /// A linear layer of `rows` in all.
    fn hold(
        &self,
        parts: &[(String, Vec<usize>)],
        rows: usize,
        columns: usize,
        bias: Option<B::Vector>,
    ) -> Result<Linear<B>> {
        self.keep(&self.tensors(parts, Role::Rows(columns)), rows, columns, bias)
    }

    fn keep(&self, tensors: &Tensors<'_>, rows: usize, columns: usize, bias: Option<B::Vector>) -> Result<Linear<B>> {
        let weights = self.backend.weights(tensors, rows, columns)?;
        let mut tally = self.tally.borrow_mut();
        tally.note(&weights);
        tally.bytes += weights.bytes();
        Ok(Linear { backend: self.backend.clone(), weights, bias })
    }
}
