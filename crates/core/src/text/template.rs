//! Messages to prompt text, through the chat template that comes with a model.

mod pictures;
mod probe;
mod shape;
mod source;
mod thread;
mod tools;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use super::files::unusable;
use super::jinja::{Fail, Share, Template, Text, Value};
use super::tokenizer::Tokenizer;
use crate::weights::gguf::Metadata;
use crate::{Error, Result};
use shape::Shape;

/// Most text of all messages, and longest prompt, in bytes.
const MAX_TEXT: usize = 4 << 20;
/// Longest template, in bytes; real ones have up to some ten thousand.
const MAX_SOURCE: usize = 64 << 10;
/// The placeholder of an image where the model does not name one.
const PLACEHOLDER: &str = "<image>";

/// One turn of a conversation.
#[derive(Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename = "WireMessage")]
pub struct Message {
    /// `user`, `assistant`, `system`, or what else the template knows.
    pub role: String,
    /// Its text, images and videos.
    pub content: Content,
    /// The calls of tools that an assistant has made; templates that know none leave them out.
    #[serde(default, rename = "toolCalls")]
    pub tool_calls: Vec<ToolCall>,
}

/// A call of a tool.
#[derive(Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, rename = "WireToolCall")]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments.
    pub arguments: serde_json::Map<String, serde_json::Value>,
}

/// Content of a message.
#[derive(Deserialize, Clone, Debug)]
#[serde(
    untagged,
    rename = "WireContent",
    expecting = "`content` must be a string or a list of { type: text, text }, { type: image, index } and { type: video, index }"
)]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A piece of a message. Templates see an image without its index: `{"type": "image"}`; a video likewise.
#[derive(Deserialize, Clone, Debug)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields, rename = "WirePart")]
pub enum Part {
    /// A piece of text.
    Text {
        /// The text.
        text: String,
    },
    /// An image of the request.
    Image {
        /// Which of those that come with the request, from 0.
        index: usize,
    },
    /// A video of the request.
    Video {
        /// Which of its `videos`, from 0.
        index: usize,
    },
}

/// A prompt, and what its parts are. All ranges are bytes of the text, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    /// The placeholders that stand for the images and videos of the messages, in their order. Nothing else in the text does.
    pub pictures: Vec<Range<usize>>,
    /// The text of the messages, as opposed to text that the template adds.
    pub said: Vec<Range<usize>>,
}

/// The outcome of a template's trial on a short message with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It writes the placeholder.
    Written,
    /// It takes strings, so the placeholder is put into the message.
    Inserted,
    /// It refuses the message, and may want others.
    Failed,
    /// It writes something else, which begins so.
    Missing(String),
}

/// A compiled chat template in Hugging Face's dialect of Jinja.
///
/// Everything that jinja2 has in transformers' environment, with few exceptions (`docs/design/templates.md`): `trim_blocks` and
/// `lstrip_blocks`, `break` and `continue`, `raise_exception`, `strftime_now` (in UTC), `tojson` without HTML escaping,
/// `generation` blocks. The variables are `messages`, `add_generation_prompt`, every named special token of the tokenizer, and
/// `tools`, which are none without [`ChatTemplate::with_tools`], and `documents`, which are none.
///
/// # Content
/// A template may expect the content of a message to be a string, a list of parts, or either. Which it is, is found
/// once, by rendering a probe message both ways and looking for its text. Content then goes in as it came where the
/// template takes either (or neither probe worked); else a string becomes a list with one text part, or a list
/// becomes a string: the placeholder and a line end for each image, then the texts.
///
/// # Images
/// Images are parts of messages and never guessed from text: a placeholder that a message spells is text. See [`Rendered`].
///
/// # Fallback
/// A folder without a template gets the prompt of LLaVA-1.5 (Vicuna's, without its system text): a user turn is
/// `USER: `, one `<image>\n` per image, the texts and ` ASSISTANT:`, with or without `add_generation_prompt`; an
/// assistant turn is a space, the texts and the EOS token. A system message can come first, followed by a space.
///
/// # Limits
/// A template has at most 64 KiB. A rendering ends with [`Error::Prompt`] past 4 MiB of text, 64 MiB of memory, 10 million steps or
/// 2 seconds, or when it nests too deep; the probes of a load have a quarter of the steps and of the time.
#[derive(Clone)]
pub struct ChatTemplate {
    template: Arc<Template>,
    /// Where it was read; None for the fallback.
    path: Option<PathBuf>,
    special: Vec<(String, String)>,
    placeholder: String,
    shape: Shape,
    /// How conversations with videos are written; None where there are none.
    videos: Option<Box<Videos>>,
    /// As OpenAI writes them.
    tools: Arc<Vec<serde_json::Value>>,
    /// Why there can be none, once somebody has asked.
    no_tools: Arc<OnceLock<Option<String>>>,
}

