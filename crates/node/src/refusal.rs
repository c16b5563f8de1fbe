//! Errors on their way to JavaScript.

/// The JavaScript error of an engine error.
pub(crate) fn thrown(error: prefixkv_core::Error) -> napi::Error {
    napi::Error::from_reason(error.to_json().to_string())
}
