//! network.cu against its twin in f64, and against the CPU's kernels where there are some.
//!
//! Conversions, sums and copies are compared to the bit. Norms are sums of up to 32768 numbers in f32, at most 128 of them one
//! after another: 1e-5 of a result, and of the largest of a row where a mean is taken off. Activations may be off by a few units in the last
//! place times the exponent, which is at most 30 here: 1e-5 of each.

use half::{bf16, f16};
use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::activation::{self, Gate};
use prefixkv_kernels::cuda::{self, Buffer, Error, Function, Result};
use prefixkv_kernels::reference::network as twin;
use proptest::prelude::*;

use crate::common::{Format, assert_relatively_close, in_both_orders, narrowed, noise, widened};

/// Widths around those at which vectors, teams and their turns end.
const WIDTHS: [usize; 20] = [1, 2, 3, 4, 5, 7, 8, 31, 64, 127, 128, 129, 132, 1000, 1023, 1024, 1025, 1028, 2050, 4096];

/// `numbers` on the device, `shift` elements from an aligned address.
fn upload<T: Format>(shim: &Shim, numbers: &[T], shift: usize) -> Buffer<T> {
    let all: Vec<T> = std::iter::repeat_n(T::narrow(f32::NAN), shift).chain(numbers.iter().copied()).collect();
    Buffer::from_slice(shim, &all).expect("room")
}

/// What `run` writes to `n` elements, `shift` from an aligned address; the elements before must stay.
fn result<O: Format>(
    shim: &Shim,
    n: usize,
    shift: usize,
    run: impl FnOnce(cuda::SliceMut<'_, O>) -> Result<()>,
) -> Vec<O> {
    let mut out = upload(shim, &vec![O::narrow(9.0); n], shift);
    run(out.all_mut().split_at(shift).1).expect("it runs");
    let mut all = out.read().expect("contents");
    assert!(all[..shift].iter().all(|x| x.widen().is_nan()), "what lies before the result was written");
    all.split_off(shift)
}

/// One of the norms, with its operands.
#[derive(Clone, Debug)]
struct Norm {
    centred: bool,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    fn new(centred: bool, n: usize, width: usize, seed: u64, eps: f32) -> Self {
        // Far from 0, where squares of what is not centred lose digits.
        let middle = if centred { 30.0 } else { 0.1 };
        let x = noise(seed, n * width).iter().map(|x| x + middle).collect();
        let weight = noise(seed + 1, width).iter().map(|x| 1.5 + x).collect();
        Norm { centred, x, weight, bias: noise(seed + 2, width), eps }
    }

    fn run<O: Format>(&self, shim: &Shim, x: &[f32], shifts: [usize; 2]) -> Vec<O> {
        let device_x = upload(shim, x, shifts[0]);
        let (weight, bias) = (upload(shim, &self.weight, 0), upload(shim, &self.bias, 0));
        let x = device_x.all().part(shifts[0]..device_x.len());
        result(shim, x.len(), shifts[1], |out| match self.centred {
            true => cuda::layer_norm(shim, x, weight.all(), bias.all(), self.eps, out),
            false => cuda::rms_norm(shim, x, weight.all(), self.eps, out),
        })
    }

    fn check(&self, shifts: [usize; 2]) {
        let got = in_both_orders(1, |shim| self.run::<f32>(shim, &self.x, shifts));
        let width = self.weight.len();
        if self.centred {
            let want = twin::layer_norm(&self.x, &self.weight, &self.bias, self.eps);
            for (got, want) in got.chunks_exact(width).zip(want.chunks_exact(width)) {
                // The mean of numbers near 30 is off by up to a unit in its last place, 2e-6, beside a deviation near 0.6.
                for (got, want) in got.iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() <= 3e-5, "{got} for {want}");
                }
            }
        } else {
            assert_relatively_close(&got, &twin::rms_norm(&self.x, &self.weight, self.eps), 1e-5);
        }
        // The other formats are this one rounded, and a row is the same alone and at any address.
        let shim = Shim::new(Order::FirstToLast, 1);
        assert!(self.run::<f16>(&shim, &self.x, shifts) == narrowed::<f16>(&got));
        assert!(self.run::<bf16>(&shim, &self.x, shifts) == narrowed::<bf16>(&got));
        for (x, got) in self.x.chunks_exact(width).zip(got.chunks_exact(width)) {
            assert!(self.run::<f32>(&shim, x, [0, 0]) == got, "a row depends on those beside it");
        }
    }
}

