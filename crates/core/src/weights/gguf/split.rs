//! Models in several files, as llama.cpp's `llama-gguf-split` writes them: `NAME-00001-of-00003.gguf` and so on, the first with the metadata
//! of the model, each with its number (`split.no`, from 0), how many there are (`split.count`) and the tensors of all (`split.tensors.count`).

use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use super::{Gguf, MAX_TENSORS, Metadata};
use crate::error::{Error, Result};
use crate::folder::unusable;

/// Most files of a model.
const MAX_PARTS: usize = 1000;

/// The name of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    stem: &'a str,
    /// From 1 on.
    number: usize,
    count: usize,
}

impl<'a> Name<'a> {
    /// None of a file that is no part by its name.
    pub(super) fn of(name: &'a str) -> Option<Name<'a>> {
        let (rest, extension) = name.rsplit_once('.')?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| {
            let all = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            if all { text.parse().ok() } else { None }
        };
        let (number, count) = (digits(number)?, digits(count)?);
        let known = extension.eq_ignore_ascii_case("gguf") && (1..=count).contains(&number);
        known.then_some(Name { stem, number, count })
    }

    /// The name of another part.
    pub(super) fn part(self, number: usize) -> String {
        format!("{}-{number:05}-of-{:05}.gguf", self.stem, self.count)
    }
}

/// A file's number in the set that it belongs to, and the sizes of the set.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Split {
    /// From 0 on.
    number: usize,
    count: usize,
    /// Of all files.
    tensors: usize,
}

impl Split {
    /// None of a model in one file.
    fn of(metadata: &Metadata) -> Result<Option<Split>> {
        let need = |key: &str| metadata.size(key)?.ok_or_else(|| metadata.missing(key));
        let Some(count) = metadata.size("split.count")?.filter(|count| *count > 1) else { return Ok(None) };
        if count > MAX_PARTS {
            return Err(metadata.bad("split.count", format!("{count}; at most {MAX_PARTS} are read")));
        }
        let number = need("split.no")?;
        if number >= count {
            return Err(
                metadata.bad("split.no", format!("{number}, where parts are counted from 0 and there are {count}"))
            );
        }
        let tensors = need("split.tensors.count")?;
        if tensors as u64 > MAX_TENSORS {
            let reason = format!("{tensors}; at most {MAX_TENSORS} are read");
            return Err(metadata.bad("split.tensors.count", reason));
        }
        Ok(Some(Split { number, count, tensors }))
    }
}

/// The model that `first` is a file of, with the tensors of the others.
///
/// # Errors
/// [`Error::ModelNotFound`] where a part is not beside the first; [`Error::ModelFile`] where `first` is not the first, and where the parts are
/// not those of one model.
pub(super) fn whole(mut first: Gguf) -> Result<Gguf> {
    let Some(split) = Split::of(first.metadata())? else { return Ok(first) };
    let Split { number, count, tensors } = split;
    let path = first.path().to_owned();
    let named = path.file_name().and_then(|name| name.to_str()).and_then(Name::of);
    let Some(name) = named.filter(|name| name.count == count) else {
        let reason = format!(
            "is part {} of {count} of a model by its metadata, and its name does not say so: the others are found by names that end in \
             `-00001-of-{count:05}.gguf`, so give all parts the names that they were published with",
            number + 1
        );
        return Err(unusable(&path, reason));
    };
    if name.number != number + 1 {
        return Err(renamed(&path, number, name.number, count));
    }
    if number > 0 {
        let reason =
            format!("is part {} of {count} of a model: give the path of the first, {}", number + 1, name.part(1));
        return Err(unusable(&path, reason));
    }
    for number in 1..count {
        let part = beside(&path, name, number)?;
        require_next(&first, split, &part, number)?;
        add(&mut first, part)?;
    }
    let found = first.tensors.len();
    if found != tensors {
        let reason = format!(
            "is the first of {count} files with {tensors} tensors by its metadata, and these hold {found}: one of them is of another model; \
             download all of them again"
        );
        return Err(unusable(&path, reason));
    }
    Ok(first)
}

/// Opens the part that is so many behind the first, which has this path and name.
fn beside(first: &Path, name: Name<'_>, number: usize) -> Result<Gguf> {
    let part: PathBuf = first.with_file_name(name.part(number + 1));
    Gguf::open_one(&part).map_err(|error| match error {
        Error::ModelNotFound { .. } => {
            let (missing, count) = (name.part(number + 1), name.count);
            let reason = format!(
                "is the first of {count} files of a model, and part {}, {missing}, is not beside it: download it into the same folder",
                number + 1
            );
            Error::ModelNotFound { path: first.to_owned(), reason }
        }
        other => other,
    })
}

/// Errors when `part` is not the one that is so many behind `first`.
fn require_next(first: &Gguf, split: Split, part: &Gguf, number: usize) -> Result<()> {
    let (path, count) = (part.path(), split.count);
    let other = |what: String| {
        let reason =
            format!("{what}: it is of another model than {}; download the parts again", first.path().display());
        unusable(path, reason)
    };
    let Some(found) = Split::of(part.metadata())? else {
        return Err(other(format!(
            "has the name of part {} of {count} and is a file of its own by its metadata",
            number + 1
        )));
    };
    if found.number != number && found.count == count {
        return Err(renamed(path, found.number, number + 1, count));
    }
    if found != (Split { number, ..split }) {
        return Err(other(format!(
            "is a part of {} files with {} tensors, where {count} with {} are expected",
            found.count, found.tensors, split.tensors
        )));
    }
    const ARCHITECTURE: &str = "general.architecture";
    match (first.metadata().text(ARCHITECTURE)?, part.metadata().text(ARCHITECTURE)?) {
        (Some(one), Some(another)) if one != another => {
            let another: String = another.chars().take(40).collect();
            Err(other(format!("has the architecture {another:?}")))
        }
        _ => Ok(()),
    }
}

/// Adds the tensors of a part.
fn add(whole: &mut Gguf, part: Gguf) -> Result<()> {
    let number = whole.parts.len();
    for (name, mut tensor) in part.tensors {
        tensor.part = number;
        match whole.tensors.entry(name) {
            Entry::Vacant(free) => {
                free.insert(tensor);
            }
            Entry::Occupied(taken) => {
                let other = whole.parts[taken.get().part].path.display();
                let name = taken.key();
                let reason = format!(
                    "has the tensor `{name}`, as {other} has: one of the two is of another model; download them again"
                );
                return Err(unusable(&part.parts[0].path, reason));
            }
        }
    }
    whole.parts.extend(part.parts);
    Ok(())
}

fn renamed(path: &Path, number: usize, named: usize, count: usize) -> Error {
    let reason = format!(
        "is part {} of {count} by its metadata and part {named} by its name: give the parts the names that they were published with",
        number + 1
    );
    unusable(path, reason)
}

/// The names of files, with the name of its first in place of all of a set.
pub(super) fn firsts(names: Vec<String>) -> Vec<String> {
    let mut firsts: Vec<String> =
        names.into_iter().map(|name| Name::of(&name).map_or_else(|| name.clone(), |part| part.part(1))).collect();
    firsts.sort_unstable();
    firsts.dedup();
    firsts
}
