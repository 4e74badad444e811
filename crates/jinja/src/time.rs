//! Points in time, for `strftime`, `to_datetime`, `now()` and `template_mtime`.
//!
//! A static program must not read the zone database of the box, so local time is UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::Value;

use crate::fault::{self, Result};
use crate::runtime::Call;
use crate::value::{self, DateTime};

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
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

struct Parts {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    weekday: u32,
    yearday: u32,
}

/// Days since 1970 of a date in the proleptic Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year =
        (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn parts(at: DateTime) -> Parts {
    // Beyond year 9999 Python refuses; nothing sensible is that far away.
    let seconds = at.seconds.clamp(-62_135_596_800, 253_402_300_799);
    let days = seconds.div_euclid(86_400);
    let rest = seconds.rem_euclid(86_400) as u32;
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as u32;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Parts {
        year,
        month,
        day,
        hour: rest / 3600,
        minute: rest / 60 % 60,
        second: rest % 60,
        weekday: (days + 4).rem_euclid(7) as u32,
        yearday: (days - days_from_civil(year, 1, 1)) as u32 + 1,
    }
}

pub fn display(at: DateTime) -> String {
    let p = parts(at);
    let whole = format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        p.year, p.month, p.day, p.hour, p.minute, p.second
    );
    if at.micros > 0 {
        format!("{whole}.{:06}", at.micros)
    } else {
        whole
    }
}

pub fn repr(at: DateTime) -> String {
    let p = parts(at);
    let mut out = format!(
        "datetime.datetime({}, {}, {}, {}, {}",
        p.year, p.month, p.day, p.hour, p.minute
    );
    if p.second > 0 || at.micros > 0 {
        out.push_str(&format!(", {}", p.second));
    }
    if at.micros > 0 {
        out.push_str(&format!(", {}", at.micros));
    }
    out + ")"
}

pub fn attribute(at: DateTime, name: &str) -> Option<Value> {
    let p = parts(at);
    Some(Value::from(match name {
        "year" => p.year,
        "month" => i64::from(p.month),
        "day" => i64::from(p.day),
        "hour" => i64::from(p.hour),
        "minute" => i64::from(p.minute),
        "second" => i64::from(p.second),
        "microsecond" => i64::from(at.micros),
        _ => return None,
    }))
}

/// A `timedelta`, as far as templates look at it.
pub fn difference(a: DateTime, b: DateTime) -> Value {
    let micros = (i128::from(a.seconds) - i128::from(b.seconds)) * 1_000_000 + i128::from(a.micros)
        - i128::from(b.micros);
    let days = micros.div_euclid(86_400_000_000);
    let rest = micros.rem_euclid(86_400_000_000);
    value::dict_of([
        ("days", value::int(days)),
        ("seconds", value::int(rest / 1_000_000)),
        ("microseconds", value::int(rest % 1_000_000)),
    ])
}

fn iso_week(p: &Parts) -> (i64, u32) {
    let weekday = if p.weekday == 0 { 7 } else { p.weekday } as i64;
    let week = (i64::from(p.yearday) - weekday + 10) / 7;
    let weeks_in = |year: i64| {
        let p =
            |y: i64| (y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400)).rem_euclid(7);
        if p(year) == 4 || p(year - 1) == 3 {
            53
        } else {
            52
        }
    };
    if week < 1 {
        (p.year - 1, weeks_in(p.year - 1) as u32)
    } else if week > weeks_in(p.year) {
        (p.year + 1, 1)
    } else {
        (p.year, week as u32)
    }
}

