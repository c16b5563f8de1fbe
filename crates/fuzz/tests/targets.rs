//! A short run of every target, and the inputs that once ended one.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use prefixkv_fuzz::worker::Until;
use prefixkv_fuzz::{TARGETS, supervisor, target};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fuzz");

fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

macro_rules! short_runs {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];

        $(
            #[test]
            fn $name() {
                let target = target(stringify!($name)).unwrap();
                let found = supervisor::run(Path::new(PROGRAM), target, 1, Until::Inputs(target.short));
                assert!(found.crashes.is_empty(), "{:#?}", found.crashes);
                assert!(found.inputs >= target.short && found.kinds > 1, "{found:?}");
            }
        )*
    };
}

short_runs! { image preprocessor request load method keep calibration template tokenizer text config safetensors gguf adapter engine abi }

#[test]
fn every_target_is_run() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
}

#[test]
fn what_once_ended_a_target_no_longer_does() {
    for folder in std::fs::read_dir(regressions()).unwrap() {
        let folder = folder.unwrap().path();
        let target = target(folder.file_name().unwrap().to_str().unwrap()).expect("a folder is named as a target");
        for input in std::fs::read_dir(&folder).unwrap() {
            let input = input.unwrap().path();
            let ended = supervisor::repeat(Path::new(PROGRAM), target, &input);
            assert!(ended.is_ok(), "{}: {ended:?}", input.display());
        }
    }
}

#[test]
fn every_kind_of_defect_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let repeat = |defect: &str| {
        let file = folder.path().join(defect);
        std::fs::write(&file, defect).unwrap();
        supervisor::repeat(Path::new(PROGRAM), target("defects").unwrap(), &file)
    };
    assert!(repeat("sound").unwrap().starts_with("sound"));
    let said = |defect: &str| repeat(defect).unwrap_err();
    assert!(said("panic").contains("on purpose"), "{}", said("panic"));
    assert!(said("memory").contains("memory allocation of 2097152 bytes failed"), "{}", said("memory"));
    assert!(said("abort").contains("signal"), "{}", said("abort"));
    assert!(said("hang").starts_with("hang"), "{}", said("hang"));
    let run = supervisor::run(Path::new(PROGRAM), target("defects").unwrap(), 1, Until::Inputs(30));
    let (said, input) = run.crashes.iter().find(|(said, _)| said.contains("on purpose")).unwrap();
    assert!(run.inputs >= 30 && std::fs::read(input).unwrap() == b"panic", "{said}");
}
