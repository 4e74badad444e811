//! What apt and pip have fetched, kept for later builds, each file with a digest.
//!
//! ```text
//! CACHE/downloads/digests/apt/NAME.deb.json   of CACHE/downloads/apt/NAME.deb
//! ```
//!
//! apt compares no more than the size of a package that it finds on the disk, and an offline
//! build has nobody else to ask. pip's own cache and apt's lists are rewritten in place by
//! these programs, so there a file that was written since its digest was noted is a new one.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    cache,
    error::{Error, Result},
    sealed,
};

/// Where the digests lie, below the downloads.
pub const DIGESTS: &str = "digests";
/// Their names say what is in them, always.
const NAMED: [&str; 3] = ["deb", "whl", "gz"];

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    sha256: String,
    size: u64,
    /// Seconds and nanoseconds since 1970.
    written: (i64, i64),
}

/// A download that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    pub path: PathBuf,
    /// Its sha256 now.
    pub found: String,
}

/// Every file below `downloads` that a program has fetched.
fn files(downloads: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut stack = vec![downloads.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = entry.path();
            match entry.file_type() {
                // Not what is half fetched, and what is of this module.
                Ok(kind)
                    if kind.is_dir() && (name == "partial" || path == downloads.join(DIGESTS)) => {}
                Ok(kind) if kind.is_dir() => stack.push(path),
                Ok(kind) if kind.is_file() => {
                    let lock = name == "lock" || name.ends_with(".lock");
                    let whole = entry.metadata().is_ok_and(|found| found.len() > 0);
                    if whole && !lock && !name.starts_with('.') {
                        found.push(path);
                    }
                }
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Where the digest of a download lies.
pub fn note(downloads: &Path, file: &Path) -> PathBuf {
    let below = file.strip_prefix(downloads).unwrap_or(file);
    let mut name = downloads.join(DIGESTS).join(below).into_os_string();
    name.push(".json");
    name.into()
}

fn noted(downloads: &Path, file: &Path) -> Option<Noted> {
    sealed::value(&note(downloads, file)).ok()?
}

fn stat(file: &Path) -> Option<(u64, (i64, i64))> {
    let found = fs::metadata(file).ok()?;
    Some((found.len(), (found.mtime(), found.mtime_nsec())))
}

/// Notes the digests of what was fetched since.
pub fn seal(downloads: &Path) -> Result<()> {
    for file in files(downloads) {
        let Some((size, written)) = stat(&file) else {
            continue;
        };
        let before = noted(downloads, &file);
        if before.is_some_and(|noted| (noted.size, noted.written) == (size, written)) {
            continue;
        }
        let sha256 = match cache::hash_file(&file) {
            Ok(sha256) => sha256,
            // A prune has taken it.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            Err(other) => return Err(other),
        };
        let path = note(downloads, &file);
        let dir = path.parent().expect("it lies below the downloads");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let fresh = dir.join(format!(".{}-{name}", std::process::id()));
        let text = sealed::of(&Noted {
            sha256,
            size,
            written,
        })
        .expect("words are JSON");
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(&fresh, text))
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// What is not what was noted. While `busy`, programs may be writing their own caches.
pub fn damaged(downloads: &Path, busy: bool) -> Result<Vec<Damaged>> {
    let mut damaged = Vec::new();
    for path in files(downloads) {
        let (Some(noted), Some(now)) = (noted(downloads, &path), stat(&path)) else {
            continue;
        };
        let named = path
            .extension()
            .is_some_and(|end| NAMED.iter().any(|n| end == *n));
        if busy && !named && (noted.size, noted.written) != now {
            continue;
        }
        let found = match cache::hash_file(&path) {
            Ok(found) => found,
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            Err(other) => return Err(other),
        };
        if found != noted.sha256 {
            damaged.push(Damaged { path, found });
        }
    }
    Ok(damaged)
}

/// Before anything is taken from the downloads: what is damaged is removed, to be fetched
/// again, and is the answer. Without a network it is an error.
pub fn check(downloads: &Path, offline: bool) -> Result<Vec<Damaged>> {
    let damaged = damaged(downloads, true)?;
    for Damaged { path, found } in &damaged {
        if offline {
            return Err(Error::Download {
                path: path.clone(),
                found: found.clone(),
            });
        }
        let _ = fs::remove_file(path);
        // Lists that lack one are not fresh.
        if let Some(dir) = path
            .parent()
            .filter(|dir| dir.parent().is_some_and(|d| d.ends_with("lists")))
        {
            let _ = fs::remove_file(dir.with_extension("fetched"));
        }
    }
    Ok(damaged)
}
