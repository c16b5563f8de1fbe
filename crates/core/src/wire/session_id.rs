//! The name of a session, which cannot be guessed.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The name of a session: 128 random bits from the operating system, written as 32 hexadecimal digits. Whoever knows it may read, continue
/// and close the session. [`fmt::Debug`] does not show it.
///
/// ```json
/// { "type": "string", "pattern": "^[0-9a-f]{32}$" }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u128);

impl SessionId {
    /// A name that nobody knows yet.
    pub(crate) fn random() -> Result<SessionId> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::Internal(format!("the system gives no random numbers: {error}")))?;
        Ok(SessionId(u128::from_ne_bytes(bytes)))
    }

    /// Its digits.
    pub(crate) fn digits(self) -> String {
        format!("{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.digits())
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<SessionId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(&text, 16) {
            Ok(number) if digits => Ok(SessionId(number)),
            _ => Err(D::Error::custom("not the 32 hexadecimal digits that `open-session` has answered with")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_differ_are_read_as_they_are_written_and_are_not_shown() {
        let names: Vec<SessionId> = (0..64).map(|_| SessionId::random().unwrap()).collect();
        let mut seen = HashSet::new();
        for name in names {
            let text = serde_json::to_string(&name).unwrap();
            assert_eq!(text.len(), 34);
            assert_eq!(serde_json::from_str::<SessionId>(&text).unwrap(), name);
            assert!(!text.contains(&format!("{name:?}")));
            assert!(seen.insert(text));
        }
        // Each of the 128 bits is 0 in some names and 1 in others.
        let bits = |text: &String| u128::from_str_radix(text.trim_matches('"'), 16).unwrap();
        assert_eq!(seen.iter().map(bits).fold(0, |all, name| all | name), u128::MAX);
        assert_eq!(seen.iter().map(bits).fold(u128::MAX, |all, name| all & name), 0);
    }

    #[test]
    fn only_what_was_given_out_is_a_name() {
        for text in
            ["1", "\"\"", "\"1\"", "\"+0000000000000000000000000000001\"", "\"0000000000000000000000000000000G\""]
        {
            assert!(serde_json::from_str::<SessionId>(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<SessionId>(&format!("\"{}\"", "A".repeat(32))).is_err());
    }
}
