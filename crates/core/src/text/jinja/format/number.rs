//! Digits of numbers.

use super::super::fail::{Fail, Res};
use super::PRECISEST;

/// How a float is written: `f`, `e` or `g`, with small or capital letters.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) kind: char,
    capital: bool,
}

impl Style {
    pub(super) fn of(kind: char) -> Style {
        Style { kind: kind.to_ascii_lowercase(), capital: kind.is_ascii_uppercase() }
    }
}

/// Prefix and digits of an integer in the base that `kind` says.
pub(super) fn digits(value: u128, kind: char, alternate: bool) -> (String, String) {
    let (prefix, digits) = match kind {
        'x' => ("0x", format!("{value:x}")),
        'X' => ("0X", format!("{value:X}")),
        'o' => ("0o", format!("{value:o}")),
        'b' => ("0b", format!("{value:b}")),
        _ => ("", value.to_string()),
    };
    (if alternate { prefix.to_owned() } else { String::new() }, digits)
}

/// The digits of a float without its sign.
pub(super) fn float(value: f64, style: Style, precision: usize, alternate: bool) -> Res<String> {
    if precision > PRECISEST {
        return Err(Fail::limit(format!("a number may have {PRECISEST} digits of precision")));
    }
    let value = value.abs();
    let text = if value.is_nan() {
        "nan".to_owned()
    } else if value.is_infinite() {
        "inf".to_owned()
    } else {
        match style.kind {
            'f' => point(format!("{value:.precision$}"), precision == 0 && alternate),
            'e' => exponential(value, precision, alternate),
            _ => general(value, precision.max(1), alternate),
        }
    };
    Ok(if style.capital { text.to_uppercase() } else { text })
}

fn point(text: String, wanted: bool) -> String {
    if wanted { format!("{text}.") } else { text }
}

fn exponential(value: f64, precision: usize, alternate: bool) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = point(mantissa.to_owned(), precision == 0 && alternate);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

fn general(value: f64, precision: usize, alternate: bool) -> String {
    let scientific = exponential(value, precision - 1, false);
    let exponent: i64 = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    if exponent < -4 || exponent >= precision as i64 {
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        let mantissa = if alternate { mantissa } else { trimmed(mantissa) };
        return format!("{mantissa}e{exponent}");
    }
    let places = (precision as i64 - 1 - exponent).max(0) as usize;
    let text = format!("{value:.places$}");
    if alternate { text } else { trimmed(&text).to_owned() }
}

/// Without zeros at the end of the fraction.
fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}
