//! The C ABI as the TypeScript doors over foreign function interfaces need it.

use prefixkv::{Function, Status};

/// `ts/generated/abi.ts`.
pub(crate) fn typescript(version: u32, functions: &[Function], statuses: &[Status]) -> String {
    let statuses: Vec<String> =
        statuses.iter().map(|Status { name, value, .. }| format!("  {}: {value},", camel(name))).collect();
    let functions: Vec<String> = functions.iter().map(symbol).collect();
    format!(
        r#"// Written by `cargo xtask gen` from crates/capi/src; edit that instead.

/** The version of the ABI that {{@link functions}} describes. */
export const abiVersion = {version};

/** Statuses that the functions return. */
export const status = {{
{}
}} as const;

/** The functions with their parameters: numbers by their width, and pointers to bytes. */
export const functions = {{
{}
}} as const;
"#,
        statuses.join("\n"),
        functions.join("\n"),
    )
}

fn symbol(function: &Function) -> String {
    let parameters: Vec<String> =
        function.parameters.iter().map(|parameter| format!("\"{}\"", kind(parameter.kind))).collect();
    let (parameters, result) = (parameters.join(", "), kind(function.result));
    let line = format!("  {}: {{ parameters: [{parameters}], result: \"{result}\" }},", function.name);
    if line.len() <= 120 {
        return line;
    }
    format!("  {}: {{\n    parameters: [{parameters}],\n    result: \"{result}\",\n  }},", function.name)
}

fn kind(rust: &'static str) -> &'static str {
    if rust.starts_with('*') { "buffer" } else { rust }
}

fn camel(name: &str) -> String {
    let mut words = name.split('_').map(str::to_lowercase);
    let first = words.next().unwrap_or_default();
    words.fold(first, |camel, word| camel + &word[..1].to_uppercase() + &word[1..])
}
