//! One setting's text as a typed value.

use std::net::IpAddr;

use contract::{Kind, Setting, Value};

/// The value for the templates, or what is allowed instead.
pub fn convert(setting: &Setting, text: &str) -> Result<Value, String> {
    let value = match setting.kind {
        // A line end would begin a line of its own in most files that a value reaches.
        Kind::String | Kind::Secret | Kind::Percent | Kind::Cron | Kind::Timezone => {
            string_if(setting, text, |t| !t.contains(['\n', '\r', '\0']))?
        }
        Kind::Certificate | Kind::Key => string_if(setting, text, |t| !t.contains('\0'))?,
        Kind::Int => {
            let number: i64 = text.trim().parse().map_err(|_| allowed(setting))?;
            within(setting, number)?;
            Value::from(number)
        }
        Kind::Port => {
            let number: u16 = text
                .trim()
                .parse()
                .ok()
                .filter(|p| *p > 0)
                .ok_or_else(|| allowed(setting))?;
            within(setting, number.into())?;
            Value::from(number)
        }
        Kind::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Value::Bool(true),
            "false" | "no" | "off" | "0" => Value::Bool(false),
            _ => return Err(allowed(setting)),
        },
        Kind::Host => string_if(setting, text, is_host)?,
        Kind::Url => string_if(setting, text, is_url)?,
        Kind::Email => string_if(setting, text, is_email)?,
        Kind::Path => string_if(setting, text, |t| t.starts_with('/') && !t.contains('\0'))?,
        Kind::Enum => string_if(setting, text, |t| setting.choices.iter().any(|c| c == t))?,
        Kind::List => list(setting, text)?,
        Kind::Map => match serde_json::from_str(text) {
            Ok(value @ Value::Object(_)) => value,
            _ => return Err(allowed(setting)),
        },
        Kind::Duration => measured(setting, text, seconds(text))?,
        Kind::Size => measured(setting, text, bytes(text))?,
    };
    if let Some(pattern) = &setting.pattern {
        matches(pattern, text)?;
    }
    Ok(value)
}

/// What a value of this setting looks like, for errors and the reference.
pub fn allowed(setting: &Setting) -> String {
    let range = match (setting.min, setting.max) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        (Some(min), None) => format!(" of at least {min}"),
        (None, Some(max)) => format!(" of at most {max}"),
        (None, None) => String::new(),
    };
    match setting.kind {
        Kind::String | Kind::Secret => "text of one line".to_owned(),
        Kind::Percent => "a percentage such as 75".to_owned(),
        Kind::Cron => "five fields as in crontab(5), such as 0 3 * * *".to_owned(),
        Kind::Timezone => "a time zone such as Europe/Paris".to_owned(),
        Kind::Certificate => "PEM text of a certificate".to_owned(),
        Kind::Key => "PEM text of a private key".to_owned(),
        Kind::Int => format!("a whole number{range}"),
        Kind::Port if range.is_empty() => "a port from 1 to 65535".to_owned(),
        Kind::Port => format!("a port{range}"),
        Kind::Bool => "true or false".to_owned(),
        Kind::Host => "a host name or IP address, without a port".to_owned(),
        Kind::Url => "a URL such as https://host.example/path".to_owned(),
        Kind::Email => "an e-mail address".to_owned(),
        Kind::Enum => format!("one of {}", setting.choices.join(", ")),
        Kind::List => "a JSON array, or text separated by commas".to_owned(),
        Kind::Map => "a JSON object such as {\"key\": \"value\"}".to_owned(),
        Kind::Duration if range.is_empty() => {
            "a duration such as 90, 90s, 15m, 2h or 1d".to_owned()
        }
        Kind::Duration => format!("a duration such as 90s, 15m or 2h,{range} seconds"),
        Kind::Size if range.is_empty() => "a size such as 1048576, 256k, 256mb or 1g".to_owned(),
        Kind::Size => format!("a size such as 256mb or 1g,{range} bytes"),
        Kind::Path => "an absolute path".to_owned(),
    }
}

/// A default as an operator would write it.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn string_if(setting: &Setting, text: &str, good: impl Fn(&str) -> bool) -> Result<Value, String> {
    if good(text) {
        Ok(Value::from(text))
    } else {
        Err(allowed(setting))
    }
}

