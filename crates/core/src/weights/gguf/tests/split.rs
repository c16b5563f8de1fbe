//! Models in several files.

use std::path::Path;

use super::*;

const NAMES: [&str; 3] = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];

fn u16_of(value: u16) -> Vec<u8> {
    of_kind(2, &value.to_le_bytes())
}

impl Writer {
    /// A file without anything but what a part says of itself.
    fn part(number: u16, count: u16, tensors: i32) -> Writer {
        let mut writer = Writer { version: 3, keys: vec![], tensors: vec![], data: vec![], alignment: 32 };
        writer.key("split.no", u16_of(number));
        writer.key("split.count", u16_of(count));
        writer.key("split.tensors.count", of_kind(5, &tensors.to_le_bytes()));
        writer
    }

    fn set(&mut self, key: &str, value: Vec<u8>) {
        self.keys.retain(|(other, _)| other != key);
        self.key(key, value);
    }
}

/// Numbers of a tensor, which tell it from others.
fn numbers(first: u8) -> Vec<u8> {
    (0..8).flat_map(|at| f32::from(first + at).to_le_bytes()).collect()
}

/// The first without tensors, as `--no-tensor-first-split` has it.
fn parts() -> [Writer; 3] {
    let [mut one, mut two, mut three] = [0, 1, 2].map(|number| Writer::part(number, 3, 4));
    one.key("general.architecture", of_kind(8, &text("llama")));
    one.key("llama.attention.head_count", of_kind(4, &2u32.to_le_bytes()));
    two.tensor("token_embd.weight", &[4, 2], 0, &numbers(0));
    two.tensor("output.weight", &[4, 2], 0, &numbers(10));
    two.tensor("blk.0.attn_v.weight", &[4, 2], 0, &numbers(20));
    three.tensor("output_norm.weight", &[8], 0, &numbers(30));
    [one, two, three]
}

fn written(parts: &[Writer], names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (part, name) in parts.iter().zip(names) {
        std::fs::write(dir.path().join(name), part.bytes()).expect("written");
    }
    dir
}

#[test]
fn parts_are_one_model() {
    let dir = written(&parts(), &NAMES);
    // Another model's parts and a tower beside them.
    std::fs::write(dir.path().join("mmproj-m.gguf"), "x").expect("written");
    let path = in_folder(dir.path()).expect("one model").expect("a GGUF file");
    assert_eq!(path, dir.path().join(NAMES[0]));
    assert_eq!(tower_beside(&path).expect("one tower"), Some(dir.path().join("mmproj-m.gguf")));
    let file = Gguf::open(&path).expect("opens");
    assert_eq!((file.path(), file.origins().len(), file.tensors().count()), (&*path, 3, 4));
    for (name, part, first) in [
        ("token_embd.weight", 1, 0),
        ("output.weight", 1, 10),
        ("blk.0.attn_v.weight", 1, 20),
        ("output_norm.weight", 2, 30),
    ] {
        let tensor = file.tensor(name).expect("is there");
        assert_eq!((tensor.part, file.read(tensor).expect("reads")), (part, numbers(first)), "{name}");
    }
    for mapped in [true, false] {
        let file = Gguf::open(&path).expect("opens").into();
        let checkpoint = crate::weights::Checkpoint::of_gguf(file, mapped).expect("known");
        assert_eq!(checkpoint.f32("model.norm.weight", &[8]).expect("reads")[0], 30.0);
        assert_eq!(checkpoint.f32("lm_head.weight", &[2, 4]).expect("reads")[0], 10.0);
        // A message names the file that has the tensor.
        let error = checkpoint.f32("model.norm.weight", &[9]).expect_err("another shape").to_string();
        assert!(error.contains(NAMES[2]), "{error}");
    }
    std::fs::write(dir.path().join(NAMES[2]), "changed").expect("written");
    let error = file.require_unchanged().expect_err("was changed").to_string();
    assert!(error.contains(NAMES[2]), "{error}");
}

#[test]
fn one_part_of_one_is_a_whole_model() {
    for count in [0, 1] {
        let mut writer = Writer::new();
        writer.key("split.count", u16_of(count));
        assert!(writer.open().1.is_ok(), "{count}");
    }
}

/// The error of a set whose parts were changed before they were written under these names, when one of them is opened.
fn refused_set(change: impl FnOnce(&mut [Writer; 3]), names: [&str; 3], opened: &str) -> (String, &'static str) {
    let mut parts = parts();
    change(&mut parts);
    let dir = written(&parts, &names);
    let error = Gguf::open(&dir.path().join(opened)).expect_err("should be refused");
    (error.to_string(), error.code())
}

