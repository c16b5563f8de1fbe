//! The C ABI as a hostile caller uses it: calls in any order, stale handles, impossible lengths, null and crooked pointers.

use std::ffi::c_char;
use std::ptr;
use std::sync::OnceLock;

use prefixkv::*;
use prefixkv_core::wire::MAX_JSON;
use serde_json::{Value, json};

use super::request;
use crate::folder::repository;
use crate::target::{Kind, Target};

pub const TARGET: Target = Target {
    name: "abi",
    reads: "calls of the C ABI with handles, lengths, pointers and texts",
    kind: Kind::Bytes,
    memory: 256 << 20,
    short: 400,
    words: || &["{\"op\":\"tokenize\",\"text\":\"a\"}", "{\"source\":\"/nowhere\"}", "{", "\"", "}"],
    seeds,
    run,
};

/// A call is an op, a choice of handle, of room, of pointers, and a text with its length.
fn seeds() -> Vec<Vec<u8>> {
    let ops = |list: &[u8]| list.iter().flat_map(|op| [*op, *op, 3, 0, 255, *op]).collect::<Vec<u8>>();
    vec![ops(&[1, 4, 5, 7, 8]), ops(&[2, 3, 4, 5, 6, 7, 0]), ops(&[4, 4, 4, 5, 5, 5, 7, 7, 7])]
}

/// An engine over the embedded model, which lives as long as the process.
fn engine() -> u32 {
    static ENGINE: OnceLock<u32> = OnceLock::new();
    *ENGINE.get_or_init(|| {
        let source = repository("models/tiny-llava").canonicalize().expect("the embedded model");
        let text = json!({ "source": source }).to_string();
        let mut engine = 0;
        // SAFETY: the text is valid for its length and the handle for one value.
        let status =
            unsafe { pkv_open(text.as_ptr().cast(), text.len(), &raw mut engine, ptr::null_mut(), 0, ptr::null_mut()) };
        assert_eq!(status, 0);
        engine
    })
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// One of the sound texts, or the next bytes.
    fn text(&mut self) -> Vec<u8> {
        match self.byte() {
            choice @ 128.. => {
                let mut texts: Vec<Value> = request::requests();
                let runs_a_model = [
                    "generate",
                    "score",
                    "trace",
                    "profile",
                    "distances",
                    "similarity",
                    "sensitivity",
                    "channels",
                    "codebooks",
                    "directions",
                ];
                texts.retain(|text| text["op"].as_str().is_none_or(|op| !runs_a_model.contains(&op)));
                texts.push(json!({ "source": "/nowhere" }));
                texts[usize::from(choice) % texts.len()].to_string().into_bytes()
            }
            length => {
                let (text, rest) = self.0.split_at(usize::from(length).min(self.0.len()));
                self.0 = rest;
                text.to_vec()
            }
        }
    }
}

