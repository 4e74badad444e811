//! Which variables a layer could use, and what they are.
//!
//! A file of variables (of groups, hosts, roles, `vars_files`) counts for a layer by those of
//! its top-level names that the layer could come upon: all words in what its run read, and in
//! turn all words in the values of these. A value is the file's own text, so that nothing
//! hinges on how it is parsed. Where a name can be computed (`vars[…]`, `hostvars`, a
//! condition with braces in it, a plugin that is handed all variables), all count.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use contract::Variables;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache;

/// More words than this are not kept.
const MOST_WORDS: usize = 300_000;
/// What is not YAML by its name and larger than this is no list of tasks.
const LARGEST_YAML: usize = 1 << 20;
/// What marks a template among carried values.
const TEMPLATE: &str = "__tiffin_template";
/// With these a name need not stand anywhere.
const DYNAMIC: [&str; 2] = ["hostvars", "varnames"];
/// How a plugin on the build machine is handed variables.
const PLUGIN: [&str; 10] = [
    "_available_variables",
    "_templar",
    "available_variables",
    "contextfilter",
    "get_vars",
    "pass_context",
    "task_vars",
    "templar",
    "variables",
    "vars",
];
/// Keywords and arguments whose text is an expression: what braces in it make is one, too.
const EXPRESSIONS: [&str; 8] = [
    "ansible.builtin.assert",
    "assert",
    "changed_when",
    "failed_when",
    "that",
    "until",
    "var",
    "when",
];

/// What a layer could use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uses {
    /// With a space between each.
    words: String,
    /// Handlers that it could notify; `None` where that is not known.
    notified: Option<BTreeSet<String>>,
}

/// Texts in which a run came upon names.
#[derive(Debug, Default)]
pub struct Texts {
    words: BTreeSet<String>,
    notified: BTreeSet<String>,
    /// Some name is computed.
    dynamic: bool,
    notifies_any: bool,
}

impl Texts {
    /// Nobody knows which.
    pub fn all(&mut self) {
        self.dynamic = true;
    }

    /// A file that Ansible read.
    pub fn file(&mut self, path: &Path, content: &[u8]) {
        if self.dynamic {
            return;
        }
        let name = path.to_string_lossy();
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let python = ends(&[".py"]);
        let runs_in_the_box = [
            "/plugins/modules/",
            "/plugins/module_utils/",
            "/library/",
            "/module_utils/",
        ];
        if python && runs_in_the_box.iter().any(|part| name.contains(part)) {
            return;
        }
        let text = match std::str::from_utf8(content) {
            Ok(text) if !text.starts_with("$ANSIBLE_VAULT") => text,
            _ => return self.all(),
        };
        if python {
            words(text, |word| self.dynamic |= PLUGIN.contains(&word));
        }
        self.text(text);
        let yaml = ends(&[".yml", ".yaml", ".json"]);
        if python || !yaml && text.len() > LARGEST_YAML {
            return;
        }
        if self.tasks(text).is_none() && yaml {
            self.all();
        }
    }

    /// Anything with expressions in it.
    pub fn text(&mut self, text: &str) {
        self.dynamic |= is_dynamic(text);
        collect(text, &mut self.words);
    }

