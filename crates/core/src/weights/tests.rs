use safetensors::Dtype;

use super::shards::{INDEX, SINGLE};
use super::*;

fn write(dir: &Path, name: &str, tensors: &[(&str, Vec<usize>)]) {
    let zeros = |shape: &[usize]| vec![0u8; 4 * shape.iter().product::<usize>()];
    let data: Vec<_> = tensors.iter().map(|(name, shape)| (*name, Dtype::F32, shape.clone(), zeros(shape))).collect();
    write_bytes(&dir.join(name), &data);
}

/// A safetensors file of tensors with these bytes.
fn write_bytes(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).expect("valid view");
        (name.to_string(), view)
    });
    std::fs::write(path, safetensors::serialize(views, None).expect("serialises")).expect("written");
}

/// The bytes of numbers in a format of files.
fn bytes_of(dtype: Dtype, numbers: &[f32]) -> Vec<u8> {
    let each = numbers.iter().flat_map(|number| match dtype {
        Dtype::F32 => number.to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f32(*number).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f32(*number).to_le_bytes().to_vec(),
        other => panic!("{other:?}"),
    });
    each.collect()
}

const DENSE: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

fn refused(dir: &Path) -> Error {
    match Checkpoint::open(dir) {
        Ok(_) => panic!("{} should be refused", dir.display()),
        Err(error) => error,
    }
}

#[test]
fn folders_without_weights_say_what_is_missing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    assert_eq!(refused(dir.path()).code(), "model-not-found");
    std::fs::write(dir.path().join("pytorch_model.bin"), b"x").expect("written");
    let error = refused(dir.path());
    assert!(error.to_string().contains("pytorch_model.bin") && error.to_string().contains("safetensors"), "{error}");
}

#[test]
fn truncated_and_foreign_files_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(SINGLE);
    write(dir.path(), SINGLE, &[("a", vec![4, 8])]);
    let whole = std::fs::read(&path).expect("just written");
    for len in [0, 4, 8, 20, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).expect("written");
        let error = refused(dir.path());
        assert_eq!(error.code(), "model-file", "{len} bytes");
        assert!(error.to_string().contains("download it again") || len == 0, "{error}");
    }
    std::fs::write(&path, "not a safetensors file at all").expect("written");
    assert_eq!(refused(dir.path()).code(), "model-file");
}

#[test]
fn wrong_shapes_and_missing_tensors_are_named() {
    let dir = tempfile::tempdir().expect("temporary folder");
    write(dir.path(), SINGLE, &[("a", vec![4, 8])]);
    let checkpoint = Checkpoint::open(dir.path()).expect("opens");
    assert!(checkpoint.tensor("a", &[4, 8]).is_ok());
    let error = checkpoint.tensor("a", &[8, 4]).expect_err("wrong shape");
    assert!(error.to_string().contains("[4, 8]") && error.to_string().contains("[8, 4]"), "{error}");
    let error = checkpoint.tensor("b", &[1]).expect_err("missing");
    assert!(error.to_string().contains("`b`"), "{error}");
}

