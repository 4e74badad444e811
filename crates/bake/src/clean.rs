//! What packages and tools leave behind that differs from build to build, says who built
//! it, or serves nobody: removed or put right in a layer before its bytes are taken.

use std::{
    fs::{self, File},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use crate::error::{Error, Result};

enum Action {
    /// The files below the directory; directories stay, packages own them.
    EmptyDirectory,
    Remove,
    /// The file stays, without content.
    Truncate,
    /// shadow(5): the day of the last password change becomes the epoch's.
    ShadowDays,
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
pub fn clean(root: &Path, epoch: u64) -> Result<()> {
    for (path, action, _) in TABLE {
        let path = root.join(path);
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
            _ => {}
        }
    }
    Ok(())
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
