//! `strftime_now`: Python's `datetime.now().strftime(format)`, in UTC and English.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) fn now(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    at(seconds, format)
}

/// `seconds` since 1970, UTC. A directive that is not known stays as it is.
fn at(seconds: u64, format: &str) -> String {
    let (days, second) = (seconds / 86400, seconds % 86400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (year, month, day) = civil(days);
    let weekday = DAYS[((days + 4) % 7) as usize];
    let month_name = MONTHS[(month - 1) as usize];
    let hour12 = (hour + 11) % 12 + 1;
    let year_day = days - days_before(year) + 1;

    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let padded = directive != Some('-');
        if !padded {
            directive = chars.next();
        }
        let number = |value: u64, width: usize| if padded { format!("{value:0width$}") } else { value.to_string() };
        match directive {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&number(year % 100, 2)),
            Some('m') => out.push_str(&number(month, 2)),
            Some('d') => out.push_str(&number(day, 2)),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('j') => out.push_str(&number(year_day, 3)),
            Some('H') => out.push_str(&number(hour, 2)),
            Some('I') => out.push_str(&number(hour12, 2)),
            Some('M') => out.push_str(&number(minute, 2)),
            Some('S') => out.push_str(&number(second, 2)),
            Some('f') => out.push_str("000000"),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            // `now()` has no time zone, so Python leaves these empty.
            Some('z' | 'Z') => {}
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days from 1970-01-01 to the first of a year's January.
fn days_before(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let mut day = days - days_before(year);
    let mut month = 1;
    for length in [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_python() {
        // datetime.fromtimestamp(s, timezone.utc).strftime(...)
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 12AM 001 Thursday Thu January Jan 70 % 1 1"),
            (951782399, "2000-02-28 23:59:59 11PM 059 Monday Mon February Feb 00 % 28 2"),
            (951782400, "2000-02-29 00:00:00 12AM 060 Tuesday Tue February Feb 00 % 29 2"),
            (1709251199, "2024-02-29 23:59:59 11PM 060 Thursday Thu February Feb 24 % 29 2"),
            (1735689599, "2024-12-31 23:59:59 11PM 366 Tuesday Tue December Dec 24 % 31 12"),
            (1735689600, "2025-01-01 00:00:00 12AM 001 Wednesday Wed January Jan 25 % 1 1"),
            (4107542400, "2100-03-01 00:00:00 12AM 060 Monday Mon March Mar 00 % 1 3"),
            (253402300799, "9999-12-31 23:59:59 11PM 365 Friday Fri December Dec 99 % 31 12"),
        ] {
            assert_eq!(at(seconds, "%Y-%m-%d %H:%M:%S %I%p %j %A %a %B %b %y %% %-d %-m"), expected);
        }
        assert_eq!(at(0, "%q %"), "%q %");
    }
}
