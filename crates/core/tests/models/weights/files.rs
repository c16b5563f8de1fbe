//! Checkpoints that are made for a test.

use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// The formats of checkpoints.
pub(crate) const FORMATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) numbers: Vec<f32>,
}

impl Named {
    pub(crate) fn new(name: impl Into<String>, shape: &[usize], numbers: Vec<f32>) -> Named {
        assert_eq!(shape.iter().product::<usize>(), numbers.len());
        Named { name: name.into(), shape: shape.to_vec(), numbers }
    }
}

fn encoded(numbers: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Dtype::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    }
}

/// Writes `model.safetensors`; `dtype` gives the format of each tensor by its place in the list.
pub(crate) fn write(dir: &Path, tensors: &[Named], dtype: impl Fn(usize) -> Dtype) {
    let data: Vec<_> = tensors.iter().enumerate().map(|(i, of)| (dtype(i), encoded(&of.numbers, dtype(i)))).collect();
    let views = tensors.iter().zip(&data).map(|(of, (dtype, bytes))| {
        (of.name.clone(), TensorView::new(*dtype, of.shape.clone(), bytes).expect("a valid view"))
    });
    let bytes = safetensors::serialize(views, None).expect("serialises");
    std::fs::write(dir.join("model.safetensors"), bytes).expect("written");
}

/// Pseudo-random integers of -127 ..= 127 times `scale`, which all formats hold exactly if `scale` is a power of two from 2^-14
/// to 1. The largest of each 32 is 127, so that q8_0 holds them exactly too.
pub(crate) fn exact(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let code = if i % 32 == 5 { 127 } else { ((state >> 33) % 255) as i32 - 127 };
            code as f32 * scale
        })
        .collect()
}
