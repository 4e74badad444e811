//! The layers of somebody else's image become one tree, as an engine would make it
//! (image-spec, layer.md), without ever leaving that tree.
//!
//! The parent of each entry is opened below the root by the kernel itself (openat2 with
//! RESOLVE_IN_ROOT), and the entry is made in it by its last name alone, never through a
//! link. A link that a lower layer has (`lib -> usr/lib`) is followed inside the root, as
//! engines do; one of the same layer never is: no honest tar writes through its own link.
//!
//! A whiteout deletes what lower layers have, wherever in the layer it stands, and
//! nothing of its own layer.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
    XattrFlags, chmodat, chownat, fchmod, fchown, fremovexattr, fsetxattr, linkat, mkdirat,
    mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::decompress::{self, Bounded};
use crate::read::Image;
use crate::untar::{Entry, Flag, Reader};
use crate::{Error, Progress, atomic, xattr};

/// Of one layer. The largest known have some 700,000.
const MAX_ENTRIES: usize = 2_000_000;

/// The kernel's limit for a path, and the depth that [`crate::write_layer`] walks.
const MAX_PATH: usize = 4095;
const MAX_DEPTH: usize = 500;

/// Files from this size on are compared with the free space first.
const LARGE: u64 = 64 << 20;

impl Image {
    /// Makes the image's root file system in the empty directory `into`. Needs root, since
    /// files belong to many owners.
    ///
    /// Device nodes below `/dev` are left out: engines make them. Of extended attributes
    /// those are kept that [`crate::write_layer`] keeps.
    ///
    /// # Errors
    ///
    /// A blob that is damaged, and whatever no honest layer has: paths with `..`, absolute
    /// ones, writing through a link of the same layer, links out of the root, a file
    /// twice, device nodes elsewhere, whiteouts of nothing. What was made by then is for
    /// the caller to remove.
    pub fn unpack(&self, into: &Path, progress: &(dyn Progress + Sync)) -> Result<(), Error> {
        let mut tree = Tree::open(into, progress)?;
        for layer in &self.layers {
            let wrong = |reason: String| Error::Image {
                image: self.name.clone(),
                reason,
            };
            layer.read(
                decompress::WRITTEN,
                progress,
                |reader| {
                    let wrong =
                        |reason: String| wrong(format!("the layer {} {reason}", layer.shown()));
                    Apply::new(&mut tree, &wrong).all(reader)
                },
                wrong,
            )?;
        }
        tree.date()
    }
}

/// Makes a root file system in the empty directory `into` from `file`, a tar of it, plain or
/// compressed, with the rules of [`Image::unpack`]: the file is somebody else's. What is
/// compressed with xz or bzip2 goes through those programs.
///
/// # Errors
///
/// As [`Image::unpack`].
pub fn unpack_root(
    file: &Path,
    into: &Path,
    progress: &(dyn Progress + Sync),
) -> Result<(), Error> {
    let wrong = |reason: String| Error::Root {
        file: file.to_owned(),
        reason,
    };
    let opened = File::open(file).map_err(Error::io("open", file))?;
    let size = opened.metadata().map_err(Error::io("read", file))?.len();
    let stream = decompress::any(opened).map_err(|error| wrong(error.to_string()))?;
    let mut stream = Bounded::new(stream, size, decompress::WRITTEN);
    let mut tree = Tree::open(into, progress)?;
    let mut reader = Reader::new(&mut stream as &mut dyn Read);
    Apply::new(&mut tree, &|reason: String| wrong(format!("it {reason}"))).all(&mut reader)?;
    // A checksum of the compressed stream stands at its end.
    io::copy(&mut stream, &mut io::sink())
        .map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    tree.date()
}

struct Tree<'a> {
    root: OwnedFd,
    /// For errors and the free space.
    into: &'a Path,
    progress: &'a (dyn Progress + Sync),
    /// Of directories: set at the end, since what is made inside changes them.
    times: BTreeMap<Vec<u8>, (i64, u32)>,
    /// The file system takes no attributes, and that was said.
    no_attributes: bool,
}

