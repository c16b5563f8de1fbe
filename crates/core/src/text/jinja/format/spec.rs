//! Python's format specifications, `[[fill]align][sign][#][0][width][,][.precision][type]`.

use super::super::fail::{Res, error};
use super::super::interpreter::Interpreter;
use super::super::repr;
use super::super::text::{Builder, Text};
use super::super::value::Value;
use super::limited;
use super::number::{Style, digits, float};

#[derive(Clone, Copy)]
pub(super) struct Spec {
    pub(super) fill: char,
    pub(super) align: Option<char>,
    pub(super) sign: char,
    pub(super) alternate: bool,
    pub(super) zero: bool,
    pub(super) width: usize,
    pub(super) group: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            zero: false,
            width: 0,
            group: None,
            precision: None,
            kind: None,
        }
    }
}

fn parse(text: &str) -> Res<Spec> {
    let mut spec = Spec::default();
    let mut chars = text.chars().peekable();
    let aligns = |c: Option<&char>| c.is_some_and(|c| matches!(c, '<' | '>' | '=' | '^'));
    let mut second = text.chars();
    second.next();
    if aligns(second.next().as_ref()) {
        spec.fill = chars.next().unwrap_or(' ');
        spec.align = chars.next();
    } else if aligns(chars.peek()) {
        spec.align = chars.next();
    }
    if let Some(sign) = chars.next_if(|c| matches!(c, '+' | '-' | ' ')) {
        spec.sign = sign;
    }
    spec.alternate = chars.next_if_eq(&'#').is_some();
    spec.zero = chars.next_if_eq(&'0').is_some();
    let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        let mut found = None;
        while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
            found = Some(found.unwrap_or(0_usize).saturating_mul(10).saturating_add(digit as usize));
        }
        found
    };
    spec.width = limited(number(&mut chars).unwrap_or(0))?;
    spec.group = chars.next_if(|c| matches!(c, ',' | '_'));
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = match number(&mut chars) {
            Some(precision) => Some(precision),
            None => return error("Format specifier missing precision"),
        };
    }
    spec.kind = chars.next();
    match chars.next() {
        Some(_) => error(format!("Invalid format specifier '{}'", text.chars().take(40).collect::<String>())),
        None => Ok(spec),
    }
}

/// `format(value, spec)`
pub(super) fn formatted(value: &Value, spec: &str, out: &mut Builder, interpreter: &Interpreter<'_>) -> Res<()> {
    if spec.is_empty() {
        return out.text(&interpreter.str(value)?);
    }
    let spec = parse(spec)?;
    let unknown =
        |kind: char| error(format!("Unknown format code '{kind}' for object of type '{}'", value.type_name()));
    let whole = match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Int(value) => Some(*value),
        _ => None,
    };
    match (value, whole, spec.kind) {
        (_, Some(value), None | Some('d' | 'n' | 'x' | 'X' | 'o' | 'b')) => {
            if spec.precision.is_some() {
                return error("Precision not allowed in integer format specifier");
            }
            let (prefix, digits) = digits(u128::from(value.unsigned_abs()), spec.kind.unwrap_or('d'), spec.alternate);
            number(value < 0, &prefix, &digits, &spec, out)
        }
        (_, Some(code), Some('c')) => match u32::try_from(code).ok().and_then(char::from_u32) {
            Some(c) => text(&Text::plain(c), &spec, out),
            None => error("%c arg not in range(0x110000)"),
        },
        (Value::Float(_), _, _) | (_, Some(_), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => {
            let value = match (value, whole) {
                (Value::Float(value), _) => *value,
                (_, whole) => whole.unwrap_or(0) as f64,
            };
            let written = match spec.kind {
                Some('%') => {
                    format!("{}%", float(value * 100.0, Style::of('f'), spec.precision.unwrap_or(6), spec.alternate)?)
                }
                Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G')) => {
                    float(value, Style::of(kind), spec.precision.unwrap_or(6), spec.alternate)?
                }
                Some('n') => float(value, Style::of('g'), spec.precision.unwrap_or(6), spec.alternate)?,
                None => match spec.precision {
                    None => repr::float(value.abs()),
                    Some(precision) => {
                        let text = float(value, Style::of('g'), precision, spec.alternate)?;
                        if text.contains(['.', 'e', 'n']) { text } else { format!("{text}.0") }
                    }
                },
                Some(kind) => return unknown(kind),
            };
            number(value.is_sign_negative() && !value.is_nan(), "", &written, &spec, out)
        }
        (Value::Text(value), _, None | Some('s')) => {
            if spec.align == Some('=') || spec.sign != '-' {
                return error("Sign or '=' alignment not allowed in string format specifier");
            }
            text(value, &Spec { fill: if spec.zero && spec.align.is_none() { '0' } else { spec.fill }, ..spec }, out)
        }
        (Value::Text(_), _, Some(kind)) => unknown(kind),
        (_, Some(_), Some(kind)) => unknown(kind),
        _ => error(format!("unsupported format string passed to {}.__format__", value.type_name())),
    }
}

