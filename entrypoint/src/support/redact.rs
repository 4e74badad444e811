//! No secret leaves in a bundle, in whatever form a program wrote it: as it is, escaped as
//! JSON, a shell, a URL or HTML escape it, in hexadecimal, or anywhere within base64.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use contract::{Contract, Value};

use crate::render as files;
use crate::root::Root;
use crate::secrets::Secrets;
use crate::settings::{Environment, MASK, Resolved, is_secret, text_of};
use crate::start;
use crate::volume::State;

/// A shorter value is hidden where it stands alone.
const SHORT: usize = 6;
/// Digits of base64 that are no accident.
const CORE: usize = 6;
/// Names of variables and files whose content is nobody's business.
const TELLING: [&str; 6] = ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "AUTH"];

pub struct Redactor {
    /// What rendered files taught: lines that a filter made of a secret.
    lines: Secrets,
    values: Vec<String>,
}

impl Redactor {
    /// Knows what the settings hold now, where they can be read, and all that is lying about
    /// in the environment and on the first volume, where they cannot.
    pub fn new(contract: &Contract, root: &Root, environment: &Environment) -> Self {
        let state = State::new(contract, root);
        let kept = state.kept().map(|kept| kept.values).unwrap_or_default();
        let resolved = start::resolve(contract, &state, environment).unwrap_or_default();
        let variables = start::values(contract, root, &resolved);
        let mut values: BTreeSet<String> = kept.values().cloned().collect();
        of_settings(contract, &resolved, &mut values);
        of_environment(contract, root, environment, &mut values);
        of_volume(contract, root, &mut values);
        Redactor {
            lines: files::secrets(contract, &variables, &kept),
            values: in_lines(&values),
        }
    }

    #[cfg(test)]
    fn of(values: &[&str]) -> Self {
        Redactor {
            lines: Secrets::default(),
            values: in_lines(&values.iter().map(|value| (*value).to_owned()).collect()),
        }
    }

    pub fn redact(&self, text: &str) -> String {
        let text: String = text
            .split_inclusive('\n')
            .map(|line| {
                // A service that prints its file does so behind its name.
                let start = line.find(" | ").map_or(0, |at| at + 3);
                let end = line.trim_end_matches('\n').len().max(start);
                let (name, whole) = (&line[..start], &line[start..end]);
                format!("{name}{}{}", self.lines.line(whole), &line[end..])
            })
            .collect();
        let mut found: Vec<(usize, usize)> = Vec::new();
        private_keys(&text, &mut found);
        url_passwords(&text, &mut found);
        let plain = Plain::new(&text);
        for value in &self.values {
            escaped(&text, value, &mut found);
            plain.encoded(value.as_bytes(), &mut found);
        }
        masked(&text, found)
    }
}

/// Of a key of many lines each line is a secret: what escapes a text escapes its line ends.
fn in_lines(values: &BTreeSet<String>) -> Vec<String> {
    let lines = values.iter().flat_map(|value| value.lines().map(str::trim));
    let mut lines: Vec<String> = lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

fn of_settings(contract: &Contract, resolved: &Resolved, values: &mut BTreeSet<String>) {
    for (name, (value, _)) in &resolved.values {
        if contract.settings.get(name).is_some_and(is_secret) {
            leaves(value, values);
            values.insert(text_of(value));
        }
        values.extend(password(&text_of(value)));
    }
}

/// The texts of a list or a map.
fn leaves(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(out.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, out)),
        Value::Object(map) => map.values().for_each(|item| leaves(item, out)),
        _ => {}
    }
}

fn is_telling(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    TELLING.iter().any(|word| name.contains(word))
}