impl<'a> Tree<'a> {
    fn open(into: &'a Path, progress: &'a (dyn Progress + Sync)) -> Result<Tree<'a>, Error> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = openat(CWD, into, flags, Mode::empty())
            .map_err(|error| Error::io("open", into)(error.into()))?;
        Ok(Tree {
            root,
            into,
            progress,
            times: BTreeMap::new(),
            no_attributes: false,
        })
    }

    fn date(&self) -> Result<(), Error> {
        for (path, time) in &self.times {
            let opened = open_in(&self.root, path, DIRECTORY, ResolveFlags::NO_SYMLINKS);
            let done = match opened {
                Ok(dir) => rustix::fs::futimens(&dir, &stamps(*time)),
                // A later layer put something else there.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => Err(error),
            };
            done.map_err(|error| Error::io("date", &self.outside(path))(error.into()))?;
        }
        Ok(())
    }

    fn outside(&self, path: &[u8]) -> PathBuf {
        self.into.join(shown(path))
    }
}

/// What the current layer has at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// A directory, or what lies above an entry.
    Directory,
    Symlink,
    Other,
}

struct Apply<'a, 'b> {
    tree: &'a mut Tree<'b>,
    /// Makes an error of what follows "the layer".
    wrong: &'a dyn Fn(String) -> Error,
    made: HashMap<Vec<u8>, Made>,
    /// The directory that was opened last.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn open_in(
    root: &OwnedFd,
    path: &[u8],
    flags: OFlags,
    how: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let how = how | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(root, path, flags, Mode::empty(), how)
}

fn shown(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(path).into()
}

fn stamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

impl<'a, 'b> Apply<'a, 'b> {
    fn new(tree: &'a mut Tree<'b>, wrong: &'a dyn Fn(String) -> Error) -> Apply<'a, 'b> {
        Apply {
            tree,
            wrong,
            made: HashMap::new(),
            parent: None,
        }
    }

    fn refuse(&self, path: &[u8], reason: &str) -> Error {
        (self.wrong)(format!("has /{}: {reason}", shown(path).display()))
    }

    fn unreadable(&self, error: io::Error) -> Error {
        (self.wrong)(format!("cannot be read: {error}"))
    }

    /// The system did not let something be made.
    fn failed(&self, path: &[u8], error: impl Into<io::Error>) -> Error {
        Error::write(&self.tree.outside(path), None)(error.into())
    }

    fn all(&mut self, reader: &mut Reader<&mut dyn Read>) -> Result<(), Error> {
        while let Some(entry) = reader.next().map_err(|error| self.unreadable(error))? {
            if self.made.len() > MAX_ENTRIES {
                return Err(self.refuse(&entry.path, "there are more entries than in any image"));
            }
            let path = self.clean(&entry.path)?;
            if path.is_empty() {
                // umoci CVE-2021-29136: a link in place of the root.
                if entry.flag != Flag::Directory {
                    return Err(self.refuse(b"", "the root can only be a directory"));
                }
                let root = open_in(&self.tree.root, b"", DIRECTORY, ResolveFlags::empty())
                    .map_err(|error| self.failed(b"", error))?;
                self.attributes(root.as_fd(), &path, &entry)?;
                self.tree.times.insert(path, entry.mtime);
                continue;
            }
            let (parent, name) = split(&path);
            match name.strip_prefix(b".wh.") {
                Some(deleted) => self.whiteout(&path, parent, deleted, &entry)?,
                None => self.entry(&path, &entry, reader)?,
            }
        }
        Ok(())
    }