#[test]
fn shards_must_exist_and_stay_in_the_folder() {
    let dir = tempfile::tempdir().expect("temporary folder");
    write(dir.path(), "one.safetensors", &[("a", vec![2])]);
    let index =
        |map: &str| std::fs::write(dir.path().join(INDEX), format!("{{\"weight_map\": {map}}}")).expect("written");
    index(r#"{"a": "one.safetensors"}"#);
    assert!(Checkpoint::open(dir.path()).expect("opens").has("a"));
    index(r#"{"a": "one.safetensors", "b": "two.safetensors"}"#);
    let error = refused(dir.path());
    assert!(error.code() == "model-not-found" && error.to_string().contains("two.safetensors"), "{error}");
    index(r#"{"a": "../one.safetensors"}"#);
    assert_eq!(refused(dir.path()).code(), "model-file");
    index(r#"{"a": "one.safetensors", "b": "one.safetensors"}"#);
    assert!(refused(dir.path()).to_string().contains("`b`"));
    index("{");
    assert_eq!(refused(dir.path()).code(), "model-file");
}

#[test]
fn the_single_file_goes_before_an_index() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let index = |text: &str| std::fs::write(dir.path().join(INDEX), text).expect("written");
    write(dir.path(), SINGLE, &[("a", vec![2])]);
    // Left from another save: it names what is not there, or is no index at all.
    for stale in [r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#, "{", "[]", r#"{"weight_map": 5}"#] {
        index(stale);
        assert!(Checkpoint::open(dir.path()).expect("the single file is whole").has("a"), "{stale}");
    }
    write(dir.path(), "one.safetensors", &[("b", vec![2])]);
    index(r#"{"weight_map": {"b": "one.safetensors"}}"#);
    let checkpoint = Checkpoint::open(dir.path()).expect("opens");
    assert!(checkpoint.has("a") && !checkpoint.has("b"));
    std::fs::remove_file(dir.path().join(SINGLE)).expect("removed");
    assert!(Checkpoint::open(dir.path()).expect("opens").has("b"));
    // A damaged single file is not passed over for an index that fits.
    std::fs::write(dir.path().join(SINGLE), "damaged").expect("written");
    assert_eq!(refused(dir.path()).code(), "model-file");
}

#[test]
fn other_layouts_are_named() {
    for (names, code, parts) in [
        (vec!["model-00001-of-00002.safetensors"], "model-not-found", vec!["model.safetensors.index.json"]),
        (vec!["model.fp16.safetensors"], "model-not-found", vec!["model.fp16.safetensors", "variant", "rename"]),
        (vec!["model.safetensors.index.fp16.json"], "model-not-found", vec!["variant"]),
        (vec!["pytorch_model-00001-of-00002.bin"], "model-not-found", vec!["pickled", "safetensors"]),
        (vec!["consolidated.00.pth"], "model-not-found", vec!["pickled"]),
        (vec!["adapter_config.json", "adapter_model.safetensors"], "unsupported-model", vec!["adapter"]),
        (vec![], "model-not-found", vec!["neither"]),
    ] {
        let dir = tempfile::tempdir().expect("temporary folder");
        names.iter().for_each(|name| std::fs::write(dir.path().join(name), "x").expect("written"));
        let error = refused(dir.path());
        let message = error.to_string();
        assert!(error.code() == code && parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(message.contains("pickle") == parts.contains(&"pickled"), "{message}");
    }
    for (content, part) in [
        (&b"GGUF\x03\0\0\0________________"[..], "is a GGUF file: give it a name that ends in .gguf"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04________________", "pickled"),
    ] {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join(SINGLE), content).expect("written");
        let message = refused(dir.path()).to_string();
        assert!(message.contains(part) && message.contains(SINGLE), "{message}");
    }
}

#[test]
fn what_is_no_number_is_named_wherever_it_stands() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(SINGLE);
    // Longer than what is read together.
    for (rows, columns) in [(1, 1), (3, 5), (700, 800)] {
        for dtype in DENSE {
            for (bad, called) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinity"), (f32::NEG_INFINITY, "infinity")] {
                for (row, column) in [(0, 0), (rows / 2, columns / 2), (rows - 1, columns - 1)] {
                    let mut numbers = vec![0.5; rows * columns];
                    numbers[row * columns + column] = bad;
                    let shape = vec![rows, columns];
                    let plain = ("plain", dtype, shape.clone(), bytes_of(dtype, &vec![1.5; rows * columns]));
                    write_bytes(&path, &[plain, ("bad", dtype, shape.clone(), bytes_of(dtype, &numbers))]);
                    let checkpoint = Checkpoint::open(dir.path()).expect("opens");
                    assert_eq!(checkpoint.f32("plain", &shape).expect("numbers"), vec![1.5; rows * columns]);
                    let role = Role::Rows(columns);
                    for error in [
                        checkpoint.tensor("bad", &shape).map(|_| ()),
                        checkpoint.tensor_for("bad", &shape, role, WeightFormat::Q8_0).map(|_| ()),
                        checkpoint.f32("bad", &shape).map(|_| ()),
                        checkpoint.f16("bad", &shape, role).map(|_| ()),
                    ] {
                        let error = error.expect_err("no number");
                        let message = error.to_string();
                        assert_eq!(error.code(), "model-file");
                        let place = format!("`bad` holds {called} at [{row}, {column}]");
                        assert!(message.contains(&place) && message.contains(SINGLE), "{message}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_a_format_cannot_hold_is_named_with_those_that_can() {
    use WeightFormat::{F16, F32, Q4K, Q8_0};
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(SINGLE);
    for dtype in [Dtype::F32, Dtype::BF16] {
        for (value, columns, role, holding) in [
            (99_840.0, 256, Role::Rows(256), vec![F32, Q8_0, Q4K]),
            (99_840.0, 32, Role::Rows(32), vec![F32, Q8_0, Q4K]),
            (99_840.0, 24, Role::Rows(24), vec![F32]),
            (99_840.0, 256, Role::Table, vec![F32]),
            (99_840.0, 256, Role::Plain, vec![F32, F16, Q8_0, Q4K]),
            (-99_840.0, 256, Role::Rows(256), vec![F32, Q8_0, Q4K]),
            (65_280.0, 256, Role::Table, vec![F32, F16, Q8_0, Q4K]),
            (6e6, 256, Role::Rows(256), vec![F32, Q8_0]),
            (1e8, 256, Role::Rows(256), vec![F32]),
        ] {
            let mut numbers = vec![1.0; 2 * columns];
            numbers[columns + 1] = value;
            let shape = [2, columns];
            write_bytes(&path, &[("w", dtype, shape.to_vec(), bytes_of(dtype, &numbers))]);
            let checkpoint = Checkpoint::open(dir.path()).expect("opens");
            for format in [F32, F16, Q8_0, Q4K] {
                let read = checkpoint.tensor_for("w", &shape, role, format);
                if holding.contains(&format) {
                    assert!(read.is_ok(), "{value} {role:?} {format:?}");
                    continue;
                }
                let error = read.expect_err("does not fit");
                let names: Vec<&str> = holding.iter().map(|format| format.name()).collect();
                assert_eq!((error.code(), error.details()["fits"].clone()), ("numbers", serde_json::json!(names)));
                let message = error.to_string();
                let stored = if dtype == Dtype::BF16 { bf16::from_f32(value).to_f32() } else { value }.abs();
                for part in ["`w`", SINGLE, &stored.to_string(), format.name(), "load with weights \"f32\""] {
                    assert!(message.contains(part), "{part}: {message}");
                }
            }
            let narrow = checkpoint.f16("w", &shape, role);
            assert_eq!(narrow.is_ok(), holding.contains(&F16), "{value} {role:?}");
        }
    }
}

#[test]
fn formats_that_are_not_read_are_named() {
    for (tensors, wanted, parts) in [
        (vec![("a.weight", Dtype::F64, vec![2, 2], vec![0; 32])], "a.weight", vec!["`a.weight`", "F64", "convert"]),
        (vec![("a.weight", Dtype::I16, vec![2, 2], vec![0; 8])], "a.weight", vec!["I16"]),
        (vec![("a.weight", Dtype::U8, vec![2, 1], vec![0; 2])], "a.weight", vec!["bitsandbytes", "U8", "q4_k"]),
        (
            vec![("a.weight", Dtype::I8, vec![2, 2], vec![0; 4]), ("a.SCB", Dtype::F32, vec![2], vec![0; 8])],
            "a.weight",
            vec!["bitsandbytes, 8 bit"],
        ),
        (vec![("a.weight", Dtype::F8_E4M3, vec![2, 2], vec![0; 4])], "a.weight", vec!["FP8", "F8_E4M3"]),
        (
            vec![("a.qweight", Dtype::I32, vec![2], vec![0; 8]), ("a.g_idx", Dtype::I32, vec![1], vec![0; 4])],
            "a.weight",
            vec!["GPTQ", "no tensor `a.weight`"],
        ),
        (vec![("a.qweight", Dtype::I32, vec![2], vec![0; 8])], "a.weight", vec!["AWQ or GPTQ"]),
        (vec![("a.weight_packed", Dtype::I32, vec![2], vec![0; 8])], "a.weight", vec!["compressed-tensors"]),
        (vec![("a.W_q", Dtype::U8, vec![2], vec![0; 2])], "a.weight", vec!["HQQ"]),
    ] {
        let dir = tempfile::tempdir().expect("temporary folder");
        write_bytes(&dir.path().join(SINGLE), &tensors);
        let checkpoint = Checkpoint::open(dir.path()).expect("opens");
        let error = checkpoint.tensor(wanted, &[2, 2]).expect_err("not read");
        let message = error.to_string();
        assert!(error.code() == "unsupported-model" && message.contains(SINGLE), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
        assert_eq!(checkpoint.parameters(), tensors.iter().filter(|(name, ..)| *name == "a.SCB").count() as u64 * 2);
    }
}

#[test]
fn files_that_change_while_they_are_read_are_errors() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(SINGLE);
    let shape = [600, 700];
    let fill = |value: f32| {
        let tensor = |name| (name, Dtype::F32, shape.to_vec(), bytes_of(Dtype::F32, &vec![value; 420_000]));
        write_bytes(&path, &[tensor("a"), tensor("b")]);
    };
    fill(1.0);
    let open = || Checkpoint::open(dir.path()).expect("opens");
    let (whole, bytes) = (open(), std::fs::read(&path).expect("there"));
    let a = whole.tensor("a", &shape).expect("read");
    assert!(whole.require_unchanged().is_ok());
    // Cut: what was read stays, and what was not is an error.
    std::fs::File::options().write(true).open(&path).expect("opens").set_len(2_000_000).expect("cut");
    assert_eq!(a.sum_all().expect("a sum").to_scalar::<f32>().expect("a number"), 420_000.0);
    for error in [whole.tensor("b", &shape).map(|_| ()), whole.fingerprint().map(|_| ()), whole.require_unchanged()] {
        let error = error.expect_err("cut");
        assert!(error.code() == "model-file" && error.to_string().contains(SINGLE), "{error}");
    }
    // The same size, other numbers.
    std::fs::write(&path, &bytes).expect("written");
    let rewritten = open();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fill(2.0);
    assert_eq!(std::fs::metadata(&path).expect("there").len(), bytes.len() as u64);
    let error = rewritten.require_unchanged().expect_err("other numbers");
    assert!(error.to_string().contains("was changed while it was read"), "{error}");
    // Renamed over or removed: the file that was opened is still whole.
    let moved = open();
    std::fs::write(dir.path().join("new"), "x").expect("written");
    std::fs::rename(dir.path().join("new"), &path).expect("renamed");
    assert!(moved.tensor("b", &shape).is_ok() && moved.require_unchanged().is_ok());
}

#[cfg(unix)]
#[test]
fn a_fifo_or_a_device_is_no_weights_file() {
    for name in [SINGLE, INDEX, "one.safetensors"] {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join(INDEX), r#"{"weight_map": {"a": "one.safetensors"}}"#).expect("written");
        let path = dir.path().join(name);
        let _ = std::fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        let error = refused(dir.path());
        assert!(error.code() == "model-file" && error.to_string().contains("is a FIFO"), "{error}");
        std::fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("linked");
        let error = refused(dir.path());
        assert!(error.code() == "model-file" && error.to_string().contains("is a device"), "{error}");
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let huge = std::fs::File::create(dir.path().join(INDEX)).expect("created");
    huge.set_len(3 << 30).expect("grown");
    assert!(refused(dir.path()).to_string().contains("more than 64 MiB"));
    // A header as long as the file, of nothing.
    let path = dir.path().join(SINGLE);
    std::fs::write(&path, (1u64 << 31).to_le_bytes()).expect("written");
    std::fs::File::options().write(true).open(&path).expect("opens").set_len(3 << 30).expect("grown");
    assert!(refused(dir.path()).to_string().contains("a header of"));
}