fn run(data: &[u8]) -> String {
    let mut reader = Reader(data);
    let mut handles = vec![engine()];
    let mut room = vec![0u8; 4096];
    let mut kinds = String::new();
    for _ in 0..32 {
        if reader.0.is_empty() {
            break;
        }
        let (op, choice) = (reader.byte(), reader.byte());
        let handle = match choice {
            0..128 => handles[usize::from(choice) % handles.len()],
            128..160 => u32::MAX >> (choice % 32),
            _ => (u32::from(choice) << 24) ^ u32::from(reader.byte()),
        };
        let mut size = u32::MAX;
        let (out, capacity, size_place): (*mut c_char, usize, *mut u32) = match reader.byte() {
            0 => (ptr::null_mut(), 0, ptr::null_mut()),
            1 => (ptr::null_mut(), 9, &raw mut size),
            2 => (room.as_mut_ptr().cast(), usize::MAX, &raw mut size),
            3 => (room.as_mut_ptr().cast(), 5, &raw mut size),
            4 => (room.as_mut_ptr().cast(), room.len(), (&raw mut size).cast::<u8>().wrapping_add(1).cast()),
            _ => (room.as_mut_ptr().cast(), room.len(), &raw mut size),
        };
        let mut given = 7u32;
        let pointers = reader.byte();
        let place: *mut u32 = match pointers % 8 {
            1 => ptr::null_mut(),
            2 => (&raw mut given).cast::<u8>().wrapping_add(1).cast(),
            _ => &raw mut given,
        };
        let text = if matches!(op % 9, 1 | 2 | 4) { reader.text() } else { Vec::new() };
        let (json, length): (*const c_char, usize) = match pointers / 8 % 8 {
            1 => (ptr::null(), text.len()),
            2 => (ptr::null(), usize::MAX),
            // Refused by their lengths, before anything is read.
            3 => (text.as_ptr().cast(), usize::MAX),
            4 => (text.as_ptr().cast(), MAX_JSON + 1),
            _ => (text.as_ptr().cast(), text.len()),
        };
        let picture = [9u8; 3];
        let (starts, lengths) = match pointers / 64 {
            1 => ([ptr::null(), picture.as_ptr()], [4, 3]),
            2 => ([picture.as_ptr(), picture.as_ptr()], [usize::MAX, 3]),
            _ => ([picture.as_ptr(), ptr::null()], [3, 0]),
        };
        let (starts, lengths, count) = match pointers % 5 {
            0 => (ptr::null(), lengths.as_ptr(), 1),
            1 => (starts.as_ptr(), lengths.as_ptr(), usize::MAX),
            2 => (starts.as_ptr().cast::<u8>().wrapping_add(1).cast(), lengths.as_ptr(), 1),
            3 => (starts.as_ptr(), lengths.as_ptr(), 2),
            _ => (ptr::null(), ptr::null(), 0),
        };
        // SAFETY: each pointer is valid for the length beside it, or is one that the calls promise to refuse: null, crooked, or
        // with a length over a limit that is looked at first.
        let status = unsafe {
            match op % 9 {
                0 => pkv_about(out, capacity, size_place),
                1 => pkv_open(json, length, place, out, capacity, size_place),
                2 => pkv_inspect(json, length, place, out, capacity, size_place),
                3 => pkv_loading(handle, place, out, capacity, size_place),
                4 => pkv_submit(handle, json, length, starts, lengths, count, place, out, capacity, size_place),
                5 => pkv_next(handle, u32::from(choice % 4), out, capacity, size_place),
                6 => pkv_cancel(handle),
                // The engine of the process stays open.
                7 if handle == handles[0] => 0,
                7 => pkv_close(handle, place, out, capacity, size_place),
                8 if handle == handles[0] => 0,
                _ => pkv_release(handle),
            }
        };
        kinds.push_str(&format!("{}:{status},", op % 9).replace(char::is_numeric, if status > 0 { "+" } else { "" }));
        kinds.push_str(&format!("{};", status.min(1)));
        check(op % 9, status, &room, capacity, size);
        if matches!(op % 9, 1..=4 | 7) && status == 0 && handle != handles[0] || matches!(op % 9, 1..=4) && status == 0
        {
            assert!(given != 0 && given != 7, "a call that succeeds gives a handle");
            handles.push(given);
        } else if given != 7 && status < 0 {
            assert_eq!(given, 0, "a call that fails leaves 0");
        }
    }
    for handle in handles.drain(1..) {
        // SAFETY: no pointers.
        let status = unsafe { pkv_release(handle) };
        assert!(status == 0 || status == -4, "{status}");
    }
    kinds.truncate(60);
    kinds
}

/// A failure that fits has a text, and a panic is never one.
fn check(op: u8, status: i32, room: &[u8], capacity: usize, size: u32) {
    assert!(status >= 0 || STATUSES.iter().any(|known| known.value == status), "unknown status {status}");
    assert_ne!(status, -7, "a panic in a call");
    let has_text =
        matches!(op, 0..=5 | 7) && matches!(status, -3 | -4 | -6) && capacity == room.len() && size != u32::MAX;
    if has_text && size as usize <= room.len() {
        let error: Value = serde_json::from_slice(&room[..size as usize]).expect("a failure's text is JSON");
        crate::target::refusal(&error, &prefixkv_core::Error::CODES);
        assert_ne!(error["code"], "internal", "{error}");
    }
}
