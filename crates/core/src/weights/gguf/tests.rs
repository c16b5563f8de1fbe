//! Headers: what is read, and what is refused and how.

mod split;

use std::path::PathBuf;

use super::*;

/// A name, sizes innermost first, a type and an offset.
type Entry = (String, Vec<u64>, u32, u64);

/// Writes GGUF files.
#[derive(Clone)]
struct Writer {
    version: u32,
    /// Keys with the bytes of their kind and value.
    keys: Vec<(String, Vec<u8>)>,
    tensors: Vec<Entry>,
    data: Vec<u8>,
    alignment: usize,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn of_kind(kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], bytes].concat()
}

fn list(kind: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    of_kind(9, &[&kind.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat())
}

impl Writer {
    /// A file of an architecture with a tensor of each of two types.
    fn new() -> Writer {
        let mut writer = Writer { version: 3, keys: vec![], tensors: vec![], data: vec![], alignment: 32 };
        writer.key("general.architecture", of_kind(8, &text("llama")));
        writer.key("llama.attention.head_count", of_kind(4, &2u32.to_le_bytes()));
        writer.tensor(
            "token_embd.weight",
            &[4, 2],
            0,
            &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0].map(f32::to_le_bytes).concat(),
        );
        writer.tensor("output.weight", &[32, 2], 8, &[0; 68]);
        writer
    }

    fn key(&mut self, key: &str, value: Vec<u8>) {
        self.keys.push((key.into(), value));
    }

    fn tensor(&mut self, name: &str, sizes: &[u64], kind: u32, bytes: &[u8]) {
        self.data.resize(self.data.len().next_multiple_of(self.alignment), 0);
        self.tensors.push((name.into(), sizes.to_vec(), kind, self.data.len() as u64));
        self.data.extend(bytes);
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(text(key));
            out.extend(value);
        }
        for (name, sizes, kind, offset) in &self.tensors {
            out.extend(text(name));
            out.extend((sizes.len() as u32).to_le_bytes());
            sizes.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(&self.data);
        out
    }

    fn open(&self) -> (tempfile::TempDir, Result<Gguf>) {
        opened(&self.bytes())
    }
}

fn opened(bytes: &[u8]) -> (tempfile::TempDir, Result<Gguf>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("written");
    let opened = Gguf::open(&path);
    (dir, opened)
}

#[test]
fn keys_and_tensors_are_read() {
    for version in [2, 3] {
        let mut writer = Writer { version, ..Writer::new() };
        writer.key("a.u8", of_kind(0, &[200]));
        writer.key("a.i8", of_kind(1, &[200]));
        writer.key("a.i16", of_kind(3, &(-3i16).to_le_bytes()));
        writer.key("a.u64", of_kind(10, &u64::MAX.to_le_bytes()));
        writer.key("a.f32", of_kind(6, &1e-5f32.to_le_bytes()));
        writer.key("a.flag", of_kind(7, &[1]));
        writer.key("a.texts", list(8, 2, &[text("x"), text("\u{e9}")].concat()));
        writer.key("a.integers", list(5, 2, &[1i32, -1].map(i32::to_le_bytes).concat()));
        writer.key("a.numbers", list(6, 1, &0.5f32.to_le_bytes()));
        writer.key("a.none", list(8, 0, &[]));
        let (_dir, file) = writer.open();
        let file = file.expect("opens");
        let metadata = file.metadata();
        assert_eq!(metadata.size("a.u8").expect("a size"), Some(200));
        assert_eq!(metadata.get("a.i8"), Some(&Value::Integer(-56)));
        assert_eq!(metadata.number("a.i16").expect("a number"), Some(-3.0));
        assert_eq!(metadata.get("a.u64"), Some(&Value::Integer(u64::MAX.into())));
        assert_eq!(metadata.number("a.f32").expect("a number"), Some(f64::from(1e-5f32)));
        assert_eq!(metadata.flag("a.flag").expect("a flag"), Some(true));
        let texts = |key: &str| metadata.texts(key).expect("texts").map(|texts| texts.iter().collect::<Vec<_>>());
        assert_eq!(texts("a.texts"), Some(vec!["x", "\u{e9}"]));
        let two = metadata.texts("a.texts").expect("texts").expect("is there");
        assert_eq!((two.get(1), two.get(2), two.len(), two.is_empty()), (Some("\u{e9}"), None, 2, false));
        assert_eq!(metadata.integers("a.integers").expect("integers"), Some(&[1, -1][..]));
        assert_eq!(metadata.numbers("a.numbers").expect("numbers"), Some(&[0.5][..]));
        assert_eq!(texts("a.none"), Some(vec![]));
        assert_eq!(metadata.size("absent").expect("nothing"), None);
        for wrong in [metadata.size("a.i16"), metadata.size("a.f32"), metadata.of_all_layers("a.integers")] {
            assert!(wrong.is_err(), "{wrong:?}");
        }
        let embeddings = file.tensor("token_embd.weight").expect("is there");
        assert_eq!((&embeddings.shape[..], embeddings.kind.name), (&[2, 4][..], "F32"));
        assert_eq!(file.read(embeddings).expect("reads"), writer.data[..32]);
        assert_eq!(file.tensor("output.weight").map(|tensor| tensor.bytes), Some(68));
    }
}

