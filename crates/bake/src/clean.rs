//! What packages and tools leave behind that differs from build to build, says who built
//! it, or serves nobody: removed or put right in a layer before its bytes are taken.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{ffi::OsStrExt, fs::FileTypeExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::{
    error::{Error, Result},
    sandbox,
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    /// The files below the directory; directories stay, packages own them.
    EmptyDirectory,
    /// All that is below the directory.
    EmptyWholly,
    Remove,
    /// The file stays, without content.
    Truncate,
    /// shadow(5): the day of the last password change becomes the epoch's.
    ShadowDays,
    /// The files below the directory lose the lines that crontab(1) puts on top.
    CrontabHeads,
    /// Bytecode that holds a time after the epoch (PEP 552) goes, wherever it is.
    LateBytecode,
}
use Action::*;

/// Path below the layer's root, what happens, why. A `*` in the last part is any text.
///
/// The crate's README has the same table, for people.
const TABLE: &[(&str, Action, &str)] = &[
    (
        "var/log",
        EmptyDirectory,
        "logs of the build hold its times",
    ),
    (
        "var/cache/apt",
        EmptyDirectory,
        "apt's indexes of the build's mirrors",
    ),
    (
        "var/lib/apt/lists",
        EmptyDirectory,
        "package lists of the build's mirrors",
    ),
    (
        "var/cache/debconf",
        EmptyDirectory,
        "debconf's database and its backups hold times",
    ),
    (
        "var/cache/dnf",
        EmptyDirectory,
        "package lists and packages of the build's mirrors",
    ),
    (
        "var/cache/yum",
        EmptyDirectory,
        "package lists and packages of the build's mirrors",
    ),
    (
        "var/cache/ldconfig",
        EmptyDirectory,
        "inode numbers and times; ldconfig makes it again",
    ),
    (
        "var/cache/man",
        EmptyDirectory,
        "an index of manuals that are not there",
    ),
    (
        "**/__pycache__/*.pyc",
        LateBytecode,
        "holds its source's time, which the box clamps: Python would not use it",
    ),
    ("root/.cache", Remove, "download caches"),
    ("root/.ansible", Remove, "Ansible's temporary files"),
    ("root/.*history", Remove, "what somebody typed"),
    ("root/.wget-hsts", Remove, "holds times"),
    ("var/lib/dpkg/*-old", Remove, "dpkg's backups"),
    (
        "var/lib/dnf/history*",
        Remove,
        "when dnf installed what, by whom; dnf begins another",
    ),
    (
        "var/lib/rpm/__db.*",
        Remove,
        "memory that runs of rpm shared; rpm makes it again",
    ),
    (
        "var/lib/rpm/*-shm",
        Remove,
        "memory that runs of rpm shared; rpm makes it again",
    ),
    (
        "usr/lib/sysimage/rpm/*-shm",
        Remove,
        "memory that runs of rpm shared; rpm makes it again",
    ),
    ("etc/passwd-", Remove, "backups of shadow-utils"),
    ("etc/group-", Remove, "backups of shadow-utils"),
    ("etc/shadow-", Remove, "backups of shadow-utils"),
    ("etc/gshadow-", Remove, "backups of shadow-utils"),
    ("etc/subuid-", Remove, "backups of shadow-utils"),
    ("etc/subgid-", Remove, "backups of shadow-utils"),
    (
        "etc/shadow",
        ShadowDays,
        "the day on which an account was made",
    ),
    (
        "var/spool/cron/crontabs",
        CrontabHeads,
        "when and from which file it was installed",
    ),
    ("etc/machine-id", Truncate, "identity of one machine"),
    ("var/lib/dbus/machine-id", Remove, "identity of one machine"),
    (
        "var/lib/systemd/random-seed",
        Remove,
        "a seed that everybody would share",
    ),
    (
        "var/lib/systemd/credential.secret",
        Remove,
        "a key that everybody would share",
    ),
    (
        "etc/ssh/ssh_host_*_key",
        Remove,
        "a key that everybody would share",
    ),
    (
        "etc/ssh/ssh_host_*_key.pub",
        Remove,
        "belongs to a removed key",
    ),
    ("tmp", EmptyWholly, "temporary"),
    ("var/tmp", EmptyWholly, "temporary"),
    ("run", EmptyDirectory, "made by a running system"),
];

