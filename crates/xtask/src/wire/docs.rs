//! Doc comments: what they say, and the blocks in them that mean something here.
//!
//! A block of `ts` is the example of a public type. A block of `json` is the JSON schema of a type that writes its own serde, and a
//! block of `typescript` its TypeScript where that says more. A paragraph `Default: ...` is the default of an option.

use serde_json::Value;
use syn::Attribute;

use super::source::doc_line;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Docs {
    /// Paragraphs; the first is what tables and the help of the command line show.
    pub(crate) text: Vec<String>,
    pub(crate) default: Option<String>,
    pub(crate) example: Option<String>,
    pub(crate) schema: Option<Value>,
    pub(crate) typescript: Option<String>,
}

impl Docs {
    pub(crate) fn of(attributes: &[Attribute]) -> Result<Docs, String> {
        Docs::parse(attributes.iter().filter_map(doc_line))
    }

    pub(crate) fn parse(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Docs, String> {
        let mut docs = Docs::default();
        let mut paragraph = String::new();
        let mut block: Option<(String, Vec<String>)> = None;
        for line in lines {
            let line = line.as_ref().strip_prefix(' ').unwrap_or(line.as_ref());
            match (&mut block, line.strip_prefix("```")) {
                (None, Some(language)) => block = Some((language.into(), Vec::new())),
                (Some(_), Some(_)) => docs.keep(block.take())?,
                (Some((_, lines)), None) => lines.push(line.into()),
                (None, None) if line.trim().is_empty() => docs.end(&mut paragraph),
                (None, None) => {
                    if !paragraph.is_empty() {
                        paragraph.push(' ');
                    }
                    paragraph.push_str(&plain(line.trim()));
                }
            }
        }
        docs.end(&mut paragraph);
        Ok(docs)
    }

    fn end(&mut self, paragraph: &mut String) {
        let text = std::mem::take(paragraph);
        match text.strip_prefix("Default: ") {
            Some(default) => self.default = Some(default.trim_end_matches('.').into()),
            None if text.is_empty() => {}
            None => self.text.push(text),
        }
    }

    fn keep(&mut self, block: Option<(String, Vec<String>)>) -> Result<(), String> {
        let Some((language, lines)) = block else { return Ok(()) };
        let text = lines.join("\n");
        match language.as_str() {
            "ts" => self.example = Some(text),
            "typescript" => self.typescript = Some(text),
            "json" => {
                let schema =
                    serde_json::from_str(&text).map_err(|error| format!("the JSON of a doc comment: {error}"))?;
                self.schema = Some(schema);
            }
            // A block of Rust is for readers of Rust.
            _ => {}
        }
        Ok(())
    }
}

/// A line without the links of rustdoc.
fn plain(line: &str) -> String {
    line.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_defaults_are_taken_out_of_the_text() {
        let lines = [
            " One of [`Two`]",
            " lines.",
            "",
            " More.",
            "",
            " Default: 0, or so.",
            "",
            " ```ts",
            " let x;",
            "   y;",
            " ```",
            " ```json",
            " { \"type\": \"string\" }",
            " ```",
        ];
        let docs = Docs::parse(lines).unwrap();
        assert_eq!(docs.text, ["One of `Two` lines.", "More."]);
        assert_eq!(docs.default.as_deref(), Some("0, or so"));
        assert_eq!(docs.example.as_deref(), Some("let x;\n  y;"));
        assert_eq!(docs.schema, Some(serde_json::json!({ "type": "string" })));
        assert!(Docs::parse([" ```json", " {", " ```"]).is_err());
    }
}
