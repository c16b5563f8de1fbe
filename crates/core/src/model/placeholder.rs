//! Whether configuration, tokenizer and chat template agree on what stands for an image.

use super::config::ConfigFile;
use super::images::Images;
use crate::error::{Error, Result};
use crate::text::{ChatTemplate, Probed, Tokenizer};

/// What LLaVA's processor takes where nothing names another token.
const USUAL: &str = "<image>";

/// The chat template of a model, which `read` finds for the token that stands for an image. Files whose contradictions leave no message able to hold an image are refused by name.
pub(super) fn template(
    config: &ConfigFile,
    tokenizer: &Tokenizer,
    images: Option<&dyn Images>,
    read: impl Fn(Option<&str>) -> Result<ChatTemplate>,
) -> Result<ChatTemplate> {
    let Some(images) = images else { return read(None) };
    let (id, key) = (images.placeholder(), images.placeholder_key());
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
        return Err(config.bad(format!("`{key}` is {id}, but no token of {file} has that id{hint}")));
    };
    if let [(mark, _), ..] = images.marks() {
        return marked(config, tokenizer, images.marks(), read(Some(mark))?);
    }
    let template = read(Some(&token))?;
    let differs = |other: u32| {
        let file = tokenizer.path().display();
        config.bad(format!(
            "`{key}` is {id}, which is the token `{token}` of {file}, but the image token there, `{named}`, is {other}"
        ))
    };
    match (template.probe_image(), other) {
        (Probed::Written | Probed::Failed, _) | (Probed::Inserted, None) => Ok(template),
        (Probed::Inserted, Some(other)) => Err(differs(other)),
        (Probed::Missing(text), Some(other)) if text.contains(named) => Err(differs(other)),
        (Probed::Missing(text), _) => Err(Error::ModelFile {
            path: template.path().unwrap_or(config.dir()).to_path_buf(),
            reason: format!(
                "its chat template writes no `{token}`, the image token by `{key}` of {}, for a message with an image: {text:?}",
                config.path().display()
            ),
        }),
    }
}

/// The chat template of a family that has tokens of its own, `marks`, around the positions of an image; templates write the first.
fn marked(
    config: &ConfigFile,
    tokenizer: &Tokenizer,
    marks: &[(&str, &str)],
    template: ChatTemplate,
) -> Result<ChatTemplate> {
    let bad = |reason: String| Err(Error::ModelFile { path: tokenizer.path().to_owned(), reason });
    for (text, name) in marks {
        if tokenizer.token_id(text).is_none() {
            return bad(format!("it has no token `{text}`, with which this family marks images"));
        }
        if let Some(other) = tokenizer.named_token(name).filter(|other| other != text) {
            return bad(format!("its files name `{other}` as `{name}`, which is `{text}` in this family"));
        }
    }
    match template.probe_image() {
        Probed::Missing(text) => Err(Error::ModelFile {
            path: template.path().unwrap_or(config.dir()).to_path_buf(),
            reason: format!("its chat template writes no `{}` for a message with an image: {text:?}", marks[0].0),
        }),
        _ => Ok(template),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::media::SettingsOf;
    use crate::model::images::ImageProcessor;

    const IMAGE: u32 = 478;

    struct Token(u32);

    impl Images for Token {
        fn placeholder(&self) -> u32 {
            self.0
        }

        fn placeholder_key(&self) -> &'static str {
            "image_token_index"
        }

        fn processor(&self, _: &SettingsOf) -> Result<Arc<dyn ImageProcessor>> {
            Err(Error::Internal("nobody asks for it".into()))
        }
    }

    /// Loads a fixture's folder with another id and other files.
    fn loaded(id: u32, files: &[(&str, Option<Value>)]) -> Result<ChatTemplate> {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/fixtures/llava-gqa64");
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.json"] {
            std::fs::copy(fixture.join(name), dir.path().join(name)).unwrap();
        }
        for (name, content) in files {
            match content {
                None => std::fs::remove_file(dir.path().join(name)).unwrap(),
                Some(Value::String(text)) => std::fs::write(dir.path().join(name), text).unwrap(),
                Some(json) => std::fs::write(dir.path().join(name), json.to_string()).unwrap(),
            }
        }
        let images = Token(id);
        let tokenizer = Tokenizer::from_folder(dir.path())?;
        let read = |placeholder: Option<&str>| ChatTemplate::from_folder(dir.path(), &tokenizer, placeholder);
        template(&ConfigFile::read(dir.path())?, &tokenizer, Some(&images), read)
    }

    fn refused(id: u32, files: &[(&str, Option<Value>)], found: &[&str]) {
        let error = loaded(id, files).unwrap_err();
        assert_eq!(error.code(), "model-file");
        for found in found {
            assert!(error.to_string().contains(found), "{found}: {error}");
        }
    }

    fn written(template: &str) -> (&'static str, Option<Value>) {
        ("chat_template.json", Some(json!({ "chat_template": template })))
    }

    const STRINGS: &str = "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}";

    #[test]
    fn contradictions_name_both_files() {
        let both = ["config.json", "tokenizer.json", "`<image>`", "478"];
        refused(470, &[], &both);
        refused(470, &[("chat_template.json", None)], &both);
        refused(470, &[written(STRINGS)], &both);
        refused(999, &[], &both);
        let decoder =
            json!({ "added_tokens_decoder": { "999": { "content": "<im>", "special": true } }, "image_token": "<im>" });
        refused(
            999,
            &[("tokenizer_config.json", Some(decoder))],
            &["config.json", "tokenizer_config.json", "`<im>`", "480"],
        );
        let parts = |image: &str| {
            let text = "{% for m in messages %}{% for p in m.content %}{{ p.text if p.type == 'text' else 'IMAGE' }}{% endfor %}{% endfor %}";
            written(&text.replace("IMAGE", image))
        };
        for image in ["<img>", "", "<Image>"] {
            refused(IMAGE, &[parts(image)], &["chat_template.json", "config.json", "`<image>`"]);
        }
        assert!(loaded(IMAGE, &[parts("<image>")]).is_ok());
    }

    #[test]
    fn what_transformers_can_use_is_loaded() {
        assert!(loaded(IMAGE, &[]).is_ok());
        assert!(loaded(IMAGE, &[("chat_template.json", None)]).is_ok());
        assert!(loaded(IMAGE, &[("tokenizer_config.json", None)]).is_ok());
        for template in [STRINGS, "{{ raise_exception('system first') }}", "{{ messages[3].content.x }}"] {
            assert!(loaded(IMAGE, &[written(template)]).is_ok(), "{template}");
        }
    }
}
