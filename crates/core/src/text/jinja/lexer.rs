//! Jinja source to tokens, with `trim_blocks` and `lstrip_blocks`.

use super::unescape::unescape;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Operators, longer ones first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// A token and its line, from 1.
pub(super) type Placed = (Token, usize);

pub(super) fn tokens(source: &str) -> Result<Vec<Placed>, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new(), line_starts: true };
    lexer.run()?;
    let line = lexer.line;
    lexer.tokens.push((Token::End, line));
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Placed>,
    /// Whether what was read last ends a line.
    line_starts: bool,
}

fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn go(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += passed.matches('\n').count();
        self.line_starts = passed.ends_with('\n');
        self.at += bytes;
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn fail<T>(&self, reason: &str) -> Result<T, String> {
        Err(format!("{reason} (line {})", self.line))
    }

    fn run(&mut self) -> Result<(), String> {
        while !self.rest().is_empty() {
            let rest = self.rest();
            let begins = |(at, _): &(usize, &str)| matches!(rest.as_bytes().get(at + 1), Some(b'%' | b'{' | b'#'));
            let begin = rest.match_indices('{').find(begins).map(|(at, _)| at);
            let Some(begin) = begin else {
                self.data(rest, None, false);
                self.go(rest.len());
                break;
            };
            let sign = rest[begin + 2..].chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let kind = &rest[begin..begin + 2];
            self.data(&rest[..begin], sign, kind == "{{");
            let raw = if kind == "{%" { raw_begin(&rest[begin..]) } else { None };
            if let Some(length) = raw {
                self.go(begin + length);
                self.raw()?;
                continue;
            }
            self.go(begin + 2 + usize::from(sign.is_some()));
            match kind {
                "{#" => self.comment()?,
                "{{" => {
                    self.push(Token::VariableBegin);
                    self.inside(Token::VariableEnd)?;
                }
                _ => {
                    self.push(Token::BlockBegin);
                    self.inside(Token::BlockEnd)?;
                }
            }
        }
        Ok(())
    }

    /// Text before a tag with its sign.
    fn data(&mut self, text: &str, sign: Option<char>, variable: bool) {
        let text = match sign {
            Some('-') => text.trim_end_matches(is_space),
            Some('+') => text,
            _ if variable => text,
            // At the end of the source nothing follows that a line could be of.
            _ if self.at + text.len() == self.source.len() => text,
            _ => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let whole = line > 0 || self.line_starts;
                match whole && text[line..].chars().all(is_space) {
                    true => &text[..line],
                    false => text,
                }
            }
        };
        if !text.is_empty() {
            self.push(Token::Data(text.to_owned()));
        }
    }

    fn comment(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else { return self.fail("a comment has no end") };
        let sign = rest[..end].chars().next_back();
        self.go(end);
        self.close(2, sign, true);
        Ok(())
    }

    /// Passes the end of a tag, and the white space that goes with it.
    fn close(&mut self, length: usize, sign: Option<char>, trims: bool) {
        let after = &self.rest()[length..];
        let more = match sign {
            Some('-') => after.len() - after.trim_start_matches(is_space).len(),
            Some('+') => 0,
            _ => usize::from(trims && after.starts_with('\n')),
        };
        self.go(length + more);
    }

    /// The text up to `endraw`.
    fn raw(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let mut from = 0;
        while let Some(begin) = rest[from..].find("{%").map(|at| from + at) {
            let sign = rest[begin + 2..].chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let inner = rest[begin + 2 + usize::from(sign.is_some())..].trim_start_matches(is_space);
            if let Some(tail) = inner.strip_prefix("endraw") {
                let tail = tail.trim_start_matches(is_space);
                let (end, length) = match tail.as_bytes() {
                    [b'-', b'%', b'}', ..] => (Some('-'), 3),
                    [b'+', b'%', b'}', ..] => (Some('+'), 3),
                    [b'%', b'}', ..] => (None, 2),
                    _ => {
                        from = begin + 2;
                        continue;
                    }
                };
                self.data(&rest[..begin], sign, false);
                self.go(rest.len() - tail.len());
                self.close(length, end, true);
                return Ok(());
            }
            from = begin + 2;
        }
        self.fail("a raw block has no end")
    }

    /// The tokens of an expression or tag.
    fn inside(&mut self, end: Token) -> Result<(), String> {
        let closing = if end == Token::VariableEnd { "}}" } else { "%}" };
        let mut open: Vec<&str> = Vec::new();
        loop {
            let rest = self.rest();
            let Some(first) = rest.chars().next() else { return self.fail("a tag has no end") };
            if is_space(first) {
                self.go(first.len_utf8());
                continue;
            }
            if open.is_empty() {
                let signed = rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(closing));
                let plus =
                    end == Token::BlockEnd && rest.strip_prefix('+').is_some_and(|rest| rest.starts_with(closing));
                if signed || plus || rest.starts_with(closing) {
                    self.push(end.clone());
                    let sign = if signed { Some('-') } else { plus.then_some('+') };
                    self.close(closing.len() + usize::from(sign.is_some()), sign, end == Token::BlockEnd);
                    return Ok(());
                }
            }
            if first.is_ascii_digit() {
                self.number()?;
            } else if first == '"' || first == '\'' {
                self.string(first)?;
            } else if first == '_' || first.is_alphanumeric() {
                let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                self.push(Token::Name(rest[..length].to_owned()));
                self.go(length);
            } else if let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
                match *operator {
                    "(" | "[" | "{" => open.push(operator),
                    ")" | "]" | "}" => {
                        let matches =
                            matches!((open.pop(), *operator), (Some("("), ")") | (Some("["), "]") | (Some("{"), "}"));
                        if !matches {
                            return self.fail(&format!("unexpected `{operator}`"));
                        }
                    }
                    _ => {}
                }
                self.push(Token::Operator(operator));
                self.go(operator.len());
            } else {
                return self.fail(&format!("unexpected character `{}`", first.escape_debug()));
            }
        }
    }

    fn string(&mut self, quote: char) -> Result<(), String> {
        let rest = self.rest();
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    self.push(Token::Text(unescape(&rest[1..at])));
                    self.go(at + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        self.fail("a string has no end")
    }

    fn number(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_').len();
        let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => 16,
            Some("0o") => 8,
            Some("0b") => 2,
            _ => 10,
        };
        if radix != 10 {
            let body = &rest[2..];
            let length = body.find(|c: char| !(c.is_digit(radix) || c == '_')).unwrap_or(body.len());
            if let Ok(value) = i64::from_str_radix(&body[..length].replace('_', ""), radix) {
                self.push(Token::Int(value));
                self.go(2 + length);
                return Ok(());
            }
        }
        let mut length = digits(rest);
        let whole = length;
        let after_dot = matches!(self.tokens.last(), Some((Token::Operator("."), _)));
        if !after_dot {
            let fraction = rest[length..].strip_prefix('.').map_or(0, digits);
            if fraction > 0 {
                length += 1 + fraction;
            }
            let exponent = rest[length..].strip_prefix(['e', 'E']).map_or(0, |tail| {
                let sign = usize::from(tail.starts_with(['+', '-']));
                match digits(&tail[sign..]) {
                    0 => 0,
                    found => 1 + sign + found,
                }
            });
            length += exponent;
        }
        let text = rest[..length].replace('_', "");
        let token = match length > whole {
            true => text.parse().map(Token::Float).map_err(|_| ()),
            false => text.parse().map(Token::Int).map_err(|_| ()),
        };
        match token {
            Ok(token) => self.push(token),
            Err(()) => return self.fail(&format!("the number {} is too large", &rest[..length.min(40)])),
        }
        self.go(length);
        Ok(())
    }
}

/// The length of `{% raw %}` at the beginning of a text.
fn raw_begin(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start_matches(is_space);
    let tail = inner.strip_prefix("raw")?.trim_start_matches(is_space);
    let tail = match tail.strip_prefix("-%}") {
        Some(tail) => tail.trim_start_matches(is_space),
        None => tail.strip_prefix("%}")?,
    };
    Some(text.len() - tail.len())
}
