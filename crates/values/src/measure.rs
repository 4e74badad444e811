//! Numbers with a unit.

/// Seconds in `90`, `90s`, `15m`, `2h`, `1d`.
pub fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Bytes in `1048576`, `256k`, `256mb`, `1g`, `1t`, in any case: all multiples are binary.
pub fn bytes(text: &str) -> Option<i64> {
    let (number, unit) = split(text)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// `0` to `100`, decimals allowed, with or without `%`.
pub fn percent(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let good = match number.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(number),
    };
    let value: f64 = number.parse().ok().filter(|_| good)?;
    (value <= 100.0).then_some(value)
}

fn split(text: &str) -> Option<(i64, &str)> {
    let end = text
        .bytes()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}