/// Values as they are given, good or not: what is wrong is a secret all the same.
fn of_environment(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    values: &mut BTreeSet<String>,
) {
    let names = contract
        .settings
        .iter()
        .filter(|(_, setting)| is_secret(setting));
    let secret: BTreeSet<&str> = names
        .flat_map(|(name, setting)| std::iter::once(name).chain(&setting.deprecated))
        .map(String::as_str)
        .collect();
    let is_secret = |name: &str| {
        secret.contains(name) || (is_telling(name) && !contract.settings.contains_key(name))
    };
    let mut file = |path: &str| {
        if let Ok(Some(text)) = root.read(path) {
            values.insert(text.trim_end().to_owned());
        }
    };
    for name in &secret {
        file(&format!("/run/secrets/{name}"));
    }
    for (name, path) in &environment.variables {
        if name.strip_suffix("_FILE").is_some_and(is_secret) {
            file(path);
        }
    }
    for (name, value) in &environment.variables {
        if is_secret(name) && !name.ends_with("_FILE") {
            values.insert(value.clone());
        }
        values.extend(password(value));
    }
    let Some(volume) = contract.volumes.first() else {
        return;
    };
    let text = root
        .read(&format!("{}/settings.env", volume.path))
        .ok()
        .flatten();
    for (name, value) in text
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.split_once('='))
    {
        let value = value.trim().trim_matches(['"', '\'']);
        if is_secret(name.trim()) {
            values.insert(value.to_owned());
        }
        values.extend(password(value));
    }
}

/// Tokens and keys that the box itself keeps.
fn of_volume(contract: &Contract, root: &Root, values: &mut BTreeSet<String>) {
    let Some(volume) = contract.volumes.first() else {
        return;
    };
    let folder = format!("{}/.tiffin", volume.path);
    for name in root.names(&folder).iter().filter(|name| is_telling(name)) {
        let path = format!("{folder}/{name}");
        if root.is_file(&path)
            && let Ok(Some(text)) = root.read(&path)
        {
            values.insert(text);
        }
    }
}