/// Checks that a file is refused with a code and parts of a message.
fn refused(bytes: &[u8], code: &str, parts: &[&str]) {
    let (_dir, file) = opened(bytes);
    let Err(error) = file else { panic!("should be refused: {parts:?}") };
    let message = error.to_string();
    assert!(error.code() == code && parts.iter().all(|part| message.contains(part)), "{message}");
    assert!(message.contains("model.gguf"), "{message}");
}

#[test]
fn files_cut_anywhere_are_refused() {
    let mut writer = Writer::new();
    writer.key("a.texts", list(8, 2, &[text("x"), text("y")].concat()));
    let whole = writer.bytes();
    assert!(opened(&whole).1.is_ok());
    for len in 0..whole.len() {
        refused(&whole[..len], "model-file", &[]);
    }
}

#[test]
fn what_a_header_cannot_say_is_named() {
    let with = |change: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        change(&mut writer);
        writer.bytes()
    };
    let key = |value: Vec<u8>| with(&|writer| writer.key("a.b", value.clone()));
    let many = 1u64 << 40;
    refused(b"not a GGUF file, however long it may be", "model-file", &["does not begin with `GGUF`"]);
    refused(&with(&|w| w.version = 1), "unsupported-model", &["version 1"]);
    refused(&with(&|w| w.version = 3u32.swap_bytes()), "unsupported-model", &["big-endian"]);
    refused(
        &with(&|w| w.key("general.architecture", of_kind(8, &text("x")))),
        "model-file",
        &["`general.architecture` twice"],
    );
    refused(&key(of_kind(13, &[0; 8])), "model-file", &["`a.b` has a value of the kind 13"]);
    refused(&key(of_kind(7, &[2])), "model-file", &["neither true nor false"]);
    refused(&key(of_kind(8, &[&many.to_le_bytes()[..], b"x"].concat())), "model-file", &["the value of `a.b` has"]);
    refused(&key(of_kind(8, &[&1u64.to_le_bytes()[..], b"\xff"].concat())), "model-file", &["not UTF-8"]);
    refused(&key(list(8, many, &text("x"))), "model-file", &["`a.b` promises"]);
    refused(&key(list(0, 5 << 20, &[1])), "model-file", &["truncated"]);
    refused(&key(list(9, 1, &list(0, 1, &[1])[4..])), "model-file", &["list of lists"]);
    refused(&key(list(10, 1, &u64::MAX.to_le_bytes())), "model-file", &["too large"]);
    let alignment = |value: u32| with(&|w| w.key("general.alignment", of_kind(4, &value.to_le_bytes())));
    for value in [0, 1, 12, 48, 1 << 21, u32::MAX] {
        refused(&alignment(value), "model-file", &["`general.alignment`"]);
    }
    let tensor = |change: &dyn Fn(&mut Entry)| with(&|writer| change(&mut writer.tensors[1]));
    refused(&tensor(&|t| t.0 = "token_embd.weight".into()), "model-file", &["`token_embd.weight` twice"]);
    refused(&tensor(&|t| t.0 = "x".repeat(300)), "model-file", &["the name of a tensor"]);
    refused(&tensor(&|t| t.1 = vec![]), "model-file", &["0 dimensions"]);
    refused(&tensor(&|t| t.1 = vec![32, 1, 1, 1, 1]), "model-file", &["5 dimensions"]);
    refused(&tensor(&|t| t.1 = vec![32, 0]), "model-file", &["dimension of 0"]);
    refused(&tensor(&|t| t.1 = vec![32, many]), "model-file", &["which the file cannot hold"]);
    refused(&tensor(&|t| t.1 = vec![1 << 32, 1 << 32, 1 << 32, 1 << 32]), "model-file", &["cannot hold"]);
    refused(&tensor(&|t| t.1 = vec![33, 2]), "model-file", &["rows of 33, no multiple of 32"]);
    refused(
        &tensor(&|t| t.2 = 18),
        "unsupported-model",
        &["`output.weight`", "is IQ3_XXS", "Q4_K", "take another file"],
    );
    refused(&tensor(&|t| t.2 = 77), "unsupported-model", &["`output.weight`", "type 77"]);
    refused(&tensor(&|t| t.3 = 33), "model-file", &["lies at 33"]);
    refused(&tensor(&|t| t.3 = u64::MAX - 31), "model-file", &["truncated: tensor `output.weight`"]);
    refused(&tensor(&|t| t.3 = 0), "model-file", &["overlap"]);
}

