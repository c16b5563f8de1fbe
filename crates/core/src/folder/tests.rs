use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use super::*;

/// A folder with one of each kind of file, by name, and what its refusal says.
fn zoo() -> (tempfile::TempDir, Vec<(&'static str, &'static str)>) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("folder")).expect("made");
    assert!(Command::new("mkfifo").arg(at("fifo")).status().expect("mkfifo").success());
    drop(UnixListener::bind(at("socket")).expect("bound"));
    for (link, target) in [("zero", "/dev/zero"), ("null", "/dev/null"), ("to-fifo", "fifo"), ("twice", "to-fifo")] {
        symlink(target, at(link)).expect("linked");
    }
    symlink("loop", at("loop")).expect("linked");
    let kinds = vec![
        ("folder", "a folder"),
        ("fifo", "a FIFO"),
        ("to-fifo", "a FIFO"),
        ("twice", "a FIFO"),
        ("socket", "a socket"),
        ("zero", "a device"),
        ("null", "a device"),
        ("loop", "cannot be read"),
    ];
    (dir, kinds)
}

#[test]
fn what_is_no_plain_file_is_refused_and_never_waited_for() {
    let (dir, kinds) = zoo();
    for (name, found) in kinds {
        let path = dir.path().join(name);
        for error in [
            open(&path).map(|_| ()).expect_err(name),
            read(&path, 10).map(|_| ()).expect_err(name),
            read_text(&path, 10).map(|_| ()).expect_err(name),
            read_json(&path, 10).map(|_| ()).expect_err(name),
            read_object(&path, 10).map(|_| ()).expect_err(name),
        ] {
            assert_eq!(error.code(), "model-file", "{name}");
            let message = error.to_string();
            assert!(message.contains(found) && message.contains(name), "{message}");
        }
    }
}

#[test]
fn links_to_plain_files_are_followed_and_absent_ones_are_none() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("blob"), "{\"a\": 1}").expect("written");
    symlink("blob", at("link")).expect("linked");
    symlink(at("link"), at("second")).expect("linked");
    symlink("nowhere", at("dangling")).expect("linked");
    assert_eq!(read_text(&at("second"), 100).expect("read").as_deref(), Some("{\"a\": 1}"));
    assert_eq!(read_object(&at("link"), 100).expect("read").expect("there")["a"], 1);
    for absent in ["nothing", "dangling", "nowhere/inside"] {
        assert!(open(&at(absent)).expect("absent").is_none(), "{absent}");
    }
}

#[test]
fn bytes_are_counted_as_they_come() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("config.json");
    std::fs::write(&path, " ".repeat(1 << 20)).expect("written");
    assert_eq!(read(&path, 1 << 20).expect("fits").expect("there").len(), 1 << 20);
    std::fs::write(&path, " ".repeat((1 << 20) + 1)).expect("written");
    let error = read(&path, 1 << 20).expect_err("a byte too many");
    assert!(error.code() == "model-file" && error.to_string().contains("more than 1 MiB"), "{error}");
    // Three gigabytes of nothing: refused without being read.
    let sparse = File::create(&path).expect("created");
    sparse.set_len(3 << 30).expect("grown");
    assert!(read(&path, CONFIGURATION).is_err());
    // A plain file whose stated size is 0.
    #[cfg(target_os = "linux")]
    assert!(read(Path::new("/proc/self/maps"), 16).is_err());
}

#[test]
fn text_json_and_objects_say_what_they_are_not() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("config.json");
    let says = |content: &[u8], found: &str| {
        std::fs::write(&path, content).expect("written");
        let error = read_object(&path, 100).expect_err(found);
        assert!(error.code() == "model-file" && error.to_string().contains(found), "{error}");
    };
    says(b"{", "not valid JSON");
    says(b"[1]", "must be a JSON object");
    says(b"", "not valid JSON");
    std::fs::write(&path, b"a\xff").expect("written");
    let error = read_text(&path, 100).expect_err("not UTF-8");
    assert!(error.to_string().contains("UTF-8"), "{error}");
}
