//! The self-check of a device as it leaves the engine, over the shim.

use std::time::Duration;

use prefixkv_core::engine::{Engine, Ticket};
use prefixkv_core::error::Error;
use prefixkv_core::wire::{Event, Progress};
use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::cuda::check::Sizes;
use serde_json::json;

/// All events of a stream.
fn read(ticket: &Ticket) -> Vec<Event> {
    std::iter::from_fn(|| ticket.wait(Duration::from_secs(600))).flatten().collect()
}

fn check(sizes: Option<Sizes>) -> Ticket {
    let shim = Shim::new(Order::FirstToLast, 4);
    Engine::check_gpu(move || Ok(((*shim).clone(), "cuda:0".into())), sizes).expect("a thread")
}

#[test]
fn a_check_reports_kernels_and_ceilings() {
    let events = read(&check(Some(Sizes::small())));
    let Some(Event::Checked { report }) = events.last() else { panic!("{:?}", events.last()) };
    let report = &json!(report);
    assert_eq!((&report["device"], &report["name"]), (&"cuda:0".into(), &"the shim".into()));
    assert_eq!(report["passed"], true);
    assert!(report["memory"]["free"].as_u64() <= report["memory"]["total"].as_u64());
    let kernels = report["kernels"].as_array().expect("a list");
    assert!(kernels.len() > 20);
    for kernel in kernels {
        assert!(kernel["failed"].is_null() && kernel["cases"].as_u64() > Some(0), "{kernel}");
        assert!(kernel["worst"].as_f64() <= kernel["tolerance"].as_f64(), "{kernel}");
    }
    let ceilings = &report["ceilings"];
    for rate in ["copy", "read", "row", "upload", "productF16", "productF32", "launches", "writes"] {
        assert!(ceilings[rate].as_f64() > Some(0.0), "{rate}: {ceilings}");
    }
    assert_eq!(
        (ceilings["decode"].as_array().map(Vec::len), &ceilings["prefill"][0]["positions"]),
        (Some(2), &20.into())
    );
    let stages: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Progress(Progress { stage, done, total }) if done <= total => Some(*stage),
            _ => None,
        })
        .collect();
    assert_eq!(stages.len(), events.len() - 1);
    assert!(stages.contains(&"kernels") && stages.ends_with(&["ceilings"]), "{stages:?}");
}

#[test]
fn a_cancelled_check_ends_soon_with_aborted() {
    let ticket = check(None);
    assert!(matches!(ticket.wait(Duration::from_secs(600)).expect("events")[0], Event::Progress(_)));
    ticket.cancel();
    let events = read(&ticket);
    let Some(Event::Error { error }) = events.last() else { panic!("{events:?}") };
    assert_eq!(error.code, "aborted");
}

#[test]
fn a_device_that_cannot_be_opened_or_panics_is_an_error() {
    let refused = || Err(Error::Device { device: "cuda:0".into(), reason: "no driver".into() });
    let code = |ticket: &Ticket| match read(ticket).pop() {
        Some(Event::Error { error }) => Some(error.code.to_owned()),
        other => panic!("{other:?}"),
    };
    assert_eq!(code(&Engine::check_gpu(refused, None).expect("a thread")), Some("device".into()));
    assert_eq!(code(&Engine::check_gpu(|| panic!("no"), None).expect("a thread")), Some("internal".into()));
}