pub fn strftime(at: DateTime, format: &str) -> String {
    let p = parts(at);
    let month = MONTHS[(p.month.clamp(1, 12) - 1) as usize];
    let day = DAYS[(p.weekday % 7) as usize];
    let twelve = (p.hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next();
        let unpadded = code == Some('-');
        if unpadded {
            code = chars.next();
        }
        let pad = |value: u32, width: usize| {
            if unpadded {
                value.to_string()
            } else {
                format!("{value:0width$}")
            }
        };
        out.push_str(&match code {
            Some('Y') => p.year.to_string(),
            Some('y') => pad(p.year.rem_euclid(100) as u32, 2),
            Some('C') => pad(p.year.div_euclid(100) as u32, 2),
            Some('m') => pad(p.month, 2),
            Some('d') => pad(p.day, 2),
            Some('e') if unpadded => p.day.to_string(),
            Some('e') => format!("{:2}", p.day),
            Some('H') => pad(p.hour, 2),
            Some('I') => pad(twelve, 2),
            Some('M') => pad(p.minute, 2),
            Some('S') => pad(p.second, 2),
            Some('f') => format!("{:06}", at.micros),
            Some('j') => pad(p.yearday, 3),
            Some('p') => if p.hour < 12 { "AM" } else { "PM" }.into(),
            Some('A') => day.into(),
            Some('a') => day[..3].into(),
            Some('B') => month.into(),
            Some('b' | 'h') => month[..3].into(),
            Some('u') => if p.weekday == 0 { 7 } else { p.weekday }.to_string(),
            Some('w') => p.weekday.to_string(),
            Some('U') => pad((p.yearday + 6 - p.weekday) / 7, 2),
            Some('W') => pad((p.yearday + 6 - (p.weekday + 6) % 7) / 7, 2),
            Some('V') => pad(iso_week(&p).1, 2),
            Some('G') => iso_week(&p).0.to_string(),
            Some('s') => at.seconds.to_string(),
            Some('F') => strftime(at, "%Y-%m-%d"),
            Some('T' | 'X') => strftime(at, "%H:%M:%S"),
            Some('R') => strftime(at, "%H:%M"),
            Some('D' | 'x') => strftime(at, "%m/%d/%y"),
            Some('c') => strftime(at, "%a %b %e %H:%M:%S %Y"),
            Some('z') => "+0000".into(),
            Some('Z') => "UTC".into(),
            Some('n') => "\n".into(),
            Some('t') => "\t".into(),
            Some('%') => "%".into(),
            Some(other) => format!("%{other}"),
            None => "%".into(),
        });
    }
    out
}

/// `datetime.strptime` for numeric formats and names of months.
pub fn strptime(text: &str, format: &str) -> Option<DateTime> {
    let format = format
        .replace("%T", "%H:%M:%S")
        .replace("%F", "%Y-%m-%d")
        .replace("%D", "%m/%d/%y")
        .replace("%R", "%H:%M");
    let (mut year, mut month, mut day) = (1900i64, 1u32, 1u32);
    let (mut hour, mut minute, mut second, mut micros) = (0u32, 0u32, 0u32, 0u32);
    let mut afternoon = None;
    let mut rest = text;
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            rest = rest.trim_start();
            continue;
        }
        if c != '%' {
            rest = rest.strip_prefix(c)?;
            continue;
        }
        let mut number = |most: usize| -> Option<u32> {
            let end = rest
                .bytes()
                .take(most)
                .take_while(u8::is_ascii_digit)
                .count();
            let value = rest[..end].parse().ok()?;
            rest = &rest[end..];
            Some(value)
        };
        match chars.next()? {
            'Y' => year = i64::from(number(4)?),
            'y' => {
                let value = i64::from(number(2)?);
                year = if value < 69 {
                    2000 + value
                } else {
                    1900 + value
                };
            }
            'm' => month = number(2)?,
            'd' => day = number(2)?,
            'H' | 'I' => hour = number(2)?,
            'M' => minute = number(2)?,
            'S' => second = number(2)?,
            'f' => {
                let end = rest.bytes().take(6).take_while(u8::is_ascii_digit).count();
                micros = format!("{:0<6}", &rest[..end]).parse().ok()?;
                rest = &rest[end..];
            }
            'b' | 'B' | 'h' => {
                let lower = rest.to_lowercase();
                let (index, length) = MONTHS.iter().enumerate().find_map(|(index, name)| {
                    let name = name.to_lowercase();
                    if lower.starts_with(&name) {
                        Some((index, name.len()))
                    } else {
                        lower.starts_with(&name[..3]).then_some((index, 3))
                    }
                })?;
                month = index as u32 + 1;
                rest = rest.get(length..)?;
            }
            'p' => {
                afternoon = Some(rest.get(..2)?.eq_ignore_ascii_case("pm"));
                rest = &rest[2..];
            }
            'Z' => {
                rest = rest
                    .strip_prefix("UTC")
                    .or_else(|| rest.strip_prefix("GMT"))?
            }
            'z' => {
                rest = rest
                    .strip_prefix('Z')
                    .or_else(|| rest.strip_prefix("+0000"))?
            }
            '%' => rest = rest.strip_prefix('%')?,
            _ => return None,
        }
    }
    if let Some(afternoon) = afternoon {
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    let valid = rest.is_empty()
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 62;
    let seconds =
        days_from_civil(year, month, day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    valid.then_some(DateTime { seconds, micros })
}

pub fn current() -> DateTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    DateTime {
        seconds: i64::try_from(since.as_secs()).unwrap_or(0),
        micros: since.subsec_micros(),
    }
}

pub fn now(call: &mut Call) -> Result<Value> {
    let now = current();
    match call.arg(1, "fmt") {
        Some(format) if format.is_true() => Ok(Value::from(strftime(
            now,
            format
                .as_str()
                .ok_or_else(|| fault::error("a format is a string"))?,
        ))),
        _ => Ok(Value::from_object(now)),
    }
}