fn width() -> impl Strategy<Value = usize> {
    prop::sample::select(WIDTHS.to_vec())
}

/// So many rows of a table.
fn few(rows: std::ops::Range<usize>) -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), rows)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn norms_equal_the_twin(
        centred: bool, n in 0usize..20, width in width(), seed in 1u64..10_000, shifts in (0usize..5, 0usize..5),
        eps in prop::sample::select(vec![1e-6f32, 1e-5, 0.1]),
    ) {
        let n = if width > 1000 { n.min(3) } else { n };
        // One number has no variance, and what its mean is off is divided by the root of epsilon.
        let eps = if centred && width == 1 { 0.1 } else { eps };
        // Nor do two or three have one to rely on.
        prop_assume!(!centred || width == 1 || width > 5);
        Norm::new(centred, n, width, seed, eps).check(shifts.into());
    }

    #[test]
    fn heads_are_normalised_in_wider_rows(
        n in 0usize..6, heads in (1usize..5, 0usize..3), width in prop::sample::select(vec![3usize, 8, 64, 130]), rest in 0usize..9,
        seed in 1u64..10_000, shifts in (0usize..5, 0usize..5),
    ) {
        let columns = (heads.0 + heads.1) * width + rest;
        let x = noise(seed, n * columns);
        let weights = [noise(seed + 1, width), noise(seed + 2, width)];
        let got = in_both_orders(3, |shim| {
            let x = upload(shim, &x, shifts.0);
            let [first, second] = weights.each_ref().map(|weight| upload(shim, weight, 0));
            let parts = [(heads.0, first.all()), (heads.1, second.all())];
            let x = x.all().part(shifts.0..x.len());
            result::<f32>(shim, n * columns, shifts.1, |out| cuda::head_norms(shim, x, columns, &parts, 1e-5, out))
        });
        let mut want = Vec::new();
        for row in x.chunks_exact(columns) {
            for head in 0..heads.0 + heads.1 {
                let weight = &weights[usize::from(head >= heads.0)];
                want.extend(twin::rms_norm(&row[head * width..(head + 1) * width], weight, 1e-5));
            }
            want.extend(row[columns - rest..].iter().map(|x| f64::from(*x)));
        }
        assert_relatively_close(&got, &want, 1e-5);
    }

    #[test]
    fn gates_equal_the_twins(
        n in 0usize..5, width in width(), seed in 1u64..10_000, shifts in (0usize..5, 0usize..5), processors in 1u32..3,
        gate in prop::sample::select(vec![Gate::Silu, Gate::GeluTanh]),
    ) {
        // The tanh of GELU falls off so fast that only numbers of the CPU that are below all f32 would be left to compare.
        let reach = if gate == Gate::Silu { 20.0 } else { 5.0 };
        let both: Vec<f32> = noise(seed, 2 * n * width).iter().map(|x| reach * x).collect();
        let run = |shim: &Shim| {
            let x = upload(shim, &both, shifts.0);
            let x = x.all().part(shifts.0..x.len());
            let full = result::<f32>(shim, n * width, shifts.1, |out| cuda::glu(shim, x, width, gate, out));
            let half = result::<f16>(shim, n * width, shifts.1, |out| cuda::glu(shim, x, width, gate, out));
            let bfloat = result::<bf16>(shim, n * width, shifts.1, |out| cuda::glu(shim, x, width, gate, out));
            (full, half, bfloat)
        };
        let (got, half, bfloat) = in_both_orders(processors, run);
        prop_assert!(half == narrowed::<f16>(&got) && bfloat == narrowed::<bf16>(&got));
        assert_relatively_close(&got, &twin::glu(&both, width, gate), 1e-5);
        let mut cpu = vec![f32::NAN; n * width];
        activation::glu(&both, width, gate, &mut cpu);
        assert_relatively_close(&got, &cpu.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), 1e-5);
    }

    #[test]
    fn factors_and_caps_equal_those_of_the_cpu(n in 0usize..5000, seed in 1u64..10_000, shift in 0usize..5, cap in 0.5f32..60.0) {
        let x: Vec<f32> = noise(seed, n).iter().map(|x| 100.0 * x).collect();
        let run = |shim: &Shim, cap_it: bool| {
            let mut to = upload(shim, &x, shift);
            let part = to.all_mut().split_at(shift).1;
            if cap_it { cuda::cap(shim, part, cap) } else { cuda::scale(shim, part, cap) }.expect("it runs");
            to.read().expect("contents").split_off(shift)
        };
        let (mut scaled, mut capped) = (x.clone(), x.clone());
        activation::scale(&mut scaled, cap);
        activation::cap(&mut capped, cap);
        prop_assert!(in_both_orders(2, |shim| run(shim, false)) == scaled);
        let got = in_both_orders(2, |shim| run(shim, true));
        let want: Vec<f64> = x.iter().map(|x| twin::cap(f64::from(*x), f64::from(cap))).collect();
        assert_relatively_close(&got, &want, 1e-5);
        assert_relatively_close(&capped, &want, 1e-5);
    }

    #[test]
    fn sums_equal_those_of_the_cpu(
        n in 0usize..5, width in width(), seed in 1u64..10_000, shifts in (0usize..5, 0usize..5), processors in 1u32..3,
    ) {
        let (x, y, bias) = (noise(seed, n * width), noise(seed + 1, n * width), noise(seed + 2, width));
        let run = |shim: &Shim| {
            let mut to = upload(shim, &x, shifts.0);
            let (y, bias) = (upload(shim, &y, shifts.1), upload(shim, &bias, shifts.1));
            let (y, bias) = (y.all().part(shifts.1..y.len()), bias.all().part(shifts.1..bias.len()));
            cuda::add(shim, to.all_mut().split_at(shifts.0).1, y).expect("it runs");
            let sums = to.read().expect("contents").split_off(shifts.0);
            cuda::add_bias(shim, to.all_mut().split_at(shifts.0).1, bias).expect("it runs");
            (sums, to.read().expect("contents").split_off(shifts.0))
        };
        let (sums, biased) = in_both_orders(processors, run);
        let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        prop_assert!(sums == want);
        let want: Vec<f32> = want.iter().zip(bias.iter().cycle()).map(|(x, bias)| x + bias).collect();
        prop_assert!(biased == want);
    }

    #[test]
    fn rows_and_columns_arrive(
        width in width(), rows in prop_oneof![few(0..12), few(60..70)], there in 1usize..9,
        seed in 1u64..10_000, shifts in (0usize..5, 0usize..5), columns in (0usize..9, 0usize..9), format in 0..3,
    ) {
        let rows: Vec<u32> = rows.iter().map(|row| row.index(there) as u32).collect();
        match format {
            0 => takes::<f32>(width, &rows, there, seed, shifts, columns),
            1 => takes::<f16>(width, &rows, there, seed, shifts, columns),
            _ => takes::<bf16>(width, &rows, there, seed, shifts, columns),
        }
    }
}

