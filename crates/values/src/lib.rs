//! A setting's text as a typed value, by the same rules for a recipe's `example` and for
//! what an operator gives. No I/O: whether a time zone exists is for the box to find out.
//!
//! A refusal says what is allowed and never quotes the text, which may be a secret.

mod cron;
mod measure;
mod net;
pub mod pem;
mod place;
mod structure;
mod version;

pub use pem::base64_digits;

use contract::{Kind, Setting, Value};

pub use fancy_regex::Regex;
pub use measure::{bytes, seconds};
pub use place::data_directory;
pub use version::{compare, version};

/// Shown where a secret would stand.
pub const MASK: &str = "********";

/// Nobody may see the value.
pub fn is_secret(setting: &Setting) -> bool {
    setting.secret || matches!(setting.kind, Kind::Secret | Kind::Key)
}

/// The value for the templates, or what is allowed instead ("it takes …").
pub fn convert(setting: &Setting, given: &str) -> Result<Value, String> {
    let text = match setting.kind {
        // Space at the ends may be meant.
        Kind::String | Kind::Secret | Kind::Enum | Kind::Path => given,
        _ => given.trim(),
    };
    if text.is_empty() && may_be_empty(setting) {
        return Ok(match setting.kind {
            Kind::List => Value::Array(Vec::new()),
            _ => Value::from(""),
        });
    }
    let refused = || allowed(setting);
    let value = match setting.kind {
        Kind::String | Kind::Secret => text_if(text, is_one_line),
        Kind::Int => text.parse().ok().and_then(|n: i64| within(setting, n, n)),
        Kind::Port => text
            .parse()
            .ok()
            .filter(|port: &u16| *port > 0)
            .and_then(|port| within(setting, port.into(), port)),
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(Value::Bool(true)),
            "false" | "no" | "off" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        Kind::Host => text_if(text, net::is_host),
        Kind::Url => text_if(text, net::is_url),
        Kind::Email => text_if(text, net::is_email),
        Kind::Path => text_if(text, |t| t.starts_with('/') && is_one_line(t)),
        Kind::Enum => text_if(text, |t| setting.choices.iter().any(|c| c == t)),
        Kind::List => structure::list(text),
        Kind::Map => structure::map(text),
        Kind::Duration => seconds(text).and_then(|n| within(setting, n, text)),
        Kind::Size => bytes(text).and_then(|n| within(setting, n, text)),
        Kind::Percent => measure::percent(text)
            .filter(|n| {
                setting.min.is_none_or(|min| *n >= min as f64)
                    && setting.max.is_none_or(|max| *n <= max as f64)
            })
            .map(|_| Value::from(text)),
        Kind::Cron => {
            cron::check(text).map_err(|why| format!("{}; {why}", refused()))?;
            Some(Value::from(text))
        }
        Kind::Timezone => text_if(text, is_zone),
        Kind::Certificate => {
            pem::certificates(text).map_err(|why| format!("{}; {why}", refused()))?;
            Some(Value::from(text))
        }
        Kind::Key => {
            pem::key(text).map_err(|why| format!("{}; {why}", refused()))?;
            Some(Value::from(text))
        }
    }
    .ok_or_else(refused)?;
    if let Some(pattern) = &setting.pattern {
        matches(pattern, text)?;
    }
    Ok(value)
}

/// Whether no text at all is a value: where it is the type's own, or the playbook's default.
pub fn may_be_empty(setting: &Setting) -> bool {
    if setting.required || is_secret(setting) {
        return false;
    }
    let plain = matches!(setting.kind, Kind::String | Kind::List);
    plain
        || setting
            .default
            .as_ref()
            .is_some_and(|d| d == "" || d.is_null())
}

