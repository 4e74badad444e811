//! tmpfiles.d(5): what packages want to find when a machine has started, such as their
//! directory below `/run`.

use std::collections::BTreeMap;

use super::words;
use crate::Parsed;

/// systemd's own, for a machine that it runs: journals, core files, the age of `/tmp`.
const SYSTEMDS: [&str; 13] = [
    "20-systemd-",
    "credstore.conf",
    "debian.conf",
    "home.conf",
    "journal-nocow.conf",
    "legacy.conf",
    "provision.conf",
    "static-nodes-permissions.conf",
    "systemd-",
    "systemd.conf",
    "tmp.conf",
    "var.conf",
    "x11.conf",
];

/// One in a later directory hides one of the same name in an earlier.
const DIRECTORIES: [&str; 3] = ["/usr/lib/tmpfiles.d", "/run/tmpfiles.d", "/etc/tmpfiles.d"];

/// The files that a box applies, in their order; `names` tells what a directory holds.
pub fn tmpfiles_paths(names: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let mut files = BTreeMap::new();
    for directory in DIRECTORIES {
        for name in names(directory) {
            let systemds = SYSTEMDS.iter().any(|known| name.starts_with(known));
            if name.ends_with(".conf") && !systemds {
                let path = format!("{directory}/{name}");
                files.insert(name, path);
            }
        }
    }
    files.into_values().collect()
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfile {
    /// Absolute.
    pub path: String,
    pub what: Wanted,
    /// That of the type when the line has none.
    pub mode: u32,
    /// Name or number; root when absent.
    pub user: Option<String>,
    pub group: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Directory,
    /// `anew`: in place of one that is there.
    File {
        content: String,
        anew: bool,
    },
    Link {
        target: String,
        anew: bool,
    },
    /// A file that must not outlive the start before.
    Nothing,
}

/// Ages are passed over: a box is not cleaned up while it runs.
pub fn tmpfiles(text: &str) -> Parsed<Vec<Tmpfile>> {
    let mut parsed = Parsed {
        value: Vec::new(),
        warnings: Vec::new(),
        not_applied: Vec::new(),
    };
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match read(line) {
            Ok(Some(tmpfile)) => parsed.value.push(tmpfile),
            Ok(None) => parsed.not_applied.push(line.to_owned()),
            Err(reason) => parsed.warnings.push(format!("{reason}: {line}")),
        }
    }
    parsed
}

/// `None` for a type that a box does not apply.
fn read(line: &str) -> Result<Option<Tmpfile>, String> {
    let mut chars = line.chars().peekable();
    let kind = words::next(&mut chars)?.unwrap_or_default();
    let path = specifiers(&words::next(&mut chars)?.ok_or("it names no path")?)?;
    let mut field = || words::next(&mut chars).map(|text| text.filter(|text| text != "-"));
    let (mode, user, group, _age) = (field()?, field()?, field()?, field()?);
    let argument = specifiers(&words::rest(&mut chars))?;
    // `!` is at boot alone, which a start is; `-` and `=` say what to do with what is in the way.
    let kind = kind.replace(['!', '-', '='], "");
    let (what, usual) = match kind.as_str() {
        "d" | "D" | "v" | "q" | "Q" => (Wanted::Directory, 0o755),
        "f" | "f+" | "F" => {
            let anew = kind != "f";
            let content = argument;
            (Wanted::File { content, anew }, 0o644)
        }
        "L" | "L+" => {
            let anew = kind == "L+";
            let target = match argument.as_str() {
                "" => format!("/usr/share/factory{path}"),
                given => given.to_owned(),
            };
            (Wanted::Link { target, anew }, 0o777)
        }
        "r" if !path.contains(['*', '?', '[']) => (Wanted::Nothing, 0),
        _ => return Ok(None),
    };
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") || path.contains('\0') {
        return Err("its path is not absolute".to_owned());
    }
    let mode = match mode
        .as_deref()
        .map(|text| text.trim_start_matches(['~', ':']))
    {
        None => usual,
        Some(text) => u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| format!("its mode {text} is none"))?,
    };
    let name = |text: Option<String>| text.map(|text| text.trim_start_matches(':').to_owned());
    Ok(Some(Tmpfile {
        // As systemd itself does: the older name of the same.
        path: match path.strip_prefix("/var/run/") {
            Some(below) => format!("/run/{below}"),
            None => path,
        },
        what,
        mode,
        user: name(user),
        group: name(group),
    }))
}

/// Those that mean the same in every box.
fn specifiers(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(letter) => {
                let text = words::specifier(letter);
                out.push_str(text.ok_or_else(|| format!("the specifier %{letter} is not known"))?);
            }
            None => return Err("a lone % ends it".to_owned()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Tmpfile {
        let parsed = tmpfiles(line);
        assert_eq!((&parsed.warnings, &parsed.not_applied), (&vec![], &vec![]));
        parsed.value.into_iter().next().unwrap()
    }

    #[test]
    fn lines_of_debians_packages() {
        let postgresql = one("d /run/postgresql 2775 postgres postgres - -");
        assert_eq!(postgresql.what, Wanted::Directory);
        assert_eq!(
            (postgresql.path.as_str(), postgresql.mode),
            ("/run/postgresql", 0o2775)
        );
        assert_eq!(postgresql.user.as_deref(), Some("postgres"));
        let screen = one("d /var/run/screen 0775 root utmp");
        assert_eq!(screen.path, "/run/screen");
        assert_eq!(one("D! %t/x - - - -").mode, 0o755);
        assert_eq!(
            one("f+ /run/motd 0600 - - - two  words\\n").what,
            Wanted::File {
                content: "two  words\n".into(),
                anew: true
            }
        );
        assert_eq!(
            one("L /etc/x").what,
            Wanted::Link {
                target: "/usr/share/factory/etc/x".into(),
                anew: false
            }
        );
        assert_eq!(one("r! /run/stale.pid").what, Wanted::Nothing);
    }

    #[test]
    fn what_is_not_done_is_told() {
        let text =
            "# c\n\nz /run/x 0644\nr /run/*.pid\nd relative\nd /a/../b\nd /x 99\nd %Z\nd\nd \"x\n";
        let parsed = tmpfiles(text);
        assert_eq!(parsed.value, []);
        assert_eq!(parsed.not_applied, ["z /run/x 0644", "r /run/*.pid"]);
        assert_eq!(parsed.warnings.len(), 6, "{:?}", parsed.warnings);
    }
}