#[test]
fn counts_are_not_believed() {
    let whole = Writer::new().bytes();
    for (at, what) in [(8, "tensors"), (16, "keys")] {
        for count in [u64::MAX, 1 << 32, 70_000] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            refused(&bytes, "model-file", &["it promises", what]);
        }
    }
}

#[test]
fn a_path_means_one_file() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str| std::fs::write(dir.path().join(name), "x").expect("written");
    let found = || in_folder(dir.path());
    assert_eq!(found().expect("nothing"), None);
    write("mmproj-model-f16.gguf");
    assert_eq!(found().expect("the only one"), Some(dir.path().join("mmproj-model-f16.gguf")));
    write("config.json");
    write("a.GGUF");
    assert_eq!(found().expect("the only model"), Some(dir.path().join("a.GGUF")));
    assert_eq!(in_folder(&dir.path().join("a.GGUF")).expect("itself"), Some(dir.path().join("a.GGUF")));
    assert_eq!(in_folder(&dir.path().join("config.json")).expect("no GGUF"), None);
    write("b.gguf");
    let error = found().expect_err("two");
    assert!(error.code() == "model-not-found" && error.to_string().contains("one of a.GGUF, b.gguf"), "{error}");
    write("model.safetensors");
    assert_eq!(found().expect("the usual layout"), None);
}

#[test]
fn tensors_are_asked_for_in_the_names_of_hugging_face() {
    let mut writer = Writer::new();
    // Two heads of four rows; the channels of a row say which it is.
    let rows: Vec<u8> = (0..8u32).flat_map(|row| (row as f32).to_le_bytes()).collect();
    writer.tensor("blk.0.attn_q.weight", &[1, 8], 0, &rows);
    writer.tensor("blk.0.attn_v.weight", &[1, 8], 0, &rows);
    let (_dir, file) = writer.open();
    let checkpoint = crate::weights::Checkpoint::of_gguf(file.expect("opens").into(), true).expect("known");
    let read = |name: &str| checkpoint.f32(&format!("model.layers.0.self_attn.{name}.weight"), &[8, 1]).expect("reads");
    assert_eq!(read("q_proj"), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(read("v_proj"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    assert!(checkpoint.has("lm_head.weight") && !checkpoint.has("output.weight"));
    assert_eq!(checkpoint.parameters(), 8 + 64 + 16);
    let error = checkpoint.f32("model.embed_tokens.weight", &[4, 2]).expect_err("another shape");
    assert!(error.code() == "model-file" && error.to_string().contains("[2, 4]"), "{error}");
    let error = checkpoint.f32("model.norm.weight", &[4]).expect_err("not there");
    assert!(error.code() == "model-file" && error.to_string().contains("model.norm.weight"), "{error}");
}

#[test]
fn files_of_other_models_are_refused() {
    let named = |writer: &Writer| {
        let (_dir, file) = writer.open();
        crate::weights::Checkpoint::of_gguf(file.expect("a sound header").into(), true)
            .map(|_| ())
            .expect_err("refused")
    };
    let of = |architecture: &str| {
        let mut writer = Writer::new();
        writer.keys[0].1 = of_kind(8, &text(architecture));
        named(&writer).to_string()
    };
    assert!(of("clip").contains("mmproj") && of("gemma4").contains("\"gemma4\"; of GGUF files llama, qwen2"));
    let mut writer = Writer::new();
    writer.tensor("blk.0.ffn_gate_exps.weight", &[1, 8], 0, &[0; 32]);
    let error = named(&writer);
    assert!(
        error.code() == "unsupported-model" && error.to_string().contains("`blk.0.ffn_gate_exps.weight`"),
        "{error}"
    );
    let mut writer = Writer::new();
    writer.tensor("blk.0.attn_q.weight", &[1, 6], 0, &[0; 24]);
    let error = named(&writer);
    assert!(error.code() == "model-file" && error.to_string().contains("6 rows"), "{error}");
    let mut writer = Writer::new();
    writer.keys.remove(1);
    assert!(named(&writer).to_string().contains("llama.attention.head_count"));
    let path = PathBuf::from("/nowhere/model.gguf");
    assert_eq!(Gguf::open(&path).expect_err("not there").code(), "model-not-found");
}
