//! Which of two releases is newer.

/// Whether `other` is newer than `own`. Releases are told by their numbers, `v43.4.4`; what
/// has no numbers in the same places (`dev`, a commit) is never newer.
pub fn is_newer(other: &str, own: &str) -> bool {
    match (numbers(other), numbers(own)) {
        (Some(other), Some(own)) => {
            let length = other.len().max(own.len());
            let filled = |mut numbers: Vec<u64>| {
                numbers.resize(length, 0);
                numbers
            };
            filled(other) > filled(own)
        }
        _ => false,
    }
}

/// `v43.4.4-rc1` is 43, 4, 4.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let end = version.find(['-', '+']).unwrap_or(version.len());
    version[..end].split('.').map(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (other, own) in [
            ("v2", "v1"),
            ("v1.10.0", "v1.9"),
            ("43.4.5", "v43.4.4"),
            ("v1.0.1-rc1", "v1.0"),
        ] {
            assert!(is_newer(other, own), "{other} {own}");
            assert!(!is_newer(own, other), "{own} {other}");
        }
        for (one, other) in [("v1", "v1.0"), ("dev", "v1"), ("v1.0-a", "v1.0-b")] {
            assert!(
                !is_newer(one, other) && !is_newer(other, one),
                "{one} {other}"
            );
        }
    }
}
