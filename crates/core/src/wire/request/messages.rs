//! Messages and the images and videos in them, checked before they are read: serde's errors would not say where.

use std::sync::Arc;

use serde_json::Value;

use super::MAX_IMAGES;
use super::parts::{MAX_FRAMES, VideoFields};
use crate::error::{Error, Result};
use crate::fields::{Fields, describe, nearest, refuse};
use crate::media::Timing;
use crate::text::ToolCall;
use crate::wire::media::{Medium, Video};

/// The images and videos that a prompt may show.
pub(super) struct Shown {
    pub images: usize,
    pub videos: Vec<Arc<Video>>,
}

impl Shown {
    /// Those of a request with so many `images`, of which some are frames.
    pub(super) fn new(images: usize, videos: Vec<VideoFields>) -> Result<Shown> {
        let mut next = 0;
        let mut read = Vec::with_capacity(videos.len());
        for (number, VideoFields { first, frames, fps, times }) in videos.into_iter().enumerate() {
            let timing = Timing::new(frames.0, fps, times)?;
            let left = images.checked_sub(first);
            if left.is_none_or(|left| left < frames.0) {
                return Err(refuse(format!(
                    "videos[{number}] has {} frames from image {first} on, but {images} images came with the request",
                    frames.0
                )));
            }
            if first < next {
                return Err(refuse(format!(
                    "videos[{number}] begins at image {first}, which is not behind the video before it"
                )));
            }
            next = first + frames.0;
            read.push(Arc::new(Video { frames: first..next, timing }));
        }
        let shown = Shown { images, videos: read };
        require_few(shown.media().len(), shown.frames())?;
        Ok(shown)
    }

    fn frames(&self) -> usize {
        self.videos.iter().map(|video| video.frames.len()).sum()
    }

    fn video_of(&self, image: usize) -> Option<usize> {
        self.videos.iter().position(|video| video.frames.contains(&image))
    }

    /// All of them, in the order of their images.
    pub(super) fn media(&self) -> Vec<Medium> {
        let one = |image: usize| match self.video_of(image) {
            None => Some(Medium::Image(image)),
            Some(number) => {
                let video = &self.videos[number];
                (video.frames.start == image).then(|| Medium::Video(video.clone()))
            }
        };
        (0..self.images).filter_map(one).collect()
    }
}

/// Refuses more images and videos than one request may have, and more frames.
pub(super) fn require_few(media: usize, frames: usize) -> Result<()> {
    if media > MAX_IMAGES {
        return Err(refuse(format!("at most {MAX_IMAGES} images per request, found {media}")));
    }
    if frames > MAX_FRAMES {
        return Err(refuse(format!("the videos of a request may have {MAX_FRAMES} frames together, found {frames}")));
    }
    Ok(())
}

/// Checks the shape of messages with errors that say where, and gives the images and videos in the order in which they are mentioned.
pub(super) fn check_messages(messages: &Value, shown: &Shown) -> Result<Vec<Medium>> {
    let Value::Array(list) = messages else {
        return Err(refuse(format!("`messages` must be an array, found {}", describe(messages))));
    };
    if list.is_empty() {
        return Err(refuse("`messages` is empty"));
    }
    let mut order = Vec::new();
    for (number, message) in list.iter().enumerate() {
        let place = format!("messages[{number}]");
        let mut fields = Fields::new(message.clone(), place.as_str(), &["role", "content", "toolCalls"])?;
        if fields.need::<String>("role")?.is_empty() {
            return Err(refuse(format!("`role` of {place} is empty")));
        }
        fields.take::<Vec<ToolCall>>("toolCalls")?;
        match fields.need::<Value>("content")? {
            Value::String(_) => {}
            Value::Array(parts) => {
                for (number, part) in parts.into_iter().enumerate() {
                    order.extend(check_part(part, format!("{place}.content[{number}]"), shown)?);
                }
            }
            other => {
                let found = describe(&other);
                return Err(refuse(format!(
                    "`content` of {place} must be a string or an array of parts, found {found}"
                )));
            }
        }
    }
    match shown.media().into_iter().find(|medium| !order.contains(medium)) {
        Some(Medium::Image(index)) => {
            Err(refuse(format!("image {index} is in no message; {} came with the request", shown.images)))
        }
        Some(Medium::Video(video)) => {
            let number = shown.video_of(video.frames.start).unwrap_or_default();
            Err(refuse(format!("video {number} is in no message; {} came with the request", shown.videos.len())))
        }
        None => Ok(order),
    }
}

fn check_part(part: Value, place: String, shown: &Shown) -> Result<Option<Medium>> {
    let mut fields = Fields::new(part, place.as_str(), &["type", "text", "index"])?;
    let (text, index) = (fields.take::<String>("text")?, fields.take::<usize>("index")?);
    match (fields.need::<String>("type")?.as_str(), text, index) {
        ("text", Some(_), None) => Ok(None),
        ("image", None, Some(index)) => match shown.video_of(index) {
            Some(number) => Err(refuse(format!("`index` of {place} is {index}, which is a frame of video {number}"))),
            None if index < shown.images => Ok(Some(Medium::Image(index))),
            None => {
                let images = shown.images;
                Err(refuse(format!("`index` of {place} is {index}, but {images} images came with the request")))
            }
        },
        ("video", None, Some(index)) => match shown.videos.get(index) {
            Some(video) => Ok(Some(Medium::Video(video.clone()))),
            None => {
                let videos = shown.videos.len();
                Err(refuse(format!("`index` of {place} is {index}, but {videos} videos came with the request")))
            }
        },
        ("text", ..) => Err(refuse(format!("{place} is a text, so it has `text` and nothing else"))),
        ("image", ..) => Err(refuse(format!("{place} is an image, so it has `index` and nothing else"))),
        ("video", ..) => Err(refuse(format!("{place} is a video, so it has `index` and nothing else"))),
        (other, ..) => Err(Error::Option {
            reason: format!("`type` of {place} is `{other}`; known are text, image, video"),
            suggestion: nearest(other, &["text", "image", "video"]),
        }),
    }
}
