//! Secrets kept out of what people read: rendered files, differences, output of commands.
//!
//! Two ways, used together. The text is rendered a second time with masks for secrets:
//! lines that differ hold one, whatever a filter made of it. And known values are replaced.

use std::collections::{BTreeMap, BTreeSet};

use contract::{Contract, Value, Variables};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::settings::{MASK, is_secret, text_of};

/// A shorter value is hidden where it stands alone: everything holds an `a`.
const SHORT: usize = 6;

#[derive(Debug, Clone, Default)]
pub struct Secrets {
    values: BTreeSet<String>,
    /// Lines of rendered files that hold a secret and nothing to know them by.
    lines: BTreeSet<String>,
    /// What is before and after a secret in its line.
    around: BTreeSet<(String, String)>,
}

impl Secrets {
    /// `variables` are the settings' values, `kept` those on the volume.
    pub fn new(
        contract: &Contract,
        variables: &Variables,
        kept: &BTreeMap<String, String>,
    ) -> Self {
        let mut secrets = Secrets::default();
        for (name, setting) in contract.settings.iter().filter(|(_, s)| is_secret(s)) {
            let given = variables.get(&setting.variable).map(text_of);
            for value in given.iter().chain(kept.get(name)) {
                secrets.add(value);
            }
        }
        secrets
    }

    fn add(&mut self, value: &str) {
        // Of a key of many lines, each line.
        let parts = value.lines().map(str::trim).filter(|line| !line.is_empty());
        self.values.extend(parts.map(str::to_owned));
    }

    pub fn merge(&mut self, other: Secrets) {
        self.values.extend(other.values);
        self.lines.extend(other.lines);
        self.around.extend(other.around);
    }

    /// Learns from a file's text and the same text rendered with masks.
    pub fn learn(&mut self, text: &str, masked: &str) {
        let (real, shown): (Vec<&str>, Vec<&str>) =
            (text.lines().collect(), masked.lines().collect());
        for op in capture_diff_slices(Algorithm::Myers, &real, &shown) {
            let (old, new) = (op.old_range(), op.new_range());
            if matches!(op, DiffOp::Equal { .. }) {
                continue;
            }
            let paired = old.len() == new.len();
            for (at, line) in real[old].iter().enumerate() {
                match around(line, if paired { shown[new.start + at] } else { "" }) {
                    Some(around) => drop(self.around.insert(around)),
                    None => drop(self.lines.insert((*line).to_owned())),
                }
            }
        }
    }

    pub fn is_secret_line(&self, line: &str) -> bool {
        self.lines.contains(line) || self.frame(line).is_some() || self.hide(line) != line
    }

    fn frame(&self, line: &str) -> Option<&(String, String)> {
        self.around.iter().find(|(before, after)| {
            line.len() >= before.len() + after.len()
                && line.starts_with(before.as_str())
                && line.ends_with(after.as_str())
        })
    }

    /// A line of a file.
    pub fn line(&self, line: &str) -> String {
        if self.lines.contains(line) {
            return MASK.to_owned();
        }
        match self.frame(line) {
            Some((before, after)) => format!("{before}{MASK}{after}"),
            None => self.hide(line),
        }
    }

    /// Any text: known values are replaced.
    pub fn hide(&self, text: &str) -> String {
        let mut out = text.to_owned();
        // The longest first: one may be a part of another.
        let mut values: Vec<&String> = self.values.iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        for value in values {
            if value.chars().count() >= SHORT {
                out = out.replace(value.as_str(), MASK);
            } else {
                out = replace_words(&out, value);
            }
        }
        out
    }
}

fn replace_words(text: &str, word: &str) -> String {
    let mut out = String::new();
    let mut from = 0;
    for (at, _) in text.match_indices(word) {
        let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let end = at + word.len();
        if at >= from
            && !inside(text[..at].chars().next_back())
            && !inside(text[end..].chars().next())
        {
            out.push_str(&text[from..at]);
            out.push_str(MASK);
            from = end;
        }
    }
    out + &text[from..]
}

/// What a line and its masked form have in common at both ends, up to where a word ends:
/// the first letters of two encoded secrets may be the same by chance.
fn around(line: &str, masked: &str) -> Option<(String, String)> {
    let same = |a: &mut dyn Iterator<Item = char>, b: &mut dyn Iterator<Item = char>| {
        a.zip(b)
            .take_while(|(a, b)| a == b)
            .map(|(c, _)| c.len_utf8())
            .sum::<usize>()
    };
    let start = same(&mut line.chars(), &mut masked.chars());
    let before = line[..start].trim_end_matches(char::is_alphanumeric);
    let (rest, masked) = (&line[start..], &masked[start..]);
    let end = same(&mut rest.chars().rev(), &mut masked.chars().rev());
    let after = rest[rest.len() - end..].trim_start_matches(char::is_alphanumeric);
    let says_something = |text: &str| text.contains(char::is_alphanumeric);
    (says_something(before) || says_something(after)).then(|| (before.to_owned(), after.to_owned()))
}

/// The variables with masks for secrets, so that no filter of a template lets one out. One
/// that nobody gave stays as it is: templates ask whether there is one.
pub fn masked(contract: &Contract, variables: &Variables) -> Variables {
    let mut out = variables.clone();
    for setting in contract.settings.values().filter(|s| is_secret(s)) {
        if let Some(value) = out.get_mut(&setting.variable)
            && !text_of(value).is_empty()
        {
            *value = Value::from(MASK);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(text: &str, masked: &str) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.learn(text, masked);
        secrets
    }

    #[test]
    fn a_line_is_known_by_what_stands_around_the_secret() {
        let secrets = learned(
            "port 1\nrequirepass hunter2\nurl=redis://:aHVudGVy@host/0\n",
            "port 1\nrequirepass ********\nurl=redis://:aKioqKg@host/0\n",
        );
        assert_eq!(
            secrets.line("requirepass an-older-one"),
            "requirepass ********"
        );
        assert_eq!(
            secrets.line("url=redis://:aOLD@host/0"),
            "url=redis://:********@host/0"
        );
        assert_eq!(secrets.line("port 2"), "port 2");
    }

    #[test]
    fn a_key_of_many_lines_is_hidden_line_by_line() {
        let secrets = learned("a\nMIIB\nxyz=\nz\n", "a\n********\nz\n");
        assert_eq!(secrets.line("MIIB"), MASK);
        assert_eq!(secrets.line("xyz="), MASK);
        assert_eq!(secrets.line("z"), "z");
    }

    #[test]
    fn known_values_are_replaced_and_short_ones_only_as_words() {
        let mut secrets = Secrets::default();
        secrets.add("hunter2-hunter2");
        secrets.add("abc");
        assert_eq!(
            secrets.hide("xhunter2-hunter2x abc abcd 'abc'"),
            "x********x ******** abcd '********'"
        );
    }

    proptest::proptest! {
        /// Whatever stands around it: a secret of the new text is never shown.
        #[test]
        fn no_line_shows_a_secret(
            lines in proptest::collection::vec("[a-z =:/]{0,12}", 1..6),
            at in 0_usize..6,
            secret in "[A-Z0-9]{8,16}",
        ) {
            let line = &lines[at % lines.len()];
            let with = |value: &str| {
                lines.iter().map(|l| if l == line { format!("{l}{value}\n") } else { format!("{l}\n") }).collect::<String>()
            };
            let text = with(&secret);
            let secrets = learned(&text, &with(MASK));
            for line in text.lines() {
                proptest::prop_assert!(!secrets.line(line).contains(&secret), "{line}");
            }
        }
    }
}
