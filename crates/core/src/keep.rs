//! The asked size of a cache, as requests and errors say it.

use std::fmt;

use serde::Serialize;

/// How much of the cache is kept: a share of all positions, above 0 and up to 1; so many entries per layer, on average; or so many bytes, as a
/// number or as a text such as `"64MiB"`. A share grows with the sequence, the other two are caps.
///
/// ```ts
/// import { type Keep, load, prefixkv } from "prefixkv";
///
/// await using model = await load();
/// const keeps: Keep[] = [0.5, { tokens: 16 }, { bytes: "1MiB" }];
/// for (const keep of keeps) {
///   const { memory } = await model.generate({ prompt: "USER: Which shapes are there? ASSISTANT:", cache: prefixkv({ keep }) });
///   console.log(keep, memory.resident);
/// }
/// ```
///
/// ```json
/// {
///   "anyOf": [
///     { "type": "number", "exclusiveMinimum": 0, "maximum": 1 },
///     {
///       "type": "object",
///       "properties": { "tokens": { "type": "integer", "minimum": 1 } },
///       "required": ["tokens"],
///       "additionalProperties": false
///     },
///     {
///       "type": "object",
///       "properties": { "bytes": { "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string" }] } },
///       "required": ["bytes"],
///       "additionalProperties": false
///     }
///   ]
/// }
/// ```
///
/// ```typescript
/// | number
/// | { readonly tokens: number; readonly bytes?: never }
/// | { readonly bytes: number | string; readonly tokens?: never }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Never more than this many entries per layer, on average over the layers.
    Tokens(usize),
    /// Never more than this many bytes, bookkeeping included, from the end of the prompt on.
    Bytes(u64),
    /// This share of all positions seen, prompt and generated: the cache grows by it per new token.
    #[serde(untagged)]
    Share(f64),
}

/// As people write it.
impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            // Hundreds of zeros tell nobody anything.
            Keep::Share(share) if *share < 1e-4 => write!(f, "{share:e}"),
            Keep::Share(share) => write!(f, "{share}"),
            Keep::Tokens(tokens) => write!(f, "{{ tokens: {tokens} }}"),
            Keep::Bytes(bytes) => write!(f, "{{ bytes: {bytes} }}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_shown_as_people_write_it_and_sent_as_json() {
        let shown = [
            (Keep::Share(0.5), "0.5", "0.5"),
            (Keep::Share(1.0), "1", "1.0"),
            (Keep::Share(0.0001), "0.0001", "0.0001"),
            (Keep::Share(1e-5), "1e-5", "0.00001"),
            (Keep::Share(1.5e-300), "1.5e-300", "1.5e-300"),
            (Keep::Tokens(5), "{ tokens: 5 }", r#"{"tokens":5}"#),
            (Keep::Bytes(1000), "{ bytes: 1000 }", r#"{"bytes":1000}"#),
        ];
        for (keep, text, json) in shown {
            assert_eq!((keep.to_string().as_str(), serde_json::to_string(&keep).unwrap().as_str()), (text, json));
        }
    }
}
