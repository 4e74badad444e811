//! The box's file system, seen from `root`: `/` in a box, a directory in tests.
//!
//! Every path of the contract and of the units goes through [`Root::path`], and every
//! error names the path it is about.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use crate::exit::{Code, Failure, Result};

#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    /// Texts that are read as if they were there, by [`Root::path`].
    overlay: std::sync::Arc<BTreeMap<PathBuf, String>>,
}

/// Owner and permission bits of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owned {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl Root {
    /// One with these files, which ends with the directory.
    #[cfg(test)]
    pub fn made(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::new(dir.path());
        (dir, root)
    }

    pub fn new(path: impl Into<PathBuf>) -> Self {
        Root {
            path: path.into(),
            overlay: Default::default(),
        }
    }

    /// The same file system, read as it will be when these files are written.
    pub fn with<'t>(&self, texts: impl Iterator<Item = (&'t str, &'t str)>) -> Root {
        let overlay = texts
            .map(|(path, text)| (self.path(path), text.to_owned()))
            .collect();
        Root {
            path: self.path.clone(),
            overlay: std::sync::Arc::new(overlay),
        }
    }

    pub fn is_file(&self, path: &str) -> bool {
        let path = self.path(path);
        self.overlay.contains_key(&path) || path.is_file()
    }

    /// `path` below the root. `..` is dropped, so that nothing escapes.
    pub fn path(&self, path: &str) -> PathBuf {
        let mut out = self.path.clone();
        for component in Path::new(path).components() {
            if let Component::Normal(part) = component {
                out.push(part);
            }
        }
        out
    }

    /// The text of a file; `None` when it does not exist.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        if let Some(text) = self.overlay.get(&self.path(path)) {
            return Ok(Some(text.clone()));
        }
        match fs::read(self.path(path)) {
            Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| {
                Failure::new(
                    Code::Config,
                    format!("cannot read {path}: it is not UTF-8 text"),
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(
                Code::Internal,
                format!("cannot read {path}: {error}"),
            )),
        }
    }

    /// Names in a directory, sorted; empty when there is none.
    pub fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(path))
            .map(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .collect()
            })
            .unwrap_or_default();
        let directory = self.path(path);
        let overlaid = self
            .overlay
            .keys()
            .filter(|path| path.parent() == Some(&directory));
        names.extend(overlaid.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)));
        names.sort();
        names.dedup();
        names
    }

    /// Where a path leads, its last component's links followed as seen from this root, also
    /// when there is nothing yet: links of the image lead into memory that is empty at first.
    pub fn landing(&self, path: &str) -> PathBuf {
        let mut full = self.path(path);
        for _ in 0..8 {
            let Ok(target) = fs::read_link(&full) else {
                break;
            };
            full = match target.to_str() {
                Some(absolute) if target.is_absolute() => self.path(absolute),
                _ => crate::runtime::lexical(&full.parent().unwrap_or(Path::new("/")).join(target)),
            };
        }
        full
    }

    /// Makes a directory with exactly this owner and mode; parents are made 0755. Of one
    /// that exists the owner is put right, and nothing below it is looked at.
    pub fn directory(&self, path: &str, owned: Owned) -> Result<()> {
        let full = self.landing(path);
        let fail = |error: io::Error| cannot_create("the directory", path, &error);
        match fs::metadata(&full) {
            Ok(found) if found.is_dir() => {
                match chown(&full, owned) {
                    // Whoever needs another owner finds out; most do not.
                    Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
                    other => other.map_err(fail),
                }
            }
            Ok(_) => Err(Failure::new(
                Code::CannotCreate,
                format!("cannot create the directory {path}: there is a file of that name"),
            )),
            Err(_) => {
                if let Some((parent, _)) = path.rsplit_once('/') {
                    fs::create_dir_all(self.landing(parent)).map_err(fail)?;
                }
                if let Some(parent) = full.parent() {
                    fs::create_dir_all(parent).map_err(fail)?;
                }
                fs::create_dir(&full).map_err(fail)?;
                fs::set_permissions(&full, fs::Permissions::from_mode(owned.mode)).map_err(fail)?;
                chown(&full, owned).map_err(fail)
            }
        }
    }

    /// Replaces a file: readers see the old one or the new one, also after a power cut.
    pub fn replace(&self, path: &str, content: &[u8], owned: Owned) -> io::Result<()> {
        self.put(path, content, owned, true)
    }

    /// The same for what every start makes anew: after a power cut it may be empty, and the disk
    /// is not waited for.
    pub fn render(&self, path: &str, content: &[u8], owned: Owned) -> io::Result<()> {
        self.put(path, content, owned, false)
    }

    fn put(&self, path: &str, content: &[u8], owned: Owned, lasting: bool) -> io::Result<()> {
        let full = self.path(path);
        let parent = full.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        let name = full.file_name().unwrap_or_default().to_string_lossy();
        let temporary = parent.join(format!(".{name}.tiffin-{}", std::process::id()));
        let write = || -> io::Result<()> {
            let _ = fs::remove_file(&temporary);
            // Nobody else may read it before it has its owner and mode.
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(content)?;
            fchown(&file, owned)?;
            // After chown, which clears setuid and setgid bits.
            file.set_permissions(fs::Permissions::from_mode(owned.mode))?;
            if !lasting {
                return fs::rename(&temporary, &full);
            }
            file.sync_all()?;
            fs::rename(&temporary, &full)?;
            File::open(parent)?.sync_all()
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })
    }

    /// Content and owner of a file, when it can be read.
    pub fn current(&self, path: &str) -> Option<(Vec<u8>, Owned)> {
        let mut file = File::open(self.path(path)).ok()?;
        let meta = file.metadata().ok()?;
        let mut content = Vec::new();
        file.read_to_end(&mut content).ok()?;
        let owned = Owned {
            uid: meta.uid(),
            gid: meta.gid(),
            mode: meta.mode() & 0o7777,
        };
        Some((content, owned))
    }
}

