//! A language model and its vision tower, each a GGUF file, as one model.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::projectors::{self, Projector};
use super::tower::Tower;
use super::{divisors, language};
use crate::error::{Error, Result};
use crate::media::SettingsOf;
use crate::media::settings::Settings;
use crate::model::config::ConfigFile;
use crate::weights::gguf::{Architecture, Gguf, Made, TOWER, Texts, named};

/// The parts of a model that two files come to, beside its configuration.
pub(in crate::model) struct Pair {
    /// The names of the language model's tensors begin so.
    pub(in crate::model) prefix: &'static str,
    /// The tensors of the tower.
    pub(in crate::model) made: Vec<Made>,
    pub(in crate::model) settings: SettingsOf,
    /// The token that stands for an image.
    pub(in crate::model) image: &'static str,
}

/// The model that a language model and a tower make.
///
/// # Errors
/// [`Error::UnsupportedModel`] for a file that holds no tower or one that is not known, and for two that do not belong together;
/// [`Error::ModelFile`] for metadata that are missing or cannot be, and for a tower of another width.
pub(in crate::model) fn pair(text: &Gguf, tower: &Gguf) -> Result<(ConfigFile, Pair)> {
    let mut root = language(text)?;
    let projector = projector(tower)?;
    let architecture = Architecture::of(text)?.name;
    let (text_path, tower_path) = (text.path().display(), tower.path().display());
    const CURE: &str = "take the mmproj of the same model, or leave it out with `vision: false`";
    if !projector.texts.contains(&architecture) {
        let reason = format!(
            "{tower_path} is the vision tower of a {} (projector `{}`), whose language models are `{}`, and {text_path} is `{architecture}`: \
             {CURE}",
            projector.family,
            projector.name,
            projector.texts.join("`, `")
        );
        return Err(Error::UnsupportedModel { reason, known: vec![] });
    }
    let width = root.get("hidden_size").and_then(Value::as_u64).unwrap_or(0) as usize;
    let tower_of = Tower { file: tower, text_width: width };
    let made_width = tower_of.side(projector.out, 0)?;
    if made_width != width {
        return Err(tower_of.bad(&format!(
            "makes rows of {made_width} numbers (`{}`), and the language model {text_path} takes {width}: {CURE}",
            projector.out
        )));
    }
    let image = image_token(text, projector)?;
    if let Some(sections) = text.metadata().integers(&format!("{architecture}.rope.dimension_sections"))? {
        add_sections(&mut root, sections, text)?;
    }
    let Value::Object(mut config) = (projector.config)(&tower_of)? else {
        return Err(Error::Internal("a configuration that is no object".into()));
    };
    for key in ["tie_word_embeddings", "eos_token_id"] {
        config.extend(root.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    config.insert("architectures".into(), json!([projector.architecture]));
    config.insert(projector.image_key.into(), json!(image));
    config.insert("text_config".into(), Value::Object(root));
    let place = |name: &str| (projector.place)(&tower_of, name);
    let pair = Pair {
        prefix: projector.prefix,
        made: tower_of.made(projector.name, place)?,
        settings: settings(projector, &tower_of)?,
        image: projector.image.0,
    };
    Ok((ConfigFile::of_gguf(text.path(), config, divisors(text)?), pair))
}

/// The projector of a file.
fn projector(tower: &Gguf) -> Result<&'static Projector> {
    let refuse = |reason: String| Error::UnsupportedModel { reason, known: vec![] };
    let path = tower.path().display();
    let architecture = named(tower)?;
    if architecture != TOWER {
        let architecture: String = architecture.chars().take(40).collect();
        return Err(refuse(format!(
            "{path} is no vision tower (mmproj): its architecture is {architecture:?}, expected \"{TOWER}\""
        )));
    }
    let metadata = tower.metadata();
    let said = match metadata.text("clip.vision.projector_type")? {
        Some(said) => Some(said),
        None => metadata.text("clip.projector_type")?,
    };
    // The oldest files are LLaVA's and do not say it.
    let name = said.unwrap_or(projectors::ALL[0].name);
    projectors::ALL.into_iter().find(|projector| projector.name == name).ok_or_else(|| {
        let name: String = name.chars().take(40).collect();
        let known: Vec<String> =
            projectors::ALL.iter().map(|projector| format!("`{}` ({})", projector.name, projector.family)).collect();
        refuse(format!(
            "{path} has the projector {name:?}; read are {}. The language model alone answers without images: `vision: false`",
            known.join(", ")
        ))
    })
}

/// The id of the token that stands for an image.
fn image_token(text: &Gguf, projector: &Projector) -> Result<usize> {
    let (token, made) = projector.image;
    let tokens = text.metadata().texts("tokenizer.ggml.tokens")?;
    match tokens.and_then(|tokens| tokens.iter().position(|other| other == token)) {
        Some(id) => Ok(id),
        None if made => Ok(tokens.map_or(0, Texts::len)),
        None => {
            let reason = format!(
                "{} has no token `{token}`, which stands for an image in a {}: it is the language model of another family; take the mmproj of the \
                 same model, or leave it out with `vision: false`",
                text.path().display(),
                projector.family
            );
            Err(Error::UnsupportedModel { reason, known: vec![] })
        }
    }
}

/// Says along which axis each frequency of the rotary embedding turns.
fn add_sections(root: &mut Map<String, Value>, sections: &[i64], text: &Gguf) -> Result<()> {
    let Some(three) = sections.get(..3).filter(|_| sections[3..].iter().all(|more| *more == 0)) else {
        let reason = format!("sections of its rotary embedding for axes that are not known: {sections:?}");
        return Err(crate::folder::unusable(text.path(), reason));
    };
    let mut rope = match root.remove("rope_scaling") {
        Some(Value::Object(rope)) => rope,
        _ => Map::from_iter([("rope_type".to_owned(), json!("default"))]),
    };
    rope.insert("mrope_section".into(), json!(three));
    root.insert("rope_scaling".into(), Value::Object(rope));
    Ok(())
}

/// The settings of the image processor: those of a file beside the tower, else what its metadata say and what the family's models have.
fn settings(projector: &Projector, tower: &Tower<'_>) -> Result<SettingsOf> {
    let path = tower.file.path();
    let dir = path.parent().unwrap_or(Path::new("."));
    Ok(match Settings::read(dir)? {
        Some(_) => SettingsOf::Folder(dir.to_owned()),
        None => SettingsOf::Said { path: path.to_owned(), settings: (projector.settings)(tower)? },
    })
}
