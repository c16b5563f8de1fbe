//! The checks of the shim find what they are for, and its stand-ins for CUDA's functions are right.

use half::{bf16, f16};
use prefixkv_cuda_shim::{Order, Shim, fields, narrow_bfloat, narrow_half, widen_bfloat, widen_half};
use prefixkv_kernels::cuda::args::{LAYOUTS, NormArgs, NormItem};
use prefixkv_kernels::cuda::{Buffer, Geometry, Result};

const THREADS: usize = 64;

/// Runs a kernel of selftest.cu over 64 numbers.
fn run(kernel: &str, order: Order) -> Result<Vec<f32>> {
    let shim = Shim::new(order, 1);
    let input: Vec<f32> = (0..THREADS + 4).map(|i| i as f32).collect();
    let keys = Buffer::from_slice(&shim, &input)?;
    let out = Buffer::<f32>::new(&shim, THREADS)?;
    let item = NormItem { keys: keys.all().address(), out: out.all().address(), ..NormItem::default() };
    let items = Buffer::from_slice(&shim, &[item])?;
    let args = NormArgs { items: items.all().address(), tables: 0, dim: 0, unused: 0 };
    let geometry = Geometry { grid: [1, 1], threads: THREADS as u32, shared: (THREADS * 4) as u32 };
    // SAFETY: the addresses are those of buffers that are alive and as large as selftest.cu uses.
    unsafe { shim.launch(kernel, geometry, &args)? };
    out.read()
}

fn refusal(kernel: &str) -> String {
    run(kernel, Order::FirstToLast).expect_err(kernel).to_string()
}

#[test]
fn threads_meet_at_barriers_and_shuffles() {
    for order in [Order::FirstToLast, Order::LastToFirst] {
        let mirrored = run("selftest_mirror", order).expect("it runs");
        assert_eq!(mirrored, (0..THREADS).rev().map(|i| i as f32).collect::<Vec<_>>());
        let sums = run("selftest_sums", order).expect("it runs");
        for (i, sum) in sums.iter().enumerate() {
            let team = i / 8 * 8;
            assert_eq!(*sum, (team..team + 8).sum::<usize>() as f32 + 1000.0 * (i / 32 * 32 + 31) as f32);
        }
    }
}

#[test]
fn a_missing_barrier_shows_in_one_of_the_orders() {
    let results =
        [Order::FirstToLast, Order::LastToFirst].map(|order| run("selftest_no_barrier", order).expect("runs"));
    assert!(results.iter().all(|result| result.iter().any(|x| x.is_nan())), "{results:?}");
}

#[test]
fn a_barrier_that_is_missing_behind_a_shuffle_shows() {
    let results =
        [Order::FirstToLast, Order::LastToFirst].map(|order| run("selftest_overwritten", order).expect("runs"));
    assert_ne!(results[0], results[1]);
    assert!(results.iter().all(|result| result.contains(&-1.0)), "{results:?}");
}

#[test]
fn divergence_is_an_error_that_says_who_waits_where() {
    let left = refusal("selftest_early_leave");
    assert!(left.contains("can never meet") && left.contains("thread 40 has left"), "{left}");
    let shuffle = refusal("selftest_half_at_a_shuffle");
    assert!(shuffle.contains("for the shuffle of line") && shuffle.contains("thread 16 has left"), "{shuffle}");
    let barriers = refusal("selftest_two_barriers");
    assert!(barriers.contains("thread 32 waits at the barrier of line"), "{barriers}");
}

#[test]
fn memory_is_watched() {
    assert!(refusal("selftest_behind_shared").contains("behind its shared memory"));
    assert!(refusal("selftest_unaligned").contains("not aligned"));
    let outside = std::panic::catch_unwind(|| run("selftest_behind_global", Order::FirstToLast)).expect_err("a panic");
    assert!(outside.downcast_ref::<String>().is_some_and(|text| text.contains("outside an allocation")));
}

#[test]
fn launches_that_no_device_takes_are_refused() {
    let shim = Shim::new(Order::FirstToLast, 1);
    let args = NormArgs { items: 0, tables: 0, dim: 0, unused: 0 };
    let refuse = |kernel: &str, grid: [u32; 2], threads: u32, shared: u32| {
        // SAFETY: nothing is run.
        unsafe { shim.launch(kernel, Geometry { grid, threads, shared }, &args) }.expect_err("a refusal").to_string()
    };
    assert!(refuse("selftest_none", [1, 1], 64, 0).contains("no such kernel"));
    assert!(refuse("selftest_mirror", [1, 1], 128, 0).contains("blocks of 64 threads"));
    assert!(refuse("selftest_mirror", [0, 1], 64, 0).contains("no device runs such a grid"));
    assert!(refuse("selftest_mirror", [1, 65_536], 64, 0).contains("no device runs such a grid"));
    assert!(refuse("selftest_mirror", [1, 1], 64, 300_000).contains("no device runs such a block"));
    assert!(refuse("gather_16", [1, 1], 64, 0).contains("blocks of 256 threads"));
    assert!(refuse("rotate_f32", [1, 1], 256, 0).contains("takes 56 bytes of arguments"));
}

#[test]
fn conversions_equal_those_of_the_half_crate() {
    for bits in 0..=u16::MAX {
        let (half, bfloat) = (f16::from_bits(bits), bf16::from_bits(bits));
        let (wide, wide_bfloat) = (widen_half(bits), widen_bfloat(bits));
        assert!(wide.to_bits() == half.to_f32().to_bits() || wide.is_nan() && half.is_nan(), "{bits:#x}");
        assert!(wide_bfloat.to_bits() == bfloat.to_f32().to_bits() || wide_bfloat.is_nan() && bfloat.is_nan());
        // Back, and from numbers beside and between those of the format.
        for step in [-70_000i64, -4097, -4096, -4095, -1, 0, 1, 4095, 4096, 4097, 32_767, 32_768, 32_769, 70_000] {
            for from in [wide, wide_bfloat] {
                let x = f32::from_bits((i64::from(from.to_bits()) + step) as u32);
                if x.is_nan() {
                    assert!(f16::from_bits(narrow_half(x)).is_nan() && bf16::from_bits(narrow_bfloat(x)).is_nan());
                } else {
                    assert_eq!(narrow_half(x), f16::from_f32(x).to_bits(), "{x:e}");
                    assert_eq!(narrow_bfloat(x), bf16::from_f32(x).to_bits(), "{x:e}");
                }
            }
        }
    }
}

#[test]
fn rust_and_cpp_lay_the_arguments_out_alike() {
    let rust: Vec<(String, String, usize)> = LAYOUTS
        .iter()
        .flat_map(|layout| {
            let own = (layout.name.to_owned(), String::new(), layout.size);
            let fields = layout.fields.iter().map(|(name, at)| (layout.name.to_owned(), (*name).to_owned(), *at));
            std::iter::once(own).chain(fields)
        })
        .collect();
    assert_eq!(rust, fields());
}
