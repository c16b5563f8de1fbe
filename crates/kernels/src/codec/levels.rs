//! The numbers that codes stand for, before scale and zero.

use super::Dtype;

/// Which numbers the codes of a dtype stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Levels {
    /// Themselves, evenly spaced between the smallest and the largest: `code * scale + zero`.
    #[default]
    Even,
    /// The levels of least mean squared error for numbers of the standard normal distribution, `level * scale` with the root mean
    /// square of the numbers as their scale and no zero. Of four and of two bits.
    Normal,
    /// Those of the run's [`Found`](super::Found).
    Found,
}

/// Numbers of a [`Levels`] table, those of two bits in the first places.
pub type Table = [f32; 16];

/// The tables of all levels. Max 1960, Quantizing for Minimum Distortion, IRE Trans. Inf. Theory 6, table I, gives four digits of these,
/// Lloyd 1982, Least Squares Quantization in PCM, IEEE Trans. Inf. Theory 28, the iteration by which `tests/golden/codebooks.py` has them.
pub static TABLES: [Table; 2] = [
    symmetric([
        0.128_395_03,
        0.388_048_3,
        0.656_759_1,
        0.942_340_46,
        1.256_231_2,
        1.618_046_4,
        2.069_017_2,
        2.732_589_6,
    ]),
    symmetric([0.452_780_03, 1.510_417_6]),
];

/// The table of these levels and their negatives.
const fn symmetric<const N: usize>(upper: [f32; N]) -> Table {
    let (mut table, mut i) = ([0.0; 16], 0);
    while i < N {
        (table[N - 1 - i], table[N + i]) = (-upper[i], upper[i]);
        i += 1;
    }
    table
}

impl Levels {
    /// The number of the table in [`TABLES`] that codes of a dtype are looked up in; None: codes are spaced evenly, or there is none.
    pub(crate) const fn number(self, dtype: Dtype) -> Option<usize> {
        match (self, dtype) {
            (Levels::Normal, Dtype::U4) => Some(0),
            (Levels::Normal, Dtype::U2) => Some(1),
            _ => None,
        }
    }

    /// The numbers that codes of a dtype stand for, in the order of the codes and of their size; None where they stand for themselves.
    pub fn table(self, dtype: Dtype) -> Option<&'static Table> {
        self.number(dtype).map(|number| &TABLES[number])
    }
}
