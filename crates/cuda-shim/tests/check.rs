//! The self-check of a device, on the shim: it passes what is right and finds what is not.

use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::cuda::check::{Cases, Outcome, Sizes, Step, ceilings, kernels, some_kernels};
use prefixkv_kernels::cuda::{Backend, Error, Geometry, Gpu, Memory, Multiply, Result};

/// A device that does something wrong, on purpose.
struct Broken {
    shim: Shim,
    defect: Defect,
}

#[derive(Clone, Copy, PartialEq)]
enum Defect {
    /// One result of a product of many is off by a thousandth of itself.
    Product,
    /// The kernel with this beginning of its name does not run.
    Skipped(&'static str),
    /// One write of many is lost.
    Write,
    /// Launches fail.
    Launch,
    /// None, but it says that it is a real device.
    Real,
}

impl Backend for Broken {
    fn name(&self) -> String {
        self.shim.name()
    }
    fn is_emulated(&self) -> bool {
        self.defect != Defect::Real && self.shim.is_emulated()
    }
    fn processors(&self) -> u32 {
        self.shim.processors()
    }
    fn memory(&self) -> Result<Memory> {
        self.shim.memory()
    }
    fn trim(&self) -> Result<()> {
        self.shim.trim()
    }
    fn synchronize(&self) -> Result<()> {
        self.shim.synchronize()
    }
    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.shim.allocate(bytes)
    }
    unsafe fn free(&self, address: u64, bytes: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.shim.free(address, bytes) }
    }
    unsafe fn write(&self, to: u64, from: &[u8]) -> Result<()> {
        // As if what was staged had been overwritten.
        let lost = self.defect == Defect::Write && from.len() == 4 * 978;
        let other = vec![0; from.len()];
        // SAFETY: the caller's promise.
        unsafe { self.shim.write(to, if lost { &other } else { from }) }
    }
    unsafe fn read(&self, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.shim.read(from, to) }
    }
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.shim.copy(from, to, bytes) }
    }
    unsafe fn launch(&self, kernel: &str, geometry: Geometry, args: &[u8]) -> Result<()> {
        match self.defect {
            Defect::Skipped(name) if kernel.starts_with(name) => Ok(()),
            Defect::Launch => Err(Error::Driver("the device is lost".into())),
            // SAFETY: the caller's promise.
            _ => unsafe { Backend::launch(&**self.shim, kernel, geometry, args) },
        }
    }
    unsafe fn product(&self, args: &Multiply) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.shim.product(args) }?;
        if self.defect == Defect::Product {
            let last = args.y + (args.n * args.rows - 1) as u64 * 4;
            let mut bytes = [0; 4];
            // SAFETY: the last result, which was just written.
            unsafe {
                self.shim.read(last, &mut bytes)?;
                self.shim.write(last, &(f32::from_ne_bytes(bytes) * 1.001).to_ne_bytes())?;
            }
        }
        Ok(())
    }
}

fn shim() -> Shim {
    Shim::new(Order::FirstToLast, 4)
}

/// The outcome for the kernels whose name has one of these beginnings; all would take minutes.
fn broken(defect: Defect, beginnings: &[&str]) -> Vec<Outcome> {
    let wanted = |kernel: &str| beginnings.iter().any(|beginning| kernel.starts_with(beginning));
    some_kernels(&Gpu::new(Broken { shim: shim(), defect }), Cases::All, &wanted, &mut |_| true)
}

#[test]
fn small_cases_are_those_that_a_slow_device_gets() {
    let gather = |gpu: &Gpu, cases| some_kernels(gpu, cases, &|kernel| kernel.starts_with("gather"), &mut |_| true);
    let real = Gpu::new(Broken { shim: shim(), defect: Defect::Real });
    let small = gather(&real, Cases::Small);
    assert!(!small.is_empty() && failed(&small).is_empty(), "{small:?}");
    assert_eq!(small, gather(&shim(), Cases::All));
}

fn failed(outcomes: &[Outcome]) -> Vec<&str> {
    outcomes.iter().filter(|outcome| outcome.failed.is_some()).map(|outcome| outcome.kernel.as_str()).collect()
}