/// See [`ChatTemplate::with_videos`].
#[derive(Clone)]
struct Videos {
    placeholder: String,
    /// Writes conversations with videos, where they have a template of their own.
    template: Option<(Arc<Template>, Shape)>,
}

impl ChatTemplate {
    /// The same template for a model that takes videos too: what it writes for one is `placeholder`. Where `source` is there, it writes
    /// the conversations that have videos.
    ///
    /// # Errors
    /// [`Error::Prompt`] for a source that does not compile.
    pub(crate) fn with_videos(mut self, placeholder: String, source: Option<&str>) -> Result<ChatTemplate> {
        let own = |source| Self::compile(source, self.special.clone(), Some(&self.placeholder));
        let template = source.map(own).transpose()?.map(|own| (own.template, own.shape));
        self.videos = Some(Box::new(Videos { placeholder, template }));
        Ok(self)
    }

    /// The text that stands for a video; None of a model that takes none.
    pub fn video_placeholder(&self) -> Option<&str> {
        self.videos.as_ref().map(|videos| videos.placeholder.as_str())
    }

    /// The template of a model folder; the fallback where there is none. `placeholder` is the text of the token that stands for an
    /// image, None for a text-only model.
    ///
    /// As transformers chooses it: of a vision-language model, the `chat_template` of processor_config.json, else chat_template.json,
    /// else what a text model uses; of a text model, chat_template.jinja or `default` of additional_chat_templates, else the
    /// `chat_template` of tokenizer_config.json. Where transformers finds none, the other files are tried. Of several named ones,
    /// `default`.
    ///
    /// # Errors
    /// [`Error::ModelFile`] for a file that cannot be read or a template that does not compile.
    pub fn from_folder(dir: &Path, tokenizer: &Tokenizer, placeholder: Option<&str>) -> Result<ChatTemplate> {
        Self::found(source::find(dir, placeholder.is_some())?, tokenizer, placeholder)
    }

    /// The template that a GGUF file holds; the fallback where it has none. `placeholder` is as in [`ChatTemplate::from_folder`].
    ///
    /// # Errors
    /// [`Error::ModelFile`] for a template that does not compile.
    pub fn from_gguf(metadata: &Metadata, tokenizer: &Tokenizer, placeholder: Option<&str>) -> Result<ChatTemplate> {
        let source = super::tokenizer::gguf::chat_template(metadata)?;
        Self::found(source.map(|source| (metadata.path().to_owned(), source)), tokenizer, placeholder)
    }

    fn found(
        file: Option<(PathBuf, String)>,
        tokenizer: &Tokenizer,
        placeholder: Option<&str>,
    ) -> Result<ChatTemplate> {
        let special = tokenizer.named().to_vec();
        match file {
            Some((path, source)) => {
                let template = Self::compile(&source, special, placeholder).map_err(|error| match error {
                    Error::Prompt { reason } => unusable(&path, reason),
                    other => other,
                })?;
                Ok(ChatTemplate { path: Some(path), ..template })
            }
            None => {
                let image = ("image_placeholder".to_owned(), placeholder.unwrap_or(PLACEHOLDER).to_owned());
                Self::compile(source::FALLBACK, special.into_iter().chain([image]).collect(), placeholder)
            }
        }
    }

    /// Compiles a template. `bos` and `eos` are the texts of these tokens; an image is `<image>`.
    ///
    /// # Errors
    /// [`Error::Prompt`] for a template that does not compile.
    pub fn from_source(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        let special = [("bos_token", bos), ("eos_token", eos)];
        let special = special.map(|(name, token)| (name.to_owned(), token.to_owned()));
        let template = Self::compile(source, special.to_vec(), None)?;
        Ok(ChatTemplate { path: Some(PathBuf::new()), ..template })
    }