    /// The path relative to the root, without anything that could mean another one.
    fn clean(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        if path.len() > MAX_PATH {
            return Err(self.refuse(&path[..64], "the path is too long"));
        }
        if path.contains(&0) {
            return Err(self.refuse(path, "the path has a zero byte in it"));
        }
        let parts: Vec<&[u8]> = path
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."))
            .collect();
        if parts.contains(&&b".."[..]) {
            return Err(self.refuse(path, "the path has `..` in it"));
        }
        if path.starts_with(b"/") && !parts.is_empty() {
            return Err(self.refuse(&path[1..], "the path is absolute"));
        }
        if parts.len() > MAX_DEPTH {
            return Err(self.refuse(parts[0], "directories are nested too deep in it"));
        }
        Ok(parts.join(&b'/'))
    }

    /// Opens the directory `path`, which must be there.
    fn open(&mut self, path: &[u8]) -> Result<Option<OwnedFd>, Error> {
        let strict = open_in(&self.tree.root, path, DIRECTORY, ResolveFlags::NO_SYMLINKS);
        let opened = match strict {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                // Some part of it is a link, or the last one is.
                for (at, _) in path
                    .iter()
                    .enumerate()
                    .filter(|(_, byte)| **byte == b'/')
                    .chain([(path.len(), &0)])
                {
                    if self.made.get(&path[..at]) == Some(&Made::Symlink) {
                        return Err(
                            self.refuse(path, "it lies behind a symbolic link of the same layer")
                        );
                    }
                }
                open_in(
                    &self.tree.root,
                    path,
                    DIRECTORY - OFlags::NOFOLLOW,
                    ResolveFlags::empty(),
                )
            }
            other => other,
        };
        match opened {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(self.refuse(path, "it is no directory, but has entries")),
            Err(Errno::LOOP | Errno::XDEV) => {
                Err(self.refuse(path, "its symbolic links lead nowhere"))
            }
            Err(error) => Err(self.failed(path, error)),
        }
    }

    /// Makes sure that `self.parent` is the directory `path`; missing ones are made as
    /// engines make them.
    fn enter(&mut self, path: &[u8]) -> Result<(), Error> {
        if self.parent.as_ref().is_some_and(|(open, _)| open == path) {
            return Ok(());
        }
        let dir = match self.open(path)? {
            Some(dir) => dir,
            None => {
                let (above, name) = split(path);
                self.enter(above)?;
                let (_, dir) = self.parent.as_ref().expect("entered above");
                mkdirat(dir, name, Mode::from_raw_mode(0o755))
                    .and_then(|()| openat(dir, name, DIRECTORY, Mode::empty()))
                    .map_err(|error| match error {
                        Errno::EXIST => self.refuse(path, "its symbolic link leads nowhere"),
                        error => self.failed(path, error),
                    })?
            }
        };
        self.parent = Some((path.to_owned(), dir));
        Ok(())
    }

    fn entry(
        &mut self,
        path: &[u8],
        entry: &Entry,
        reader: &mut Reader<&mut dyn Read>,
    ) -> Result<(), Error> {
        let (parent, name) = split(path);
        if matches!(entry.flag, Flag::Character | Flag::Block) {
            if parent == b"dev" || parent.starts_with(b"dev/") {
                return Ok(());
            }
            return Err(self.refuse(path, "it is a device node outside of /dev"));
        }
        self.note(path, entry.flag)?;
        // Before anything is removed in its favour.
        let target = match entry.flag {
            Flag::HardLink => Some(self.link_target(path, entry)?),
            _ => None,
        };
        self.enter(parent)?;
        let (_, dir) = self.parent.as_ref().expect("entered above");
        let there = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(self.failed(path, error)),
        };
        if there.is_some() && !(there == Some(FileType::Directory) && entry.flag == Flag::Directory)
        {
            remove(dir.as_fd(), name).map_err(|error| self.failed(path, error))?;
        }
        let owner = (
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        );
        match entry.flag {
            Flag::Directory => {
                if there != Some(FileType::Directory) {
                    mkdirat(dir, name, Mode::from_raw_mode(0o700))
                        .map_err(|error| self.failed(path, error))?;
                }
                let made = openat(dir, name, DIRECTORY, Mode::empty())
                    .map_err(|error| self.failed(path, error))?;
                self.attributes(made.as_fd(), path, entry)?;
                self.tree.times.insert(path.to_owned(), entry.mtime);
            }
            Flag::File => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = openat(dir, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(|error| self.failed(path, error))?;
                let file = File::from(file);
                self.content(&file, path, entry.size, reader)?;
                self.attributes(file.as_fd(), path, entry)?;
                rustix::fs::futimens(&file, &stamps(entry.mtime))
                    .map_err(|error| self.failed(path, error))?;
            }
            Flag::HardLink => {
                let (from, last) = target.expect("found above");
                linkat(&from, &last, dir, name, AtFlags::empty()).map_err(|error| match error {
                    Errno::NOENT => self.refuse(path, "it is a link to nothing"),
                    Errno::PERM => self.refuse(path, "it is a hard link to a directory"),
                    error => self.failed(path, error),
                })?;
            }
            Flag::Symlink => {
                if entry.link.is_empty() || entry.link.len() > MAX_PATH || entry.link.contains(&0) {
                    return Err(self.refuse(path, "it is a symbolic link without a target"));
                }
                symlinkat(entry.link.as_slice(), dir, name)
                    .and_then(|()| chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))
                    .and_then(|()| {
                        utimensat(dir, name, &stamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
                    })
                    .map_err(|error| self.failed(path, error))?;
            }
            Flag::Fifo => {
                let mode = Mode::from_raw_mode(entry.mode);
                mknodat(dir, name, FileType::Fifo, mode, 0)
                    .and_then(|()| chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))
                    // Nobody else is in this tree, so this is still the FIFO.
                    .and_then(|()| chmodat(dir, name, mode, AtFlags::empty()))
                    .and_then(|()| {
                        utimensat(dir, name, &stamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
                    })
                    .map_err(|error| self.failed(path, error))?;
            }
            Flag::Character | Flag::Block => unreachable!("refused above"),
        }
        if there == Some(FileType::Directory) && entry.flag != Flag::Directory {
            // It may have been the one that is open, or lie above it.
            self.parent = None;
            let inside = [path, b"/"].concat();
            self.tree
                .times
                .retain(|dir, _| dir != path && !dir.starts_with(&inside));
        }
        Ok(())
    }

    /// Remembers that this layer has `path`. Only a directory may be given twice: with
    /// anything else, readers disagree about which one counts.
    fn note(&mut self, path: &[u8], flag: Flag) -> Result<(), Error> {
        let kind = match flag {
            Flag::Directory => Made::Directory,
            Flag::Symlink => Made::Symlink,
            _ => Made::Other,
        };
        match self.made.insert(path.to_owned(), kind) {
            Some(before) if before != Made::Directory || kind != Made::Directory => {
                return Err(self.refuse(path, "it is there twice"));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let mut above = split(path).0;
        while !above.is_empty() && !self.made.contains_key(above) {
            self.made.insert(above.to_owned(), Made::Directory);
            above = split(above).0;
        }
        Ok(())
    }

    /// The directory and the name that a hard link leads to.
    fn link_target(&mut self, path: &[u8], entry: &Entry) -> Result<(OwnedFd, Vec<u8>), Error> {
        let to = self.clean(&entry.link).map_err(|_| {
            self.refuse(
                path,
                &format!(
                    "it is a hard link to {}, which is not a path inside",
                    shown(&entry.link).display()
                ),
            )
        })?;
        if to.is_empty() || to == path {
            return Err(self.refuse(path, "it is a hard link to itself"));
        }
        let (parent, name) = split(&to);
        match self.open(parent)? {
            Some(dir) => Ok((dir, name.to_owned())),
            None => Err(self.refuse(path, "it is a link to nothing")),
        }
    }

    fn content(
        &self,
        mut file: &File,
        path: &[u8],
        size: u64,
        reader: &mut Reader<&mut dyn Read>,
    ) -> Result<(), Error> {
        if size >= LARGE {
            let (device, free) = atomic::space(&self.tree.into.join("file"));
            if size > free {
                return Err(Error::NoSpace {
                    path: self.tree.outside(path),
                    device,
                    needed: Some(size),
                    free,
                });
            }
        }
        let mut buffer = [0; 1 << 16];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => file
                    .write_all(&buffer[..count])
                    .map_err(|error| self.failed(path, error))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
    }

    /// Owner first: changing it takes away setuid bits and capabilities.
    fn attributes(&mut self, fd: BorrowedFd, path: &[u8], entry: &Entry) -> Result<(), Error> {
        fchown(
            fd,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )
        .and_then(|()| fchmod(fd, Mode::from_raw_mode(entry.mode)))
        .map_err(|error| self.failed(path, error))?;
        // A directory of a lower layer has what that one gave it.
        if entry.flag == Flag::Directory {
            let before = xattr::read(fd).map_err(|error| self.failed(path, error))?;
            for name in before.kept.keys() {
                fremovexattr(fd, name.as_slice()).map_err(|error| self.failed(path, error))?;
            }
        }
        for (name, value) in &entry.xattrs {
            // Above all not overlayfs's own notes: they would hide or redirect what is below.
            if name.contains(&0) || !xattr::keep(name) {
                continue;
            }
            match fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) => {
                    if !std::mem::replace(&mut self.tree.no_attributes, true) {
                        self.tree.progress.warning(&format!(
                            "the file system of {} takes no extended attributes: those of the image are lost",
                            self.tree.into.display()
                        ));
                    }
                }
                Err(error) => return Err(self.failed(path, error)),
            }
        }
        Ok(())
    }

    /// Deletes what lower layers have at `parent/deleted`, or in `parent` when opaque.
    fn whiteout(
        &mut self,
        path: &[u8],
        parent: &[u8],
        deleted: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        if entry.flag != Flag::File || entry.size > 0 {
            return Err(self.refuse(path, "a deletion is an empty file"));
        }
        let opaque = deleted == b".wh..opq";
        if !opaque && (matches!(deleted, b"" | b"." | b"..") || deleted.starts_with(b".wh.")) {
            return Err(self.refuse(path, "it is the deletion of nothing"));
        }
        // What was deleted may be the directory that is open.
        self.parent = None;
        let Some(dir) = self.open(parent)? else {
            return Ok(());
        };
        let target = match (opaque, parent) {
            (true, _) => parent.to_owned(),
            (false, b"") => deleted.to_owned(),
            (false, _) => [parent, b"/", deleted].concat(),
        };
        let done = if opaque {
            self.clear(dir.as_fd(), &target)
        } else {
            self.delete(dir.as_fd(), deleted, &target)
        };
        done.map_err(|error| self.failed(&target, error))
    }

    fn delete(&mut self, dir: BorrowedFd, name: &[u8], path: &[u8]) -> rustix::io::Result<()> {
        match self.made.get(path) {
            None => {
                let inside = [path, b"/"].concat();
                self.tree
                    .times
                    .retain(|dir, _| dir != path && !dir.starts_with(&inside));
                match remove(dir, name) {
                    Err(Errno::NOENT) => Ok(()),
                    other => other,
                }
            }
            Some(Made::Directory) => match openat(dir, name, DIRECTORY, Mode::empty()) {
                Ok(inner) => self.clear(inner.as_fd(), path),
                Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error),
            },
            Some(_) => Ok(()),
        }
    }

    /// Deletes what a directory has from lower layers.
    fn clear(&mut self, dir: BorrowedFd, path: &[u8]) -> rustix::io::Result<()> {
        for name in names(dir)? {
            let inner = match path {
                b"" => name.clone(),
                path => [path, b"/", &name].concat(),
            };
            self.delete(dir, &name, &inner)?;
        }
        Ok(())
    }
}

fn names(dir: BorrowedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Removes whatever has that name, never through a link.
fn remove(dir: BorrowedFd, name: &[u8]) -> rustix::io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return done,
    }
    let inner = openat(dir, name, DIRECTORY, Mode::empty())?;
    for name in names(inner.as_fd())? {
        remove(inner.as_fd(), &name)?;
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}