#[test]
fn every_kernel_passes_and_progress_counts_them() {
    let shim = shim();
    let mut steps = Vec::new();
    let outcomes = kernels(&shim, Cases::All, &mut |Step { line, done, total }| {
        steps.push((line.to_owned(), done, total));
        true
    });
    for outcome in &outcomes {
        assert_eq!(outcome.failed, None, "{}", outcome.kernel);
        assert!(outcome.cases > 1 && outcome.worst <= outcome.tolerance, "{outcome:?}");
    }
    assert_eq!(steps.len(), outcomes.len());
    for (i, ((line, done, total), outcome)) in steps.iter().zip(&outcomes).enumerate() {
        assert!(line.starts_with(&format!("{}: {} cases", outcome.kernel, outcome.cases)), "{line}");
        assert_eq!((*done, *total), (i + 1, outcomes.len()));
    }
    // In each format, and every kernel file.
    let network = ["rotate", "rms_norm", "layer_norm", "swiglu", "geglu", "activate", "take_rows", "product"];
    let stored = ["gather", "move_entries", "key_norms", "decode", "decode sums", "prefill", "prefill sums"];
    let attention = ["decode", "decode sums", "prefill", "prefill sums"];
    let codes = ["key_norms", "encode"];
    let groups: [(&[&str], &[&str]); 4] = [
        (&network, &["f32", "f16", "bf16"]),
        (&stored, &["f32", "f16"]),
        (&attention, &["floats", "levels", "codes", "mixed"]),
        (&codes, &["bf16", "f8", "u8", "u4", "u2", "u4 levels", "u2 levels"]),
    ];
    for (kernels, formats) in groups {
        for name in kernels.iter().flat_map(|kernel| formats.iter().map(move |format| format!("{kernel} {format}"))) {
            assert!(outcomes.iter().any(|outcome| outcome.kernel == name), "{name}");
        }
    }
    let launched = shim.launched();
    for part in [
        "decode_attend",
        "decode_merge_f32",
        "decode_merge_f16",
        "decode_sums",
        "encode",
        "hadamard_rows",
        "gather",
        "move_",
        "key_norms",
        "prefill_attend",
        "prefill_columns",
        "add",
        "scale",
        "cap",
    ] {
        assert!(launched.iter().any(|kernel| kernel.starts_with(part)), "{part}");
    }
    // In every format, and rows of a warp and of a block.
    for kernel in ["rms_norm_FORMAT_t32", "rms_norm_FORMAT_t256", "layer_norm_FORMAT_t32", "layer_norm_FORMAT_t256"] {
        for format in ["f32", "f16", "bf16"] {
            let kernel = kernel.replace("FORMAT", format);
            assert!(launched.contains(&kernel), "{kernel}");
        }
    }
    assert_eq!(shim.allocated(), 0);
}

#[test]
fn a_wrong_product_fails_the_products_and_nothing_else() {
    let outcomes = broken(Defect::Product, &["product", "gather", "rotate", "writes", "decode f16"]);
    let products =
        ["f32", "f16", "bf16"].map(|format| [format!("product {format}"), format!("product {format} added")]);
    assert_eq!(failed(&outcomes), products.concat());
    let product = outcomes.iter().find(|outcome| outcome.kernel == "product f32").expect("it was checked");
    let text = product.failed.as_ref().expect("it failed");
    assert!(text.contains("Case { n: ") && text.contains("5e-6 is allowed"), "{text}");
    assert!(product.worst > product.tolerance && product.worst < 1e-2, "{}", product.worst);
}

