//! Tokens that the files beside tokenizer.json declare, merged as transformers 5.24 merges them.
//!
//! An `added_tokens_decoder` in tokenizer_config.json is the whole truth: the older files are not read then. Else
//! special_tokens_map.json goes before tokenizer_config.json, and added_tokens.json before neither. Ids of these files are not
//! enforced: what tokenizer.json does not have gets the next free ids, in the order of those that the files give.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::super::files::{read_json, read_text, unusable};
use crate::Result;

pub(super) const CONFIG: &str = "tokenizer_config.json";
const ADDED: &str = "added_tokens.json";
/// Names that transformers knows without being told, in its order.
const STANDARD: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Most tokens that the files may add; the largest vocabularies have some thousand.
const MOST: usize = 100_000;

pub(super) struct Declared {
    /// Named special tokens and their texts.
    pub(super) named: Vec<(String, String)>,
    /// Tokens that tokenizer.json may lack, in the order in which they are to be added.
    pub(super) tokens: Vec<AddedToken>,
    /// The ids that the files give, with the file.
    pub(super) ids: Vec<(String, &'static str, u32)>,
}

/// A token as its text alone, or with how it is matched.
#[derive(Clone)]
enum Token {
    Text(String),
    Full(AddedToken),
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Token::Text(text) => text,
            Token::Full(token) => &token.content,
        }
    }

    /// `special`: what an object without that field is.
    fn read(value: &Value, special: bool) -> Option<Token> {
        match value {
            Value::String(text) => Some(Token::Text(text.clone())),
            Value::Object(object) => {
                let flag = |name: &str, default: bool| object.get(name).and_then(Value::as_bool).unwrap_or(default);
                let special = flag("special", special);
                let token = AddedToken::from(object.get("content")?.as_str()?, special)
                    .single_word(flag("single_word", false))
                    .lstrip(flag("lstrip", false))
                    .rstrip(flag("rstrip", false))
                    .normalized(flag("normalized", !special));
                Some(Token::Full(token))
            }
            _ => None,
        }
    }
}

impl Declared {
    /// `tokenizer` is the text of tokenizer.json.
    pub(super) fn read(dir: &Path, tokenizer: &str) -> Result<Declared> {
        let config = object(dir, CONFIG)?.unwrap_or_default();
        let given = |name: &str| config.get(name).filter(|value| truthy(value));
        let mut extra = given("extra_special_tokens").or(given("additional_special_tokens")).cloned();
        let mut named: Vec<(String, Option<Token>)> = STANDARD.iter().map(|name| ((*name).to_owned(), None)).collect();
        let set = |name: &str, token: Option<Token>, named: &mut Vec<(String, Option<Token>)>| match named
            .iter_mut()
            .find(|(found, _)| found == name)
        {
            Some((_, old)) => *old = token,
            None => named.push((name.to_owned(), token)),
        };
        for (name, value) in &config {
            if name.ends_with("_token") && (value.is_string() || value.is_object()) {
                set(name, Token::read(value, false), &mut named);
            }
        }
        take_names(&mut extra, &mut named, &set);

        let mut by_id: BTreeMap<u32, AddedToken> = BTreeMap::new();
        let mut ids = Vec::new();
        if let Some(declared) = config.get("added_tokens_decoder") {
            let bad = |reason: &str| unusable(&dir.join(CONFIG), format!("`added_tokens_decoder` {reason}"));
            let Value::Object(declared) = declared else { return Err(bad("must be an object of ids and tokens")) };
            for (id, token) in declared {
                let id: u32 = id.parse().map_err(|_| bad("must have token ids as its keys"))?;
                match Token::read(token, false) {
                    Some(Token::Full(token)) => {
                        ids.push((token.content.clone(), CONFIG, id));
                        by_id.insert(id, token);
                    }
                    _ => return Err(bad("must have objects with `content` as its values")),
                }
            }
        } else {
            for (name, value) in object(dir, "special_tokens_map.json")?.unwrap_or_default() {
                match (name.as_str(), &value) {
                    ("extra_special_tokens", Value::Array(more)) => {
                        let old = extra.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
                        extra = Some(Value::Array(old.into_iter().chain(more.iter().cloned()).collect()));
                    }
                    ("extra_special_tokens", Value::Object(_)) => {
                        let old = extra.replace(value);
                        take_names(&mut extra, &mut named, &set);
                        extra = old;
                    }
                    ("additional_special_tokens", _) if extra.is_none() => extra = Some(value),
                    (name, value) if name.ends_with("_token") => set(name, Token::read(value, true), &mut named),
                    _ => {}
                }
            }
            let special: Vec<String> = standard(&named).map(|token| token.content().to_owned()).collect();
            let special: Vec<String> = special
                .into_iter()
                .chain(list(extra.as_ref()).iter().map(|token| token.content().to_owned()))
                .collect();
            for (content, id) in object(dir, ADDED)?.unwrap_or_default() {
                let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
                    return Err(unusable(&dir.join(ADDED), format!("`{content}` must have a token id")));
                };
                let token = AddedToken::from(content.clone(), special.contains(&content));
                ids.push((content, ADDED, id));
                by_id.insert(id, token);
            }
            if !by_id.is_empty() {
                // A token of tokenizer.json takes the place of one of added_tokens.json with its id.
                for (id, _) in added(tokenizer) {
                    by_id.remove(&id);
                }
            }
        }
        Self::merge(dir, tokenizer, named, &list(extra.as_ref()), by_id, ids)
    }

    fn merge(
        dir: &Path,
        tokenizer: &str,
        named: Vec<(String, Option<Token>)>,
        extra: &[Token],
        by_id: BTreeMap<u32, AddedToken>,
        ids: Vec<(String, &'static str, u32)>,
    ) -> Result<Declared> {
        let mut known: HashMap<String, AddedToken> =
            added(tokenizer).into_iter().map(|(_, token)| (token.content.clone(), token)).collect();
        let flags = |token: &Token, by_id: &BTreeMap<u32, AddedToken>, known: &HashMap<String, AddedToken>| {
            let declared = by_id.values().find(|declared| declared.content == token.content());
            match (declared, known.get(token.content()), token) {
                (Some(declared), _, _) | (None, Some(declared), _) => declared.clone(),
                (None, None, Token::Full(token)) => token.clone(),
                (None, None, Token::Text(text)) => AddedToken::from(text.clone(), true),
            }
        };
        let names: Vec<&str> = named.iter().filter_map(|(_, token)| token.as_ref().map(Token::content)).collect();
        let mut tokens: Vec<AddedToken> = by_id.values().cloned().collect();
        let mut have: std::collections::HashSet<String> = known.keys().cloned().collect();
        have.extend(tokens.iter().map(|token| token.content.clone()));
        for token in named.iter().filter_map(|(_, token)| token.as_ref()).chain(extra) {
            if have.insert(token.content().to_owned()) {
                tokens.push(flags(token, &by_id, &known));
            }
        }
        for token in &mut tokens {
            token.special |= names.contains(&token.content.as_str());
        }
        tokens.retain(|token| !token.content.is_empty());
        known.clear();
        if tokens.len() > MOST {
            return Err(unusable(
                &dir.join(CONFIG),
                format!("declares {} tokens; at most {MOST} are added", tokens.len()),
            ));
        }
        let named = named.into_iter().filter_map(|(name, token)| Some((name, token?.content().to_owned()))).collect();
        Ok(Declared { named, tokens, ids })
    }
}

