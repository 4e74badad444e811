//! `tiffin lint`: what should not be in a box.
//!
//! Secrets and identity must not be shipped, since everybody who has the box has them;
//! waste, large files and setuid programs are worth knowing.

use std::collections::BTreeMap;
use std::io::{self, Read};

use anyhow::Result;
use image::{Flag, Silent};

use crate::{
    cli,
    inspect::{open, shown},
    printer::size,
};

/// Larger files are named.
const LARGE: u64 = 100_000_000;

/// So much of a file is searched; keys and tokens stand in small files.
const SEARCHED: u64 = 1 << 20;

/// Waste is worth a word from here on.
const WASTE: u64 = 1_000_000;

/// What begins a secret, and how many letters, digits, `-` and `_` follow at least.
const TOKENS: [(&str, usize, &str); 8] = [
    ("AKIA", 16, "an AWS access key"),
    ("ghp_", 36, "a GitHub token"),
    ("github_pat_", 60, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("xoxb-", 24, "a Slack token"),
    ("sk_live_", 24, "a Stripe key"),
    ("npm_", 36, "an npm token"),
    ("pypi-AgEI", 50, "a PyPI token"),
];

/// Whether something must not be shipped. Standard output names everything, worst first.
pub fn run(words: &cli::Lint) -> Result<bool> {
    let image = open(&words.archive)?;
    let mut findings = Findings::default();
    for (index, layer) in image.layers.iter().enumerate() {
        layer.entries(&image.name, &Silent, &mut |entry, content| {
            let path = shown(&entry.path);
            let path = path.trim_start_matches("./").trim_end_matches('/');
            if path.is_empty() {
                return Ok(());
            }
            let mut start = Vec::new();
            if entry.flag == Flag::File {
                content.take(SEARCHED).read_to_end(&mut start)?;
                io::copy(content, &mut io::sink())?;
            }
            findings.entry(index, path, entry, &start);
            Ok(())
        })?;
    }
    let bad = !findings.secrets.is_empty();
    for line in findings.lines() {
        println!("{line}");
    }
    Ok(bad)
}

#[derive(Default)]
struct Findings {
    secrets: Vec<String>,
    notes: Vec<String>,
    /// Size and layer of each file that is in sight.
    there: BTreeMap<String, (u64, usize)>,
    /// Bytes that an upper layer hides, by path.
    waste: BTreeMap<String, u64>,
}

impl Findings {
    fn entry(&mut self, layer: usize, path: &str, entry: &image::LayerEntry, start: &[u8]) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == ".wh..wh..opq" {
            self.hide(dir, layer, true);
            return;
        }
        if let Some(deleted) = name.strip_prefix(".wh.") {
            let path = [dir, deleted].join("/");
            let path = path.trim_start_matches('/');
            self.hide(path, layer, true);
            self.hide(path, layer, false);
            return;
        }
        if entry.flag != Flag::Directory {
            self.hide(path, layer, false);
        }
        // Named once, whether it has an entry of its own or only files in it.
        let repository = path
            .split('/')
            .position(|part| part == ".git")
            .map(|at| path.split('/').take(at + 1).collect::<Vec<_>>().join("/"));
        if let Some(repository) = repository {
            let text = format!("/{repository}: a repository's history");
            if !self.secrets.contains(&text) {
                self.secrets.push(text);
            }
            return;
        }
        if let Some(what) = identity(path, name, entry.flag, start) {
            self.secrets.push(format!("/{path}: {what}"));
        }
        if matches!(entry.flag, Flag::Character | Flag::Block) {
            let (major, minor) = entry.device;
            self.notes
                .push(format!("/{path}: a device node ({major}:{minor})"));
        }
        if entry.flag != Flag::File {
            return;
        }
        self.there.insert(path.to_owned(), (entry.size, layer));
        if let Some(what) = secret(path, start) {
            self.secrets.push(format!("/{path}: {what}"));
        }
        if entry.mode & 0o6000 != 0 {
            let bit = if entry.mode & 0o4000 != 0 {
                "setuid"
            } else {
                "setgid"
            };
            self.notes
                .push(format!("/{path}: {bit}, of user {}", entry.uid));
        }
        if entry.size > LARGE {
            self.notes.push(format!("/{path}: {}", size(entry.size)));
        }
    }

    /// Counts what lower layers have at `path`, or below it.
    fn hide(&mut self, path: &str, layer: usize, below: bool) {
        let hidden: Vec<String> = if below {
            let start = if path.is_empty() {
                String::new()
            } else {
                format!("{path}/")
            };
            self.there
                .range(start.clone()..)
                .take_while(|(path, _)| path.starts_with(&start))
                .filter(|(_, (_, of))| *of < layer)
                .map(|(path, _)| path.clone())
                .collect()
        } else {
            self.there
                .get(path)
                .filter(|(_, of)| *of < layer)
                .map(|_| path.to_owned())
                .into_iter()
                .collect()
        };
        for path in hidden {
            if let Some((bytes, _)) = self.there.remove(&path) {
                *self.waste.entry(path).or_default() += bytes;
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .secrets
            .iter()
            .map(|text| format!("error: {text}"))
            .collect();
        let wasted: u64 = self.waste.values().sum();
        if wasted >= WASTE {
            let mut files: Vec<(&String, &u64)> = self.waste.iter().collect();
            files.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
            let largest: Vec<String> = files
                .iter()
                .take(5)
                .map(|(path, bytes)| format!("/{path} {}", size(**bytes)))
                .collect();
            lines.push(format!(
                "note: {} are hidden or deleted by layers above: {}",
                size(wasted),
                largest.join(", ")
            ));
        }
        lines.extend(self.notes.iter().map(|text| format!("note: {text}")));
        lines
    }
}

/// What tells one machine or one person from another.
fn identity(path: &str, name: &str, flag: Flag, start: &[u8]) -> Option<&'static str> {
    let file = flag == Flag::File && !start.is_empty();
    match name {
        "machine-id" if file && !start.starts_with(b"uninitialized") => {
            matches!(path, "etc/machine-id" | "var/lib/dbus/machine-id")
                .then_some("this machine's identity: every box would have the same")
        }
        ".bash_history" | ".zsh_history" | ".ash_history" | ".python_history"
        | ".mysql_history" | ".psql_history" | ".dbshell" | ".rediscli_history"
            if file =>
        {
            Some("what somebody typed")
        }
        ".netrc" | ".pgpass" | ".git-credentials" | ".pypirc" if file => Some("passwords"),
        "random-seed" if file && path.starts_with("var/lib/") => {
            Some("a random seed: every box would have the same")
        }
        name if file && path.starts_with("etc/ssh/ssh_host_") && name.ends_with("_key") => {
            Some("an SSH host key: every box would have the same")
        }
        _ => None,
    }
}

/// What opens something elsewhere.
fn secret(path: &str, text: &[u8]) -> Option<&'static str> {
    // Keys that the whole world has: examples, and what programs test themselves with.
    let example = path.starts_with("usr/share/doc/")
        || path
            .split('/')
            .any(|part| matches!(part, "test" | "tests" | "testing" | "examples"));
    if example {
        return None;
    }
    if private_key(text) {
        // Host keys are named as what they are.
        return (!path.starts_with("etc/ssh/ssh_host_")).then_some("a private key");
    }
    TOKENS.iter().find_map(|(start, length, what)| {
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(&text[from..], start.as_bytes()) {
            let begin = from + at;
            let rest = &text[begin + start.len()..];
            let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let count = rest.iter().take_while(|byte| word(byte)).count();
            let alone = begin == 0 || !word(&text[begin - 1]);
            if alone && count >= *length && count < 256 {
                return Some(*what);
            }
            from = begin + start.len();
        }
        None
    })
}

/// PEM's first line at the beginning of a line, and base64 under it: programs that read
/// keys hold the words alone.
fn private_key(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n')
        .collect::<Vec<_>>()
        .windows(2)
        .any(|lines| {
            let first = lines[0].trim_ascii();
            let second = lines[1].trim_ascii();
            first.starts_with(b"-----BEGIN ")
                && first.ends_with(b"PRIVATE KEY-----")
                && (second.starts_with(b"Proc-Type:")
                    || second.len() >= 32
                        && second.iter().all(|byte| {
                            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
                        }))
        })
}
