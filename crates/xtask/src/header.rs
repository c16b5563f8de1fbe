//! The C header.

use prefixkv::{Function, Parameter, Status};

const WIDTH: usize = 120;

/// `crates/capi/include/prefixkv.h`.
pub(crate) fn c(version: u32, functions: &[Function], statuses: &[Status]) -> String {
    let statuses: Vec<String> = statuses
        .iter()
        .map(|Status { name, value, doc }| {
            let value = if *value < 0 { format!("({value})") } else { value.to_string() };
            format!("/* {doc} */\n#define PKV_{name} {value}\n")
        })
        .collect();
    let functions: Vec<String> = functions.iter().map(function).collect();
    format!(
        r#"/* Written by `cargo xtask gen` from crates/capi/src; edit that instead. */

/*
 * The C ABI of prefixkv. docs/c-abi.md has the whole story; in short:
 *
 * - A handle is a uint32_t, never 0, and is given back once with pkv_release.
 * - Texts go in with their length and need no zero at the end; they are copied before a call returns.
 * - `out`, `capacity`, `size`: a text comes out into a buffer of the caller's, without a zero at the end, with its size in *size.
 *   When it does not fit, nothing but *size is written. `out` may be null with a capacity of 0; `size` may be null.
 * - A result below 0 other than PKV_END and PKV_TOO_SMALL comes with a text {{ "code", "message", "details" }}. A call that has
 *   failed has changed nothing but the handle's place, which holds 0.
 * - Every function may be called from any thread at any time. None waits, but pkv_next when asked to.
 */

#ifndef PREFIXKV_H
#define PREFIXKV_H

#include <stddef.h>
#include <stdint.h>

/* Version of the ABI that this header describes; pkv_abi_version() gives the library's. */
#define PKV_ABI_VERSION {version}

{}
#ifdef __cplusplus
extern "C" {{
#endif

{}
#ifdef __cplusplus
}}
#endif

#endif
"#,
        statuses.join("\n"),
        functions.join("\n"),
    )
}

fn function(function: &Function) -> String {
    let parameters: Vec<String> = function.parameters.iter().map(parameter).collect();
    let parameters = if parameters.is_empty() { vec!["void".to_owned()] } else { parameters };
    let start = declared(function.result, function.name);
    let line = format!("{start}({});", parameters.join(", "));
    let declaration =
        if line.len() <= WIDTH { line } else { format!("{start}(\n    {});", parameters.join(",\n    ")) };
    format!("/*\n *{}\n */\n{declaration}\n", function.docs.join("\n *"))
}

fn parameter(parameter: &Parameter) -> String {
    declared(parameter.kind, parameter.name)
}

/// A name with the C type of a Rust type.
fn declared(kind: &str, name: &str) -> String {
    let kind = match kind {
        "u32" => "uint32_t ",
        "i32" => "int32_t ",
        "usize" => "size_t ",
        "*mut u32" => "uint32_t *",
        "*const usize" => "const size_t *",
        "*const c_char" => "const char *",
        "*mut c_char" => "char *",
        "*const *const u8" => "const uint8_t *const *",
        other => panic!("the header knows no C type for `{other}`"),
    };
    format!("{kind}{name}")
}
