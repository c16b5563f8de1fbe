//! `{% generation %}` blocks, which mark what transformers trains on and render as what is inside.

/// Rewrites the tags of generation blocks to `with` blocks, which have no effect but a scope of their own, as
/// generation blocks have in transformers. Whitespace control stays as written, since a tag stays a tag.
/// Also makes all line ends `\n`, as jinja2 does first of all.
pub(super) fn rewrite(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut raw = false;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let len = match from.as_bytes().get(1) {
            Some(b'#') if !raw => from.find("#}").map_or(from.len(), |end| end + 2),
            Some(b'{') if !raw => expression_len(from, "}}"),
            Some(b'%') => {
                let len =
                    if raw { from.find("%}").map_or(from.len(), |end| end + 2) } else { expression_len(from, "%}") };
                match (tag_name(&from[..len]), raw) {
                    ("raw", false) => raw = true,
                    ("endraw", true) => raw = false,
                    (name @ ("generation" | "endgeneration"), false) => {
                        let tag = if name == "generation" { "with" } else { "endwith" };
                        out.push_str(&from[..len].replacen(name, tag, 1));
                        rest = &from[len..];
                        continue;
                    }
                    // Within raw text, a tag may only look like one: go on right after its beginning.
                    (_, true) => {
                        out.push_str(&from[..2]);
                        rest = &from[2..];
                        continue;
                    }
                    _ => {}
                }
                len
            }
            _ => 1,
        };
        out.push_str(&from[..len]);
        rest = &from[len..];
    }
    out.push_str(rest);
    out
}

/// The length of `{{ ... }}` or `{% ... %}` with strings in it skipped; all of the text when it does not end.
fn expression_len(text: &str, end: &str) -> usize {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if text.as_bytes()[at..].starts_with(end.as_bytes()) => return at + end.len(),
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// What a tag is called when it has nothing but a name; empty otherwise.
fn tag_name(tag: &str) -> &str {
    let inner = tag.strip_prefix("{%").and_then(|inner| inner.strip_suffix("%}")).unwrap_or_default();
    inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_tags_only() {
        for (source, expected) in [
            ("{% generation %}x{% endgeneration %}", "{% with %}x{% endwith %}"),
            ("{%- generation -%}\n{%+endgeneration-%}", "{%- with -%}\n{%+endwith-%}"),
            ("{# {% generation %} #}{{ '{% generation %}' }}", "{# {% generation %} #}{{ '{% generation %}' }}"),
            (r"{% set a = '\'%}' %}{% generation %}", r"{% set a = '\'%}' %}{% with %}"),
            (
                "{% raw %}{% generation %}{{ '{% endraw %}{% generation %}",
                "{% raw %}{% generation %}{{ '{% endraw %}{% with %}",
            ),
            ("{% set generation = 1 %}{{ generation }}", "{% set generation = 1 %}{{ generation }}"),
            ("a { b {% c", "a { b {% c"),
            ("{{ 'x", "{{ 'x"),
            ("{", "{"),
            ("{%", "{%"),
            ("a\r\nb\rc", "a\nb\nc"),
            ("\u{e9}{%\u{e9}%}{% generation %}", "\u{e9}{%\u{e9}%}{% with %}"),
        ] {
            assert_eq!(rewrite(source), expected);
        }
    }
}