/// A text with its precision and padding; to the left unless the field says otherwise.
pub(super) fn text(value: &Text, spec: &Spec, out: &mut Builder) -> Res<()> {
    let chars = spec.precision.map_or(value.chars(), |precision| precision.min(value.chars()));
    let padding = spec.width.saturating_sub(chars);
    let before = match spec.align {
        Some('>') => padding,
        Some('^') => padding / 2,
        _ => 0,
    };
    out.repeat(spec.fill, before)?;
    out.slice(value, 0..value.byte_of(chars))?;
    out.repeat(spec.fill, padding - before)
}

/// A number with its sign and padding; to the right unless the field says otherwise.
pub(super) fn number(negative: bool, prefix: &str, digits: &str, spec: &Spec, out: &mut Builder) -> Res<()> {
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, '+') => "+",
        (false, ' ') => " ",
        _ => "",
    };
    let finite = !digits.starts_with(['i', 'n', 'I', 'N']);
    let mut digits = match spec.group {
        Some(separator) if finite => grouped(digits, separator),
        _ => digits.to_owned(),
    };
    let zero = spec.zero && spec.align != Some('<') && (finite || spec.align.is_none());
    let padding = spec.width.saturating_sub(sign.len() + prefix.len() + digits.chars().count());
    let (fill, align) = match (zero, spec.align) {
        (true, None | Some('>')) => ('0', '='),
        (_, align) => (spec.fill, align.unwrap_or('>')),
    };
    if let (Some(separator), '0', '=', true) = (spec.group, fill, align, finite) {
        super::super::budget::room(spec.width.saturating_mul(2))?;
        let whole = digits.find('.').unwrap_or(digits.len());
        let wanted = (spec.width - sign.len().min(spec.width)).saturating_sub(digits.len() - whole);
        let plain: String = digits[..whole].chars().filter(|c| *c != separator).collect();
        let mut longer = plain.clone();
        while grouped(&longer, separator).len() < wanted && longer.len() < 4096 {
            longer.insert(0, '0');
        }
        digits = format!("{}{}", grouped(&longer, separator), &digits[whole..]);
        out.str(sign)?;
        return out.str(&digits);
    }
    match align {
        '<' => {
            out.str(sign)?;
            out.str(prefix)?;
            out.str(&digits)?;
            out.repeat(fill, padding)
        }
        '^' => {
            out.repeat(fill, padding / 2)?;
            out.str(sign)?;
            out.str(prefix)?;
            out.str(&digits)?;
            out.repeat(fill, padding - padding / 2)
        }
        '=' => {
            out.str(sign)?;
            out.str(prefix)?;
            out.repeat(fill, padding)?;
            out.str(&digits)
        }
        _ => {
            out.repeat(fill, padding)?;
            out.str(sign)?;
            out.str(prefix)?;
            out.str(&digits)
        }
    }
}

fn grouped(digits: &str, separator: char) -> String {
    let whole = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    let mut out = String::new();
    for (at, c) in digits[..whole].chars().enumerate() {
        if at > 0 && (whole - at).is_multiple_of(3) {
            out.push(separator);
        }
        out.push(c);
    }
    out + &digits[whole..]
}
