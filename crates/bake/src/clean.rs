//! What packages and tools leave behind that differs from build to build, says who built
//! it, or serves nobody: removed or put right in a layer before its bytes are taken.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::FileTypeExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::{
    error::{Error, Result},
    sandbox,
};

enum Action {
    /// The files below the directory; directories stay, packages own them.
    EmptyDirectory,
    Remove,
    /// The file stays, without content.
    Truncate,
    /// shadow(5): the day of the last password change becomes the epoch's.
    ShadowDays,
    /// The files below the directory lose the lines that crontab(1) puts on top.
    CrontabHeads,
}
use Action::*;

/// Path below the layer's root, what happens, why.
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
        "var/cache/ldconfig",
        EmptyDirectory,
        "inode numbers and times; ldconfig makes it again",
    ),
    (
        "var/cache/man",
        EmptyDirectory,
        "an index of manuals that are not there",
    ),
    ("root/.cache", Remove, "download caches"),
    ("root/.ansible", Remove, "Ansible's temporary files"),
    ("root/.bash_history", Remove, "what somebody typed"),
    ("root/.wget-hsts", Remove, "holds times"),
    ("var/lib/dpkg/status-old", Remove, "dpkg's backups"),
    ("var/lib/dpkg/diversions-old", Remove, "dpkg's backups"),
    ("var/lib/dpkg/statoverride-old", Remove, "dpkg's backups"),
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
        "etc/ssh/ssh_host_rsa_key",
        Remove,
        "a key that everybody would share",
    ),
    (
        "etc/ssh/ssh_host_ecdsa_key",
        Remove,
        "a key that everybody would share",
    ),
    (
        "etc/ssh/ssh_host_ed25519_key",
        Remove,
        "a key that everybody would share",
    ),
    (
        "etc/ssh/ssh_host_rsa_key.pub",
        Remove,
        "belongs to a removed key",
    ),
    (
        "etc/ssh/ssh_host_ecdsa_key.pub",
        Remove,
        "belongs to a removed key",
    ),
    (
        "etc/ssh/ssh_host_ed25519_key.pub",
        Remove,
        "belongs to a removed key",
    ),
    ("tmp", EmptyDirectory, "temporary"),
    ("var/tmp", EmptyDirectory, "temporary"),
    ("run", EmptyDirectory, "made by a running system"),
];

/// Applies the table to a layer's own files; what lies in layers below is not looked at.
///
/// A layer may have a link anywhere (`var` to `/var`), of whoever made the base: links on the
/// way resolve inside the layer, never on this machine.
pub fn clean(root: &Path, epoch: u64) -> Result<()> {
    let top = File::open(root).map_err(Error::io("open", root))?;
    for (path, action, _) in TABLE {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(parent) = sandbox::open_in(top.as_fd(), parent, flags) else {
            continue;
        };
        // The directory that was opened, whatever leads to it.
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", parent.as_raw_fd()));
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        // An overlay's whiteout says that a file below was removed: that stays.
        if found.file_type().is_char_device() || found.is_symlink() {
            continue;
        }
        match action {
            EmptyDirectory if found.is_dir() => empty(&path)?,
            Remove if found.is_dir() => {
                fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?
            }
            Remove => fs::remove_file(&path).map_err(Error::io("remove", &path))?,
            Truncate if found.is_file() => {
                File::create(&path).map_err(Error::io("write", &path))?;
            }
            ShadowDays if found.is_file() => {
                let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
                fs::write(&path, shadow_days(&text, epoch / 86_400))
                    .map_err(Error::io("write", &path))?;
            }
            CrontabHeads if found.is_dir() => {
                for entry in fs::read_dir(&path)
                    .map_err(Error::io("read", &path))?
                    .flatten()
                {
                    if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                        crontab(&entry.path())?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
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

fn empty(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))?.flatten() {
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("look at", &path))?;
        if kind.is_dir() {
            empty(&path)?;
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
        let jobs = "# mine\n5 * * * * true\n";
        let head = "# DO NOT EDIT THIS FILE - edit the master and reinstall.\n# (/tmp/x installed on Sat Nov 21 17:21:11 2026)\n# (Cron version -- $Id$)\n";
        fs::write(&path, format!("{head}{jobs}")).unwrap();
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