fn standard(named: &[(String, Option<Token>)]) -> impl Iterator<Item = &Token> {
    named.iter().filter(|(name, _)| STANDARD.contains(&name.as_str())).filter_map(|(_, token)| token.as_ref())
}

/// An object of extra tokens names them.
fn take_names(
    extra: &mut Option<Value>,
    named: &mut Vec<(String, Option<Token>)>,
    set: &impl Fn(&str, Option<Token>, &mut Vec<(String, Option<Token>)>),
) {
    if let Some(Value::Object(tokens)) = extra.as_ref() {
        for (name, value) in tokens {
            set(name, Token::read(value, true), named);
        }
        *extra = None;
    }
}

fn list(extra: Option<&Value>) -> Vec<Token> {
    extra.and_then(Value::as_array).into_iter().flatten().filter_map(|token| Token::read(token, true)).collect()
}

/// As Python takes it.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Number(_) => true,
    }
}

/// The id that the files of a folder give an added token, found without reading the vocabulary where the smaller files say it.
///
/// # Errors
/// [`Error::ModelFile`](crate::Error::ModelFile) for a file that cannot be read.
pub(crate) fn declared_id(dir: &Path, token: &str) -> Result<Option<u32>> {
    let number = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
    let config = object(dir, CONFIG)?.unwrap_or_default();
    let declared = config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten();
    let mut found = declared.filter(|(_, value)| value.get("content").and_then(Value::as_str) == Some(token));
    if let Some(id) = found.find_map(|(id, _)| id.parse().ok()) {
        return Ok(Some(id));
    }
    if let Some(id) = object(dir, ADDED)?.unwrap_or_default().get(token).and_then(number) {
        return Ok(Some(id));
    }
    let Some(text) = read_text(&dir.join("tokenizer.json"))? else { return Ok(None) };
    Ok(added(&text).into_iter().find(|(_, added)| added.content == token).map(|(id, _)| id))
}

pub(super) fn object(dir: &Path, name: &str) -> Result<Option<Map<String, Value>>> {
    let path = dir.join(name);
    match read_json(&path)? {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(unusable(&path, "must be a JSON object")),
    }
}

/// The added tokens of tokenizer.json with their ids; nothing of one that cannot be read, which is said elsewhere.
fn added(tokenizer: &str) -> Vec<(u32, AddedToken)> {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Value>,
    }
    let Ok(File { added_tokens }) = serde_json::from_str(tokenizer) else { return Vec::new() };
    let read = |token: &Value| match Token::read(token, false) {
        Some(Token::Full(full)) => Some((u32::try_from(token.get("id")?.as_u64()?).ok()?, full)),
        _ => None,
    };
    added_tokens.iter().filter_map(read).collect()
}
