//! Messages to prompt text, through the chat template that comes with a model.

mod generation;
mod jinja;
mod json;
mod large_stack;
mod limits;
mod shape;
mod source;
mod strftime;

use std::path::Path;

use minijinja::Environment;
use serde::Deserialize;

use super::files::unusable;
use super::tokenizer::Tokenizer;
use crate::{Error, Result};
use shape::Shape;

/// Most text of all messages, and longest prompt, in bytes.
const MAX_TEXT: usize = 4 << 20;

/// One turn of a conversation.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `user`, `assistant`, `system`, or what else the template knows.
    pub role: String,
    pub content: Content,
}

/// What a message says.
#[derive(Deserialize, Clone, Debug)]
#[serde(
    untagged,
    expecting = "`content` must be a string or a list of { type: text, text } and { type: image, index }"
)]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A piece of a message. Templates see an image without its index: `{"type": "image"}`.
#[derive(Deserialize, Clone, Debug)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Part {
    Text { text: String },
    Image { index: usize },
}

/// A compiled chat template in Hugging Face's dialect of Jinja.
///
/// As there: `trim_blocks` and `lstrip_blocks`, `break` and `continue`, `raise_exception`, `strftime_now`, `tojson`
/// without HTML escaping, `generation` blocks, methods of Python's strings and dicts; the variables are `messages`,
/// `add_generation_prompt`, `bos_token` and `eos_token`, and `tools` and `documents`, which are none. `strftime_now`
/// gives UTC.
///
/// # Content
/// A template may expect the content of a message to be a string, a list of parts, or either. Which it is, is found
/// once, by rendering a probe message both ways and looking for its text. Content then goes in as it came where the
/// template takes either (or neither probe worked); else a string becomes a list with one text part, or a list
/// becomes a string: `<image>\n` for each image, then the texts.
///
/// # Fallback
/// A folder without a template gets the prompt of LLaVA-1.5 (Vicuna's, without its system text): a user turn is
/// `USER: `, one `<image>\n` per image, the texts and ` ASSISTANT:`, with or without `add_generation_prompt`; an
/// assistant turn is a space, the texts and the EOS token. A system message can come first, followed by a space.
///
/// # Limits
/// A template has at most 64 KiB. Rendering ends with [`Error::Prompt`] after 500,000 template instructions, past
/// 4 MiB of text, when macros nest too deep, or for a list of more than 131,072 entries. A template can still ask for much memory at once; a model folder
/// deserves the trust of its origin.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    shape: Shape,
    fallback: bool,
}

impl ChatTemplate {
    /// The template of a model folder: chat_template.jinja, else the `chat_template` of chat_template.json,
    /// tokenizer_config.json or processor_config.json, else the fallback. Of several named ones, `default`.
    ///
    /// # Errors
    /// [`Error::ModelFile`] for a file that cannot be read or a template that does not compile.
    pub fn from_folder(dir: &Path, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        let (bos, eos) = (tokenizer.bos().unwrap_or_default(), tokenizer.eos().unwrap_or_default());
        match source::find(dir)? {
            Some((path, source)) => Self::from_source(&source, bos, eos).map_err(|error| match error {
                Error::Prompt { reason } => unusable(&path, reason),
                other => other,
            }),
            None => {
                let template = Self::from_source(source::FALLBACK, bos, eos)?;
                Ok(ChatTemplate { fallback: true, ..template })
            }
        }
    }

    /// Compiles a template. `bos` and `eos` are the texts of these tokens.
    ///
    /// # Errors
    /// [`Error::Prompt`] for a template that does not compile.
    pub fn from_source(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        let environment = jinja::environment(source)?;
        let mut template = ChatTemplate {
            environment,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            shape: Shape::Either,
            fallback: false,
        };
        template.shape = shape::probe(&template);
        Ok(template)
    }

    /// The prompt for a conversation. `add_generation_prompt` asks for the beginning of an assistant turn at the end.
    ///
    /// # Errors
    /// [`Error::Prompt`] when the template fails or refuses the messages, or a limit is passed.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let bytes: usize = messages.iter().map(Message::text_len).sum();
        if bytes > MAX_TEXT {
            let reason = format!("the messages have {bytes} bytes of text; at most {MAX_TEXT} are allowed");
            return Err(Error::Prompt { reason });
        }
        let messages = messages.iter().map(|message| self.shape.message(message)).collect();
        self.render_raw(messages, add_generation_prompt)
    }

    /// Whether the folder had no template, so that the LLaVA-1.5 prompt is used.
    pub fn is_fallback(&self) -> bool {
        self.fallback
    }

    fn render_raw(&self, messages: Vec<serde_json::Value>, add_generation_prompt: bool) -> Result<String> {
        let context = serde_json::json!({
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self.bos,
            "eos_token": self.eos,
            "tools": null,
            "documents": null,
        });
        jinja::render(&self.environment, context, MAX_TEXT)
    }
}

impl Message {
    fn text_len(&self) -> usize {
        let content = match &self.content {
            Content::Text(text) => text.len(),
            Content::Parts(parts) => {
                parts.iter().map(|part| if let Part::Text { text } = part { text.len() } else { 0 }).sum()
            }
        };
        self.role.len() + content
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("shape", &self.shape)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
