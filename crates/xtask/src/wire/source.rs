//! The types of the engine as its sources declare them: items, serde attributes, doc comments.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use syn::{Attribute, Expr, ExprLit, Fields, Item, Lit, Meta};

use super::docs::Docs;

/// The engine, and of the kernels the self-check of a device, whose rates are part of its report.
const FOLDERS: [&str; 2] = ["crates/core/src", "crates/kernels/src/cuda/check"];

/// Every struct, enum and numeric constant of the sources by its name.
#[derive(Default)]
pub(crate) struct Sources {
    types: HashMap<String, Vec<Declared>>,
    constants: HashMap<String, Vec<u64>>,
}

/// A struct or an enum. Parts that cannot be read are no error in one that crosses no door.
#[derive(Clone)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) docs: Result<Docs, String>,
    pub(crate) serde: Result<Serde, String>,
    /// Whether it derives `Deserialize`, or `Serialize`.
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) body: Body,
}

#[derive(Clone)]
pub(crate) enum Body {
    Struct(Fields),
    Enum(Vec<syn::Variant>),
}

impl Sources {
    /// Reads every file of the folders with types that cross a door.
    pub(crate) fn read(root: &Path) -> Result<Sources, String> {
        let mut sources = Sources::default();
        for folder in FOLDERS {
            sources.add_folder(&root.join(folder))?;
        }
        Ok(sources)
    }

    fn add_folder(&mut self, folder: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                self.add_folder(&path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).map_err(failed)?;
                self.add(&text).map_err(|reason| format!("{}: {reason}", path.display()))?;
            }
        }
        Ok(())
    }

    /// Adds the items of a file; those of its test modules are nobody's wire types.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), String> {
        let file = syn::parse_file(text).map_err(|error| error.to_string())?;
        for item in file.items {
            match item {
                Item::Struct(item) => self.declare(&item.ident, &item.attrs, Body::Struct(item.fields))?,
                Item::Enum(item) => {
                    self.declare(&item.ident, &item.attrs, Body::Enum(item.variants.into_iter().collect()))?
                }
                Item::Const(item) => {
                    if let Some(value) = number(&item.expr) {
                        self.constants.entry(item.ident.to_string()).or_default().push(value);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn declare(&mut self, name: &syn::Ident, attributes: &[Attribute], body: Body) -> Result<(), String> {
        let name = name.to_string();
        let failed = |reason: String| format!("{name}: {reason}");
        let (mut reads, mut writes) = (false, false);
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let derives = |meta: syn::meta::ParseNestedMeta| {
                reads |= meta.path.segments.last().is_some_and(|last| last.ident == "Deserialize");
                writes |= meta.path.segments.last().is_some_and(|last| last.ident == "Serialize");
                Ok(())
            };
            attribute.parse_nested_meta(derives).map_err(|error| failed(error.to_string()))?;
        }
        let docs = Docs::of(attributes).map_err(failed);
        let serde = if reads || writes { Serde::of(attributes).map_err(failed) } else { Ok(Serde::default()) };
        let declared = Declared { name: name.clone(), docs, serde, reads, writes, body };
        self.types.entry(name).or_default().push(declared);
        Ok(())
    }

    /// The type of this name that crosses a door: the one with serde's derives, or with its JSON in the doc comment.
    pub(crate) fn find(&self, name: &str) -> Result<&Declared, String> {
        let all = self.types.get(name).map(Vec::as_slice).unwrap_or_default();
        let written = |docs: &Result<Docs, String>| docs.as_ref().is_ok_and(|docs| docs.schema.is_some());
        let described = |declared: &&Declared| declared.reads || declared.writes || written(&declared.docs);
        let found: Vec<&Declared> = all.iter().filter(described).collect();
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(format!("no type `{name}` derives Serialize or Deserialize, or has its JSON in the doc comment")),
            _ => Err(format!(
                "{} types are named `{name}`; types that cross a door need names of their own",
                found.len()
            )),
        }
    }

    /// A numeric constant by its name.
    pub(crate) fn constant(&self, name: &str) -> Result<u64, String> {
        match self.constants.get(name).map(Vec::as_slice) {
            Some([one]) => Ok(*one),
            _ => Err(format!("no constant `{name}` with a number, or several")),
        }
    }
}

/// The value of a number as it is written.
pub(crate) fn number(expression: &Expr) -> Option<u64> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse().ok(),
        _ => None,
    }
}

/// The attributes of serde that wire types use. Any other is an error, so that none is left out silently.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serde {
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) untagged: bool,
    pub(crate) default: bool,
    pub(crate) skip: bool,
    pub(crate) skip_if: bool,
    pub(crate) flatten: bool,
}

impl Serde {
    pub(crate) fn of(attributes: &[Attribute]) -> Result<Serde, String> {
        let mut serde = Serde::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
            attribute.parse_nested_meta(|meta| serde.take(&meta)).map_err(|error| error.to_string())?;
        }
        Ok(serde)
    }

    fn take(&mut self, meta: &syn::meta::ParseNestedMeta) -> syn::Result<()> {
        let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        let text = |meta: &syn::meta::ParseNestedMeta| meta.value()?.parse::<syn::LitStr>().map(|text| text.value());
        match name.as_str() {
            "rename" => self.rename = Some(text(meta)?),
            "rename_all" => self.rename_all = Some(text(meta)?),
            "tag" => self.tag = Some(text(meta)?),
            "untagged" => self.untagged = true,
            "skip" => self.skip = true,
            "flatten" => self.flatten = true,
            "default" => {
                self.default = true;
                if meta.input.peek(syn::Token![=]) {
                    text(meta)?;
                }
            }
            "skip_serializing_if" => {
                text(meta)?;
                self.skip_if = true;
            }
            // Messages and strictness change no form.
            "expecting" => drop(text(meta)?),
            "deny_unknown_fields" | "transparent" => {}
            other => return Err(meta.error(format!("xtask does not know serde's `{other}` yet"))),
        }
        Ok(())
    }

    /// The name on the wire of a field, or of a variant.
    pub(crate) fn name(&self, rust: &str, owner: &Serde) -> Result<String, String> {
        if let Some(name) = &self.rename {
            return Ok(name.clone());
        }
        let words = words(rust);
        match owner.rename_all.as_deref() {
            None => Ok(rust.into()),
            Some("camelCase") => {
                let rest = words[1..].iter().map(|word| pascal(word));
                Ok(std::iter::once(words[0].clone()).chain(rest).collect())
            }
            Some("kebab-case") => Ok(words.join("-")),
            Some("snake_case") => Ok(words.join("_")),
            Some("lowercase") => Ok(words.concat()),
            Some(other) => Err(format!("xtask does not know `rename_all = \"{other}\"` yet")),
        }
    }
}

/// The lower-case words of a name in snake case or Pascal case.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || (letter.is_uppercase() && words.last().is_some_and(|word| !word.is_empty())) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter != '_') {
            word.extend(letter.to_lowercase());
        }
    }
    words
}

/// A word with a capital, or words with hyphens between them.
pub(crate) fn pascal(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('-').filter(|word| !word.is_empty()).map(capital).collect()
}

/// The text of a doc attribute.
pub(crate) fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else { return None };
    match (&pair.value, pair.path.is_ident("doc")) {
        (Expr::Lit(ExprLit { lit: Lit::Str(text), .. }), true) => Some(text.value()),
        _ => None,
    }
}
