//! `TIFFIN_LOG=json`: one JSON object a line, whatever bytes a service writes.
//!
//! What is no UTF-8 is in `message` with U+FFFD in its place, and whole in `base64`.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use crate::supervisord::words::Moment;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    /// What a line of text has before it.
    pub fn mark(self) -> &'static str {
        match self {
            Level::Error => "error: ",
            Level::Warning => "warning: ",
            Level::Info => "",
            Level::Debug => "debug: ",
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    level: Level,
    service: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// The object with its line end.
pub fn object(now: SystemTime, level: Level, service: &str, message: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(message);
    let line = Line {
        time: rfc3339(now),
        level,
        service,
        message: &text,
        base64: matches!(text, std::borrow::Cow::Owned(_)).then(|| BASE64_STANDARD.encode(message)),
    };
    // Strings and nothing else: this cannot fail.
    let mut out = serde_json::to_vec(&line).unwrap_or_default();
    out.push(b'\n');
    out
}

/// `2026-11-21T07:30:00.000Z`
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment = Moment::of(i64::try_from(since.as_secs()).unwrap_or(0));
    moment.rfc3339(since.subsec_millis())
}

/// The level that a line names as sd-daemon(3) has it, `<3>text`, and the text.
pub fn level(line: &[u8]) -> (Level, &[u8]) {
    match line {
        [b'<', digit @ b'0'..=b'7', b'>', text @ ..] => {
            let level = match digit {
                ..=b'3' => Level::Error,
                b'4' => Level::Warning,
                ..=b'6' => Level::Info,
                _ => Level::Debug,
            };
            (level, text)
        }
        _ => (Level::Info, line),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use std::time::Duration;

    #[test]
    fn time_level_service_and_message() {
        let now = UNIX_EPOCH + Duration::from_millis(1_709_210_096_007);
        let line = object(now, Level::Warning, "web", b"a \"b\"\t\n\x1b\0");
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"time\":\"2024-02-29T12:34:56.007Z\",\"level\":\"warning\",\"service\":\"web\",\"message\":\"a \\\"b\\\"\\t\\n\\u001b\\u0000\"}\n"
        );
    }

    #[test]
    fn a_line_may_name_its_level() {
        assert_eq!(level(b"<3>x"), (Level::Error, &b"x"[..]));
        assert_eq!(level(b"<4>"), (Level::Warning, &b""[..]));
        assert_eq!(level(b"<6>x").0, Level::Info);
        assert_eq!(level(b"<7>x").0, Level::Debug);
        for plain in [&b"<8>x"[..], b"<3", b"<33>x", b" <3>x", b""] {
            assert_eq!(level(plain), (Level::Info, plain));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_line_of_json_and_none_is_lost(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let line = object(SystemTime::now(), Level::Info, "x", &bytes);
            prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            let value: Value = serde_json::from_slice(&line).unwrap();
            let whole = match value.get("base64") {
                Some(text) => crate::supervisord::xmlrpc::base64(text.as_str().unwrap()).unwrap(),
                None => value["message"].as_str().unwrap().as_bytes().to_vec(),
            };
            prop_assert_eq!(whole, bytes);
        }
    }
}
