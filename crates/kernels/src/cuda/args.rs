//! Arguments that the host hands to the kernels: `cuda/args.cuh` in Rust. The tests of `crates/cuda-shim` compare the two field by field.

use super::Plain;
use crate::codec::{self, Dtype, Scales};

/// An address on the device.
pub type Address = u64;

impl From<codec::Codec> for Codec {
    fn from(codec: codec::Codec) -> Self {
        let dtype = match codec.dtype {
            Dtype::F32 => 0,
            Dtype::F16 => 1,
            Dtype::U8 => 2,
            Dtype::U4 => 3,
            Dtype::U2 => 4,
            Dtype::Bf16 => 5,
            Dtype::F8 => 6,
        };
        let (axis, group) = match codec.scales {
            // No kernel reads bases, with which numbers apart come.
            Scales::None | Scales::Apart { .. } => (0, 1),
            Scales::PerChannel { group, .. } => (1, group),
            Scales::PerEntry { group, .. } => (2, group),
        };
        let table = codec.levels.number(codec.dtype).map_or(0, |number| number as u32 + 1);
        Codec { dtype, axis, group: group.into(), table }
    }
}

/// Row numbers that are part of an argument.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Rows(pub [u32; Rows::MOST]);

impl Rows {
    pub const MOST: usize = 64;
}

impl Default for Rows {
    fn default() -> Self {
        Rows([0; Rows::MOST])
    }
}

/// A struct with its size and the offsets of its fields.
pub struct Layout {
    pub name: &'static str,
    pub size: usize,
    pub fields: &'static [(&'static str, usize)],
}

macro_rules! shared {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default)]
            pub struct $name { $(pub $field: $type),* }

            const _: () = assert!(0 $(+ size_of::<$type>())* == size_of::<$name>(), "no byte is padding");

            // SAFETY: integers and floats in C order, without padding by the assertion.
            unsafe impl Plain for $name {}
        )*

        /// Every struct.
        pub const LAYOUTS: &[Layout] = &[$(Layout {
            name: stringify!($name),
            size: size_of::<$name>(),
            fields: &[$((stringify!($field), std::mem::offset_of!($name, $field))),*],
        }),*];
    };
}

/// Marks of a [`DecodeItem`]: it has marks of the dead, positions, and sums; one task per head gives its results.
pub const DEAD: u32 = 1;
pub const POSITIONS: u32 = 2;
pub const SUMS: u32 = 4;
pub const WHOLE: u32 = 8;

shared! {
    Codec { dtype: u32, axis: u32, group: u32, table: u32 }

    Run {
        keys: Address, key_scales: Address, values: Address, value_scales: Address,
        start: u32, len: u32, capacity: u32, unused: u32, key: Codec, value: Codec,
    }

    GatherItem {
        from: Address, to: Address, slots: Address,
        count: u32, capacity: u32, to_capacity: u32, at: u32, heads: u32, units: u32,
    }

    GatherArgs { items: Address }

    MoveItem { rows: Address, moves: Address, count: u32, capacity: u32, heads: u32, units: u32 }

    MoveArgs { items: Address, table: Address }

    NormItem {
        keys: Address, scales: Address, out: Address, capacity: u32, len: u32, heads: u32, unused: u32, codec: Codec,
    }

    NormArgs { items: Address, tables: Address, dim: u32, unused: u32 }

    Source { numbers: Address, scales: Address, capacity: u32, unused: u32, codec: Codec }

    EncodeItem {
        numbers: Address, scales: Address, sources: Address, rows: Address,
        count: u32, capacity: u32, at: u32, heads: u32, codec: Codec, clip: f32, unused: u32,
    }

    EncodeArgs { items: Address, tables: Address, dim: u32, unused: u32 }

    HadamardArgs {
        from: Address, to: Address, from_stride: u64, to_stride: u64, n: u32, heads: u32, dim: u32, turned: u32,
    }

    RotateArgs {
        rows: Address, cosines: Address, sines: Address, out: Address, stride: u64,
        n: u32, heads: u32, dim: u32, unused: u32,
    }

    AppendItem {
        keys: Address, values: Address,
        first_head: u32, heads: u32, capacity: u32, at: u32, first_row: u32, n: u32,
        key_dtype: u32, value_dtype: u32, key_transform: u32, value_transform: u32,
    }

    AppendArgs {
        items: Address, keys: Address, values: Address, cosines: Address, sines: Address, queries: Address, rotated: Address,
        key_stride: u64, value_stride: u64, query_stride: u64, dim: u32, count: u32, rows: u32, query_heads: u32,
    }

    DecodeItem {
        dead: u64, positions: u64, queries: u64, out: u64, sums: u64, weights: u64,
        first_run: u32, runs: u32, heads: u32, len: u32, first: u32, since: u32, first_task: u32, chunks: u32,
        transform: u32, marks: u32,
    }

    DecodeArgs {
        items: Address, runs: Address, positions: Address, dead: Address, queries: Address, out: Address, sums: Address,
        stats: Address, partials: Address, factors: Address, weights: Address, tables: Address,
        count: u32, dim: u32, group: u32, chunk: u32, scale: f32, softcap: f32, sets_sums: u32, format: u32,
    }

    PrefillLane {
        dead: Address, positions: Address, starts: Address, ends: Address, sums: Address,
        first_run: u32, runs: u32, first_head: u32, len: u32,
    }

    PrefillArgs {
        queries: Address, lanes: Address, runs: Address, head_lanes: Address, out: Address, lse: Address, rows: Address,
        weights: Address, tables: Address, stride: u64, n: u32, query_heads: u32, group: u32, dim: u32, causal: u32, window: u32, listed: u32,
        scale: f32, softcap: f32, unused: u32,
    }

    NormalizeArgs {
        x: Address, weight: Address, bias: Address, out: Address, x_stride: u64, out_stride: u64, n: u32, together: u32,
        width: u32, eps: f32, vectors: u32, unused: u32,
    }

    MapArgs {
        x: Address, y: Address, out: Address, rows: Address, x_stride: u64, y_stride: u64, out_stride: u64,
        n: u32, width: u32, function: u32, vectors: u32, factor: f32, unused: u32,
    }

    TakeArgs { map: MapArgs, rows: Rows }

    ChooseArgs { x: Address, out: Address, x_stride: u64, n: u32, width: u32 }
}