/// What all that runs in a bake is told, so that it leaves nothing that differs: variable,
/// value (`None` is the epoch), why.
pub const TOLD: &[(&str, Option<&str>, &str)] = &[
    (
        "SOURCE_DATE_EPOCH",
        None,
        "bytecode is then checked by content and holds no time, and many tools stop writing the time of day",
    ),
    (
        "PYTHONHASHSEED",
        Some("0"),
        "sets have the same order each time",
    ),
];

/// Applies the table to a layer's own files; what lies in layers below is not looked at.
///
/// A layer may have a link anywhere (`var` to `/var`), of whoever made the base: links on the
/// way resolve inside the layer, never on this machine.
pub fn clean(root: &Path, epoch: u64) -> Result<()> {
    let top = File::open(root).map_err(Error::io("open", root))?;
    for (path, action, _) in TABLE {
        if *action == LateBytecode {
            bytecode(root, epoch)?;
            continue;
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(parent) = sandbox::open_in(top.as_fd(), parent, flags) else {
            continue;
        };
        // The directory that was opened, whatever leads to it.
        let dir = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
        for path in named(&dir, name)? {
            apply(*action, &path, epoch)?;
        }
    }
    Ok(())
}

/// What a row's last part names in its directory, whether it is there or not.
fn named(dir: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let Some((start, end)) = name.split_once('*') else {
        return Ok(vec![dir.join(name)]);
    };
    let (start, end) = (start.as_bytes(), end.as_bytes());
    let entries = fs::read_dir(dir).map_err(Error::io("read", dir))?.flatten();
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_bytes();
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    };
    Ok(entries.map(|entry| entry.path()).filter(fits).collect())
}

fn apply(action: Action, path: &Path, epoch: u64) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    // An overlay's whiteout says that a file below was removed: that stays.
    if found.file_type().is_char_device() || found.is_symlink() {
        return Ok(());
    }
    match action {
        EmptyDirectory | EmptyWholly if found.is_dir() => empty(path, action == EmptyWholly)?,
        Remove if found.is_dir() => fs::remove_dir_all(path).map_err(Error::io("remove", path))?,
        Remove => fs::remove_file(path).map_err(Error::io("remove", path))?,
        Truncate if found.is_file() => {
            File::create(path).map_err(Error::io("write", path))?;
        }
        ShadowDays if found.is_file() => {
            let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
            fs::write(path, shadow_days(&text, epoch / 86_400))
                .map_err(Error::io("write", path))?;
        }
        CrontabHeads if found.is_dir() => {
            for entry in fs::read_dir(path)
                .map_err(Error::io("read", path))?
                .flatten()
            {
                if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    crontab(&entry.path())?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Looks through all of a layer, and follows no link. Bytecode without a source beside it is a
/// program itself, and lies in no `__pycache__`.
fn bytecode(dir: &Path, epoch: u64) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))?.flatten() {
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("look at", &path))?;
        if kind.is_dir() {
            bytecode(&path, epoch)?;
        } else if kind.is_file()
            && dir.ends_with("__pycache__")
            && path.extension().is_some_and(|end| end == "pyc")
            && late(&path, epoch)?
        {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// PEP 552: four bytes of magic, four of flags, and where these are zero the source's time.
fn late(path: &Path, epoch: u64) -> Result<bool> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(12).read_to_end(&mut head))
        .map_err(Error::io("read", path))?;
    Ok(match head[..] {
        [_, _, _, _, 0, 0, 0, 0, a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])) > epoch,
        _ => false,
    })
}

/// Written in place: its owner and mode are what cron insists on.
fn crontab(path: &Path) -> Result<()> {
    const HEADS: [&[u8]; 3] = [b"# DO NOT EDIT THIS FILE", b"# (", b"# (Cron version"];
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let mut rest = &text[..];
    for head in HEADS.iter().filter(|_| text.starts_with(HEADS[0])) {
        if rest.starts_with(head) {
            let end = rest.iter().position(|byte| *byte == b'\n');
            rest = &rest[end.map_or(rest.len(), |at| at + 1)..];
        }
    }
    match rest.len() == text.len() {
        true => Ok(()),
        false => fs::write(path, rest).map_err(Error::io("write", path)),
    }
}