/// The default as an operator would write it; `None` where it is computed, secret or absent.
pub fn literal_default(setting: &Setting) -> Option<String> {
    let default = setting.default.as_ref().filter(|_| !is_secret(setting))?;
    let text = text_of(default);
    (!text.contains("{{") && !text.contains("{%")).then_some(text)
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
        Kind::Int => format!("a whole number{range}"),
        Kind::Port if range.is_empty() => "a port from 1 to 65535".to_owned(),
        Kind::Port => format!("a port{range}"),
        Kind::Bool => "true or false".to_owned(),
        Kind::Host => "a host name or IP address, without a port".to_owned(),
        Kind::Url => "a URL such as https://host.example/path".to_owned(),
        Kind::Email => "an e-mail address".to_owned(),
        Kind::Enum => format!("one of {}", setting.choices.join(", ")),
        Kind::List => "text separated by commas, or a JSON array".to_owned(),
        Kind::Map => "a JSON object such as {\"key\": \"value\"}".to_owned(),
        Kind::Duration if range.is_empty() => {
            "a duration such as 90, 90s, 15m, 2h or 1d".to_owned()
        }
        Kind::Duration => format!("a duration such as 90s, 15m or 2h,{range} seconds"),
        Kind::Size if range.is_empty() => "a size such as 1048576, 256k, 256mb or 1g".to_owned(),
        Kind::Size => format!("a size such as 256mb or 1g,{range} bytes"),
        Kind::Path => "an absolute path".to_owned(),
        Kind::Percent if range.is_empty() => "a percentage from 0 to 100, such as 75".to_owned(),
        Kind::Percent => format!("a percentage{range}"),
        Kind::Cron => "five fields as in crontab(5), such as `0 3 * * *`, or @daily".to_owned(),
        Kind::Timezone => "a time zone such as Europe/Paris".to_owned(),
        Kind::Certificate => "PEM text of one or more certificates".to_owned(),
        Kind::Key => "PEM text of a private key without a passphrase".to_owned(),
    }
}

/// A value as an operator would write it.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn text_if(text: &str, good: impl Fn(&str) -> bool) -> Option<Value> {
    good(text).then(|| Value::from(text))
}

fn within(setting: &Setting, number: i64, value: impl Into<Value>) -> Option<Value> {
    let low = setting.min.is_some_and(|min| number < min);
    let high = setting.max.is_some_and(|max| number > max);
    (!low && !high).then(|| value.into())
}

/// A line end would begin a line of its own in most files that a value reaches.
fn is_one_line(text: &str) -> bool {
    !text.contains(|c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// The form of a name below /usr/share/zoneinfo.
fn is_zone(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-');
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .split('/')
            .all(|part| !part.is_empty() && part.chars().all(word))
}

/// A setting's `pattern`, which the whole value must match.
pub fn pattern(text: &str) -> Result<fancy_regex::Regex, String> {
    no_property(text)?;
    // By itself first: `)(` would be well-formed between the parentheses.
    fancy_regex::Regex::new(text).map_err(one_line)?;
    fancy_regex::Regex::new(&format!("\\A(?:{text})\\z")).map_err(one_line)
}

/// A pattern that is looked for in text which nobody has seen yet. What backtracks without end
/// gives up soon: whoever looks has other things to do.
pub fn search(text: &str) -> Result<fancy_regex::Regex, String> {
    no_property(text)?;
    fancy_regex::RegexBuilder::new(text)
        .backtrack_limit(10_000)
        .build()
        .map_err(one_line)
}

fn one_line(error: fancy_regex::Error) -> String {
    let words = error.to_string();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The tables of classes by Unicode property are a sixteenth of the entrypoint: it has none, and
/// the builder, whose other crates bring them, must not take what it will not.
fn no_property(text: &str) -> Result<(), String> {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter == '\\' && matches!(letters.next(), Some('p' | 'P')) {
            return Err(
                "it has a class by Unicode property, `\\p`: write the characters out, or `\\w`"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

fn matches(given: &str, text: &str) -> Result<(), String> {
    let regex = pattern(given).map_err(|_| {
        format!("nothing: its pattern `{given}` in the box cannot be read, tell the vendor")
    })?;
    // An error is a pattern that backtracks without end on this value.
    match regex.is_match(text) {
        Ok(true) => Ok(()),
        _ => Err(format!("text that matches {given}")),
    }
}

#[cfg(test)]
mod tests;
