//! The types of tensors that GGUF files hold, by their numbers in ggml.

/// The numbers of a tensor: plain, or in blocks that a row consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// ggml's number and name.
    pub id: u32,
    pub name: &'static str,
    /// Weights in a block, and its bytes.
    pub weights: usize,
    pub bytes: usize,
    /// Where the scales of a block lie, which are f16; all its numbers are finite when these are.
    pub scales: &'static [usize],
}

const fn plain(id: u32, name: &'static str, bytes: usize) -> Kind {
    Kind { id, name, weights: 1, bytes, scales: &[] }
}

const fn blocks(id: u32, name: &'static str, weights: usize, bytes: usize, scales: &'static [usize]) -> Kind {
    Kind { id, name, weights, bytes, scales }
}

const ALL: &[Kind] = &[
    plain(0, "F32", 4),
    plain(1, "F16", 2),
    plain(30, "BF16", 2),
    blocks(2, "Q4_0", 32, 18, &[0]),
    blocks(3, "Q4_1", 32, 20, &[0, 2]),
    blocks(6, "Q5_0", 32, 22, &[0]),
    blocks(7, "Q5_1", 32, 24, &[0, 2]),
    blocks(8, "Q8_0", 32, 34, &[0]),
    blocks(10, "Q2_K", 256, 84, &[80, 82]),
    blocks(11, "Q3_K", 256, 110, &[108]),
    blocks(12, "Q4_K", 256, 144, &[0, 2]),
    blocks(13, "Q5_K", 256, 176, &[0, 2]),
    blocks(14, "Q6_K", 256, 210, &[208]),
    blocks(20, "IQ4_NL", 32, 18, &[0]),
    blocks(23, "IQ4_XS", 256, 136, &[0]),
];

/// Types that are known by name only.
const OTHERS: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl Kind {
    /// The type of a number in ggml, or the name of one that is not read.
    pub fn of(id: u32) -> Result<Kind, String> {
        if let Some(kind) = ALL.iter().find(|kind| kind.id == id) {
            return Ok(*kind);
        }
        let known = OTHERS.iter().find(|(other, _)| *other == id);
        Err(known.map_or_else(|| format!("type {id}, which is not known"), |(_, name)| (*name).to_owned()))
    }

    /// The names of all that are read.
    pub fn names() -> String {
        ALL.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
    }

    /// Whether a number is a block of its own.
    pub fn is_plain(self) -> bool {
        self.weights == 1
    }
}

#[cfg(test)]
mod tests {
    use prefixkv_kernels::quant::stored::BlockType;

    use super::*;

    #[test]
    fn blocks_are_those_of_the_kernels() {
        for kind in BlockType::ALL {
            let found = Kind::of(kind.ggml()).expect("is read");
            assert_eq!((found.weights, found.bytes), (kind.weights(), kind.bytes()));
            assert_eq!(found.name.to_lowercase(), kind.name());
            assert!(!found.is_plain() && found.scales.iter().all(|at| at + 2 <= found.bytes));
        }
        assert_eq!(ALL.iter().filter(|kind| !kind.is_plain()).count(), BlockType::ALL.len());
        assert_eq!(Kind::of(16), Err("IQ2_XXS".to_owned()));
    }

    /// A block is finite when its scales are, and is not when one of them is not.
    #[test]
    fn scales_are_where_they_are_said_to_be() {
        for kind in BlockType::ALL {
            let Kind { weights, bytes, scales, .. } = Kind::of(kind.ggml()).expect("is read");
            let mut numbers = vec![0.0; weights];
            let mut block = vec![0xff; bytes];
            for at in scales {
                block[*at..at + 2].copy_from_slice(&[0xff, 0x7b]);
            }
            kind.dequantise(&block, &mut numbers);
            assert!(numbers.iter().all(|number: &f32| number.is_finite()), "{}", kind.name());
            for at in scales {
                let mut broken = block.clone();
                broken[*at..at + 2].copy_from_slice(&[0x00, 0x7c]);
                kind.dequantise(&broken, &mut numbers);
                assert!(numbers.iter().any(|number| !number.is_finite()), "{} at {at}", kind.name());
            }
        }
    }
}
