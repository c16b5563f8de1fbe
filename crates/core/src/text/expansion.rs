//! Images of a conversation as their family writes them: on the text, before it is tokenised, because marks merge with what stands beside
//! them.

use std::ops::Range;

use super::Rendered;

/// A part of what is written for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Text(String),
    /// The placeholder of the image, once more.
    Placeholder,
    /// Another placeholder, by its text.
    Other(String),
}

impl Rendered {
    /// The conversation with each of its pictures replaced by what is written for it; `images` has one list for each. Text that is written is
    /// the template's, not said by a message.
    pub fn with_images(&self, images: &[Vec<Written>]) -> Rendered {
        let mut out = Rendered::default();
        let (mut from, mut said) = (0, self.said.iter().peekable());
        // Ranges of messages end before a picture or begin behind it.
        let mut copy = |out: &mut Rendered, to: usize, from: usize| {
            let moved = |at: usize| at - from + out.text.len();
            let mut ranges: Vec<Range<usize>> = Vec::new();
            while let Some(range) = said.next_if(|range| range.start < to) {
                ranges.push(moved(range.start.max(from))..moved(range.end.min(to)));
            }
            out.said.extend(ranges);
            out.text.push_str(&self.text[from..to]);
        };
        for (picture, written) in self.pictures.iter().zip(images) {
            copy(&mut out, picture.start, from);
            for part in written {
                match part {
                    Written::Text(text) => out.text.push_str(text),
                    Written::Placeholder | Written::Other(_) => {
                        let start = out.text.len();
                        out.text.push_str(match part {
                            Written::Other(placeholder) => placeholder,
                            _ => &self.text[picture.clone()],
                        });
                        out.pictures.push(start..out.text.len());
                    }
                }
            }
            from = picture.end;
        }
        copy(&mut out, self.text.len(), from);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_text_and_pieces_are_pictures() {
        let text = "User:<image> and <image>? said".to_owned();
        let chat = Rendered { pictures: vec![5..12, 17..24], said: vec![12..17, 26..30], text };
        let tile = |name: &str| vec![Written::Text(format!("<{name}>")), Written::Placeholder];
        let images = [
            [tile("row_1_col_1"), vec![Written::Text("\n".into())], tile("global")].concat(),
            vec![Written::Placeholder],
        ];
        let got = chat.with_images(&images);
        assert_eq!(got.text, "User:<row_1_col_1><image>\n<global><image> and <image>? said");
        let shown =
            |ranges: &[Range<usize>]| ranges.iter().map(|at| got.text[at.clone()].to_owned()).collect::<Vec<_>>();
        assert_eq!(shown(&got.pictures), ["<image>"; 3]);
        assert_eq!(shown(&got.said), [" and ", "said"]);
        let other = vec![vec![Written::Other("<film>".into())], vec![Written::Placeholder]];
        let got = chat.with_images(&other);
        assert_eq!(got.text, "User:<film> and <image>? said");
        assert_eq!(got.pictures, [5..11, 16..23]);
        let one = vec![vec![Written::Placeholder]; 2];
        assert_eq!(chat.with_images(&one), chat);
    }
}
