//! Baked layers, kept under the hash of all that they were made from.
//!
//! ```text
//! CACHE/layers/KEY/tree/        the layer's files (an overlay's upper directory)
//! CACHE/layers/KEY/record.json  what Ansible did in it (see [`crate::sealed`])
//! CACHE/layers/KEY/*.json       what was found out about it since: its blob, its packages
//! CACHE/known/BASIS/KEY.json    what runs of Ansible read, see [`Known`]
//! CACHE/blobs/                  compressed layers, by digest
//! CACHE/downloads/{apt,pip}/    packages, as apt and pip keep them
//! CACHE/downloads/wheels/       what pip had, as files, for builds without a network
//! CACHE/downloads/base/SUITE/   packages and lists of a base
//! CACHE/downloads/lists/SUITE/  apt's package lists
//! CACHE/downloads/digests/      of all of these, see [`crate::downloads`]
//! CACHE/work/PID-TIME/          a build that is running, or was killed
//! ```
//!
//! A layer appears under `layers/` by one rename, so it is there whole or not at all. Who
//! uses one holds a lock on its directory, so that nobody moves or removes it meanwhile;
//! however a build ends, its locks end with it.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{ErrorKind, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    downloads,
    error::{Error, Result},
    reads::Reads,
    sealed,
};

/// How many states of the inputs are remembered for one basis.
const KNOWN: usize = 8;
/// After this time what is known of a layer that is gone helps nobody.
const FORGOTTEN: Duration = Duration::from_secs(30 * 86_400);

pub struct Cache {
    root: PathBuf,
}

/// What a run of Ansible came to, and what it read on the way: when nothing of that has
/// changed, another run of the same basis (tags, variables, versions) would come to the same.
#[derive(Debug, Serialize, Deserialize)]
pub struct Known<T> {
    pub reads: Reads,
    pub value: T,
}

/// A layer in use: it stays where it is for as long as this lives.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

/// Something in the cache that can be removed alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// A file; of a layer, and of package lists, a directory.
    pub path: PathBuf,
    pub kind: Kind,
    /// On the disk.
    pub bytes: u64,
    pub used: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Layer,
    /// A compressed layer.
    Blob,
    /// A layer of a base, as a registry gave it.
    Pulled,
    /// A package.
    Download,
    /// Package lists of one release, which are of use together.
    Lists,
    /// What a run of Ansible read.
    Known,
}

/// How large a layer is, beside its files.
const SIZE: &str = "size.json";

/// What a prune has done.
#[derive(Debug)]
pub struct Pruned {
    pub removed: Vec<Kept>,
    /// Bytes of what stays.
    pub left: u64,
}

