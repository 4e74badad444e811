//! A tree, or a handful of files given as bytes, becomes a layer blob.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::buffer::spare_capacity;
use rustix::fs::{SeekFrom, Stat, fstat, seek};
use rustix::io::{Errno, pread};

use crate::Error;
use crate::atomic::Partial;
use crate::compress::{Failure, Feed, Halt, Packing, compress};
use crate::decompress::Compression;
use crate::progress::Progress;
use crate::tarball::{END, Header, Type, padding};
use crate::walk::{Found, Kind, Source, walk};

/// A file with more unwritten bytes than this is worth a warning: a layer holds them all.
const LARGE_HOLE: u64 = 64 << 20;

/// A compressed layer on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// `sha256:…` of the tar before compression.
    pub diff_id: String,
    /// `sha256:…` of the blob.
    pub digest: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of the tar before compression.
    pub uncompressed: u64,
    /// Of the blob; decides its media type.
    pub compression: Compression,
    /// The blob: a file named by the 64 hexadecimal digits of the digest.
    pub blob: PathBuf,
}

/// How [`write_layer`] looks at a tree.
#[derive(Clone, Copy)]
pub struct LayerOptions<'a> {
    /// Seconds since 1970. Later modification times become this one (SOURCE_DATE_EPOCH).
    pub epoch: u64,
    /// Leaves out a path, relative to the root, and all below it. Whiteouts are asked
    /// about by the name that they delete.
    pub skip: &'a dyn Fn(&Path) -> bool,
    /// Whether a device node, by its path relative to the root, may be in the layer.
    pub devices: &'a dyn Fn(&Path) -> bool,
    pub kind: Source,
    pub progress: &'a (dyn Progress + Sync),
    /// How many threads compress; 0 takes as many as there are cores. The bytes do not
    /// depend on it; some `4 * threads + 4` MiB of memory do.
    pub threads: usize,
    pub packing: Packing,
}

/// Packs the tree below `root` into a blob in `blob_dir`, which is created when missing.
///
/// The layer holds directories, files, hard links (of files to one another; a file of
/// which only one name is in the tree is just a file), symbolic links, FIFOs and device nodes, with
/// permission bits, numeric owners, modification times in whole seconds, capabilities,
/// ACLs and `user.*` attributes. The root itself and sockets are left out.
///
/// Holes of sparse files are written as zeros, with a warning where they are large. Rejected:
/// sparse entries of PAX. Docker 20.10 reads them, and gives the file as many blocks on its
/// disk as without; the zeros cost a thousandth of their number in the archive; and
/// image-spec (layer.md, File Types) says that not all readers know such entries.
///
/// The blob appears whole or not at all; one that is there already under the same digest
/// is replaced by the same bytes. Needs to read every file, so root or the owner.
///
/// # Errors
///
/// Device nodes that nobody allowed, names beginning with `.wh.`, a tree that changes meanwhile, overlays
/// with redirects or metacopy, and whatever the system refuses.
pub fn write_layer(root: &Path, blob_dir: &Path, options: &LayerOptions) -> Result<Layer, Error> {
    let out = Partial::new(blob_dir)?;
    pack(out, blob_dir, options.packing, options.threads, |feed| {
        fill(root, options, feed)
    })
}

/// The diff_id that [`write_layer`] would give: `sha256:…` of the tar before compression.
///
/// # Errors
///
/// As [`write_layer`], but for writing.
pub fn tree_digest(root: &Path, options: &LayerOptions) -> Result<String, Error> {
    let done = compress(&mut io::sink(), None, 1, |feed| {
        fill(root, options, feed)?;
        feed.zeros(END)
    });
    match done {
        Ok(written) => Ok(written.diff_id),
        Err(Failure::Feed(error)) => Err(error),
        Err(Failure::Write(_)) => unreachable!("nothing is written"),
    }
}

fn fill(root: &Path, options: &LayerOptions, feed: &mut Feed) -> Result<(), Halt> {
    let mut packer = Packer {
        feed,
        epoch: options.epoch,
        progress: options.progress,
        devices: options.devices,
        links: HashMap::new(),
    };
    walk(root, options.kind, options.skip, &mut |found| {
        packer.add(&found)
    })
}

/// One entry of a layer that is made from bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// In the image; a slash at the start is allowed, `..` is not.
    pub path: String,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    File(Vec<u8>),
    Directory,
    /// The target verbatim.
    Symlink(String),
    /// What the layers below have there is no more; owner and mode mean nothing.
    Removed,
}

