//! The codes of the errors: those of the engine, which says what they mean, and those that only TypeScript raises, which are here.

use prefixkv_core::error::{FACTS, Facts};

use crate::typescript::{HEADER, string};

/// What TypeScript raises without the engine. A test compares it with the sources.
const LIBRARY: &[Facts] = &[
    Facts {
        code: "consumed",
        class: "PrefixKvError",
        cause: "A generation is iterated a second time.",
        cure: "Keep its parts, or await its result, which can be had as often as wanted.",
        details: &[],
    },
    Facts {
        code: "native-missing",
        class: "NativeError",
        cause: "There is no native addon for this platform, or it does not load, or has another version of the ABI.",
        cure: "In a checkout run `npm run build:native`; give Deno `--allow-ffi` and `--allow-read`.",
        details: &[
            ("platform", "the platform"),
            ("attempts", "the files that were tried, with the reasons"),
            ("found", "the version of the ABI that the file has"),
            ("needed", "the version that is needed"),
        ],
    },
    hub(
        "hub-not-found",
        "The hub has no such model, revision or file.",
        "Check the name and the revision.",
        &[STATUS, FILE],
    ),
    hub(
        "hub-unauthorized",
        "The model is private, gated or misspelt: the hub often does not say which.",
        "Check the name; accept the model's terms on its page; pass `token`, set `HF_TOKEN` or run `hf auth login`.",
        &[STATUS, FILE],
    ),
    hub(
        "hub-rate-limited",
        "The hub asks for a longer pause than a download waits.",
        "Wait, or pass a token, which has higher limits.",
        &[STATUS, FILE, ("retryAfter", "seconds to wait, if the hub says them")],
    ),
    hub(
        "hub-network",
        "There is no connection, or it broke too often.",
        "Try again: what has come is kept. Check the network and `endpoint`.",
        &[STATUS, FILE],
    ),
    hub(
        "hub-response",
        "An answer that no hub gives, or a file name that leads out of the folder.",
        "Check `endpoint` and what stands between it and this machine.",
        &[STATUS, FILE],
    ),
    hub(
        "hub-integrity",
        "The content is not what was promised, by size, hash or commit; it was removed.",
        "Download again; if it comes again, report it to the model's owner.",
        &[FILE],
    ),
    hub(
        "hub-files",
        "The model has no safetensors, no configuration or no `tokenizer.json`.",
        "Take another model, or a revision that has them.",
        &[("files", "what the model has")],
    ),
    hub(
        "hub-offline",
        "Downloads are switched off, and the cache does not have the model.",
        "Load it once without `offline`, or name the cache that has it with `cacheDir`.",
        &[("missing", "the files that the cache does not have"), ("cacheDir", "the cache")],
    ),
    Facts {
        code: "hub-disk",
        class: "HubError",
        cause: "The disk of the cache is full, or the cache cannot be written.",
        cure: "Free some of the disk, or set `HF_HUB_CACHE` or `cacheDir` to a place with room.",
        details: &[
            ("cacheDir", "the cache"),
            ("errno", "the system's name of the failure"),
            ("needed", "bytes that are needed, if that is known"),
            ("free", "bytes that are free, if they were too few from the start"),
        ],
    },
    Facts {
        code: "fit",
        class: "FitError",
        cause: "The file of a fit cannot be read or written, is none, or belongs to another model; or the measurements beside it are of another fit, or of one that still runs.",
        cure: "Fit this model with `model.fit`; delete the `.partial` file, or name another `file`.",
        details: &[],
    },
    Facts {
        code: "eval-data",
        class: "EvaluationError",
        cause: "The data of an evaluation cannot be read, or are not what their format says.",
        cure: "Mend the line that the message names, or look up the format in docs/eval.md.",
        details: &[("file", "the file"), ("line", "the line, if it is about one")],
    },
    Facts {
        code: "eval-files",
        class: "EvaluationError",
        cause: "A folder of results cannot be read or written, holds other results, or is being written by another evaluation.",
        cure: "Take another folder for other results; wait for the evaluation that writes into this one.",
        details: &[("file", "the file or the folder"), ("line", "the line, if it is about one")],
    },
];

const STATUS: (&str, &str) = ("status", "the status of the answer, if there was one");
const FILE: (&str, &str) = ("file", "the file, if it is about one");

/// Errors of the hub have `id` and `revision` too, as the page says.
const fn hub(
    code: &'static str,
    cause: &'static str,
    cure: &'static str,
    details: &'static [(&'static str, &'static str)],
) -> Facts {
    Facts { code, class: "HubError", cause, cure, details }
}

/// `ts/generated/errors.ts`.
pub(crate) fn typescript() -> String {
    let codes: Vec<String> = FACTS.iter().map(|facts| format!("  | {}", string(facts.code))).collect();
    let classes: String = FACTS.iter().map(|facts| format!("  {}: {},\n", key(facts.code), facts.class)).collect();
    let mut imports: Vec<&str> = FACTS.iter().map(|facts| facts.class).chain(["type PrefixKvError"]).collect();
    imports.sort_unstable_by_key(|name| name.trim_start_matches("type "));
    imports.dedup();
    let imports: String = imports.iter().map(|name| format!("  {name},\n")).collect();
    format!(
        r#"{HEADER}import {{
{imports}}} from "../errors.ts";

/** The codes of the errors that the engine raises. */
export type ErrorCode =
{codes};

/** The class of every code that the engine raises. */
export const errorClasses: Readonly<Record<ErrorCode, typeof PrefixKvError>> = {{
{classes}}};
"#,
        codes = codes.join("\n")
    )
}

/// The name of a property, in quotes where it needs them.
fn key(name: &str) -> String {
    match name.chars().all(|letter| letter.is_ascii_alphanumeric()) {
        true => name.into(),
        false => string(name),
    }
}

/// `docs/errors.md`.
pub(crate) fn page() -> String {
    format!(
        r#"<!-- Written by `cargo xtask gen` from crates/core/src/error/facts.rs and crates/xtask/src/errors.rs; edit those instead. -->

# Errors

Every error that this library throws is a `PrefixKvError` with a stable `code`, a message that says what was found and what to do, and `details` for programs. The classes are there for `instanceof`; `UnsupportedModelError` and `HubError` are `ModelError`s, `BudgetError`, `CalibrationError` and `FitError` are `OptionError`s. `name` is the name of the class.

```ts
import {{ load, PrefixKvError }} from "prefixkv";

const error = await load("no/such/folder").catch((error: unknown) => error);
if (error instanceof PrefixKvError) console.log(error.code, error.details);
```

The command line writes `error[code]: message` to standard error, or the same as JSON with `--json`, and exits with 1; with 130 for `aborted`. Arguments that it does not understand give the code `usage` and exit with 2. The [C ABI](c-abi.md) gives the codes of the engine.

## Raised by the engine

{}
## Raised without the engine

Errors of the [hub](hub.md) have `details.id` and `details.revision`, and `details.url` where there was an address.

{}"#,
        table(FACTS),
        table(LIBRARY)
    )
}

fn table(facts: &[Facts]) -> String {
    let rows: String = facts
        .iter()
        .map(|facts| {
            let details: Vec<String> =
                facts.details.iter().map(|(name, meaning)| format!("`{name}`: {meaning}")).collect();
            let details = if details.is_empty() { "-".to_owned() } else { details.join("; ") };
            format!("| `{}` | `{}` | {} | {} | {details} |\n", facts.code, facts.class, facts.cause, facts.cure)
        })
        .collect();
    format!("| code | class | raised when | what to do | details |\n| --- | --- | --- | --- | --- |\n{rows}")
}