    /// The texts in a value.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter().for_each(|item| self.value(item)),
            Value::Object(entries) => entries.iter().for_each(|(name, value)| {
                // `vars` as a name is no question for all of them.
                collect(name, &mut self.words);
                self.value(value);
            }),
            _ => {}
        }
    }

    /// What the layers below left in Ansible's memory, in the form of `tiffin_carry.py`: what is
    /// no template there is never rendered.
    pub fn carried(&mut self, value: &Value) {
        match value {
            Value::Object(entries) if entries.contains_key(TEMPLATE) => self.value(value),
            Value::String(text) => collect(text, &mut self.words),
            Value::Array(items) => items.iter().for_each(|item| self.carried(item)),
            Value::Object(entries) => entries.values().for_each(|value| self.carried(value)),
            _ => {}
        }
    }

    /// What YAML says besides its words; `None` where it is none.
    fn tasks(&mut self, text: &str) -> Option<()> {
        let mut open: Vec<Open> = Vec::new();
        for event in Parser::new_from_str(text) {
            let (event, _) = event.ok()?;
            nest(&mut open, &event);
            match event {
                Event::Alias(_) => match value_of(&mut open).as_deref() {
                    Some("notify") => self.notifies_any = true,
                    Some(key) if EXPRESSIONS.contains(&key) => self.dynamic = true,
                    _ => {}
                },
                Event::Scalar(value, ..) => {
                    // Escapes are read in it.
                    collect(&value, &mut self.words);
                    let Some(key) = value_of(&mut open) else {
                        if let Some(top) = open.last_mut().filter(|top| top.map) {
                            top.key = Some(value.into_owned());
                        }
                        continue;
                    };
                    let braces = value.contains("{{") || value.contains("{%");
                    match &*key {
                        "notify" if braces => self.notifies_any = true,
                        "notify" => drop(self.notified.insert(value.into_owned())),
                        key => self.dynamic |= braces && EXPRESSIONS.contains(&key),
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Whether a handler of this file, which is YAML, could be notified.
    pub fn could_notify(&self, handlers: &[u8]) -> bool {
        could_notify((!self.notifies_any).then_some(&self.notified), handlers)
    }

    /// `None` where everything counts.
    pub fn uses(self) -> Option<Uses> {
        if self.dynamic || self.words.len() > MOST_WORDS {
            return None;
        }
        Some(Uses {
            words: Vec::from_iter(self.words).join(" "),
            notified: (!self.notifies_any).then_some(self.notified),
        })
    }
}

/// A list or map in YAML that has not ended.
struct Open {
    map: bool,
    /// Of a map the key whose value comes next; of a list the key that it stands under.
    key: Option<String>,
}

/// The key that the value which comes now stands under; `None` for a key itself.
fn value_of(open: &mut [Open]) -> Option<String> {
    let top = open.last_mut()?;
    match top.map {
        true => top.key.take(),
        false => top.key.clone(),
    }
}

impl Uses {
    /// Whether a handler of this file could be notified.
    pub fn could_notify(&self, handlers: &[u8]) -> bool {
        could_notify(self.notified.as_ref(), handlers)
    }

    /// What is used of some files and of the recipe's own variables; `None` when a value that
    /// is used computes a name.
    pub fn values(&self, files: &[&[u8]], given: &Variables) -> Option<Values> {
        let cuts: Vec<Option<Vec<Part>>> = files.iter().map(|file| cut(file)).collect();
        let mut texts: Vec<(&str, Texts)> = Vec::new();
        for (name, value) in given {
            let mut found = Texts::default();
            found.value(value);
            texts.push((name, found));
        }
        // By name all words that a use of it leads to; `None` where they cannot be known.
        let mut known: BTreeMap<&str, Vec<Option<Vec<&str>>>> = BTreeMap::new();
        let mut ahead: Vec<&str> = self.words.split(' ').collect();
        let whole: Vec<Texts> = files.iter().zip(&cuts).map(whole).collect();
        for texts in &whole {
            if texts.dynamic {
                return None;
            }
            ahead.extend(texts.words.iter().map(String::as_str));
        }
        for part in cuts.iter().flatten().flatten() {
            let words = (!part.dynamic).then(|| part.words.iter().map(|word| &**word).collect());
            known.entry(&part.name).or_default().push(words);
        }
        for (name, texts) in &texts {
            let words = (!texts.dynamic).then(|| texts.words.iter().map(|word| &**word).collect());
            known.entry(name).or_default().push(words);
        }
        // Ansible itself asks for these.
        ahead.extend(known.keys().filter(|name| name.starts_with("ansible_")));
        let mut used = BTreeSet::new();
        while let Some(name) = ahead.pop() {
            let Some(leads) = known.get(name) else {
                continue;
            };
            if used.insert(name.to_owned()) {
                for words in leads {
                    ahead.extend(words.as_ref()?);
                }
            }
        }
        let taken = given.iter().filter(|(name, _)| used.contains(*name));
        let taken: Variables = taken.map(|(k, v)| (k.clone(), v.clone())).collect();
        Some(Values {
            files: files.iter().map(|file| digest(file, &used)).collect(),
            given: cache::hash(&["given", &Value::Object(taken).to_string()]),
            used,
        })
    }
}

/// Digests of what is used.
pub struct Values {
    pub files: Vec<String>,
    pub given: String,
    /// The names of all.
    pub used: BTreeSet<String>,
}

/// A digest of those names in a file of variables, or of all of it where it cannot be cut.
pub fn digest(file: &[u8], used: &BTreeSet<String>) -> String {
    match cut(file) {
        None => cache::hash(&["whole", &cache::hash_bytes(file)]),
        Some(parts) => {
            // What is vaulted becomes a setting, whoever uses it.
            let counts = |part: &&Part| part.vaulted || used.contains(&part.name);
            cache::hash(&Vec::from_iter(
                parts.iter().filter(counts).map(|part| part.text),
            ))
        }
    }
}

/// What a file that cannot be cut leads to: all that stands in it.
fn whole((file, cut): (&&[u8], &Option<Vec<Part>>)) -> Texts {
    let mut texts = Texts::default();
    match std::str::from_utf8(file) {
        _ if cut.is_some() => {}
        // Placeholders stand for all of it.
        Ok(text) if text.starts_with("$ANSIBLE_VAULT") => {}
        Ok(text) => {
            texts.text(text);
            texts.dynamic |= texts.tasks(text).is_none();
        }
        Err(_) => texts.all(),
    }
    texts
}

/// A top-level name of a file and what belongs to it.
struct Part<'a> {
    name: String,
    /// From the name to the next one, but for comments and empty lines at its end.
    text: &'a str,
    words: BTreeSet<String>,
    dynamic: bool,
    vaulted: bool,
}

/// The file cut at its top-level names, so that no part depends on another; `None` where that
/// cannot be done.
fn cut(file: &[u8]) -> Option<Vec<Part<'_>>> {
    let text = std::str::from_utf8(file).ok()?;
    if text.starts_with(['\u{feff}', '$']) {
        return None;
    }
    let bytes: Vec<usize> = text
        .char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    // Where each begins, and where the last of its scalars that are no blocks ends.
    let mut parts: Vec<Part> = Vec::new();
    let mut starts: Vec<(usize, Option<usize>)> = Vec::new();
    let (mut depth, mut is_key, mut documents) = (0, true, 0);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        match event {
            Event::Alias(_) => return None,
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return None;
                }
            }
            Event::SequenceStart(_, ref tag) | Event::MappingStart(_, ref tag) => {
                let map = matches!(event, Event::MappingStart(..));
                if depth == 0 && (!map || tag.is_some()) || depth == 1 && is_key {
                    return None;
                }
                depth += 1;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                depth -= 1;
                if depth == 1 {
                    is_key = true;
                }
            }
            Event::Scalar(value, style, _, tag) => {
                let (start, end) = (
                    *bytes.get(span.start.index())?,
                    *bytes.get(span.end.index())?,
                );
                if depth == 0 {
                    // A document without anything in it.
                    if value.is_empty() || &*value == "~" || &*value == "null" {
                        continue;
                    }
                    return None;
                }
                if depth == 1 && is_key {
                    // Where it is said to be.
                    let quote = text[start..].starts_with(['"', '\'']);
                    if tag.is_some() || !quote && !text[start..].starts_with(&*value) {
                        return None;
                    }
                    parts.push(Part {
                        name: value.clone().into_owned(),
                        text: "",
                        words: BTreeSet::new(),
                        dynamic: false,
                        vaulted: false,
                    });
                    starts.push((start, None));
                    is_key = false;
                    continue;
                }
                let (part, (_, ends)) = (parts.last_mut()?, starts.last_mut()?);
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                *ends = (!block).then_some(end);
                part.vaulted |= tag.is_some_and(|tag| tag.suffix.contains("vault"));
                part.dynamic |= is_dynamic(&value);
                collect(&value, &mut part.words);
                if depth == 1 {
                    is_key = true;
                }
            }
            _ => {}
        }
    }
    let first = starts.first().map_or(text.len(), |(start, _)| *start);
    let head = &text[..first];
    let nothing =
        |line: &str| line.trim().is_empty() || line.starts_with('#') || line.trim_end() == "---";
    // A directive, perhaps, which counts for all names.
    if !head.lines().all(nothing) && head.trim() != "{" {
        return None;
    }
    for at in 0..parts.len() {
        let end = starts.get(at + 1).map_or(text.len(), |(next, _)| *next);
        let (start, scalar) = starts[at];
        if start >= end {
            return None;
        }
        let slice = &text[start..end];
        let part = &mut parts[at];
        part.text = match scalar {
            Some(ends) if (start..end).contains(&ends) => without_comments(slice, ends - start),
            _ => slice,
        };
        part.dynamic |= is_dynamic(slice);
        collect(slice, &mut part.words);
    }
    Some(parts)
}