/// Packs entries given as bytes, all with `epoch` as their modification time.
///
/// They are written sorted by path. Directories that are not listed are not written
/// either: list those that the layers below lack (Docker makes missing ones with mode
/// 0600), and only those (an entry for `lib` would replace a link of that name).
///
/// # Errors
///
/// A path that is empty, given twice, has `..` in it or begins a name with `.wh.`.
pub fn layer_from_entries(
    entries: &[Entry],
    blob_dir: &Path,
    epoch: u64,
    packing: Packing,
) -> Result<Layer, Error> {
    let mut sorted: BTreeMap<Vec<&str>, &Entry> = BTreeMap::new();
    for entry in entries {
        let fail = |reason| Error::Entry {
            path: entry.path.clone(),
            reason,
        };
        let parts: Vec<&str> = entry
            .path
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        if parts.is_empty() {
            return Err(fail("it is the root"));
        }
        if parts.contains(&"..") {
            return Err(fail("it has `..` in it"));
        }
        if parts.iter().any(|part| part.starts_with(".wh.")) {
            return Err(fail(
                "names that begin with `.wh.` mean a deletion in a layer",
            ));
        }
        if entry.path.contains('\0') {
            return Err(fail("it has a zero byte in it"));
        }
        if sorted.insert(parts, entry).is_some() {
            return Err(fail("it is given twice"));
        }
    }
    let out = Partial::new(blob_dir)?;
    pack(out, blob_dir, packing, 1, |feed| {
        for (parts, entry) in sorted {
            let path = match (&entry.content, parts.split_last()) {
                (Content::Removed, Some((name, parents))) => {
                    [parents, &[&*format!(".wh.{name}")]].concat().join("/")
                }
                _ => parts.join("/"),
            };
            let content: &[u8] = match &entry.content {
                Content::File(bytes) => bytes,
                _ => b"",
            };
            let header = Header {
                path: path.as_bytes(),
                mode: entry.mode & 0o7777,
                uid: entry.uid,
                gid: entry.gid,
                mtime: epoch,
                kind: match &entry.content {
                    Content::Removed => Type::File { size: 0 },
                    Content::File(bytes) => Type::File {
                        size: bytes.len() as u64,
                    },
                    Content::Directory => Type::Directory,
                    Content::Symlink(target) => Type::Symlink {
                        to: target.as_bytes(),
                    },
                },
                xattrs: &BTreeMap::new(),
            };
            feed.put(&header.bytes())?;
            feed.put(content)?;
            feed.zeros(padding(content.len() as u64))?;
        }
        Ok(())
    })
}

/// Compresses what `fill` writes, ends the tar, and gives the blob its name.
fn pack(
    mut out: Partial,
    blob_dir: &Path,
    packing: Packing,
    threads: usize,
    fill: impl FnOnce(&mut Feed) -> Result<(), Halt>,
) -> Result<Layer, Error> {
    let written = compress(&mut out, Some(packing), threads, |feed| {
        fill(feed)?;
        feed.zeros(END)
    })
    .map_err(|failure| match failure {
        Failure::Feed(error) => error,
        Failure::Write(error) => Error::write(&blob_dir.join("layer"), None)(error),
    })?;
    let name = written.digest.trim_start_matches("sha256:");
    let blob = blob_dir.join(name);
    out.persist(&blob)?;
    Ok(Layer {
        diff_id: written.diff_id,
        digest: written.digest,
        size: written.compressed,
        uncompressed: written.plain,
        compression: packing.compression(),
        blob,
    })
}

