//! Visits a tree in one fixed order: names sorted by bytes, a directory before what it holds.
//!
//! Everything is opened relative to the directory that holds it and without following
//! symbolic links, so a tree that changes meanwhile cannot lead out of its root.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat,
};

use crate::Error;
use crate::xattr::{self, Attributes, Overlay};

/// One directory is one open file here; the usual limit of a process is 1024.
pub(crate) const MAX_DEPTH: usize = 512;

/// What kind of tree is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An overlay's upper directory: overlayfs's own marks become whiteouts and opaque
    /// directories (image-spec, layer.md, Whiteouts).
    Overlay,
    /// A whole root file system.
    Tree,
}

/// One thing that was found.
pub(crate) struct Found<'a> {
    /// Relative to the root.
    pub(crate) path: &'a [u8],
    /// For [`Kind::Whiteout`] that of the mark.
    pub(crate) stat: &'a Stat,
    pub(crate) kind: Kind<'a>,
    pub(crate) attributes: Attributes,
}

pub(crate) enum Kind<'a> {
    /// Everything of that name in the layers below is hidden, when `opaque`.
    Directory {
        opaque: bool,
    },
    File {
        file: BorrowedFd<'a>,
    },
    Symlink {
        to: &'a [u8],
    },
    Fifo,
    Device {
        block: bool,
    },
    /// `path` is deleted from the layers below.
    Whiteout,
}

/// Visits all of `root` but the root itself: an engine makes that one.
///
/// An opaque root is passed as a directory with an empty path.
pub(crate) fn walk<E: From<Error>>(
    root: &Path,
    source: Source,
    skip: &dyn Fn(&Path) -> bool,
    visit: &mut dyn FnMut(Found) -> Result<(), E>,
) -> Result<(), E> {
    let dir = openat(CWD, root, DIRECTORY - OFlags::NOFOLLOW, Mode::empty())
        .map_err(|error| Error::io("open", root)(error.into()))?;
    let mut walk = Walk {
        root,
        source,
        skip,
        visit,
        path: Vec::new(),
    };
    let attributes = walk.attributes(dir.as_fd())?;
    if source == Source::Overlay && attributes.overlay.opaque {
        let stat = walk.fail("read", fstat(&dir))?;
        (walk.visit)(Found {
            path: b"",
            stat: &stat,
            kind: Kind::Directory { opaque: true },
            attributes,
        })?;
    }
    walk.directory(dir, 1)
}

pub(crate) const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    // What was a file a moment ago may be a FIFO now, which would block.
    .union(OFlags::NONBLOCK);
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::DIRECTORY);

struct Walk<'a, E> {
    root: &'a Path,
    source: Source,
    skip: &'a dyn Fn(&Path) -> bool,
    visit: &'a mut dyn FnMut(Found) -> Result<(), E>,
    /// Of what is being looked at, relative to the root.
    path: Vec<u8>,
}

impl<E: From<Error>> Walk<'_, E> {
    fn directory(&mut self, dir: OwnedFd, depth: usize) -> Result<(), E> {
        if depth > MAX_DEPTH {
            let (path, limit) = (self.inside(), MAX_DEPTH);
            return Err(Error::TooDeep { path, limit }.into());
        }
        let names = self.fail("list", names(&dir))?;
        let length = self.path.len();
        for name in names {
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend(name.as_bytes());
            if !(self.skip)(Path::new(OsStr::from_bytes(&self.path))) {
                self.entry(dir.as_fd(), &name, depth)?;
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd, name: &CString, depth: usize) -> Result<(), E> {
        if name.as_bytes().starts_with(b".wh.") {
            return Err(Error::ReservedName {
                path: self.inside(),
            }
            .into());
        }
        let stat = self.fail("read", statat(dir, name, AtFlags::SYMLINK_NOFOLLOW))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let fd = self.fail("open", openat(dir, name, DIRECTORY, Mode::empty()))?;
                let stat = self.fail("read", fstat(&fd))?;
                let attributes = self.attributes(fd.as_fd())?;
                let opaque = self.source == Source::Overlay && attributes.overlay.opaque;
                self.found(&stat, Kind::Directory { opaque }, attributes)?;
                self.directory(fd, depth + 1)
            }
            FileType::RegularFile => {
                let fd = self.fail("open", openat(dir, name, FILE, Mode::empty()))?;
                let stat = self.fail("read", fstat(&fd))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    let (path, what) = (self.inside(), "it was replaced");
                    return Err(Error::Changed { path, what }.into());
                }
                let attributes = self.attributes(fd.as_fd())?;
                if self.source == Source::Overlay
                    && attributes.overlay.whiteout
                    && stat.st_size == 0
                {
                    return self.found(&stat, Kind::Whiteout, Attributes::default());
                }
                self.found(&stat, Kind::File { file: fd.as_fd() }, attributes)
            }
            FileType::Symlink => {
                let target = self.fail("read", readlinkat(dir, name, Vec::new()))?;
                let kind = Kind::Symlink {
                    to: target.as_bytes(),
                };
                self.found(&stat, kind, Attributes::default())
            }
            FileType::Fifo => self.found(&stat, Kind::Fifo, Attributes::default()),
            // It belongs to a process that is gone; tar has no form for it.
            FileType::Socket => Ok(()),
            FileType::CharacterDevice if self.source == Source::Overlay && stat.st_rdev == 0 => {
                self.found(&stat, Kind::Whiteout, Attributes::default())
            }
            kind => {
                let block = kind == FileType::BlockDevice;
                self.found(&stat, Kind::Device { block }, Attributes::default())
            }
        }
    }

    fn found(&mut self, stat: &Stat, kind: Kind, attributes: Attributes) -> Result<(), E> {
        (self.visit)(Found {
            path: &self.path,
            stat,
            kind,
            attributes,
        })
    }

    fn attributes(&self, fd: BorrowedFd) -> Result<Attributes, E> {
        let attributes =
            xattr::read(fd).map_err(Error::io("read the attributes of", &self.outside()))?;
        let feature = match attributes.overlay {
            Overlay { redirect: true, .. } => "redirect_dir",
            Overlay { metacopy: true, .. } => "metacopy",
            _ => return Ok(attributes),
        };
        match self.source {
            Source::Overlay => Err(Error::OverlayFeature {
                path: self.inside(),
                feature,
            }
            .into()),
            Source::Tree => Ok(attributes),
        }
    }

    /// The path for errors about the tree's content.
    fn inside(&self) -> PathBuf {
        Path::new("/").join(OsStr::from_bytes(&self.path))
    }

    /// The path for errors of the system.
    fn outside(&self) -> PathBuf {
        self.root.join(OsStr::from_bytes(&self.path))
    }

    fn fail<T>(&self, action: &'static str, result: rustix::io::Result<T>) -> Result<T, E> {
        result.map_err(|error| Error::io(action, &self.outside())(io::Error::from(error)).into())
    }
}

pub(crate) fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
