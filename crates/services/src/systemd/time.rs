//! Time spans, systemd.time(7).

use std::time::Duration;

/// `Some(None)` is `infinity`; `None` is not a time span. Bare numbers are seconds.
pub(super) fn span(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    if text == "infinity" {
        return Some(None);
    }
    let mut total = 0.0_f64;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "us" | "usec" | "µs" => 1e-6,
            "ms" | "msec" => 1e-3,
            "" | "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            _ => return None,
        };
        total += number * unit;
        rest = rest[letters..].trim_start();
    }
    Duration::try_from_secs_f64(total).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(span("90"), Some(Some(Duration::from_secs(90))));
        assert_eq!(span("1min 30s"), Some(Some(Duration::from_secs(90))));
        assert_eq!(span("100ms"), Some(Some(Duration::from_millis(100))));
        assert_eq!(span("2h5"), Some(Some(Duration::from_secs(7205))));
        assert_eq!(span("infinity"), Some(None));
        assert_eq!(span("soon"), None);
        assert_eq!(span(""), None);
    }
}