struct Packer<'a> {
    feed: &'a mut Feed,
    epoch: u64,
    progress: &'a (dyn Progress + Sync),
    devices: &'a dyn Fn(&Path) -> bool,
    /// Paths of the files that have more than one name, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Packer<'_> {
    fn add(&mut self, found: &Found) -> Result<(), Halt> {
        let stat = found.stat;
        let kind = match found.kind {
            Kind::Whiteout => return self.whiteout(found.path, b""),
            Kind::Directory { .. } => Type::Directory,
            Kind::Symlink { to } => Type::Symlink { to },
            Kind::Fifo => Type::Fifo,
            Kind::Device { block } => self.device(found, block)?,
            Kind::File { .. } => Type::File {
                size: stat.st_size as u64,
            },
        };
        let identity = (stat.st_dev, stat.st_ino);
        let mut header = Header {
            path: found.path,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0).min(self.epoch),
            kind,
            xattrs: &found.attributes.kept,
        };
        if let Kind::File { file } = found.kind {
            if let Some(first) = self.links.get(&identity) {
                // With the attributes again: an engine changes the owner of what it has
                // linked, and that makes the kernel drop the capabilities.
                header.kind = Type::HardLink { to: first };
                return self.feed.put(&header.bytes());
            }
            self.feed.put(&header.bytes())?;
            if stat.st_nlink > 1 {
                self.links.insert(identity, found.path.to_vec());
            }
            return self.content(found.path, file, stat);
        }
        // An opaque root has no entry of its own, only the mark.
        if !found.path.is_empty() {
            self.feed.put(&header.bytes())?;
        }
        if let Kind::Directory { opaque: true } = found.kind {
            let inside = if found.path.is_empty() {
                Vec::new()
            } else {
                [found.path, b"/"].concat()
            };
            self.whiteout(&inside, b".wh..opq")?;
        }
        Ok(())
    }

    fn device(&self, found: &Found, block: bool) -> Result<Type<'static>, Error> {
        let number = found.stat.st_rdev;
        let device = (rustix::fs::major(number), rustix::fs::minor(number));
        let path = Path::new(OsStr::from_bytes(found.path));
        // 0:0 is overlayfs's mark of a deletion wherever an engine unpacks it.
        let allowed = (self.devices)(path) && (block || device != (0, 0));
        match (block, allowed) {
            (true, true) => Ok(Type::Block { device }),
            (false, true) => Ok(Type::Character { device }),
            (block, false) => Err(Error::Device {
                path: Path::new("/").join(path),
                kind: if block { "block" } else { "character" },
                major: device.0,
                minor: device.1,
            }),
        }
    }

    /// An empty file whose name says what is deleted, with nothing else that could vary.
    fn whiteout(&mut self, path: &[u8], opaque: &[u8]) -> Result<(), Halt> {
        let name = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |slash| slash + 1);
        let path = [&path[..name], b".wh.", &path[name..], opaque].concat();
        let header = Header {
            path: &path,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: 0,
            kind: Type::File { size: 0 },
            xattrs: &BTreeMap::new(),
        };
        self.feed.put(&header.bytes())
    }

    fn content(&mut self, path: &[u8], file: BorrowedFd, stat: &Stat) -> Result<(), Halt> {
        let inside = || Path::new("/").join(OsStr::from_bytes(path));
        let fail = |error: Errno| Error::io("read", &inside())(io::Error::from(error));
        let size = stat.st_size as u64;
        // Seeking costs a system call or two a file, so only where there can be holes.
        let sparse = (stat.st_blocks as u64) * 512 < size;
        let (mut at, mut holes) = (0, 0);
        while at < size {
            let (data, end) = if sparse {
                extent(file, at, size).map_err(fail)?
            } else {
                (at, size)
            };
            self.feed.zeros(data - at)?;
            holes += data - at;
            self.progress.bytes(data - at);
            at = data;
            while at < end {
                // Into what has no content yet: filling it with zeros first takes time.
                let count = self.feed.fill(end - at, |buffer| {
                    pread(file, spare_capacity(buffer), at)
                        .map(drop)
                        .map_err(fail)
                })?;
                if count == 0 {
                    let (path, what) = (inside(), "it became shorter");
                    return Err(Error::Changed { path, what }.into());
                }
                at += count as u64;
                self.progress.bytes(count as u64);
            }
        }
        self.feed.zeros(padding(size))?;

        let after = fstat(file).map_err(fail)?;
        if (after.st_size, after.st_mtime, after.st_mtime_nsec)
            != (stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
        {
            let (path, what) = (inside(), "it was written to");
            return Err(Error::Changed { path, what }.into());
        }
        if holes > LARGE_HOLE {
            self.progress.warning(&format!(
                "{} is sparse: its {} MB of holes become zeros in the image",
                inside().display(),
                holes / 1_000_000
            ));
        }
        Ok(())
    }
}

/// Where the next data begin at or after `at`, and where they end.
fn extent(file: BorrowedFd, at: u64, size: u64) -> Result<(u64, u64), Errno> {
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data.min(size),
        // Nothing but a hole up to the end.
        Err(Errno::NXIO) => return Ok((size, size)),
        // The file system knows no holes.
        Err(Errno::INVAL) => return Ok((at, size)),
        Err(error) => return Err(error),
    };
    let end = seek(file, SeekFrom::Hole(data))?.clamp(data, size);
    Ok((data, end))
}