/// A build's own directory, removed when the build ends, however it ends.
#[derive(Debug)]
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

    /// What earlier runs of the same basis read and came to, the newest first.
    pub fn known<T: DeserializeOwned>(&self, basis: &str) -> Vec<Known<T>> {
        let mut found: Vec<(SystemTime, PathBuf)> = entries(&self.root.join("known").join(basis))
            .into_iter()
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        found.sort_by(|a, b| b.cmp(a));
        for (_, path) in found.split_off(found.len().min(KNOWN)) {
            let _ = fs::remove_file(path);
        }
        found
            .iter()
            .filter_map(|(_, path)| sealed::value(path).ok()?)
            .collect()
    }

    /// What was found to be as it was is the newest again, and pruned last.
    pub fn used<T>(&self, basis: &str, known: &Known<T>) {
        let path = self.known_path(basis, &known.reads);
        let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }

    fn known_path(&self, basis: &str, reads: &Reads) -> PathBuf {
        let dir = self.root.join("known").join(basis);
        dir.join(reads.key(basis) + ".json")
    }

    /// Remembers it; `scratch` is the build's own directory, so that nothing stays of a build
    /// that is killed.
    pub fn remember<T: Serialize>(
        &self,
        basis: &str,
        known: &Known<T>,
        scratch: &Path,
    ) -> Result<()> {
        let path = self.known_path(basis, &known.reads);
        let dir = path.parent().expect("it lies below `known`");
        let fresh = scratch.join("known.json");
        // What plays read of the environment may be secret, and a hash of it be guessed.
        private(&fresh, sealed::of(known).expect("names are JSON"))?;
        for again in [true, true, true, false] {
            let done = fs::create_dir_all(dir).and_then(|()| fs::rename(&fresh, &path));
            match done {
                // A prune has removed the directory, which was empty.
                Err(e) if e.kind() == ErrorKind::NotFound && again => {}
                done => return done.map_err(Error::io("write", &path)),
            }
        }
        unreachable!("the last round returns");
    }

    /// What is known of layers that are gone, or of nothing that was built for long.
    fn forget(&self) {
        for basis in entries(&self.root.join("known")) {
            for path in entries(&basis) {
                let used = fs::metadata(&path).and_then(|found| found.modified());
                let old = used.is_ok_and(|used| used.elapsed().unwrap_or_default() > FORGOTTEN);
                let layer = self
                    .root
                    .join("layers")
                    .join(path.file_stem().unwrap_or_default());
                if old && !layer.exists() {
                    let _ = fs::remove_file(&path);
                }
            }
            let _ = fs::remove_dir(&basis);
        }
    }

    /// What of layers was found out and is kept as a sealed document, besides their records.
    pub fn notes(&self) -> Vec<PathBuf> {
        // Of a killed build there may be one that is half written, under another name.
        let hidden = |path: &Path| {
            path.file_name()
                .is_some_and(|n| n.as_encoded_bytes()[0] == b'.')
        };
        let json = |path: &Path| path.extension().is_some_and(|end| end == "json");
        let layers = self.root.join("layers");
        let beside = entries(&layers).into_iter().filter(|path| path.is_dir());
        let mut found: Vec<PathBuf> = beside
            .flat_map(|layer| entries(&layer))
            .chain(
                entries(&self.root.join("known"))
                    .iter()
                    .flat_map(|basis| entries(basis)),
            )
            .chain(files_below(&self.downloads().join(downloads::DIGESTS)))
            .filter(|path| json(path) && !hidden(path) && !path.ends_with("record.json"))
            .collect();
        found.sort();
        found
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
        self.sweep()?;
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

    /// Whether a build is at work.
    pub fn is_busy(&self) -> Result<bool> {
        let path = self.root.join("work.lock");
        let gate = File::create(&path).map_err(Error::io("make", &path))?;
        flock(&gate, FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", &path)(e.into()))?;
        self.sweep()
    }

    /// Removes what killed builds have left, with the gate held; whether others are at work.
    fn sweep(&self) -> Result<bool> {
        let parent = self.root.join("work");
        let mut busy = false;
        for entry in fs::read_dir(&parent)
            .map_err(Error::io("read", &parent))?
            .flatten()
        {
            let lock = entry.path().join("lock");
            let held = File::open(&lock)
                .is_ok_and(|f| flock(&f, FlockOperation::NonBlockingLockExclusive).is_err());
            busy |= held;
            if !held {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(busy)
    }

    /// Takes the layer into use, if it is there.
    pub fn hold(&self, key: &str) -> Option<Held> {
        let place = self.layer(key);
        loop {
            let dir = File::open(&place).ok()?;
            flock(&dir, FlockOperation::LockShared).ok()?;
            // Somebody may have moved it aside before the lock was had.
            let (held, there) = (dir.metadata().ok()?, fs::metadata(&place).ok()?);
            if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
                // What was used last is pruned last.
                let _ = File::open(place.join("record.json"))
                    .and_then(|record| record.set_modified(SystemTime::now()));
                return Some(Held { _lock: dir });
            }
        }
    }

    /// Moves a finished layer to its place and takes it into use; gives where it is. One
    /// that is there already is replaced, unless another build uses it: then `made` stays
    /// where it is, for this build alone.
    pub fn keep(&self, made: &Path, key: &str) -> Result<(PathBuf, Held)> {
        let place = self.layer(key);
        let dir = File::open(made).map_err(Error::io("open", made))?;
        flock(&dir, FlockOperation::LockShared).map_err(|e| Error::io("lock", made)(e.into()))?;
        let held = Held { _lock: dir };
        for again in [true, true, true, false] {
            if let Ok(old) = File::open(&place) {
                if flock(&old, FlockOperation::NonBlockingLockExclusive).is_err() {
                    return Ok((made.to_owned(), held));
                }
                let _ = fs::rename(&place, made.with_extension("replaced"));
            }
            match fs::rename(made, &place) {
                Ok(()) => return Ok((place, held)),
                // Another build was first.
                Err(_) if place.join("record.json").exists() => break,
                // It was, and a prune has taken it away since.
                Err(_) if again => {}
                Err(e) => return Err(Error::io("keep", place)(e)),
            }
        }
        Ok((made.to_owned(), held))
    }

    /// Notes beside a layer that is being made how large it is: to look through all layers
    /// would take longer than a build that has nothing to do.
    pub fn measure(made: &Path) -> Result<()> {
        let bytes: u64 = inside(made).map(|dir| on_disk(&dir)).sum();
        let path = made.join(SIZE);
        fs::write(&path, sealed::of(&bytes).expect("a number is JSON"))
            .map_err(Error::io("write", &path))
    }

    fn size_of(layer: &Path) -> u64 {
        let files = entries(layer).into_iter().filter(|path| path.is_file());
        let beside: u64 = files.map(|path| on_disk(&path)).sum();
        let below = match sealed::value::<u64>(&layer.join(SIZE)) {
            Ok(Some(bytes)) => bytes,
            _ => inside(layer).map(|dir| on_disk(&dir)).sum(),
        };
        beside + below
    }

    /// Everything that can be pruned, the longest unused first.
    pub fn list(&self) -> Result<Vec<Kept>> {
        let mut kept = Vec::new();
        let modified = |path: &Path| {
            let found = fs::metadata(path).and_then(|found| found.modified());
            found.unwrap_or(SystemTime::UNIX_EPOCH)
        };
        for path in entries(&self.root.join("layers")) {
            if path.is_dir() {
                kept.push(Kept {
                    kind: Kind::Layer,
                    bytes: Self::size_of(&path),
                    used: modified(&path.join("record.json")),
                    path,
                });
            }
        }
        let downloads = self.root.join("downloads");
        let of_bases = entries(&downloads.join("base")).into_iter();
        let lists = of_bases.map(|suite| suite.join("lists"));
        for path in lists.chain(entries(&downloads.join("lists"))) {
            if path.is_dir() {
                let newest = entries(&path).iter().map(|path| modified(path)).max();
                kept.push(Kept {
                    kind: Kind::Lists,
                    bytes: on_disk(&path),
                    used: newest
                        .unwrap_or(SystemTime::UNIX_EPOCH)
                        .max(modified(&path)),
                    path,
                });
            }
        }
        for (dir, kind) in [
            (self.blobs(), Kind::Blob),
            (self.root.join("pulled"), Kind::Pulled),
            (self.root.join("known"), Kind::Known),
            (downloads, Kind::Download),
        ] {
            let mut stack = vec![dir];
            while let Some(dir) = stack.pop() {
                for path in entries(&dir) {
                    let Ok(found) = fs::symlink_metadata(&path) else {
                        continue;
                    };
                    if found.is_dir() {
                        let apart = path.ends_with("lists") || path.ends_with(downloads::DIGESTS);
                        if kind != Kind::Download || !apart {
                            stack.push(path);
                        }
                    } else if found.is_file() && found.len() > 0 {
                        let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                        let bytes = found.blocks() * 512;
                        kept.push(Kept {
                            path,
                            kind,
                            bytes,
                            used,
                        });
                    }
                }
            }
        }
        kept.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| a.path.cmp(&b.path)));
        Ok(kept)
    }

    /// Removes what was unused longest until at most `limit` bytes are left. Layers in use
    /// stay; while another build is at work, everything stays that only layers are known not
    /// to be: blobs and packages. So does what was used at or after `since`.
    pub fn prune(&self, limit: u64, since: Option<SystemTime>) -> Result<Pruned> {
        let gate_path = self.root.join("work.lock");
        let gate = File::create(&gate_path).map_err(Error::io("make", &gate_path))?;
        flock(&gate, FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", &gate_path)(e.into()))?;
        let busy = self.sweep()?;
        self.forget();
        for layer in inside(&self.root.join("layers")) {
            let size = layer.join(SIZE);
            if matches!(sealed::value::<u64>(&size), Ok(None)) {
                let _ = fs::remove_file(size);
            }
        }
        let kept = self.list()?;
        let mut pruned = Pruned {
            removed: Vec::new(),
            left: kept.iter().map(|kept| kept.bytes).sum(),
        };
        for kept in kept {
            if pruned.left <= limit || since.is_some_and(|since| kept.used >= since) {
                break;
            }
            let gone = match kept.kind {
                Kind::Layer => self.remove_layer(&kept.path),
                _ if busy => false,
                Kind::Lists => {
                    // Without it nobody takes what is there for fresh.
                    let _ = fs::remove_file(kept.path.with_extension("fetched"));
                    fs::remove_dir_all(&kept.path).is_ok()
                }
                _ => fs::remove_file(&kept.path).is_ok(),
            };
            if gone && kept.kind == Kind::Download {
                let _ = fs::remove_file(downloads::note(&self.downloads(), &kept.path));
            }
            if gone && kept.kind == Kind::Lists {
                let note = downloads::note(&self.downloads(), &kept.path);
                let _ = fs::remove_dir_all(note.with_extension(""));
            }
            if gone {
                pruned.left = pruned.left.saturating_sub(kept.bytes);
                pruned.removed.push(kept);
            }
        }
        Ok(pruned)
    }

    fn remove_layer(&self, place: &Path) -> bool {
        let Ok(dir) = File::open(place) else {
            return false;
        };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
            return false;
        }
        // Away by one rename: a layer is there whole or not at all.
        let name = place.file_name().unwrap_or_default();
        let aside = self.root.join("work").join(name);
        fs::rename(place, &aside).is_ok() && fs::remove_dir_all(&aside).is_ok()
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in entries(dir) {
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

fn inside(dir: &Path) -> impl Iterator<Item = PathBuf> {
    entries(dir).into_iter().filter(|path| path.is_dir())
}

/// Bytes on the disk of everything below.
fn on_disk(path: &Path) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else {
        return 0;
    };
    let below: u64 = match found.is_dir() {
        true => entries(path).iter().map(|path| on_disk(path)).sum(),
        false => 0,
    };
    // A file of several names counts once.
    let names = if found.is_dir() {
        1
    } else {
        found.nlink().max(1)
    };
    found.blocks() * 512 / names + below
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A file that nobody else may read: results of tasks may be secrets.
pub fn private(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, "")
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .and_then(|()| fs::write(path, content))
        .map_err(Error::io("write", path))
}

pub fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize())
}