/// That of `scheme://user:password@host`.
fn password(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.rsplit_once('@')?;
    let (_, password) = user.split_once(':')?;
    let bytes = password.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match hex_byte(bytes, at + 1).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// Two hexadecimal digits.
fn hex_byte(text: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    u8::try_from(digit(at)? << 4 | digit(at + 1)?).ok()
}

/// So many hexadecimal digits.
fn hex(text: &[u8], at: usize, digits: usize) -> Option<u32> {
    let text = std::str::from_utf8(text.get(at..at + digits)?).ok()?;
    text.bytes()
        .all(|b| b.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(text, 16).ok())?
}

/// Where the value stands as it is, or with any of its letters escaped in any usual way.
fn escaped(text: &str, value: &str, found: &mut Vec<(usize, usize)>) {
    let bytes = text.as_bytes();
    let short = value.chars().count() < SHORT;
    let Some(first) = value.bytes().next() else {
        return;
    };
    let mut at = 0;
    while at < bytes.len() {
        let candidate = bytes[at] == first || matches!(bytes[at], b'%' | b'\\' | b'&' | b'+');
        let end = match candidate {
            true => ends(bytes, at, value),
            false => None,
        };
        match end.filter(|end| !short || stands_alone(text, at, *end)) {
            Some(end) => {
                found.push((at, end));
                at = end;
            }
            None => at += 1,
        }
    }
}

fn stands_alone(text: &str, from: usize, to: usize) -> bool {
    let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    // Beside a letter of several bytes there is no boundary to look from.
    let before = text
        .get(..from)
        .is_some_and(|text| inside(text.chars().next_back()));
    let after = text
        .get(to..)
        .is_some_and(|text| inside(text.chars().next()));
    !before && !after
}

/// The furthest end of the value's escaped forms that begin here.
fn ends(text: &[u8], at: usize, value: &str) -> Option<usize> {
    let mut places = vec![at];
    for letter in value.chars() {
        let mut next: Vec<usize> = places
            .iter()
            .flat_map(|at| forms(text, *at, letter))
            .collect();
        next.sort_unstable();
        next.dedup();
        if next.is_empty() {
            return None;
        }
        places = next;
    }
    places.pop()
}

/// The ends of all forms of one letter that begin here.
fn forms(text: &[u8], at: usize, letter: char) -> Vec<usize> {
    let mut out = Vec::new();
    let mut buffer = [0; 4];
    let raw = letter.encode_utf8(&mut buffer).as_bytes();
    let here = &text[at.min(text.len())..];
    if here.starts_with(raw) {
        out.push(at + raw.len());
    }
    match here.first() {
        // Of a URL, byte by byte.
        Some(b'%') => {
            let is = |n: usize| {
                text.get(at + 3 * n) == Some(&b'%')
                    && hex_byte(text, at + 3 * n + 1) == Some(raw[n])
            };
            if (0..raw.len()).all(is) {
                out.push(at + 3 * raw.len());
            }
        }
        Some(b'+') if letter == ' ' => out.push(at + 1),
        Some(b'&') => {
            let end = here.iter().take(12).position(|b| *b == b';');
            let name = end.and_then(|end| std::str::from_utf8(&here[1..end]).ok());
            let is = name.is_some_and(|name| match name.strip_prefix('#') {
                Some(number) => {
                    let code = match number.strip_prefix(['x', 'X']) {
                        Some(hex) => u32::from_str_radix(hex, 16).ok(),
                        None => number.parse().ok(),
                    };
                    code == Some(letter.into())
                }
                None => matches!(
                    (name, letter),
                    ("amp", '&') | ("lt", '<') | ("gt", '>') | ("quot", '"') | ("apos", '\'')
                ),
            });
            if let (true, Some(end)) = (is, end) {
                out.push(at + end + 1);
            }
        }
        // Of JSON, Python, a shell; what escapes twice doubles the backslashes.
        Some(b'\\') => {
            for count in 1..=here.iter().take(8).take_while(|b| **b == b'\\').count() {
                let after = at + count;
                if letter == '\\' {
                    out.push(after);
                }
                let rest = &text[after..];
                if rest.starts_with(raw) && !letter.is_alphanumeric() {
                    out.push(after + raw.len());
                }
                let control = match rest.first() {
                    Some(b'n') => Some('\n'),
                    Some(b't') => Some('\t'),
                    Some(b'r') => Some('\r'),
                    _ => None,
                };
                if control == Some(letter) {
                    out.push(after + 1);
                }
                if rest.first() == Some(&b'u') {
                    let unit = |n: usize| hex(text, after + 1 + n * 6, 4);
                    let mut units = [0; 2];
                    match letter.encode_utf16(&mut units) {
                        [one] if unit(0) == Some((*one).into()) => out.push(after + 5),
                        [one, two]
                            if unit(0) == Some((*one).into()) && unit(1) == Some((*two).into()) =>
                        {
                            out.push(after + 11);
                        }
                        _ => {}
                    }
                }
                let is = |n: usize| {
                    let place = after + 4 * n;
                    (n == 0 || text.get(place - 1) == Some(&b'\\'))
                        && text.get(place) == Some(&b'x')
                        && hex_byte(text, place + 1) == Some(raw[n])
                };
                if (0..raw.len()).all(is) {
                    out.push(after + 4 * raw.len() - 1);
                }
            }
        }
        _ => {}
    }
    out
}

/// The text for searching what is encoded in it: both alphabets of base64 are one there.
struct Plain {
    base64: String,
    lower: String,
}

impl Plain {
    fn new(text: &str) -> Self {
        Plain {
            base64: text.replace('-', "+").replace('_', "/"),
            lower: text.to_ascii_lowercase(),
        }
    }

    fn encoded(&self, value: &[u8], found: &mut Vec<(usize, usize)>) {
        // In what is encoded together with something else the value begins at any of three
        // places of a group; the digits that are its alone are the same everywhere.
        for (before, skip) in [(0, 0), (1, 2), (2, 3)] {
            let mut bytes = vec![0; before];
            bytes.extend_from_slice(value);
            let digits = STANDARD_NO_PAD.encode(&bytes);
            let own = bytes.len() * 8 / 6;
            let Some(core) = digits.get(skip..own).filter(|core| core.len() >= CORE) else {
                continue;
            };
            for (at, _) in self.base64.match_indices(core) {
                found.push(self.run(at, at + core.len()));
            }
        }
        if value.len() >= SHORT {
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            found.extend(
                self.lower
                    .match_indices(&hex)
                    .map(|(at, _)| (at, at + hex.len())),
            );
        }
    }

    /// All of the base64 around it: the digits at its ends hold some bits of it.
    fn run(&self, from: usize, to: usize) -> (usize, usize) {
        let bytes = self.base64.as_bytes();
        let digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        let before = bytes[..from].iter().rev().take_while(|b| digit(b)).count();
        let after = bytes[to..].iter().take_while(|b| digit(b)).count();
        (from - before, to + after)
    }
}

/// Private keys in PEM, whoever's they are.
fn private_keys(text: &str, found: &mut Vec<(usize, usize)>) {
    for (at, _) in text.match_indices("PRIVATE KEY-----") {
        if let Some(begin) = text[..at].rfind("-----BEGIN ")
            && !text[begin + "-----BEGIN ".len()..at].contains('-')
        {
            let end = text[at..]
                .find("-----END ")
                .map_or(text.len(), |end| at + end);
            found.push((at + "PRIVATE KEY-----".len(), end));
        }
    }
}

/// What stands before the `@` of a URL, whoever's it is.
fn url_passwords(text: &str, found: &mut Vec<(usize, usize)>) {
    for (at, _) in text.match_indices("://") {
        let from = at + 3;
        let end = text[from..]
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`'));
        let url = &text[from..end.map_or(text.len(), |end| from + end)];
        let authority = url.find(['?', '#']).map_or(url, |end| &url[..end]);
        if let Some(end) = authority.rfind('@') {
            found.push((from, from + end));
        }
    }
}

fn masked(text: &str, mut found: Vec<(usize, usize)>) -> String {
    found.retain(|(from, to)| from < to);
    found.sort_unstable();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for (from, to) in found {
        if to <= done {
            continue;
        }
        if from >= done {
            out.push_str(&text[done..boundary(text, from)]);
            out.push_str(MASK);
        }
        done = boundary_after(text, to);
    }
    out + &text[done..]
}

fn boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn boundary_after(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    #[test]
    fn a_secret_is_hidden_in_each_of_its_forms() {
        let secret = "p@ss \"wörd\"/+&😀x";
        let redactor = Redactor::of(&[secret]);
        let json = serde_json::to_string(secret).unwrap();
        let twice = serde_json::to_string(&json).unwrap();
        let ascii = "p@ss \\\"w\\u00f6rd\\\"\\/+&\\ud83d\\ude00x";
        let url = "p%40ss%20%22w%C3%B6rd%22%2f%2B%26%F0%9F%98%80x";
        let form = "p%40ss+%22w%c3%b6rd%22/%2b%26%f0%9f%98%80x";
        let html = "p@ss &quot;w&#246;rd&#x22;/+&amp;😀x";
        let bytes = "p@ss \"w\\xc3\\xb6rd\"/+&\\xf0\\x9f\\x98\\x80x";
        let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
        for form in [secret, &json, &twice, ascii, url, form, html, bytes, &hex] {
            let text = redactor.redact(&format!("before {form} after\n"));
            assert!(
                !text.contains("rd") && text.contains(MASK),
                "{form}: {text}"
            );
            assert!(
                text.starts_with("before ") && text.ends_with(" after\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_hidden_whoever_it_belongs_to() {
        let redactor = Redactor::of(&[]);
        let text = redactor.redact("-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----\nredis://u:hunter2@host/0 rest");
        assert!(
            !text.contains("MIIabc") && !text.contains("hunter2"),
            "{text}"
        );
        assert!(text.contains("@host/0 rest"), "{text}");
    }

    #[test]
    fn a_short_one_hides_no_part_of_a_word() {
        let redactor = Redactor::of(&["abc"]);
        assert_eq!(
            redactor.redact("abc abcd 'abc'"),
            format!("{MASK} abcd '{MASK}'")
        );
    }

    #[test]
    fn the_password_of_a_url_is_what_it_says() {
        assert_eq!(
            password("mongodb://u:p%40%2Fx@h/d").as_deref(),
            Some("p@/x")
        );
        assert_eq!(password("https://host/a:b"), None);
    }

    proptest! {
        /// Whatever it is encoded together with.
        #[test]
        fn base64_hides_nothing(
            before in proptest::collection::vec(any::<u8>(), 0..9),
            secret in "[!-~]{8,24}",
            after in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let all = [&before[..], secret.as_bytes(), &after[..]].concat();
            let redactor = Redactor::of(&[&secret]);
            for text in [STANDARD.encode(&all), URL_SAFE.encode(&all), STANDARD_NO_PAD.encode(&all)] {
                prop_assert_eq!(redactor.redact(&format!("a: {text}.")), format!("a: {MASK}."));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}", secret in "\\PC{1,8}") {
            let redactor = Redactor::of(&[&secret]);
            let _ = redactor.redact(&text);
            let with = redactor.redact(&format!("{text} {secret} {text}"));
            prop_assert!(with.contains(MASK) || secret.trim().is_empty());
        }
    }
}