/// Without what follows at the end: empty lines and comments that begin their line. `kept`
/// bytes at least are of the value.
fn without_comments(text: &str, kept: usize) -> &str {
    let mut end = text.len();
    for line in text.split_inclusive('\n').rev() {
        let start = end - line.len();
        if start <= kept || !(line.trim().is_empty() || line.starts_with('#')) {
            break;
        }
        end = start;
    }
    text[..end].trim_end_matches(['\n', '\r'])
}

/// What is open when a list or a map has begun or ended; a list is what its key says.
fn nest(open: &mut Vec<Open>, event: &Event<'_>) {
    match event {
        Event::SequenceStart(..) => {
            let key = value_of(open).unwrap_or_default();
            open.push(Open {
                map: false,
                key: Some(key),
            });
        }
        Event::MappingStart(..) => {
            value_of(open);
            open.push(Open {
                map: true,
                key: None,
            });
        }
        Event::SequenceEnd | Event::MappingEnd => drop(open.pop()),
        _ => {}
    }
}

/// Whether one of the handlers in YAML has one of the names, `None` for any.
fn could_notify(notified: Option<&BTreeSet<String>>, handlers: &[u8]) -> bool {
    let (Some(notified), Ok(text)) = (notified, std::str::from_utf8(handlers)) else {
        return true;
    };
    let is = |name: &str| {
        name.contains("{{")
            || name.contains("{%")
            || notified.iter().any(|notified| {
                notified == name
                    || notified
                        .strip_suffix(name)
                        .is_some_and(|role| role.ends_with(" : "))
            })
    };
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let Ok((event, _)) = event else {
            return true;
        };
        nest(&mut open, &event);
        match event {
            Event::Alias(_) => return true,
            Event::Scalar(value, ..) => match value_of(&mut open).as_deref() {
                Some("name" | "listen") if is(&value) => return true,
                Some(_) => {}
                None => {
                    if let Some(top) = open.last_mut().filter(|top| top.map) {
                        top.key = Some(value.into_owned());
                    }
                }
            },
            _ => {}
        }
    }
    false
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// All that could be a variable's name, `n` of an escape like `\n` with it and without.
fn words(text: &str, mut each: impl FnMut(&str)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        let mut word = |from: usize| {
            if from < at && !bytes[from].is_ascii_digit() {
                each(&text[from..at]);
            }
        };
        word(start);
        if start > 0 && bytes[start - 1] == b'\\' {
            for length in [1, 3, 5, 9] {
                word(start + length);
            }
        }
    }
}

