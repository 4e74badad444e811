//! Directory trees by descriptor: no component of a path is looked up twice, and no link is
//! followed. What services own may change under our feet.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Something in a directory, not followed when it is a link.
pub struct Entry<'a> {
    pub parent: BorrowedFd<'a>,
    pub name: &'a CStr,
    /// From where the walk began, with the prefix that it was given.
    pub path: &'a Path,
    pub stat: Stat,
}

impl Entry<'_> {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Opens it for reading; a FIFO that took its place does not hold us up.
    pub fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(self.parent, self.name, flags, Mode::empty())
    }

    pub fn target(&self) -> rustix::io::Result<CString> {
        rustix::fs::readlinkat(self.parent, self.name, Vec::new())
    }
}

/// What to do with a directory that was visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Enter,
    Pass,
}

pub fn directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

pub fn directory_at(parent: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// The names in a directory, sorted.
pub fn names(directory: impl AsFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub fn stat_at(parent: impl AsFd, name: &CStr) -> rustix::io::Result<Stat> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Visits all below a directory, parents first, by name. What vanishes meanwhile is passed
/// over.
///
/// # Errors
///
/// Those of `visit`, and a directory that cannot be read, with its path.
pub fn walk<E: From<(PathBuf, io::Error)>>(
    directory: &OwnedFd,
    path: &Path,
    visit: &mut dyn FnMut(&Entry<'_>) -> Result<Next, E>,
) -> Result<(), E> {
    let fail = |error: Errno| E::from((path.to_owned(), io::Error::from(error)));
    for name in names(directory).map_err(fail)? {
        let path = path.join(OsStr::from_bytes(name.as_bytes()));
        let fail = |error: Errno| E::from((path.clone(), io::Error::from(error)));
        let stat = match stat_at(directory, &name) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(fail)?,
        };
        let entry = Entry {
            parent: directory.as_fd(),
            name: &name,
            path: &path,
            stat,
        };
        let is_directory = entry.kind() == FileType::Directory;
        if visit(&entry)? == Next::Enter && is_directory {
            match directory_at(directory, &name) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(fail(error)),
                Ok(below) => walk(&below, &path, visit)?,
            }
        }
    }
    Ok(())
}

/// Removes a directory with all below it; one that is not there is no error.
pub fn remove(parent: impl AsFd, name: &CStr) -> rustix::io::Result<()> {
    let parent = parent.as_fd();
    match directory_at(parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            return rustix::fs::unlinkat(parent, name, AtFlags::empty());
        }
        Err(error) => return Err(error),
        Ok(directory) => {
            // A part of old data may be without the right to write for its owner.
            let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
            for name in names(&directory)? {
                match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
                    Err(Errno::ISDIR | Errno::PERM) => remove(&directory, &name)?,
                    Err(Errno::NOENT) => {}
                    other => other?,
                }
            }
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}