#[test]
fn parts_that_do_not_go_together_are_named() {
    let [first, second, third] = NAMES;
    let check = |change: fn(&mut [Writer; 3]), parts: &[&str]| {
        let (message, code) = refused_set(change, NAMES, first);
        assert!(code == "model-file" && parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
    };
    check(|parts| parts.swap(1, 2), &[second, "part 3 of 3 by its metadata and part 2 by its name"]);
    check(|parts| parts.swap(0, 1), &[first, "part 2 of 3 by its metadata and part 1 by its name"]);
    check(|parts| parts[1] = Writer::new(), &[second, "a file of its own", first, "download"]);
    check(
        |parts| parts[1].set("split.count", u16_of(4)),
        &[second, "a part of 4 files with 4 tensors", "another model"],
    );
    check(
        |parts| parts[2].set("split.tensors.count", of_kind(5, &9i32.to_le_bytes())),
        &[third, "3 files with 9 tensors, where 3 with 4 are expected"],
    );
    check(|parts| parts[2].key("general.architecture", of_kind(8, &text("qwen2"))), &[third, "architecture \"qwen2\""]);
    check(
        |parts| parts[2].tensor("output.weight", &[8], 0, &numbers(0)),
        &[third, "the tensor `output.weight`, as", second, "has"],
    );
    check(|parts| parts[2].tensor("rope_freqs.weight", &[8], 0, &numbers(0)), &[first, "4 tensors", "hold 5", "again"]);
    check(|parts| parts[0].set("split.count", u16_of(2)), &[first, "its name does not say so", "-00001-of-00002.gguf"]);
    check(|parts| parts[0].set("split.count", u16_of(1001)), &[first, "`split.count`: 1001; at most 1000"]);
    check(|parts| parts[0].set("split.no", u16_of(3)), &[first, "`split.no`: 3", "there are 3"]);
    check(|parts| parts[0].keys.retain(|(key, _)| key != "split.no"), &[first, "do not say `split.no`"]);
    check(|parts| parts[0].keys.retain(|(key, _)| key != "split.tensors.count"), &["do not say `split.tensors.count`"]);
    check(|parts| parts[0].set("split.tensors.count", of_kind(5, &70_000i32.to_le_bytes())), &["70000; at most 65536"]);
    let (message, code) = refused_set(|parts| parts[1].version = 1, NAMES, first);
    assert!(code == "unsupported-model" && message.contains(second) && message.contains("version 1"), "{message}");
}

#[test]
fn a_part_that_is_missing_or_comes_first_is_named() {
    let [first, second, third] = NAMES;
    let (message, code) = refused_set(|_| {}, [first, "elsewhere.gguf", third], first);
    assert!(
        code == "model-not-found" && message.contains("part 2, m-00002-of-00003.gguf, is not beside it"),
        "{message}"
    );
    assert!(message.contains("download it into the same folder"), "{message}");
    for (number, name) in [(2, second), (3, third)] {
        let (message, code) = refused_set(|_| {}, NAMES, name);
        let want = format!("is part {number} of 3 of a model: give the path of the first, {first}");
        assert!(code == "model-file" && message.contains(&want), "{message}");
    }
    let (message, code) = refused_set(|_| {}, ["m.gguf", second, third], "m.gguf");
    assert!(
        code == "model-file" && message.contains("m.gguf") && message.contains("-00001-of-00003.gguf"),
        "{message}"
    );
    // A folder without the first part.
    let dir = written(&parts()[1..], &NAMES[1..]);
    let path = in_folder(dir.path()).expect("one set").expect("a GGUF file");
    assert_eq!(path, dir.path().join(first));
    let error = Gguf::open(Path::new(&path)).expect_err("not there");
    assert!(error.code() == "model-not-found" && error.to_string().contains(first), "{error}");
}

#[test]
fn two_sets_in_a_folder_are_listed_by_their_first_parts() {
    let dir = written(&parts(), &NAMES);
    std::fs::write(dir.path().join("n-00002-of-00002.gguf"), "x").expect("written");
    let error = in_folder(dir.path()).expect_err("two models").to_string();
    assert!(
        error.contains("2 GGUF files: give the path of one of m-00001-of-00003.gguf, n-00001-of-00002.gguf"),
        "{error}"
    );
}