/// The failure for something that could not be made, with what usually helps. No hint
/// gives a path of its own to `--tmpfs`: an empty `/etc` or volume is worse than an error.
pub fn cannot_create(what: &str, path: &str, error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    let failure = Failure::new(
        Code::CannotCreate,
        format!("cannot create {what} {path}: {error}"),
    );
    match error.kind() {
        Kind::ReadOnlyFilesystem if path.starts_with("/run/") => {
            failure.hint("the root is read-only: add --tmpfs /run")
        }
        Kind::ReadOnlyFilesystem if path.contains("/.tiffin") => failure
            .hint("the volume is mounted read-only: mount it without `:ro` or `readonly`"),
        Kind::ReadOnlyFilesystem => failure
            .hint("the root is read-only and this is on no volume: run without --read-only"),
        Kind::StorageFull => failure.hint("the disk is full: make room on the volume"),
        Kind::PermissionDenied => failure.hint(format!(
            "the container runs as {}, who may not write there: give the volume to that user, or run as root",
            crate::sys::who()
        )),
        _ => failure,
    }
}

/// Changes the owner where the container lets us; elsewhere it is what it is.
fn chown(path: &Path, owned: Owned) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.uid() == owned.uid && found.gid() == owned.gid {
        return Ok(());
    }
    match std::os::unix::fs::chown(path, Some(owned.uid), Some(owned.gid)) {
        Err(_) if !crate::sys::may_own(owned.uid, owned.gid) => Ok(()),
        other => other,
    }
}

fn fchown(file: &File, owned: Owned) -> io::Result<()> {
    match std::os::unix::fs::fchown(file, Some(owned.uid), Some(owned.gid)) {
        Err(_) if !crate::sys::may_own(owned.uid, owned.gid) => Ok(()),
        other => other,
    }
}

/// Permission bits in octal, as the contract writes them.
pub fn mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_the_root() {
        let root = Root::new("/srv");
        assert_eq!(
            root.path("/a/../../../etc/passwd"),
            Path::new("/srv/a/etc/passwd")
        );
        assert_eq!(root.path("//a/./b"), Path::new("/srv/a/b"));
    }

    #[test]
    fn a_replaced_file_is_whole_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let meta = fs::metadata(dir.path()).unwrap();
        let owned = Owned {
            uid: meta.uid(),
            gid: meta.gid(),
            mode: 0o640,
        };
        root.replace("/etc/x", b"one", owned).unwrap();
        root.replace("/etc/x", b"two", owned).unwrap();
        assert_eq!(root.current("/etc/x"), Some((b"two".to_vec(), owned)));
        assert_eq!(root.names("/etc"), ["x"]);
    }
}
