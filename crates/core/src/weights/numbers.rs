//! Whether numbers are numbers, and whether a format can hold them.

use bytemuck::{Pod, Zeroable};
use candle_core::WithDType;
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::weights::WeightFormat;

/// A floating-point number as files hold it.
pub(crate) trait Element: Pod + Zeroable + WithDType {
    /// The greatest magnitude of `values`, by its bits; these grow with it, and those of infinity and NaN are the greatest.
    fn most(values: &[Self]) -> u32;
    /// The magnitude that has these bits.
    fn magnitude(bits: u32) -> f32;
    fn is_finite(self) -> bool;
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    fn most(values: &[f32]) -> u32 {
        // Signed, because every CPU has that comparison in its vectors.
        values.iter().fold(0, |most: i32, value| most.max((value.to_bits() & 0x7fff_ffff) as i32)) as u32
    }

    fn magnitude(bits: u32) -> f32 {
        f32::from_bits(bits)
    }

    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }

    fn to_f32(self) -> f32 {
        self
    }
}

macro_rules! sixteen_bits {
    ($type:ty) => {
        impl Element for $type {
            fn most(values: &[$type]) -> u32 {
                values.iter().fold(0, |most: i16, value| most.max((value.to_bits() & 0x7fff) as i16)) as u32
            }

            fn magnitude(bits: u32) -> f32 {
                <$type>::from_bits(bits as u16).to_f32()
            }

            fn is_finite(self) -> bool {
                <$type>::is_finite(self)
            }

            fn to_f32(self) -> f32 {
                <$type>::to_f32(self)
            }
        }
    };
}

sixteen_bits!(f16);
sixteen_bits!(bf16);

/// Whether all numbers are finite.
pub(crate) fn all_finite(numbers: &[f32]) -> bool {
    f32::magnitude(f32::most(numbers)).is_finite()
}

/// Errors with [`Error::Numbers`] unless all activations are finite: a quantised product takes NaN and infinity for 0.
pub(crate) fn require_quantisable(activations: &[f32]) -> Result<()> {
    if all_finite(activations) {
        return Ok(());
    }
    Err(Error::Numbers {
        reason: "the model computes no numbers: NaN or infinity goes into a layer with quantised weights; load with weights \"f32\", which \
                 hold larger numbers, and if that does not help, take another revision of the model"
            .into(),
        fits: vec!["f32"],
    })
}

/// The role of a tensor of weights, which decides the formats that it can be held in.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Norms, biases and the like: always f32.
    Plain,
    /// A table of which rows are taken: f32 beside f32 weights, else f16.
    Table,
    /// Rows of a linear layer, of so many columns.
    Rows(usize),
}

impl Role {
    /// The format in which a tensor of this role is held when `format` is asked for.
    fn held(self, format: WeightFormat) -> WeightFormat {
        match self {
            Role::Plain => WeightFormat::F32,
            Role::Table if matches!(format, WeightFormat::F32 | WeightFormat::Stored) => format,
            Role::Table => WeightFormat::F16,
            Role::Rows(columns) => format.fitting(columns),
        }
    }

    /// The reason that a message adds where such a tensor is not held in `format`.
    pub(super) fn why(self, format: WeightFormat) -> &'static str {
        match self {
            Role::Table if self.held(format) != format => ": tables of embeddings beside them are f16",
            Role::Rows(_) if self.held(format) != format => ": rows of this length are held in another format",
            _ => "",
        }
    }

    /// Whether a tensor whose greatest magnitude is `most` can be held when `format` is asked for.
    pub(crate) fn holds(self, format: WeightFormat, most: f32) -> bool {
        most < beyond(self.held(format))
    }
}

/// The least f32 that rounds to infinity in f16, whose greatest number is 65,504.
pub(crate) const BEYOND_F16: f32 = 65_520.0;

/// The magnitude from which on a format cannot hold a number.
fn beyond(format: WeightFormat) -> f32 {
    match format {
        WeightFormat::F32 | WeightFormat::Stored => f32::INFINITY,
        WeightFormat::F16 => BEYOND_F16,
        // A block's scale is an f16, and the greatest number is 127 of it.
        WeightFormat::Q8_0 => 127.0 * BEYOND_F16,
        // The minimum of a super-block is an f16, of which a block has at most 63. The search for the least error may take one that lies
        // beyond the numbers, so half of that is surely held.
        WeightFormat::Q4K => 31.5 * BEYOND_F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8_0, WeightFormat::Q4K];

    fn sees<T: Element>(from: impl Fn(f32) -> T) {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for len in [1, 7, 64, 1000] {
                for place in [0, len / 2, len - 1] {
                    let mut values: Vec<T> = (0..len).map(|index| from(index as f32 - 300.0)).collect();
                    assert!(T::magnitude(T::most(&values)).is_finite());
                    values[place] = from(bad);
                    assert!(!T::magnitude(T::most(&values)).is_finite(), "{bad} at {place} of {len}");
                }
            }
        }
        let values: Vec<T> = [1.0, -3.5, 2.0, 0.0].map(&from).to_vec();
        assert_eq!(T::magnitude(T::most(&values)), 3.5);
        assert_eq!(T::magnitude(T::most(&[from(-0.0)])), 0.0);
        assert_eq!(T::magnitude(T::most(&[])), 0.0);
    }

    #[test]
    fn the_greatest_magnitude_is_found_and_no_nan_escapes() {
        sees(|value| value);
        sees(f16::from_f32);
        sees(bf16::from_f32);
        assert_eq!(f32::magnitude(f32::most(&[f32::MAX, 1.0])), f32::MAX);
        assert_eq!(f16::magnitude(f16::most(&[f16::MIN])), 65_504.0);
    }

    #[test]
    fn a_format_holds_exactly_what_stays_finite_in_it() {
        for (value, fits) in [(65_504.0, true), (65_519.0, true), (65_520.0, false), (99_840.0, false)] {
            assert_eq!(f16::from_f32(value).is_finite(), fits, "{value}");
            assert_eq!(Role::Rows(512).holds(WeightFormat::F16, value), fits, "{value}");
            assert_eq!(Role::Table.holds(WeightFormat::Q8_0, value), fits, "{value}");
            assert!(
                Role::Rows(512).holds(WeightFormat::Q8_0, value) && Role::Rows(512).holds(WeightFormat::Q4K, value)
            );
            // Rows that fill no block are held in f16.
            assert_eq!(Role::Rows(33).holds(WeightFormat::Q8_0, value), fits, "{value}");
            assert!(FORMATS.iter().all(|format| Role::Plain.holds(*format, value)));
        }
        assert!(Role::Table.holds(WeightFormat::F32, f32::MAX));
    }

    #[test]
    fn what_quantised_formats_are_said_to_hold_comes_back_finite() {
        use prefixkv_kernels::quant::{Format, Weights};
        for (format, blocks) in [(WeightFormat::Q8_0, Format::Q8_0), (WeightFormat::Q4K, Format::Q4K)] {
            let comes_back = |most: f32| {
                [[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]].iter().all(|signs| {
                    let fill = |_: usize, to: &mut [f32]| {
                        to.iter_mut().enumerate().for_each(|(index, to)| *to = signs[index % 2] * most);
                    };
                    let mut back = vec![0.0; 256];
                    Weights::quantise(blocks, 1, 256, fill).dequantise(0, &mut back);
                    all_finite(&back)
                })
            };
            let most = beyond(format) * 0.999;
            assert!(Role::Rows(256).holds(format, most) && comes_back(most), "{format:?} of {most}");
            assert!(!comes_back(beyond(format) * 2.2), "{format:?}");
        }
    }
}
