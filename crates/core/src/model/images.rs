//! The form that images take in a prompt, by the family: found by arithmetic, before anything is decoded.

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use image::RgbImage;

use super::options::Vision;
use super::source::Source;
use super::videos::{VideoMark, VideoProcessor};
use super::{Model, Prompt, family, prompt, with_known};
use crate::backend::Backend;
use crate::cache::{Piece, PieceKind};
use crate::device::Cpu;
use crate::error::{Error, Result};
use crate::media::{Area, Prepared, SettingsOf, decode};
use crate::text::{Encoded, Rendered, SpecialTokens, Written};

/// Says the width and height of an image, in pixels; asked by families whose plans depend on them.
pub type SizeOf<'a> = &'a mut dyn FnMut() -> Result<(usize, usize)>;

/// How a family sees images.
pub trait Images {
    /// The token that stands for an image in a prompt: for each of its positions.
    fn placeholder(&self) -> u32;

    /// The key of config.json that names it, for errors.
    fn placeholder_key(&self) -> &'static str;

    /// The tokens by whose text plans mark images, with the names that files of a tokenizer give them. The first is what templates and raw
    /// prompts have in the place of an image. Without any that is the placeholder.
    fn marks(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The image processor with these settings.
    ///
    /// # Errors
    /// [`Error::ModelFile`] for settings that cannot be read, or that do not make what the vision tower takes;
    /// [`Error::UnsupportedModel`] for a processor of another class.
    fn processor(&self, settings: &SettingsOf) -> Result<Arc<dyn ImageProcessor>>;

    /// How videos are written, of a family that takes them.
    fn video_mark(&self) -> Option<VideoMark> {
        None
    }
}

/// An image processor: what a picture becomes in a prompt, and what the vision tower takes of it.
pub trait ImageProcessor: Debug + Send + Sync {
    /// The file that it was read from; None for the defaults of a folder without one.
    fn path(&self) -> Option<&Path>;

    /// The form that an image takes in a prompt.
    fn plan(&self, size: SizeOf<'_>) -> Result<ImagePlan>;

    /// A decoded image, which must not be empty, as the vision tower takes it.
    fn prepare(&self, image: &RgbImage) -> Prepared;

    /// The part of a picture of `width` x `height` pixels that each piece of its plan shows.
    fn areas(&self, width: usize, height: usize) -> Vec<Area>;

    /// Most bytes that [`ImageProcessor::prepare`] takes for a picture of `width` x `height` pixels: what it gives, and what it needs besides.
    fn bytes(&self, width: usize, height: usize) -> u64;

    /// How videos are seen; None of a model that takes none.
    fn videos(&self) -> Option<&dyn VideoProcessor> {
        None
    }

    /// The processor of a picture that is not the only one of its conversation, where the family sees such a picture in another way.
    fn among_others(&self) -> Option<&dyn ImageProcessor> {
        None
    }

    /// Decodes and prepares one image file; `index` is its place in the request, for errors.
    ///
    /// # Errors
    /// [`Error::Image`] as [`decode`] raises it.
    fn process(&self, bytes: &[u8], index: usize) -> Result<Prepared> {
        Ok(self.prepare(&decode(bytes, index)?))
    }
}

/// The parts that stand in a prompt for one image, in order: pieces, and text that marks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePlan(pub Vec<PlanPart>);

/// A part of an [`ImagePlan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanPart {
    /// Tokenised with the text around it.
    Text(String),
    Piece {
        piece: Piece,
        /// Positions that it takes.
        tokens: usize,
    },
}

impl ImagePlan {
    /// An image that is one piece without marks.
    pub fn whole(piece: Piece, tokens: usize) -> Self {
        ImagePlan(vec![PlanPart::Piece { piece, tokens }])
    }

