//! Versions of a product, in the order in which they were released.
//!
//! A version is what `git describe` says: a tag of numbers, `v43.4.4` or `2026.11`, perhaps
//! with a pre-release as in Semantic Versioning (`v44.0.0-rc.2`), which comes before the
//! release, and perhaps with commits after the tag (`v43.4.4-3-g1a2b3c4`), which come
//! behind it. `+build` and `-dirty` do not count. Numbers within a pre-release are compared
//! as numbers, as dpkg does: `rc10` comes after `rc9`. Anything else (`dev`, a commit's hash
//! alone) cannot be compared.

use std::cmp::Ordering;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    numbers: Vec<u64>,
    /// Empty for a release.
    before: Vec<Part>,
    /// Commits after the tag.
    after: u64,
    /// The commit, without which two of the same count are not the same.
    commit: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

/// `None` for what cannot be compared.
pub fn version(text: &str) -> Option<Version> {
    let text = text.split('+').next().unwrap_or_default();
    let text = text.strip_suffix("-dirty").unwrap_or(text);
    // What `git describe --always` says where there is no tag.
    let is_commit = text.len() >= 7
        && text.chars().all(|c| c.is_ascii_hexdigit())
        && text.chars().any(|c| c.is_ascii_alphabetic());
    if is_commit {
        return None;
    }
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let (text, after, commit) = match described(text) {
        Some((tag, count, commit)) => (tag, count, Some(commit.to_owned())),
        None => (text, 0, None),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (numbers, rest) = text.split_at(end.unwrap_or(text.len()));
    let before = match rest.strip_prefix(['-', '~', '_']).unwrap_or(rest) {
        "" if rest.is_empty() => Vec::new(),
        "" => return None,
        pre if pre
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')) =>
        {
            parts(pre)
        }
        _ => return None,
    };
    let mut numbers = numbers
        .split('.')
        .map(|number| number.parse().ok())
        .collect::<Option<Vec<u64>>>()?;
    // 1.0 is 1.0.0.
    while numbers.len() > 1 && numbers.last() == Some(&0) {
        numbers.pop();
    }
    Some(Version {
        numbers,
        before,
        after,
        commit,
    })
}

/// How `a` stands to `b` in time; `None` when nobody can tell.
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    if a == b {
        return Some(Ordering::Equal);
    }
    let (a, b) = (version(a)?, version(b)?);
    let order = a
        .numbers
        .cmp(&b.numbers)
        .then_with(|| match (a.before.is_empty(), b.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => a.before.cmp(&b.before),
        })
        .then(a.after.cmp(&b.after));
    // Two branches after the same tag.
    match order == Ordering::Equal && a.commit != b.commit {
        true => None,
        false => Some(order),
    }
}

/// `TAG-COUNT-gCOMMIT`
fn described(text: &str) -> Option<(&str, u64, &str)> {
    let (rest, commit) = text.rsplit_once("-g")?;
    let (tag, count) = rest.rsplit_once('-')?;
    let is_commit = commit.len() >= 4 && commit.chars().all(|c| c.is_ascii_hexdigit());
    is_commit.then_some(())?;
    Some((tag, count.parse().ok()?, commit))
}

/// `rc.10` and `rc10` are `rc` and 10.
fn parts(text: &str) -> Vec<Part> {
    let mut out = Vec::new();
    for word in text.split(['.', '-']) {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let digits = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != digits);
            let (piece, more) = rest.split_at(end.unwrap_or(rest.len()));
            out.push(match piece.parse() {
                Ok(number) if digits => Part::Number(number),
                _ => Part::Text(piece.to_ascii_lowercase()),
            });
            rest = more;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_the_order_of_their_release() {
        let in_order = [
            "0.9",
            "v1.0.0-alpha",
            "1.0.0-alpha.1",
            "v1.0.0-beta2",
            "v1.0.0-rc9",
            "1.0.0-rc10",
            "v1.0.0-rc10-2-gabcdef0",
            "v1.0.0",
            "v1.0.0-1-g1234567",
            "v1.0.0-12-g1234567",
            "v1.0.1",
            "v1.2",
            "1.10.0",
            "v2",
            "v43.4.4",
            "v43.4.4-3-gabc1",
            "43.4.5",
            "2026.11.21",
            "2026.11.21.1",
        ];
        for (at, a) in in_order.iter().enumerate() {
            for (other, b) in in_order.iter().enumerate() {
                assert_eq!(compare(a, b), Some(at.cmp(&other)), "{a} and {b}");
            }
        }
    }

    #[test]
    fn what_is_written_otherwise_is_the_same() {
        for (a, b) in [
            ("v1.0", "1.0.0"),
            ("v1", "V1.0.0.0"),
            ("v1.2.3+build5", "v1.2.3"),
            ("v1.2.3-dirty", "v1.2.3"),
            ("v1.2.3-4-gabcdef0-dirty", "v1.2.3-4-gabcdef0"),
            ("dev", "dev"),
        ] {
            assert_eq!(compare(a, b), Some(Ordering::Equal), "{a} and {b}");
        }
    }

    #[test]
    fn nobody_can_tell() {
        for (a, b) in [
            ("dev", "v1.0.0"),
            ("v1", "latest"),
            ("1a2b3c4", "v1"),
            ("1a2b3c4-unknown stuff", "v1"),
            ("", "v1"),
            ("v1..2", "v1"),
            ("v99999999999999999999999", "v1"),
            ("v1.0.0-", "v1.0.0"),
            ("v1.0.0-3-gabcdef0", "v1.0.0-3-g1234567"),
        ] {
            assert_eq!(compare(a, b), None, "{a} and {b}");
        }
    }
}