#[test]
fn a_kernel_that_does_nothing_is_found() {
    let one = |kernel: &str| vec![kernel.to_owned()];
    let of = |kernel: &str, formats: &[&str]| -> Vec<String> {
        formats.iter().map(|format| format!("{kernel} {format}")).collect()
    };
    let lanes = ["f32", "f16", "floats", "levels", "codes", "mixed"];
    let transformed = ["codes of transformed keys", "codes of transformed values"];
    let all = [&lanes[..], &transformed].concat();
    let both = ["f32", "f16", "bf16"].map(|format| ["swiglu", "geglu"].map(|gate| format!("{gate} {format}"))).concat();
    // Values that are transformed alone change no sum of attention.
    let keys = ["levels", "mixed", transformed[0]]
        .map(|format| ["prefill", "prefill sums"].map(|kernel| of(kernel, &[format])));
    let through = [keys.as_flattened().concat(), of("prefill", &transformed[1..])].concat();
    for (kernel, beginnings, want) in [
        ("gather_", vec!["gather"], of("gather", &["f32", "f16"])),
        ("move_", vec!["move_entries", "gather f16"], of("move_entries", &["f32", "f16"])),
        ("rotate_f16", vec!["rotate"], one("rotate f16")),
        ("append_bf16", vec!["append"], of("append bf16", &["to f32", "to f16"])),
        ("rms_norm_f32_t256", vec!["rms_norm", "layer_norm f32"], one("rms_norm f32")),
        ("layer_norm_bf16_t32", vec!["layer_norm"], one("layer_norm bf16")),
        ("glu_", vec!["swiglu", "geglu", "activate"], both),
        ("scale", vec!["scale", "cap"], one("scale")),
        ("cap", vec!["scale", "cap"], one("cap")),
        ("activate_f16", vec!["activate"], one("activate f16")),
        ("add", vec!["add", "place"], vec!["add".into(), "add_bias".into()]),
        ("copy_f16_bf16", vec!["convert", "take_rows"], one("convert f16 to bf16")),
        ("copy_bf16_f32", vec!["convert", "take_rows"], vec!["take_rows bf16".into(), "convert bf16 to f32".into()]),
        ("decode_merge_f16", vec!["decode f32"], one("decode f32 to f16")),
        ("decode_sums", vec!["decode sums"], of("decode sums", &all)),
        ("prefill_columns", vec!["prefill"], of("prefill sums", &all)),
        ("hadamard_rows", vec!["prefill"], through),
    ] {
        let outcomes = broken(Defect::Skipped(kernel), &beginnings);
        assert_eq!(failed(&outcomes), want, "without {kernel}");
    }
}

#[test]
fn a_lost_write_and_a_lost_device_are_found() {
    assert_eq!(failed(&broken(Defect::Write, &["writes"])), ["writes and reads"]);
    let outcomes = broken(Defect::Launch, &[""]);
    let lost = outcomes.iter().filter(|outcome| {
        let text = outcome.failed.as_ref().is_some_and(|text| text.contains("the device is lost"));
        text && outcome.worst == f64::INFINITY
    });
    assert_eq!(lost.count(), outcomes.len() - 8, "all but writes, copies and products are launches");
}

#[test]
fn progress_stops_a_check() {
    let outcomes = kernels(&shim(), Cases::All, &mut |step| step.done < 3);
    assert_eq!(outcomes.len(), 3);
    let stopped = ceilings(&shim(), &Sizes::small(), &mut |step| step.done < 10).expect("nothing fails");
    assert_eq!(stopped, None);
}

#[test]
fn ceilings_are_measured_for_every_size_that_fits() {
    let shim = shim();
    let mut steps = Vec::new();
    let sizes = Sizes { decode: vec![(1, 40), (2, 70), (1 << 20, 1 << 20)], ..Sizes::small() };
    let found = ceilings(&shim, &sizes, &mut |step| {
        steps.push((step.done, step.total));
        true
    });
    let found = found.expect("nothing fails").expect("nobody stopped it");
    assert_eq!(steps, (1..=12).map(|done| (done, 12)).collect::<Vec<_>>());
    let rates = [found.copy, found.read, found.row, found.upload, found.product_f16, found.product_f32];
    assert!(
        rates.iter().chain([&found.launches, &found.writes]).all(|rate| rate.is_finite() && *rate > 0.0),
        "{found:?}"
    );
    let shapes: Vec<_> = found.decode.iter().map(|rate| (rate.sequences, rate.entries)).collect();
    assert_eq!(shapes, [(1, 40), (2, 70)], "what does not fit is left out");
    assert!(found.decode.iter().all(|rate| rate.read > 0.0));
    assert!(matches!(found.prefill[..], [rate] if rate.positions == 20 && rate.tflops > 0.0), "{:?}", found.prefill);
    assert_eq!(shim.allocated(), 0);
}