    /// The pieces and how many positions each takes.
    pub fn pieces(&self) -> impl Iterator<Item = (Piece, usize)> + '_ {
        self.0.iter().filter_map(|part| match part {
            PlanPart::Text(_) => None,
            PlanPart::Piece { piece, tokens } => Some((*piece, *tokens)),
        })
    }

    /// Whether it is the plan of a video.
    pub fn is_video(&self) -> bool {
        self.pieces().any(|(piece, _)| matches!(piece.kind, PieceKind::Frame { .. }))
    }

    fn is_one_piece(&self) -> bool {
        matches!(self.0[..], [PlanPart::Piece { .. }])
    }
}

/// Whether images change the text, since they are more than a piece each.
fn are_written(plans: &[ImagePlan]) -> bool {
    !plans.iter().all(ImagePlan::is_one_piece)
}

/// The conversation with the marks of its images in the text and one placeholder per piece; `frame` stands for a piece of a video where the
/// placeholder of the video itself does not. Nothing is copied where every image is one piece.
pub(super) fn expand<'a>(chat: &'a Rendered, plans: &[ImagePlan], frame: Option<&str>) -> Result<Cow<'a, Rendered>> {
    if !are_written(plans) {
        return Ok(Cow::Borrowed(chat));
    }
    if chat.pictures.len() != plans.len() {
        let (found, images) = (chat.pictures.len(), plans.len());
        return Err(Error::Prompt { reason: format!("it has {found} image placeholders for {images} images") });
    }
    let written = |part: &PlanPart| match part {
        PlanPart::Text(text) => Written::Text(text.clone()),
        PlanPart::Piece { piece: Piece { kind: PieceKind::Frame { .. }, .. }, .. } => {
            frame.map_or(Written::Placeholder, |frame| Written::Other(frame.to_owned()))
        }
        PlanPart::Piece { .. } => Written::Placeholder,
    };
    let images: Vec<Vec<Written>> = plans.iter().map(|plan| plan.0.iter().map(written).collect()).collect();
    Ok(Cow::Owned(chat.with_images(&images)))
}

/// The placeholder and the image processor of a model, whose weights are not read; None of a text-only model.
///
/// # Errors
/// Those of [`Model::inspect`] about config.json, and of [`Images::processor`].
pub fn image_processor(dir: &Path) -> Result<Option<(u32, Arc<dyn ImageProcessor>)>> {
    let read = || processor_of(&Source::open(dir, &Vision::Beside)?);
    read().map_err(with_known)
}

/// As [`image_processor`], of a model that was found.
pub(super) fn processor_of(source: &Source) -> Result<Option<(u32, Arc<dyn ImageProcessor>)>> {
    let described = (family::<Cpu>(&source.config)?.inspect)(&source.config)?;
    described.images().map(|images| Ok((images.placeholder(), images.processor(&source.settings())?))).transpose()
}

impl<B: Backend> Model<B> {
    /// The processor of a picture which is the only one of its conversation; None for a text-only model.
    pub fn image_processor(&self) -> Option<&dyn ImageProcessor> {
        self.image_processor.as_deref()
    }

    /// The processor of the pictures of a conversation which has so many; None for a text-only model.
    pub fn image_processor_of(&self, pictures: usize) -> Option<&dyn ImageProcessor> {
        let alone = self.image_processor()?;
        Some(if pictures > 1 { alone.among_others().unwrap_or(alone) } else { alone })
    }

    /// The form that an image takes in a prompt in which it is alone; None for a text-only model. `size` is asked for its width and height
    /// where these matter.
    pub fn plan(&self, size: SizeOf<'_>) -> Result<Option<ImagePlan>> {
        self.plan_of(1, size)
    }

    /// As [`Model::plan`], of one of the pictures of a conversation which has so many.
    pub fn plan_of(&self, pictures: usize, size: SizeOf<'_>) -> Result<Option<ImagePlan>> {
        self.image_processor_of(pictures).map(|processor| processor.plan(size)).transpose()
    }

