//! Whether configuration, tokenizer and chat template agree on what stands for an image.

use super::config::ConfigFile;
use crate::error::{Error, Result};
use crate::text::{ChatTemplate, Probed, Tokenizer};

/// What LLaVA's processor takes where nothing names another token.
const USUAL: &str = "<image>";

/// The chat template of a folder. What contradicts itself so that no message could ever hold an image is refused, with the files.
pub(super) fn template(config: &ConfigFile, tokenizer: &Tokenizer, placeholder: Option<u32>) -> Result<ChatTemplate> {
    let Some(id) = placeholder else { return ChatTemplate::from_folder(config.dir(), tokenizer, None) };
    let named = tokenizer.image().unwrap_or(USUAL);
    let other = tokenizer.token_id(named).filter(|other| *other != id);
    let Some(token) = tokenizer.token(id) else {
        let hint = match (other, tokenizer.misplaced(named)) {
            (_, Some((file, asked))) if asked == id => format!(
                "; {file} gives it to `{named}`, but ids of added tokens go on from those of tokenizer.json, in transformers too: \
                 `{named}` is {}",
                other.unwrap_or(id)
            ),
            (Some(other), _) => format!("; `{named}` there is {other}"),
            (None, _) => String::new(),
        };
        let file = tokenizer.path().display();
        return Err(config.bad(format!("`image_token_index` is {id}, but no token of {file} has that id{hint}")));
    };
    let template = ChatTemplate::from_folder(config.dir(), tokenizer, Some(&token))?;
    let differs = |other: u32| {
        let file = tokenizer.path().display();
        config.bad(format!(
            "`image_token_index` is {id}, which is the token `{token}` of {file}, but the image token there, `{named}`, is {other}"
        ))
    };
    match (template.probe_image(), other) {
        (Probed::Written | Probed::Failed, _) | (Probed::Inserted, None) => Ok(template),
        (Probed::Inserted, Some(other)) => Err(differs(other)),
        (Probed::Missing(text), Some(other)) if text.contains(named) => Err(differs(other)),
        (Probed::Missing(text), _) => Err(Error::ModelFile {
            path: template.path().unwrap_or(config.dir()).to_path_buf(),
            reason: format!(
                "its chat template writes no `{token}`, the image token by `image_token_index` of {}, for a message with an image: {text:?}",
                config.dir().join("config.json").display()
            ),
        }),
    }
}