fn collect(text: &str, into: &mut BTreeSet<String>) {
    words(text, |word| {
        if !into.contains(word) {
            into.insert(word.to_owned());
        }
    });
}

/// Whether a text could ask for a variable whose name stands nowhere.
fn is_dynamic(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut found = false;
    words(text, |word| found |= DYNAMIC.contains(&word));
    if found {
        return true;
    }
    for (at, _) in text.match_indices("vars") {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        let after = bytes.get(at + 4).copied();
        if before.is_some_and(|b| is_word(b) || b == b'/')
            || after.is_some_and(|b| is_word(b) || b == b'/')
        {
            continue;
        }
        // The keyword `vars:` of a play, a role or a task.
        let rest = text[at + 4..].trim_start_matches([' ', '\t']);
        let keyword = rest
            .strip_prefix(':')
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if !keyword {
            return true;
        }
    }
    // `{{ '{{' ~ name ~ '}}' }}`: rendered twice.
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        rest = &rest[at + 2..];
        let inner = rest.find("}}").map_or(rest, |end| &rest[..end]);
        if inner.trim_start_matches('{').contains("{{") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that count of a file, for a run that came upon `text` in `name`.
    fn used(name: &str, text: &str, file: &str) -> Option<Vec<String>> {
        let mut texts = Texts::default();
        texts.file(Path::new(name), text.as_bytes());
        let values = texts
            .uses()?
            .values(&[file.as_bytes()], &Variables::new())?;
        Some(values.used.into_iter().collect())
    }

    const FILE: &str = "# Ports\nport: 80\n\n# of the second\nother: 81\nurl: \"http://x:{{ port }}\\n{{\\nother }}\"\nlist:\n  - {a: \"{{ url }}\"}\ntext: |\n  {{ list }}\n# end\n";

    #[test]
    fn names_are_followed_through_values() {
        let used = |text: &str| used("a.j2", text, FILE).unwrap();
        assert_eq!(used("{{ port }}"), ["port"]);
        assert_eq!(used("{{ url }}"), ["other", "port", "url"]);
        assert_eq!(used("{{ text }}"), ["list", "other", "port", "text", "url"]);
        assert!(used("{{ porto }} {{ unknown }}").is_empty());
    }

    #[test]
    fn a_part_changes_with_its_value_alone() {
        let used = |name: &str| BTreeSet::from([name.to_owned()]);
        let port = digest(FILE.as_bytes(), &used("port"));
        for (old, new, same) in [
            ("# of the second", "# of another", true),
            ("# Ports", "# All ports", true),
            ("81", "82", true),
            ("  {{ list }}", "  {{ list }} ", true),
            ("port: 80", "port: 81", false),
            ("port: 80", "port: '80'", false),
            ("port: 80", "port: 80 # the usual", false),
            ("port: 80", "port: 80\nport: 81", false),
            ("port: 80", "port: 80\n  90", false),
        ] {
            assert!(FILE.contains(old));
            let changed = digest(FILE.replace(old, new).as_bytes(), &used("port"));
            assert_eq!(changed == port, same, "{old} -> {new}");
        }
        // What looks like a comment and is none.
        for (one, other) in [
            ("a: \"x\n# y\"\nb: 1\n", "a: \"x\n# z\"\nb: 1\n"),
            ("a: |\n  x\n\nb: 1\n", "a: |+\n  x\n\nb: 1\n"),
            ("a: |+\n  x\n\nb: 1\n", "a: |+\n  x\n\n\nb: 1\n"),
            ("a: 'x\n\n# y'\nb: 1\n", "a: 'x\n# y'\nb: 1\n"),
            ("a: yes\nb: 1\n", "a: 'yes'\nb: 1\n"),
            ("{a: 1, b: 2}\n", "{a: 3, b: 2}\n"),
            ("a: !vault |\n  x\nb: 1", "a: !unsafe |\n  x\nb: 1"),
        ] {
            let of = |text: &str| digest(text.as_bytes(), &used("a"));
            assert_ne!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn what_cannot_be_cut_counts_as_a_whole() {
        let none = BTreeSet::new();
        for (one, other) in [
            ("a: &x 1\nb: *x\n", "a: &x 2\nb: *x\n"),
            ("a: [\n", "a: {\n"),
            (
                "$ANSIBLE_VAULT;1.1;AES256\n12\n",
                "$ANSIBLE_VAULT;1.1;AES256\n13\n",
            ),
            ("%YAML 1.1\n---\na: 1\n", "%YAML 1.2\n---\na: 1\n"),
            ("a: 1\n---\nb: 1\n", "a: 2\n---\nb: 1\n"),
            ("a: !vault |\n  12\n", "a: !vault |\n  13\n"),
            ("[a]", "[b]"),
        ] {
            let of = |text: &str| digest(text.as_bytes(), &none);
            assert_ne!(of(one), of(other), "{one}");
        }
        assert_eq!(used("a.j2", "", "a: &x '{{ b }}'\nc: *x\n"), Some(vec![]));
        let files: [&[u8]; 2] = [b"a: &x '{{ b }}'\nc: *x\n", b"b: 1\nd: 2\n"];
        let values = Uses::default().values(&files, &Variables::new()).unwrap();
        assert_eq!(Vec::from_iter(values.used), ["b"]);
    }

    #[test]
    fn where_a_name_is_computed_everything_counts() {
        for (name, text) in [
            ("a.j2", "{{ vars['port'] }}"),
            ("a.j2", "{{ lookup('vars', 'p' ~ 'ort') }}"),
            ("a.j2", "{{ hostvars[inventory_hostname] }}"),
            ("a.j2", "{{ q('ansible.builtin.varnames', '^p') }}"),
            ("a.j2", "{{ '{{ p' ~ 'ort }}' }}"),
            ("tasks/main.yml", "- debug:\n  when: \"{{ p }}ort\"\n"),
            (
                "tasks/main.yml",
                "- assert: {that: [\"{{ p }}ort == 80\"]}\n",
            ),
            ("tasks/main.yml", "- debug: &x\n  when: *x\n"),
            ("tasks/main.yml", "- [\n"),
            (
                "filter_plugins/a.py",
                "@pass_context\ndef f(context): pass\n",
            ),
            (
                "lookup_plugins/a.py",
                "def run(self, terms, variables=None): pass\n",
            ),
            ("a.j2", "$ANSIBLE_VAULT;1.1"),
        ] {
            assert_eq!(used(name, text, FILE), None, "{name}: {text}");
        }
        let mut binary = Texts::default();
        binary.file(Path::new("a.j2"), b"\xff");
        assert!(binary.uses().is_none());
        for (name, text) in [
            (
                "tasks/main.yml",
                "- include_vars: vars/port.yml\n  vars: {a: 1}\n",
            ),
            (
                "tasks/main.yml",
                "- copy: {dest: \"{{ p }}ort\"}\n  when: port == 80\n",
            ),
            ("roles/a/library/a.py", "variables = vars\n"),
            ("filter_plugins/a.py", "def f(value): return value\n"),
        ] {
            assert!(used(name, text, FILE).is_some(), "{name}: {text}");
        }
        // In a value: only for who uses it.
        let file = "a: \"{{ vars[b] }}\"\nc: 1\n";
        assert_eq!(used("a.j2", "{{ a }}", file), None);
        assert_eq!(used("a.j2", "{{ c }}", file), Some(vec!["c".to_owned()]));
    }

    #[test]
    fn a_handler_is_found_by_what_tasks_notify() {
        let notifies = |tasks: &str, handlers: &str| {
            let mut texts = Texts::default();
            texts.file(Path::new("tasks/main.yml"), tasks.as_bytes());
            texts.uses().unwrap().could_notify(handlers.as_bytes())
        };
        let handlers =
            "- name: restart web\n  service: {name: web}\n- name: x\n  listen: [config, tls]\n";
        for (tasks, found) in [
            ("- debug:\n  notify: restart web\n", true),
            ("- debug:\n  notify: [a, \"web : restart web\"]\n", true),
            ("- debug:\n  notify: tls\n", true),
            ("- debug:\n  notify: \"{{ x }}\"\n", true),
            ("- debug:\n  notify: &a [b]\n- debug:\n  notify: *a\n", true),
            ("- debug:\n  notify: restart db\n", false),
            ("- debug: msg=1\n", false),
        ] {
            assert_eq!(notifies(tasks, handlers), found, "{tasks}");
        }
        assert!(notifies("- debug:\n", "- name: \"restart {{ x }}\"\n"));
        assert!(notifies("- debug:\n", "- [\n"));
    }

    #[test]
    fn the_recipes_variables_count_by_use_too() {
        let given = |text: &str| -> Variables { serde_json::from_str(text).unwrap() };
        let mut texts = Texts::default();
        texts.text("{{ a }}");
        let uses = texts.uses().unwrap();
        let of = |text: &str| {
            uses.values(&[b"b: \"{{ c }}\"\n"], &given(text))
                .unwrap()
                .given
        };
        let one = of(r#"{"a": {"x": ["\n{{ b }}"]}, "c": 1, "d": 1}"#);
        assert_eq!(one, of(r#"{"a": {"x": ["\n{{ b }}"]}, "c": 1, "d": 2}"#));
        assert_ne!(one, of(r#"{"a": {"x": ["\n{{ b }}"]}, "c": 2, "d": 1}"#));
        assert_ne!(one, of(r#"{"a": {"x": ["{{ b }}"]}, "c": 1, "d": 1}"#));
        assert!(
            uses.values(&[], &given(r#"{"a": "{{ vars.x }}"}"#))
                .is_none()
        );
    }
}