fn empty(dir: &Path, wholly: bool) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))?.flatten() {
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("look at", &path))?;
        if kind.is_dir() {
            empty(&path, wholly)?;
            if wholly {
                // A whiteout may keep it.
                let _ = fs::remove_dir(&path);
            }
        } else if !kind.is_char_device() {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn shadow_days(text: &str, day: u64) -> String {
    let lines = text.lines().map(|line| {
        let mut fields: Vec<&str> = line.split(':').collect();
        let day = day.to_string();
        if fields.len() > 2 && !fields[2].is_empty() && fields[2] != "0" {
            fields[2] = &day;
        }
        fields.join(":") + "\n"
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_735_689_600;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    /// A crontab as crontab(1) installs it, and what of it is the user's.
    fn installed() -> (String, &'static str) {
        let jobs = "# mine\n5 * * * * true\n";
        let head = "# DO NOT EDIT THIS FILE - edit the master and reinstall.\n# (/tmp/x installed on Sat Nov 21 17:21:11 2026)\n# (Cron version -- $Id$)\n";
        (format!("{head}{jobs}"), jobs)
    }

    /// Each row in a layer of its own: what it names is made and cleaned; what lies beside it stays.
    #[test]
    fn each_row_does_what_it_says() {
        use std::os::unix::fs::PermissionsExt;

        let mut seen = std::collections::BTreeSet::new();
        for (pattern, action, why) in TABLE {
            assert!(
                seen.insert(pattern) && !why.is_empty(),
                "{pattern} stands there once, with a reason"
            );
            let place = tempfile::tempdir().unwrap();
            let root = place.path();
            let path = root.join(pattern.replace("**", "opt/app").replace('*', "any"));
            let make = |path: &Path, content: &[u8]| {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
            };
            let neighbour = path.with_file_name("neighbour");
            make(&neighbour, b"stays");
            let inside = [path.join("file"), path.join("sub/file")];
            let clean = || clean(root, EPOCH).unwrap();
            match action {
                EmptyDirectory | EmptyWholly => {
                    inside.iter().for_each(|file| make(file, b"gone"));
                    clean();
                    assert!(!inside[0].exists() && !inside[1].exists(), "{pattern}");
                    assert!(path.is_dir(), "{pattern}");
                    let sub = path.join("sub").exists();
                    assert_eq!(sub, *action == EmptyDirectory, "{pattern}");
                }
                Remove => {
                    make(&path, b"gone");
                    clean();
                    assert!(!path.exists(), "{pattern}");
                    inside.iter().for_each(|file| make(file, b"gone"));
                    clean();
                    assert!(!path.exists(), "{pattern}");
                }
                Truncate => {
                    make(&path, b"gone");
                    clean();
                    assert_eq!(text(&path), "", "{pattern}");
                }
                ShadowDays => {
                    make(&path, b"app:!:20781:0:99999:7:::\n");
                    clean();
                    assert_eq!(text(&path), "app:!:20089:0:99999:7:::\n");
                }
                CrontabHeads => {
                    let (whole, jobs) = installed();
                    make(&path.join("app"), whole.as_bytes());
                    clean();
                    assert_eq!(text(&path.join("app")), jobs);
                }
                LateBytecode => {
                    let head = |flags: u32, time: u64| {
                        let parts = [0xa70d_0d0a, flags, time as u32, 7];
                        parts.map(u32::to_le_bytes).concat()
                    };
                    // In time, by content, no program, and not in that directory.
                    let stay = [
                        (path.with_file_name("old.pyc"), head(0, EPOCH)),
                        (path.with_file_name("hash.pyc"), head(3, EPOCH + 1)),
                        (path.with_file_name("short.pyc"), vec![0; 9]),
                        (root.join("opt/app/alone.pyc"), head(0, EPOCH + 1)),
                    ];
                    make(&path, &head(0, EPOCH + 1));
                    stay.iter().for_each(|(path, bytes)| make(path, bytes));
                    clean();
                    assert!(!path.exists(), "{pattern}");
                    for (path, _) in stay {
                        assert!(path.exists(), "{}", path.display());
                    }
                }
            }
            assert_eq!(text(&neighbour), "stays", "beside {pattern}");
            if path.is_file() {
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o640, "{pattern}");
            }
            // What a layer removed from those below stays removed; a link is no such thing.
            let link = root.join("link");
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir_all(&path);
            if fs::create_dir_all(path.parent().unwrap()).is_ok() && !pattern.starts_with("**") {
                std::os::unix::fs::symlink(&link, &path).unwrap();
                clean();
                assert!(path.is_symlink() && !link.exists(), "{pattern}");
            }
        }
    }

    /// The table is for people too.
    #[test]
    fn the_readme_has_every_row() {
        let readme = include_str!("../README.md");
        let words = |action: &Action| match action {
            EmptyDirectory => "files below it removed",
            EmptyWholly => "all below it removed",
            Remove => "removed",
            Truncate => "emptied",
            ShadowDays => "set to the epoch's day",
            CrontabHeads => "crontab's head removed",
            LateBytecode => "removed when later than the epoch",
        };
        let rows = TABLE
            .iter()
            .map(|(path, action, why)| format!("| `/{path}` | {} | {why} |", words(action)));
        let told = TOLD.iter().map(|(name, value, why)| {
            format!("| `{name}` | {} | {why} |", value.unwrap_or("the epoch"))
        });
        let missing: Vec<String> = rows
            .chain(told)
            .filter(|line| !readme.lines().any(|found| found == line))
            .collect();
        assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
        let there = readme
            .lines()
            .filter(|line| line.starts_with("| `"))
            .count();
        assert_eq!(there, TABLE.len() + TOLD.len(), "and no other");
    }

    #[test]
    fn shadow_keeps_all_but_the_day() {
        assert_eq!(
            shadow_days("root:*:20000:0:99999:7:::\nx:!::\ny:!:0:\n", 5),
            "root:*:5:0:99999:7:::\nx:!::\ny:!:0:\n"
        );
    }

    /// As buildkit CVE-2024-23652, which removed files of the machine through a link.
    #[test]
    fn cve_2024_23652_a_link_on_the_way_leads_into_the_layer() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        for path in ["log", "lib/dpkg", "tmp", ".cache"] {
            fs::create_dir_all(outside.join(path)).unwrap();
            fs::write(outside.join(path).join("precious"), "precious").unwrap();
        }
        fs::write(outside.join("shadow"), "me:x:1:\n").unwrap();
        fs::write(outside.join("machine-id"), "mine").unwrap();
        let all = || {
            let out = std::process::Command::new("find").arg(&outside).output();
            let mut found = String::from_utf8(out.unwrap().stdout).unwrap();
            for name in ["shadow", "machine-id"] {
                found += &fs::read_to_string(outside.join(name)).unwrap();
            }
            found
        };
        let before = all();
        fs::create_dir_all(root.join("data/log")).unwrap();
        fs::write(root.join("data/log/build"), "x").unwrap();
        for to in [
            outside.as_path(),
            Path::new("../outside"),
            Path::new("data"),
        ] {
            for name in ["var", "root", "etc", "tmp", "run"] {
                let _ = fs::remove_file(root.join(name));
                std::os::unix::fs::symlink(to, root.join(name)).unwrap();
            }
            clean(&root, 0).unwrap();
            assert_eq!(all(), before, "{}", to.display());
        }
        assert!(
            !root.join("data/log/build").exists(),
            "the layer's own is cleaned"
        );
    }

    #[test]
    fn a_crontab_loses_what_crontab_says_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        let (whole, jobs) = installed();
        fs::write(&path, whole).unwrap();
        crontab(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), jobs);
        crontab(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), jobs);
    }

    #[test]
    fn directories_that_packages_own_stay() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("var/log/nginx")).unwrap();
        fs::write(dir.path().join("var/log/nginx/access.log"), "x").unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/machine-id"), "abc").unwrap();
        clean(dir.path(), 0).unwrap();
        assert!(dir.path().join("var/log/nginx").is_dir());
        assert!(!dir.path().join("var/log/nginx/access.log").exists());
        assert_eq!(fs::read(dir.path().join("etc/machine-id")).unwrap(), b"");
    }
}
