//! Messages and the images in them, checked before they are read: serde's errors would not say where.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::fields::{Fields, describe, nearest, refuse};

/// Checks the shape of messages with errors that say where, and gives the images in the order in which they are mentioned.
pub(super) fn check_messages(messages: &Value, images: usize) -> Result<Vec<usize>> {
    let Value::Array(list) = messages else {
        return Err(refuse(format!("`messages` must be an array, found {}", describe(messages))));
    };
    if list.is_empty() {
        return Err(refuse("`messages` is empty"));
    }
    let mut order = Vec::new();
    for (number, message) in list.iter().enumerate() {
        let place = format!("messages[{number}]");
        let mut fields = Fields::new(message.clone(), place.as_str(), &["role", "content"])?;
        if fields.need::<String>("role")?.is_empty() {
            return Err(refuse(format!("`role` of {place} is empty")));
        }
        match fields.need::<Value>("content")? {
            Value::String(_) => {}
            Value::Array(parts) => {
                for (number, part) in parts.into_iter().enumerate() {
                    order.extend(check_part(part, format!("{place}.content[{number}]"), images)?);
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
    match (0..images).find(|index| !order.contains(index)) {
        Some(index) => Err(refuse(format!("image {index} is in no message; {images} came with the request"))),
        None => Ok(order),
    }
}

fn check_part(part: Value, place: String, images: usize) -> Result<Option<usize>> {
    let mut fields = Fields::new(part, place.as_str(), &["type", "text", "index"])?;
    let (text, index) = (fields.take::<String>("text")?, fields.take::<usize>("index")?);
    match (fields.need::<String>("type")?.as_str(), text, index) {
        ("text", Some(_), None) => Ok(None),
        ("image", None, Some(index)) if index < images => Ok(Some(index)),
        ("image", None, Some(index)) => {
            Err(refuse(format!("`index` of {place} is {index}, but {images} images came with the request")))
        }
        ("text", ..) => Err(refuse(format!("{place} is a text, so it has `text` and nothing else"))),
        ("image", ..) => Err(refuse(format!("{place} is an image, so it has `index` and nothing else"))),
        (other, ..) => Err(Error::Option {
            reason: format!("`type` of {place} is `{other}`; known are text, image"),
            suggestion: nearest(other, &["text", "image"]),
        }),
    }
}
