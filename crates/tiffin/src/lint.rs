//! `tiffin lint`: what should not be in a box.
//!
//! Secrets and identity must not be shipped, since everybody who has the box has them;
//! waste, large files and setuid programs are worth knowing. What only looks like a password
//! somebody has to look at: a default that each box is meant to have looks the same.

use std::collections::BTreeMap;
use std::io::{self, Read};

use anyhow::Result;
use image::{Flag, Silent};

use crate::{
    cli,
    inspect::{open, shown},
    merged::Merged,
    printer::size,
};

/// Larger files are named.
const LARGE: u64 = 100_000_000;

/// So much of a file is searched; keys and tokens stand in small files.
const SEARCHED: u64 = 1 << 20;

/// Waste is worth a word from here on.
const WASTE: u64 = 1_000_000;

/// What begins a secret, and how many letters, digits, `-` and `_` follow at least.
const TOKENS: [(&str, usize, &str); 24] = [
    ("AKIA", 16, "an AWS access key"),
    ("ASIA", 16, "an AWS access key"),
    ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"),
    ("ghu_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("ghr_", 36, "a GitHub token"),
    ("github_pat_", 60, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("gldt-", 20, "a GitLab token"),
    ("glrt-", 20, "a GitLab token"),
    ("xoxb-", 24, "a Slack token"),
    ("xoxp-", 24, "a Slack token"),
    ("xapp-", 24, "a Slack token"),
    ("sk_live_", 24, "a Stripe key"),
    ("rk_live_", 24, "a Stripe key"),
    ("npm_", 36, "an npm token"),
    ("pypi-AgEI", 50, "a PyPI token"),
    ("AIza", 35, "a Google API key"),
    ("sk-ant-", 40, "an Anthropic API key"),
    ("hvs.", 24, "a token of Vault"),
    ("dckr_pat_", 24, "a Docker token"),
    ("shpat_", 32, "a Shopify token"),
    ("AGE-SECRET-KEY-1", 58, "a private key"),
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
    /// What somebody has to look at.
    doubts: Vec<String>,
    notes: Vec<String>,
    /// Size of each file that is in sight.
    there: Merged<u64>,
    /// Bytes that an upper layer hides, by path.
    waste: BTreeMap<String, u64>,
}

impl Findings {
    fn entry(&mut self, layer: usize, path: &str, entry: &image::LayerEntry, start: &[u8]) {
        for (path, bytes) in self.there.layer(layer, path, entry.flag == Flag::Directory) {
            *self.waste.entry(path).or_default() += bytes;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        if name.starts_with(".wh.") {
            return;
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
        if entry.flag == Flag::File {
            for what in accounts(path, start) {
                self.secrets.push(format!("/{path}: {what}"));
            }
            let keys = passwords(path, name, start);
            if !keys.is_empty() {
                let keys = keys.join(", ");
                self.doubts.push(format!(
                    "/{path}: values of {keys}: every box would have the same"
                ));
            }
        }
        if matches!(entry.flag, Flag::Character | Flag::Block) {
            let (major, minor) = entry.device;
            self.notes
                .push(format!("/{path}: a device node ({major}:{minor})"));
        }
        if entry.flag != Flag::File {
            return;
        }
        self.there.insert(layer, path, entry.size);
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

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .secrets
            .iter()
            .map(|text| format!("error: {text}"))
            .collect();
        lines.extend(self.doubts.iter().map(|text| format!("look: {text}")));
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
        ".bash_history"
        | ".zsh_history"
        | ".zhistory"
        | ".ash_history"
        | ".sh_history"
        | ".histfile"
        | "fish_history"
        | ".python_history"
        | ".node_repl_history"
        | ".irb_history"
        | ".php_history"
        | ".mysql_history"
        | ".mariadb_history"
        | ".psql_history"
        | ".sqlite_history"
        | ".dbshell"
        | "mongosh_repl_history"
        | ".rediscli_history"
        | ".lesshst"
        | ".viminfo"
            if file =>
        {
            Some("what somebody typed")
        }
        ".netrc" | "_netrc" | ".pgpass" | ".git-credentials" | ".pypirc" | ".mylogin.cnf"
        | ".s3cfg" | ".boto" | ".vault-token" | ".htpasswd"
            if file =>
        {
            Some("passwords")
        }
        // These hold other things, too.
        ".my.cnf" | ".npmrc" | ".yarnrc.yml" | "pip.conf" | ".dockercfg"
            if file
                && (holds(start, "password")
                    || holds(start, "_auth")
                    || holds(start, "\"auth\"")) =>
        {
            Some("passwords")
        }
        "config.json"
            if file && path.ends_with(".docker/config.json") && holds(start, "\"auth\"") =>
        {
            Some("passwords")
        }
        "credentials" if file && path.ends_with(".aws/credentials") => Some("passwords"),
        "config" if file && path.ends_with(".kube/config") => Some("passwords"),
        "random-seed" if file && path.starts_with("var/lib/") => {
            Some("a random seed: every box would have the same")
        }
        "credential.secret" if file && path == "var/lib/systemd/credential.secret" => {
            Some("the key of systemd's credentials: every box would have the same")
        }
        "auto.cnf" if file && path.starts_with("var/lib/mysql") => {
            Some("a server's identity: every box would have the same")
        }
        name if file && path.starts_with("etc/ssh/ssh_host_") && name.ends_with("_key") => {
            Some("an SSH host key: every box would have the same")
        }
        _ => None,
    }
}

/// Whether `word` stands in it, in capitals or not.
fn holds(text: &[u8], word: &str) -> bool {
    text.windows(word.len())
        .any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

/// shadow(5): who has a password that everybody with the box can look for, or none.
fn accounts(path: &str, text: &[u8]) -> Vec<String> {
    if !matches!(
        path.trim_end_matches('-'),
        "etc/shadow" | "etc/gshadow" | "etc/shadow.org"
    ) {
        return Vec::new();
    }
    let group = path.contains("gshadow");
    let text = String::from_utf8_lossy(text);
    let found = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, hash) = (fields.next()?, fields.next()?);
        // A group without one is usual: nobody gets in by it.
        if hash.is_empty() && !group && !name.is_empty() {
            return Some(format!(
                "{} gets in without a password",
                shown(name.as_bytes())
            ));
        }
        // A locked one can be unlocked again, and can be guessed as it is.
        let hash = hash.trim_start_matches('!');
        let old = hash.len() == 13
            && hash
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/');
        (hash.starts_with('$') || old || hash.starts_with('_')).then(|| {
            format!(
                "the password of {}: every box would have the same",
                shown(name.as_bytes())
            )
        })
    });
    found.collect()
}

/// What the name of a password's setting ends with, in small letters and without `_` and `-`.
const KEYS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "secretkey",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "encryptionkey",
    "signingkey",
    "requirepass",
    "masterauth",
];

/// The settings of a file that is somebody's own, not a package's, whose values look as if a
/// person or a program had made up a password. Never the values.
fn passwords(path: &str, name: &str, text: &[u8]) -> Vec<String> {
    const ENDS: [&str; 11] = [
        ".env",
        ".conf",
        ".cnf",
        ".cfg",
        ".ini",
        ".properties",
        ".yml",
        ".yaml",
        ".json",
        ".toml",
        ".local",
    ];
    let settings = name.starts_with(".env")
        || matches!(name, "settings.py" | "environment")
        || ENDS.iter().any(|end| name.ends_with(end));
    let of_packages = [
        "usr/share/",
        "usr/lib/",
        "usr/include/",
        "var/lib/dpkg/",
        "var/lib/apt/",
    ]
    .iter()
    .any(|dir| path.starts_with(dir))
        || is_example(path)
        || path.split('/').any(|part| {
            matches!(
                part,
                "site-packages"
                    | "dist-packages"
                    | "node_modules"
                    | "vendor"
                    | "locale"
                    | "locales"
            )
        });
    if !settings || of_packages || text.contains(&0) {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(text);
    let mut found: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) || line.starts_with("//") {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        // `KEY=value`, `key: value`, `"key": "value",` and redis's `key value`.
        let Some(at) = line.find(['=', ':', ' ']) else {
            continue;
        };
        let key = line[..at].trim().trim_matches(['"', '\'']);
        let value = line[at..]
            .trim_start_matches(['=', ':', ' ', '\t', '>'])
            .trim_end_matches([',', ';'])
            .trim_matches(['"', '\''])
            .trim();
        let plain: String = key
            .chars()
            .filter(|c| !matches!(c, '_' | '-'))
            .flat_map(char::to_lowercase)
            .collect();
        let named = KEYS.iter().any(|end| plain.ends_with(end)) && looks_made_up(value);
        let key = shown(key.as_bytes());
        if (named || has_login(value))
            && !key.is_empty()
            && key.len() < 100
            && !found.contains(&key)
        {
            found.push(key);
        }
        if found.len() == 5 {
            found.push("and others".to_owned());
            break;
        }
    }
    found
}

/// Letters and digits in one word: no path, no reference to somewhere else, no word of a language.
fn looks_made_up(value: &str) -> bool {
    let reference = ["$", "{", "<", "%", "/", "@", "!", "*"]
        .iter()
        .any(|start| value.starts_with(start));
    let distinct: std::collections::BTreeSet<u8> = value.bytes().collect();
    (8..=256).contains(&value.len())
        && !reference
        && !value.contains("{{")
        && !value.contains("${")
        && !value.contains("://")
        && !value
            .bytes()
            .any(|b| b.is_ascii_whitespace() || b == b'(' || b == b')')
        && value.bytes().any(|b| b.is_ascii_digit())
        && value.bytes().any(|b| b.is_ascii_alphabetic())
        && distinct.len() >= 6
}

/// `scheme://user:password@host`.
fn has_login(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else {
        return false;
    };
    let authority = rest
        .split(['/', '?', ' ', '"', '\''])
        .next()
        .unwrap_or(rest);
    let Some((login, _)) = authority.rsplit_once('@') else {
        return false;
    };
    login
        .split_once(':')
        .is_some_and(|(_, password)| looks_made_up(password))
}

/// Keys and passwords that the whole world has: examples, and what programs test themselves with.
fn is_example(path: &str) -> bool {
    path.starts_with("usr/share/doc/")
        || path
            .split('/')
            .any(|part| matches!(part, "test" | "tests" | "testing" | "examples"))
}

/// What opens something elsewhere.
fn secret(path: &str, text: &[u8]) -> Option<&'static str> {
    if is_example(path) {
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
            // PGP's have a line of headers or an empty one first.
            first == b"-----BEGIN PGP PRIVATE KEY BLOCK-----"
                || first.starts_with(b"PuTTY-User-Key-File-")
                || first.starts_with(b"-----BEGIN ")
                    && first.ends_with(b"PRIVATE KEY-----")
                    && (second.starts_with(b"Proc-Type:")
                        || second.len() >= 32
                            && second.iter().all(|byte| {
                                byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
                            }))
        })
}
