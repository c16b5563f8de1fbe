//! Why a rendering ends early.

pub(super) type Res<T> = Result<T, Fail>;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    /// What Python or jinja2 would raise.
    Error(String),
    /// Raised by the template itself with `raise_exception`.
    Raised(String),
    /// A limit of this library.
    Limit(String),
}

impl Fail {
    pub(super) fn error(message: impl Into<String>) -> Fail {
        Fail::Error(message.into())
    }

    pub(super) fn limit(message: impl Into<String>) -> Fail {
        Fail::Limit(message.into())
    }
}

impl std::fmt::Display for Fail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fail::Error(reason) | Fail::Limit(reason) => write!(f, "the chat template fails: {reason}"),
            Fail::Raised(reason) => f.write_str(reason),
        }
    }
}

/// `Err` with the message of a Python exception.
pub(super) fn error<T>(message: impl Into<String>) -> Res<T> {
    Err(Fail::error(message))
}
