//! Statuses that calls return.

/// A status with its name in the header and its meaning.
#[derive(Debug)]
pub struct Status {
    pub name: &'static str,
    pub value: i32,
    pub doc: &'static str,
}

/// Done; of `pkv_next`: nothing yet.
pub(crate) const OK: i32 = 0;
/// The stream has ended and everything was read.
pub(crate) const END: i32 = -1;
/// The text does not fit the buffer.
pub(crate) const TOO_SMALL: i32 = -2;
/// The engine refuses.
pub(crate) const REFUSED: i32 = -3;
/// The handle belongs to no living object.
pub(crate) const STALE: i32 = -4;
/// A pointer or a length cannot be right.
pub(crate) const INVALID: i32 = -5;
/// Another thread is in `pkv_next` with the same ticket.
pub(crate) const BUSY: i32 = -6;
/// A defect of the library was caught.
pub(crate) const PANIC: i32 = -7;

/// Every status, in the order of the header.
pub const STATUSES: &[Status] = &[
    Status { name: "OK", value: OK, doc: "Done; of pkv_next: nothing yet." },
    Status { name: "END", value: END, doc: "The stream has ended and everything was read." },
    Status {
        name: "TOO_SMALL",
        value: TOO_SMALL,
        doc: "The text does not fit; *size says how much room it needs. Nothing is lost: call again.",
    },
    Status { name: "REFUSED", value: REFUSED, doc: "The engine refuses; the text says why." },
    Status { name: "STALE", value: STALE, doc: "No such handle: never given, released, or of another kind." },
    Status { name: "INVALID", value: INVALID, doc: "A pointer, a length or a text cannot be right." },
    Status { name: "BUSY", value: BUSY, doc: "Another thread is in pkv_next with this ticket." },
    Status {
        name: "PANIC",
        value: PANIC,
        doc: "A defect of the library, caught; the text says where. Please report it.",
    },
];
