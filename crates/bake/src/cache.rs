//! Baked layers, kept under the hash of all that they were made from.
//!
//! ```text
//! CACHE/layers/KEY/tree/        the layer's files (an overlay's upper directory)
//! CACHE/layers/KEY/record.json  what Ansible did in it
//! CACHE/blobs/                  compressed layers, by digest
//! CACHE/downloads/{apt,pip}/    packages
//! CACHE/work/PID-TIME/          a build that is running, or was killed
//! ```
//!
//! A layer appears under `layers/` by one rename, so it is there whole or not at all.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

pub struct Cache {
    root: PathBuf,
}

/// A build's own directory, removed when the build ends, however it ends.
pub struct Work {
    pub path: PathBuf,
    _lock: File,
}

impl Cache {
    pub fn open(root: &Path) -> Result<Cache> {
        for name in ["layers", "blobs", "downloads", "work"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(Error::io("make", &path))?;
        }
        let root = root.canonicalize().map_err(Error::io("open", root))?;
        Ok(Cache { root })
    }

    pub fn layer(&self, key: &str) -> PathBuf {
        self.root.join("layers").join(key)
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    pub fn memo(&self, key: &str) -> PathBuf {
        self.root.join("layers").join(format!("{key}.json"))
    }

    /// A fresh directory to build in; what killed builds have left is removed first.
    pub fn work(&self) -> Result<Work> {
        let parent = self.root.join("work");
        // One build at a time looks for leftovers or makes its own, so that none takes a
        // directory whose lock is about to be taken for an abandoned one.
        let gate_path = self.root.join("work.lock");
        let gate = File::create(&gate_path).map_err(Error::io("make", &gate_path))?;
        flock(&gate, FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", &gate_path)(e.into()))?;
        for entry in fs::read_dir(&parent)
            .map_err(Error::io("read", &parent))?
            .flatten()
        {
            let lock = entry.path().join("lock");
            let held = File::open(&lock)
                .is_ok_and(|f| flock(&f, FlockOperation::NonBlockingLockExclusive).is_err());
            if !held {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        // Builds in containers that share a cache may have one process ID.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let name = format!(
            "{}-{}",
            std::process::id(),
            now.unwrap_or_default().as_nanos()
        );
        let path = parent.join(name);
        fs::create_dir(&path).map_err(Error::io("make", &path))?;
        let lock = path.join("lock");
        let file = File::create(&lock).map_err(Error::io("make", &lock))?;
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", &lock)(e.into()))?;
        Ok(Work { path, _lock: file })
    }

    /// Moves a finished layer to its place. Another build may have been first: its layer stays.
    pub fn keep(&self, made: &Path, key: &str) -> Result<PathBuf> {
        let place = self.layer(key);
        match fs::rename(made, &place) {
            Ok(()) => Ok(place),
            Err(_) if place.join("record.json").exists() => Ok(place),
            Err(e) => Err(Error::io("keep", place)(e)),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

pub fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if n == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..n]);
    }
}

/// Never input of a layer, wherever they lie.
const IGNORED: [&str; 2] = [".git", "__pycache__"];
/// Where builds put what they make, directly beside a recipe. Deeper, such a name may well
/// be what a role copies.
const IGNORED_ON_TOP: [&str; 3] = ["dist", "target", ".tiffin-cache"];

/// Hashes names, permissions and content below `root`, in byte order and never times;
/// directories in `without` are passed over.
pub fn hash_tree(root: &Path, without: &BTreeSet<PathBuf>) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let on_top = path.parent() == Some(root) && IGNORED_ON_TOP.contains(&&*name);
        let ignored = IGNORED.contains(&&*name) || name.ends_with(".pyc") || on_top;
        if without.contains(&path) || (path != root && ignored) {
            continue;
        }
        let found = fs::symlink_metadata(&path).map_err(Error::io("look at", &path))?;
        let shown = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
        hasher.update(shown.as_bytes());
        hasher.update([0]);
        if found.is_symlink() {
            let target = fs::read_link(&path).map_err(Error::io("read", &path))?;
            hasher.update(target.to_string_lossy().as_bytes());
            // What it leads to may lie outside, and is read through it.
            if path.is_file() {
                hasher.update(hash_file(&path)?);
            }
        } else if found.is_dir() {
            let mut entries: Vec<PathBuf> = fs::read_dir(&path)
                .map_err(Error::io("read", &path))?
                .flatten()
                .map(|e| e.path())
                .collect();
            entries.sort();
            stack.extend(entries.into_iter().rev());
        } else if found.is_file() {
            hasher.update((found.permissions().mode() & 0o777).to_le_bytes());
            hasher.update(hash_file(&path)?);
        }
        hasher.update([0]);
    }
    Ok(hex(&hasher.finalize()))
}