/// Takes rows of a table, and places them between other columns.
fn takes<T: Format>(
    width: usize,
    rows: &[u32],
    there: usize,
    seed: u64,
    shifts: (usize, usize),
    columns: (usize, usize),
) {
    let table: Vec<T> = narrowed(&noise(seed, there * width));
    let out_width = columns.0 + width + columns.1;
    let before = noise(seed + 1, rows.len() * out_width);
    let (taken, placed) = in_both_orders(1, |shim| {
        let device = upload(shim, &table, shifts.0);
        let part = device.all().part(shifts.0..device.len());
        let taken =
            result::<f32>(shim, rows.len() * width, shifts.1, |out| cuda::take_rows(shim, part, width, rows, out));
        let x = upload(shim, &taken, shifts.0);
        let mut out = upload(shim, &before, shifts.1);
        let (x, to) = (x.all().part(shifts.0..x.len()), out.all_mut().split_at(shifts.1).1);
        cuda::place_columns(shim, x, width, to, out_width, columns.0).expect("it runs");
        (taken, out.read().expect("contents").split_off(shifts.1))
    });
    let row = |row: u32| &table[row as usize * width..][..width];
    let want: Vec<f32> = rows.iter().flat_map(|i| row(*i)).map(|x| x.widen()).collect();
    assert!(taken == want, "rows went astray");
    let mut want = before;
    for (to, from) in want.chunks_exact_mut(out_width).zip(taken.chunks_exact(width)) {
        to[columns.0..columns.0 + width].copy_from_slice(from);
    }
    assert!(placed == want, "columns went astray");
}

