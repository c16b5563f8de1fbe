//! Rows of a matrix, read in place.

/// Rows of f32 with a stride: row `i` starts at `offset + i * stride`. Lets fused projections be read in place.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) offset: usize,
    pub(crate) stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `width` elements that lie one after another.
    pub fn dense(data: &'a [f32], width: usize) -> Self {
        Rows::strided(data, 0, width)
    }

    /// Rows `stride` elements apart, the first at `offset`.
    pub fn strided(data: &'a [f32], offset: usize, stride: usize) -> Self {
        assert!(stride > 0);
        Rows { data, offset, stride }
    }

    /// The same rows without their first `columns` elements.
    pub fn behind(self, columns: usize) -> Self {
        Rows { offset: self.offset + columns, ..self }
    }

    /// The elements `from .. from + len` of row `i`.
    pub fn part(&self, i: usize, from: usize, len: usize) -> &'a [f32] {
        let start = self.offset + i * self.stride + from;
        &self.data[start..start + len]
    }
}
