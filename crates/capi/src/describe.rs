//! One text per function: the macro exports it and describes it for the generators.

/// An exported function.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    /// The lines of its documentation, each with the space that follows the comment sign.
    pub docs: &'static [&'static str],
    pub parameters: &'static [Parameter],
    /// The Rust type of its result.
    pub result: &'static str,
}

/// A parameter with its Rust type, spaces left out.
#[derive(Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub kind: &'static str,
}

/// Exports functions and describes them in `FUNCTIONS`.
macro_rules! exports {
    ($($(#[doc = $doc:literal])* fn $name:ident($($parameter:ident: $kind:ty),* $(,)?) -> $result:ty $body:block)*) => {
        /// Every exported function, in the order of the header.
        pub const FUNCTIONS: &[$crate::Function] = &[$($crate::Function {
            name: stringify!($name),
            docs: &[$($doc),*],
            parameters: &[$($crate::Parameter { name: stringify!($parameter), kind: stringify!($kind) }),*],
            result: stringify!($result),
        }),*];

        $(
            $(#[doc = $doc])*
            ///
            /// # Safety
            ///
            /// Every pointer is valid for the length beside it, or for one value when it has none, until the call returns.
            #[unsafe(no_mangle)]
            #[allow(clippy::too_many_arguments)]
            pub unsafe extern "C" fn $name($($parameter: $kind),*) -> $result $body
        )*
    };
}