#[test]
fn the_widest_rows_are_normalised() {
    for centred in [false, true] {
        for width in [32_768, 11_009] {
            Norm::new(centred, 2, width, 5, 1e-5).check([0, 1]);
        }
    }
}

#[test]
fn a_row_that_is_not_a_number_spoils_no_other() {
    for (centred, width) in [(false, 40), (true, 40), (false, 1100), (true, 1100)] {
        let mut norm = Norm::new(centred, 3, width, 5, 1e-5);
        let clean = in_both_orders(1, |shim| norm.run::<f32>(shim, &norm.x, [0, 0]));
        norm.x[width + 3] = f32::NAN;
        let got = norm.run::<f32>(&Shim::new(Order::FirstToLast, 1), &norm.x, [0, 0]);
        assert!(got[width..2 * width].iter().all(|x| x.is_nan()));
        assert!(got[..width] == clean[..width] && got[2 * width..] == clean[2 * width..]);
    }
}

#[test]
fn short_rows_take_a_warp_and_long_ones_a_block() {
    let shim = Shim::new(Order::FirstToLast, 1);
    let run = |centred, width| {
        Norm::new(centred, 1, width, 5, 1e-5).run::<f16>(&shim, &noise(4, width), [0, 0]);
        shim.launched().pop().expect("a launch")
    };
    assert_eq!(run(false, 1024), "rms_norm_f16_t32");
    assert_eq!(run(true, 1025), "layer_norm_f16_t256");
}