    /// The tokens of a rendered conversation, with a placeholder for each piece of its images, which become `plans`.
    pub fn encode(&self, chat: &Rendered, plans: &[ImagePlan], special: SpecialTokens) -> Result<Encoded> {
        let frame = match self.network.images().and_then(Images::video_mark) {
            Some(VideoMark::Text { .. }) => self.placeholder().and_then(|id| self.tokenizer.token(id)),
            _ => None,
        };
        self.tokenizer.encode_shown(&*expand(chat, plans, frame.as_deref())?, &self.placeholders(), special)
    }

    /// The tokens of a raw prompt, where every placeholder is an image or a video.
    pub fn encode_raw(&self, text: &str, plans: &[ImagePlan]) -> Result<Encoded> {
        let has_videos = plans.iter().any(ImagePlan::is_video);
        match self.image_mark().filter(|_| has_videos || are_written(plans)) {
            None => self.tokenizer.encode_raw(text, self.placeholder()),
            Some(written) => {
                let places = |word: &str| -> Vec<_> {
                    text.match_indices(word).map(|(at, found)| at..at + found.len()).collect()
                };
                let mut pictures = places(&written);
                if let Some(video) = self.template.video_placeholder().filter(|_| has_videos) {
                    pictures.extend(places(video));
                    pictures.sort_by_key(|place| place.start);
                    let kinds = pictures.iter().map(|place| text[place.clone()] == *video);
                    if !kinds.eq(plans.iter().map(ImagePlan::is_video)) {
                        return Err(Error::Prompt {
                            reason: format!(
                                "it must have `{written}` for each image and `{video}` for each video, in the order in which these came"
                            ),
                        });
                    }
                }
                let chat = Rendered { text: text.to_owned(), pictures, said: Vec::new() };
                self.encode(&chat, plans, SpecialTokens::Parse)
            }
        }
    }

    /// Replaces each image placeholder by as many positions as the image takes, for models whose images are all alike. Errors when
    /// placeholders and images differ in number.
    pub fn expand(&self, tokens: &[u32], images: usize) -> Result<Prompt> {
        let placeholder = self.placeholder();
        let places =
            tokens.iter().enumerate().filter(|(_, token)| Some(**token) == placeholder).map(|(place, _)| place);
        let mut unknown = || Err(Error::Internal("the size of an image is not known".into()));
        let plan = if images > 0 { self.plan(&mut unknown)? } else { None };
        self.expand_at(tokens, &places.collect::<Vec<_>>(), &plan.map_or(Vec::new(), |plan| vec![plan; images]), images)
    }

    /// The prompt of tokens of which those at `places`, in order, stand for the pieces of `images` images, which become `plans`.
    pub fn expand_at(&self, tokens: &[u32], places: &[usize], plans: &[ImagePlan], images: usize) -> Result<Prompt> {
        let plans = self.image_processor().map(|_| plans);
        let mut prompt = prompt::expand(tokens, places, plans, images, self.network.shape().vocab_size)?;
        prompt.placing = self.network.place(&prompt.spans);
        Ok(prompt)
    }

    /// The tokens that stand for images and for videos.
    fn placeholders(&self) -> Vec<u32> {
        let Some(images) = self.network.images() else { return Vec::new() };
        let video = match images.video_mark() {
            Some(VideoMark::Token(id)) => Some(id),
            _ => None,
        };
        std::iter::once(images.placeholder()).chain(video).collect()
    }

    /// The text that has the place of an image in a raw prompt; None for a text-only model.
    pub fn image_mark(&self) -> Option<String> {
        let images = self.network.images()?;
        match images.marks() {
            [(mark, _), ..] => Some((*mark).to_owned()),
            [] => self.tokenizer.token(images.placeholder()),
        }
    }

    /// The token that stands for an image, for each of its positions; None for a text-only model.
    pub fn placeholder(&self) -> Option<u32> {
        self.network.images().map(Images::placeholder)
    }
}