pub fn hash_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hashes of files that were read once, for one build.
#[derive(Default)]
pub struct Hashes(HashMap<PathBuf, String>);

impl Hashes {
    pub fn file(&mut self, path: &Path) -> Result<&str> {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_owned(), hash_file(path)?);
        }
        Ok(&self.0[path])
    }
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

/// Whether its name says that it never is input; `dirs` are those of recipe and playbook.
pub fn is_never_input(path: &Path, dirs: &[PathBuf]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let on_top = || dirs.iter().any(|dir| path.parent() == Some(dir));
    IGNORED.contains(&&*name)
        || name.ends_with(".pyc")
        || IGNORED_ON_TOP.contains(&&*name) && on_top()
}

/// Hashes names, permissions and content below `root`, in byte order and never times;
/// directories in `without` are passed over.
pub fn hash_tree(root: &Path, without: &BTreeSet<PathBuf>, hashes: &mut Hashes) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut stack = vec![root.to_owned()];
    let on_top = [root.to_owned()];
    while let Some(path) = stack.pop() {
        if without.contains(&path) || (path != root && is_never_input(&path, &on_top)) {
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
                hasher.update(hashes.file(&path)?);
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
            hasher.update(hashes.file(&path)?);
        }
        hasher.update([0]);
    }
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(cache: &Cache, work: &Work, text: &str) -> PathBuf {
        let made = work.path.join("layer-1");
        fs::create_dir_all(made.join("tree")).unwrap();
        fs::write(made.join("tree/file"), text).unwrap();
        fs::write(made.join("record.json"), "{}").unwrap();
        let _ = cache;
        made
    }

    #[test]
    fn a_layer_that_another_build_uses_is_neither_replaced_nor_pruned() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(place.path()).unwrap();
        let (one, other) = (cache.work().unwrap(), cache.work().unwrap());
        let (first, held) = cache.keep(&made(&cache, &one, "first"), "key").unwrap();
        assert_eq!(first, cache.layer("key"));
        let (second, mine) = cache.keep(&made(&cache, &other, "second"), "key").unwrap();
        assert!(second.starts_with(&other.path), "for that build alone");
        assert_eq!(
            fs::read_to_string(first.join("tree/file")).unwrap(),
            "first"
        );
        assert!(cache.prune(0, None).unwrap().removed.is_empty());
        drop((held, mine));
        // Nobody uses it any more: a fresh one takes its place.
        let (third, held) = cache.keep(&second, "key").unwrap();
        assert_eq!(third, cache.layer("key"));
        assert_eq!(
            fs::read_to_string(third.join("tree/file")).unwrap(),
            "second"
        );
        drop(held);
        assert!(cache.hold("key").is_some() && cache.hold("no").is_none());
        assert_eq!(cache.prune(0, None).unwrap().removed.len(), 1);
        assert!(cache.hold("key").is_none());
    }

    #[test]
    fn what_was_unused_longest_is_pruned_first_and_blobs_stay_while_somebody_builds() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(place.path()).unwrap();
        let age = |path: &Path, seconds: u64| {
            let time = SystemTime::now() - std::time::Duration::from_secs(seconds);
            File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        for (name, seconds) in [("old", 300), ("new", 100), ("middle", 200)] {
            fs::write(cache.blobs().join(name), vec![1; 100_000]).unwrap();
            age(&cache.blobs().join(name), seconds);
        }
        let work = cache.work().unwrap();
        assert!(
            cache.prune(0, None).unwrap().removed.is_empty(),
            "a build is at work"
        );
        drop(work);
        let one = cache.list().unwrap()[0].bytes;
        let removed = cache.prune(one, None).unwrap().removed;
        let names: Vec<_> = removed
            .iter()
            .map(|kept| kept.path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["old", "middle"]);
        assert!(cache.blobs().join("new").exists());
    }

    #[test]
    fn an_input_is_read_once_for_all_layers() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("site.yml");
        let mut hashes = Hashes::default();
        let mut hash = |text: &str| {
            fs::write(&path, text).unwrap();
            hash_tree(place.path(), &BTreeSet::new(), &mut hashes).unwrap()
        };
        assert_eq!(
            hash("one"),
            hash("two"),
            "what was read stays for this build"
        );
        let fresh = hash_tree(place.path(), &BTreeSet::new(), &mut Hashes::default()).unwrap();
        assert_ne!(hash("two"), fresh);
    }
}