#[test]
fn activations_equal_the_twins() {
    type Twin = fn(f64) -> f64;
    let functions: [(Function, Twin); 5] = [
        (Function::Gelu, twin::gelu),
        (Function::GeluTanh, twin::gelu_tanh),
        (Function::QuickGelu, twin::quick_gelu),
        (Function::Silu, twin::silu),
        (Function::Relu, twin::relu),
    ];
    // Where exponents stay below 30, so that rounding them costs no more than the tolerance.
    let dense: Vec<f32> = (-5000..5000).map(|i| i as f32 / 1000.0).collect();
    let x: Vec<f32> = dense.iter().copied().chain([0.0, -0.0, 1e-30, -1e-30, 12.0, 100.0, 1e30]).collect();
    let far = [-100.0, -1e4, -1e30];
    for (function, twin) in functions {
        for (shift, to) in [(0, 0), (1, 0), (0, 3)] {
            let run = |x: &[f32]| {
                in_both_orders(2, |shim| {
                    let device = upload(shim, x, shift);
                    let x = device.all().part(shift..device.len());
                    let full = result::<f32>(shim, x.len(), to, |out| cuda::activate(shim, x, function, out));
                    let half = result::<f16>(shim, x.len(), to, |out| cuda::activate(shim, x, function, out));
                    let bfloat = result::<bf16>(shim, x.len(), to, |out| cuda::activate(shim, x, function, out));
                    assert!(half == narrowed::<f16>(&full) && bfloat == narrowed::<bf16>(&full));
                    full
                })
            };
            let got = run(&x);
            assert_relatively_close(&got, &x.iter().map(|x| twin(f64::from(*x))).collect::<Vec<_>>(), 1e-5);
            assert!(run(&far).iter().all(|x| *x == 0.0), "{function:?} far below 0");
            if function == Function::QuickGelu {
                let mut cpu = x.clone();
                activation::quick_gelu(&mut cpu);
                assert_relatively_close(&got, &cpu.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), 1e-5);
            }
        }
        let shim = Shim::new(Order::FirstToLast, 1);
        let nan = upload(&shim, &[f32::NAN], 0);
        assert!(result::<f32>(&shim, 1, 0, |out| cuda::activate(&shim, nan.all(), function, out))[0].is_nan());
    }
}

/// Every number of a format, and numbers between them, to another.
fn converts<I: Format, O: Format>(numbers: &[I]) {
    let want: Vec<O> = narrowed(&widened(numbers));
    // The last elements are fewer than four, and the addresses of both sides may be odd.
    for (n, from, to) in [(numbers.len(), 0, 0), (numbers.len().min(1021), 0, 0), (70, 1, 0), (71, 0, 1), (0, 0, 0)] {
        let got = in_both_orders(3, |shim| {
            let x = upload(shim, &numbers[..n], from);
            let x = x.all().part(from..x.len());
            // NaN is equal to nothing.
            let got = result::<O>(shim, n, to, |out| cuda::convert(shim, x, out));
            got.iter()
                .map(|x| x.widen())
                .map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() })
                .collect::<Vec<_>>()
        });
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let want = if want.widen().is_nan() { f32::NAN } else { want.widen() };
            assert_eq!(*got, want.to_bits(), "element {i}: {want}");
        }
    }
}

#[test]
fn conversions_round_like_the_cpu() {
    // Halves and neighbours of every seventh number of both formats, and the largest.
    let between =
        (0..=u16::MAX).step_by(7).flat_map(|bits| [f16::from_bits(bits).to_f32(), bf16::from_bits(bits).to_f32()]);
    let steps = [0i64, -1, 1, 4095, 4096, 4097, 32_767, 32_768, 32_769];
    let full: Vec<f32> = between
        .flat_map(|x| steps.map(|step| f32::from_bits((i64::from(x.to_bits()) + step) as u32)))
        .chain([65_519.0, 65_520.0, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN])
        .collect();
    converts::<f32, f32>(&full);
    converts::<f32, f16>(&full);
    converts::<f32, bf16>(&full);
    let half: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    converts::<f16, f32>(&half);
    converts::<f16, f16>(&half);
    converts::<f16, bf16>(&half);
    let bfloat: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    converts::<bf16, f32>(&bfloat);
    converts::<bf16, f16>(&bfloat);
    converts::<bf16, bf16>(&bfloat);
}

