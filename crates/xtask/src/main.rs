//! `cargo xtask gen [--check]`: writes the TypeScript, the pages and the C header that follow from the sources of the engine, or
//! fails when what is there is stale.

mod combinations;
mod errors;
mod header;
mod page;
mod symbols;
mod typescript;
mod wire;
mod words;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use prefixkv::{ABI_VERSION, FUNCTIONS, STATUSES};
use prefixkv_core::method::METHODS;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["gen"] => write(&root()),
        ["gen", "--check"] => check(&root()),
        _ => Err("usage: cargo xtask gen [--check]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every generated file with its content.
fn files(root: &Path) -> Result<Vec<(String, String)>, String> {
    let mut files = vec![
        ("ts/generated/errors.ts".into(), errors::typescript()),
        ("ts/generated/methods.ts".into(), typescript::methods(METHODS)),
        ("ts/generated/method_table.ts".into(), typescript::table(METHODS)),
        ("ts/generated/abi.ts".into(), symbols::typescript(ABI_VERSION, FUNCTIONS, STATUSES)),
        ("crates/capi/include/prefixkv.h".into(), header::c(ABI_VERSION, FUNCTIONS, STATUSES)),
        ("docs/errors.md".into(), errors::page()),
        ("docs/methods/README.md".into(), page::overview(METHODS)),
        ("docs/methods/combinations.md".into(), combinations::page(METHODS)),
    ];
    files.extend(METHODS.iter().map(|spec| (format!("docs/methods/{}.md", spec.name), page::method(spec))));
    files.extend(wire::files(root)?);
    Ok(files)
}

/// Pages of methods that are no more.
fn leftovers(root: &Path, files: &[(String, String)]) -> Vec<PathBuf> {
    let known: Vec<PathBuf> = files.iter().map(|(path, _)| root.join(path)).collect();
    let pages = fs::read_dir(root.join("docs/methods")).into_iter().flatten().flatten().map(|entry| entry.path());
    pages.filter(|page| !known.contains(page)).collect()
}

fn write(root: &Path) -> Result<(), String> {
    let files = files(root)?;
    for (path, content) in &files {
        let file = root.join(path);
        if fs::read_to_string(&file).is_ok_and(|old| old == *content) {
            continue;
        }
        let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&file, content));
        written.map_err(|error| format!("cannot write {path}: {error}"))?;
        eprintln!("wrote {path}");
    }
    for page in leftovers(root, &files) {
        fs::remove_file(&page).map_err(|error| format!("cannot remove {}: {error}", page.display()))?;
    }
    Ok(())
}

fn check(root: &Path) -> Result<(), String> {
    let stale = |(path, content): &(String, String)| {
        // A checkout on Windows may have its own line ends.
        fs::read_to_string(root.join(path)).map_or(true, |old| old.replace("\r\n", "\n") != *content)
    };
    let files = files(root)?;
    let mut stale: Vec<String> = files.iter().filter(|file| stale(file)).map(|(path, _)| path.clone()).collect();
    let name = |page: &PathBuf| page.strip_prefix(root).unwrap_or(page).display().to_string();
    stale.extend(leftovers(root, &files).iter().map(name));
    match stale.is_empty() {
        true => Ok(()),
        false => Err(format!("stale: {}; run `cargo xtask gen`", stale.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_files_are_fresh() {
        assert_eq!(check(&root()), Ok(()));
    }
}
