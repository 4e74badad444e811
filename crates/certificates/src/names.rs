//! Whether a certificate is for a name (RFC 9525).

use std::net::IpAddr;

/// `names` are those of a certificate. A `*` stands for one whole first label.
pub fn covers(names: &[String], wanted: &str) -> bool {
    let wanted = wanted.trim_end_matches('.').to_ascii_lowercase();
    if let Ok(address) = wanted.parse::<IpAddr>() {
        return names.iter().any(|name| name.parse() == Ok(address));
    }
    names.iter().any(|name| {
        *name == wanted
            || name.strip_prefix("*.").is_some_and(|rest| {
                wanted
                    .split_once('.')
                    .is_some_and(|(first, parent)| !first.is_empty() && parent == rest)
            })
    })
}

/// An IP address, or a DNS name that a certificate can be for.
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len())
            && label.bytes().all(word)
            && label.bytes().any(|b| b.is_ascii_alphanumeric())
    };
    let bare = text.strip_prefix("*.").unwrap_or(text);
    text.parse::<IpAddr>().is_ok() || text.len() <= 253 && bare.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label_and_addresses_are_compared_as_such() {
        let names: Vec<String> = ["a.example", "*.b.example", "::1", "10.0.0.1"]
            .map(str::to_owned)
            .into();
        for yes in [
            "a.example",
            "A.Example.",
            "x.b.example",
            "*.b.example",
            "0:0::1",
            "10.0.0.1",
        ] {
            assert!(covers(&names, yes), "{yes}");
        }
        for no in [
            "b.example",
            "x.y.b.example",
            ".b.example",
            "a.example.org",
            "10.0.0.2",
            "",
        ] {
            assert!(!covers(&names, no), "{no}");
        }
    }
}