    fn compile(source: &str, special: Vec<(String, String)>, placeholder: Option<&str>) -> Result<ChatTemplate> {
        if source.len() > MAX_SOURCE {
            let reason = format!("the chat template has {} bytes; at most {MAX_SOURCE} are allowed", source.len());
            return Err(Error::Prompt { reason });
        }
        let compiled = thread::run(|| Ok(Template::compile(source)))?;
        let template = compiled
            .map_err(|reason| Error::Prompt { reason: format!("the chat template has a syntax error: {reason}") })?;
        let mut template = ChatTemplate {
            template: Arc::new(template),
            path: None,
            special,
            placeholder: placeholder.unwrap_or(PLACEHOLDER).to_owned(),
            shape: Shape::Either,
            videos: None,
            tools: Arc::default(),
            no_tools: Arc::default(),
        };
        template.shape = shape::probe(&template);
        Ok(template)
    }

    /// The prompt for a conversation. `add_generation_prompt` asks for the beginning of an assistant turn at the end.
    ///
    /// # Errors
    /// [`Error::Prompt`] when the template fails, refuses the messages or does not write one placeholder for each image, or when a
    /// limit is passed; [`Error::OutOfMemory`] when the machine has no memory for the thread that renders.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Rendered> {
        let shown: usize = self.tools.iter().map(|tool| tool.to_string().len()).sum();
        let bytes: usize = shown + messages.iter().map(Message::text_len).sum::<usize>();
        if bytes > MAX_TEXT {
            let reason = format!("the messages have {bytes} bytes of text; at most {MAX_TEXT} are allowed");
            return Err(Error::Prompt { reason });
        }
        pictures::render(self, messages, add_generation_prompt, Share::Request)
    }

    /// The text alone of [`ChatTemplate::render`], whatever the template writes for images.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], but for placeholders.
    pub fn text(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        pictures::run(self, messages, add_generation_prompt, Share::Request).map(|(text, _)| text)
    }

    /// Whether the folder had no template, so that the LLaVA-1.5 prompt is used.
    pub fn is_fallback(&self) -> bool {
        self.path.is_none()
    }

    /// Tries the template on a short message with an image.
    pub fn probe_image(&self) -> Probed {
        probe::image(self)
    }

    /// The file that the template was read from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn tools(&self) -> Result<Value, Fail> {
        match self.tools.as_slice() {
            [] => Ok(Value::None),
            tools => Value::list(tools.iter().map(tools::value).collect::<Result<_, _>>()?),
        }
    }

    /// Renders messages made by `values`, on a thread of its own.
    fn run(
        &self,
        values: impl FnOnce() -> Result<Vec<Value>, Fail> + Send,
        add_generation_prompt: bool,
        share: Share,
    ) -> Result<(String, Vec<super::jinja::Mark>)> {
        let variables = || {
            let mut variables = vec![
                ("messages".to_owned(), Value::list(values()?)?),
                ("add_generation_prompt".to_owned(), Value::Bool(add_generation_prompt)),
                ("tools".to_owned(), self.tools()?),
                ("documents".to_owned(), Value::None),
            ];
            for (name, token) in &self.special {
                let token = Text::with_literals(token, &self.placeholder, super::jinja::Origin::Literal(0));
                variables.push((name.clone(), Value::Text(token)));
            }
            Ok(variables)
        };
        thread::run(|| {
            let rendered = self.template.render(variables, &self.placeholder, MAX_TEXT, share);
            rendered.map_err(|fail| Error::Prompt { reason: fail.to_string() })
        })
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
        let calls = self
            .tool_calls
            .iter()
            .map(|call| call.name.len() + serde_json::Value::Object(call.arguments.clone()).to_string().len());
        self.role.len() + content + calls.sum::<usize>()
    }

    /// Its images and videos, in their order: whether each is a video.
    fn shown(&self) -> impl Iterator<Item = bool> + '_ {
        let parts = match &self.content {
            Content::Text(_) => &[][..],
            Content::Parts(parts) => parts,
        };
        parts.iter().filter_map(|part| match part {
            Part::Text { .. } => None,
            Part::Image { .. } => Some(false),
            Part::Video { .. } => Some(true),
        })
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("shape", &self.shape).field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