#[test]
fn arguments_that_do_not_fit_are_refused_before_a_launch() {
    let shim = Shim::new(Order::FirstToLast, 1);
    let x = Buffer::<f32>::new(&shim, 24).expect("room");
    let text = |result: Result<()>| match result {
        Err(Error::Argument(text)) => text,
        other => panic!("{other:?}"),
    };
    let x = |n: usize| x.slice(0..n);
    let mut out = Buffer::<f32>::new(&shim, 24).expect("room");
    let mut out = |n: usize| {
        // SAFETY: the elements are there, and nothing is launched.
        unsafe { cuda::SliceMut::<'_, f32>::from_address(out.all_mut().address(), n) }
    };
    assert_eq!(text(cuda::rms_norm(&shim, x(24), x(7), 1e-5, out(24))), "24 elements in rows of 7");
    assert_eq!(text(cuda::rms_norm(&shim, x(24), x(0), 1e-5, out(24))), "24 elements in rows of 0");
    assert_eq!(text(cuda::rms_norm(&shim, x(24), x(8), 1e-5, out(16))), "16 results of 3 rows of 8");
    assert_eq!(text(cuda::rms_norm(&shim, x(24), x(8), f32::NAN, out(24))), "an epsilon of NaN");
    assert_eq!(
        text(cuda::layer_norm(&shim, x(24), x(8), x(6), 1e-5, out(24))),
        "8 weights, and a bias of another width"
    );
    assert_eq!(text(cuda::glu(&shim, x(24), 5, Gate::Silu, out(12))), "24 gates and ups in rows of 10");
    assert_eq!(text(cuda::glu(&shim, x(24), 6, Gate::Silu, out(24))), "24 results of 2 rows of 6");
    assert_eq!(text(cuda::activate(&shim, x(24), Function::Silu, out(23))), "24 elements and 23 results");
    assert_eq!(text(cuda::cap(&shim, out(24), -1.0)), "a soft cap of -1");
    assert_eq!(text(cuda::add(&shim, out(24), x(8))), "24 elements and 8 to add");
    assert_eq!(text(cuda::add_bias(&shim, out(24), x(9))), "24 elements in rows of 9");
    assert_eq!(text(cuda::convert(&shim, x(24), out(4))), "24 elements and 4 results");
    assert_eq!(text(cuda::take_rows(&shim, x(24), 8, &[0, 3], out(16))), "row 3 of 3");
    assert_eq!(text(cuda::take_rows(&shim, x(24), 8, &[0, 2], out(24))), "24 results of 2 rows of 8");
    assert_eq!(text(cuda::take_rows(&shim, x(23), 8, &[0], out(8))), "23 elements in rows of 8");
    assert_eq!(text(cuda::place_columns(&shim, x(8), 4, out(12), 6, 3)), "columns 3+4 of 6");
    assert_eq!(text(cuda::place_columns(&shim, x(8), 4, out(18), 6, 2)), "18 results of 2 rows of 6");
    assert!(shim.launched().is_empty());
}

/// The greatest of each row, against a scan: ties, rows of nothing but minus infinity, and numbers that are none, in every place.
#[test]
fn the_greatest_of_a_row_is_the_first_and_what_is_no_number_is_told() {
    for width in [1, 3, 31, 32, 255, 256, 257, 1025, 3000] {
        let mut rows: Vec<Vec<f32>> = vec![vec![f32::NEG_INFINITY; width], vec![f32::NAN; width], vec![-0.0; width]];
        for place in [0, width / 3, width / 2, width - 1] {
            let mut row: Vec<f32> = noise(place as u64 + 1, width).iter().map(|x| (x * 8.0).round()).collect();
            rows.push(row.clone());
            for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 9.0] {
                row[place] = special;
                rows.push(row.clone());
            }
        }
        let all = rows.concat();
        let got = in_both_orders(3, |shim| {
            let x = upload(shim, &all, 1);
            let mut out = Buffer::<u32>::new(shim, 2 * rows.len()).expect("room");
            cuda::choose(shim, x.slice(1..x.len()), width, out.all_mut()).expect("it runs");
            out.read().expect("contents")
        });
        for (row, got) in rows.iter().zip(got.chunks_exact(2)) {
            let mut best = (f32::NEG_INFINITY, 0);
            for (index, x) in row.iter().enumerate() {
                if *x > best.0 {
                    best = (*x, index);
                }
            }
            let bad = row.iter().any(|x| !x.is_finite());
            assert_eq!(got, [best.1 as u32, u32::from(bad)], "{width}");
        }
    }
}
