//! Stop strings over a stream of text.

use crate::{Error, Result};

/// Most stop strings of one request.
const MAX_STOPS: usize = 64;
/// Longest stop string, in bytes.
const MAX_STOP_LEN: usize = 4096;

/// What [`StopStrings::push`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Text that is certainly not part of a stop string.
    pub emit: String,
    /// A stop string has appeared; it and what followed are dropped.
    pub hit: bool,
}

/// Looks for stop strings in text that comes in pieces, wherever it is cut.
///
/// The stop string that is complete first wins; of those complete at the same place, the longest. So the outcome does
/// not depend on how the text was cut into pieces.
#[derive(Clone, Debug)]
pub struct StopStrings {
    stops: Vec<Matcher>,
    /// Text that may be the beginning of a stop string.
    held: String,
    hit: bool,
}

impl StopStrings {
    /// # Errors
    /// [`Error::Option`] for an empty stop string, more than 64, or one longer than 4096 bytes.
    pub fn new(stops: Vec<String>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Option { reason, suggestion: None });
        if stops.len() > MAX_STOPS {
            return refuse(format!("`stop` has {} strings; at most {MAX_STOPS} are allowed", stops.len()));
        }
        if let Some(index) = stops.iter().position(String::is_empty) {
            return refuse(format!("`stop[{index}]` is empty; a stop string has at least one character"));
        }
        if let Some((index, stop)) = stops.iter().enumerate().find(|(_, stop)| stop.len() > MAX_STOP_LEN) {
            return refuse(format!("`stop[{index}]` has {} bytes; at most {MAX_STOP_LEN} are allowed", stop.len()));
        }
        let stops = stops.into_iter().map(Matcher::new).collect();
        Ok(StopStrings { stops, held: String::new(), hit: false })
    }

    /// Takes the next piece of text. After a hit everything is dropped and `hit` stays true.
    pub fn push(&mut self, text: &str) -> Stopped {
        if self.hit {
            return Stopped { emit: String::new(), hit: true };
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (offset, &byte) in text.as_bytes().iter().enumerate() {
            let complete = self.stops.iter_mut().filter_map(|stop| stop.step(byte)).max();
            if let Some(len) = complete {
                self.hit = true;
                let mut emit = std::mem::take(&mut self.held);
                emit.truncate(before + offset + 1 - len);
                return Stopped { emit, hit: true };
            }
        }
        let hold = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - hold);
        Stopped { emit: std::mem::replace(&mut self.held, held), hit: false }
    }

    /// The text still held back, at the end of the stream; empty after a hit.
    pub fn finish(&mut self) -> String {
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        std::mem::take(&mut self.held)
    }
}

/// Knuth-Morris-Pratt, so that long repetitive stop strings cost the same per byte as others.
#[derive(Clone, Debug)]
struct Matcher {
    stop: Vec<u8>,
    /// For each matched length minus one, the longest proper border.
    borders: Vec<usize>,
    matched: usize,
}

impl Matcher {
    fn new(stop: String) -> Matcher {
        let stop = stop.into_bytes();
        let mut borders = vec![0; stop.len()];
        let mut border = 0;
        for index in 1..stop.len() {
            while border > 0 && stop[index] != stop[border] {
                border = borders[border - 1];
            }
            border += usize::from(stop[index] == stop[border]);
            borders[index] = border;
        }
        Matcher { stop, borders, matched: 0 }
    }

    /// The stop string's length when this byte completes it.
    fn step(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.stop[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.stop[self.matched] == byte);
        (self.matched == self.stop.len()).then_some(self.matched)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut stops = StopStrings::new(stops.iter().map(|stop| stop.to_string()).collect()).unwrap();
        let mut out = String::new();
        for piece in pieces {
            let stopped = stops.push(piece);
            out += &stopped.emit;
            if stopped.hit {
                return (out + &stops.finish(), true);
            }
        }
        (out + &stops.finish(), false)
    }

    #[test]
    fn across_pieces() {
        assert_eq!(run(&["USER:"], &["Hello US", "ER", ": more"]), ("Hello ".into(), true));
        assert_eq!(run(&["USER:"], &["Hello US", "A"]), ("Hello USA".into(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b", "c"]), ("a".into(), true));
        assert_eq!(run(&["\u{e9}t\u{e9}"], &["un \u{e9}", "t\u{e9}"]), ("un ".into(), true));
        assert_eq!(run(&[], &["a", "b"]), ("ab".into(), false));
    }

    #[test]
    fn first_complete_wins() {
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), ("a".into(), true));
        assert_eq!(run(&["bc", "abc"], &["xabc"]), ("x".into(), true));
    }

    #[test]
    fn holds_only_what_could_begin_a_stop() {
        let mut stops = StopStrings::new(vec!["###".into()]).unwrap();
        assert_eq!(stops.push("a#b##"), Stopped { emit: "a#b".into(), hit: false });
        assert_eq!(stops.push("x"), Stopped { emit: "##x".into(), hit: false });
        assert_eq!(stops.push("###tail"), Stopped { emit: String::new(), hit: true });
        assert_eq!(stops.push("more"), Stopped { emit: String::new(), hit: true });
        assert_eq!(stops.finish(), "");
    }

    #[test]
    fn limits() {
        for (stops, found) in [
            (vec!["a".into(); 65], "65 strings"),
            (vec!["a".into(), String::new()], "`stop[1]` is empty"),
            (vec!["a".repeat(4097)], "4097 bytes"),
        ] {
            let error = StopStrings::new(stops).unwrap_err();
            assert_eq!(error.code(), "option");
            assert!(error.to_string().contains(found), "{error}");
        }
        assert!(StopStrings::new(vec!["a".repeat(4096); 64]).is_ok());
    }

    /// The rule of [`StopStrings`], over the whole text.
    fn expected(stops: &[String], text: &str) -> (String, bool) {
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let longest = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str())).map(|stop| stop.len()).max();
            if let Some(len) = longest {
                return (text[..end - len].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(
            stops in prop::collection::vec("[ab\u{e9}]{1,4}", 0..4),
            pieces in prop::collection::vec("[abc\u{e9}]{0,4}", 0..8),
        ) {
            let refs: Vec<&str> = stops.iter().map(String::as_str).collect();
            let cut: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&refs, &cut), expected(&stops, &pieces.concat()));
        }
    }
}