fn within(setting: &Setting, number: i64) -> Result<(), String> {
    let low = setting.min.is_some_and(|min| number < min);
    let high = setting.max.is_some_and(|max| number > max);
    if low || high {
        Err(allowed(setting))
    } else {
        Ok(())
    }
}

fn measured(setting: &Setting, text: &str, amount: Option<i64>) -> Result<Value, String> {
    within(setting, amount.ok_or_else(|| allowed(setting))?)?;
    Ok(Value::from(text))
}

fn list(setting: &Setting, text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('[') {
        return match serde_json::from_str(text) {
            Ok(value @ Value::Array(_)) => Ok(value),
            _ => Err(allowed(setting)),
        };
    }
    Ok(text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(Value::from)
        .collect())
}

/// The whole value must match, as the contract says.
fn matches(pattern: &str, text: &str) -> Result<(), String> {
    let whole = format!("\\A(?:{pattern})\\z");
    let regex = fancy_regex::Regex::new(&whole).map_err(|_| {
        format!("nothing: its pattern `{pattern}` in the box cannot be read, tell the vendor")
    })?;
    // An error is a pattern that backtracks without end on this value.
    match regex.is_match(text) {
        Ok(true) => Ok(()),
        _ => Err(format!("text that matches {pattern}")),
    }
}

/// Seconds.
fn seconds(text: &str) -> Option<i64> {
    let text = text.trim();
    let (number, factor) = match text.char_indices().next_back()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        (at, 'd') => (&text[..at], 86_400),
        _ => (text, 1),
    };
    unsigned(number)?.checked_mul(factor)
}

/// Bytes; all multiples are binary.
fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let factor: i64 = match text[digits..].trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    unsigned(&text[..digits])?.checked_mul(factor)
}

fn unsigned(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn is_host(text: &str) -> bool {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    // Underscores are no host names, but Compose services have them.
    !text.is_empty()
        && text.len() <= 253
        && text.trim_end_matches('.').split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        })
}

fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
            && !rest.is_empty()
            && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}

fn is_email(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && !user.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@')
            && is_host(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn setting(kind: &str) -> Setting {
        serde_json::from_value(json!({"variable": "v", "type": kind})).unwrap()
    }

    #[test]
    fn typed_values() {
        for (kind, text, value) in [
            ("int", "-5", json!(-5)),
            ("port", "8080", json!(8080)),
            ("bool", "YES", json!(true)),
            ("bool", "0", json!(false)),
            ("list", "a, b,", json!(["a", "b"])),
            ("list", "[1, \"x\"]", json!([1, "x"])),
            ("map", "{\"b\":1,\"a\":2}", json!({"b": 1, "a": 2})),
            ("size", "256MB", json!("256MB")),
            ("duration", "15m", json!("15m")),
            ("host", "::1", json!("::1")),
            ("host", "mail.acme.example", json!("mail.acme.example")),
            ("url", "redis://x:1/0", json!("redis://x:1/0")),
            ("email", "a.b@acme.example", json!("a.b@acme.example")),
            ("path", "/data", json!("/data")),
        ] {
            assert_eq!(convert(&setting(kind), text), Ok(value), "{kind} {text}");
        }
    }

    #[test]
    fn refused_values() {
        for (kind, text) in [
            ("int", "1.5"),
            ("int", ""),
            ("port", "0"),
            ("port", "65536"),
            ("bool", "maybe"),
            ("list", "[1"),
            ("map", "[]"),
            ("size", "12q"),
            ("size", "-1"),
            ("duration", "m"),
            ("duration", "99999999999999999d"),
            ("host", "a:80"),
            ("host", "a b"),
            ("url", "acme.example"),
            ("email", "x@"),
            ("path", "data"),
        ] {
            assert!(convert(&setting(kind), text).is_err(), "{kind} {text}");
        }
    }

    #[test]
    fn ranges_and_patterns() {
        let mut s = setting("size");
        s.min = Some(1 << 20);
        assert!(convert(&s, "512k").is_err());
        assert!(convert(&s, "1m").is_ok());
        let mut s = setting("string");
        s.pattern = Some("[a-z]+|x1".to_owned());
        assert!(convert(&s, "abc").is_ok());
        assert!(convert(&s, "abc\n").is_err());
        assert_eq!(
            convert(&s, "abc1"),
            Err("text that matches [a-z]+|x1".to_owned())
        );
    }
}
