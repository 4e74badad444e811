//! Copies of directory trees on a volume: nothing is followed out of the tree, and owners,
//! modes, times, extended attributes, links and holes are as they were.
//!
//! Content is shared with the original where the file system can (FICLONE: btrfs, XFS,
//! bcachefs); then a copy takes no room and no time. Whoever calls sees to it that nobody
//! writes to the tree meanwhile: a copy of a database that runs is worth nothing.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::exit::Failure;
use crate::root::cannot_create;

/// What is done with what.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'r> {
    /// A file is a hard link to the original where it cannot share content otherwise: no
    /// room is taken, but what changes the one in place changes the other.
    pub link: bool,
    /// Directories with files that change in place: never hard links there.
    pub apart: &'r [PathBuf],
    /// Left out with all that is below.
    pub skip: &'r [PathBuf],
}

/// How much a tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Files, directories and links.
    pub entries: u64,
    /// That a copy takes on the disk when no content is shared.
    pub bytes: u64,
}

/// What is free for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// `None` where the file system makes them as it goes.
    pub inodes: Option<u64>,
}

/// What could not be copied or measured.
#[derive(Debug)]
pub struct Problem {
    pub path: PathBuf,
    pub error: io::Error,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

impl Problem {
    pub fn failure(&self, what: &str) -> Failure {
        cannot_create(what, &self.path.to_string_lossy(), &self.error)
    }
}

/// Deeper trees are somebody's joke; each level holds two descriptors.
const DEPTH: usize = 200;

/// Free room where `path` lies.
pub fn room(path: &Path) -> io::Result<Room> {
    let found = sys::statvfs(path)?;
    Ok(Room {
        bytes: found.f_bavail.saturating_mul(found.f_frsize),
        inodes: (found.f_files > 0).then_some(found.f_favail),
    })
}

/// Whether two files in `directory` can share content; tried with two small ones.
pub fn shares(directory: &Path) -> bool {
    let attempt = || -> io::Result<bool> {
        let name = |which| directory.join(format!(".tiffin-share-{which}-{}", std::process::id()));
        let (from, to) = (name("a"), name("b"));
        let shared = (|| {
            std::fs::write(&from, [b'x'; 4096])?;
            let (from, to) = (File::open(&from)?, File::create(&to)?);
            Ok(sys::ioctl_ficlone(&to, &from).is_ok())
        })();
        let _ = std::fs::remove_file(&from);
        let _ = std::fs::remove_file(&to);
        shared
    };
    attempt().unwrap_or(false)
}

/// What a copy by these rules takes on a file system that shares nothing; a tree that does
/// not exist is empty.
///
/// # Errors
///
/// When a directory cannot be read.
pub fn measure(tree: &Path, rules: Rules<'_>) -> Result<Size, Problem> {
    let mut size = Size::default();
    let mut seen = HashSet::new();
    match open_tree(tree) {
        Err(problem) if problem.error.kind() == io::ErrorKind::NotFound => return Ok(size),
        Err(problem) => return Err(problem),
        Ok(directory) => {
            let place = Place::new(tree, rules);
            walk_size(&directory, &place, rules, 0, &mut size, &mut seen)?;
        }
    }
    Ok(size)
}

fn walk_size(
    directory: &OwnedFd,
    place: &Place,
    rules: Rules<'_>,
    depth: usize,
    size: &mut Size,
    seen: &mut HashSet<(u64, u64)>,
) -> Result<(), Problem> {
    size.entries += 1;
    for name in names(directory).map_err(|error| place.problem(error))? {
        let below = place.below(&name, rules);
        if below.skipped {
            continue;
        }
        let told = |error: Errno| below.problem(error.into());
        let found = sys::statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(told)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let inner = open_directory(directory, &name).map_err(told)?;
                below.depth(depth)?;
                walk_size(&inner, &below, rules, depth + 1, size, seen)?;
            }
            FileType::RegularFile => {
                size.entries += 1;
                let again = found.st_nlink > 1 && !seen.insert(inode(&found));
                if !below.linked && !again {
                    size.bytes += found.st_blocks.unsigned_abs() * 512;
                }
            }
            _ => size.entries += 1,
        }
    }
    Ok(())
}

/// Copies the tree; `to` must not exist, and its parent must be on the disk already. All
/// content is on the disk when this returns.
///
/// # Errors
///
/// The first thing that could not be copied. What was made of `to` stays: a name of its own,
/// for [`std::fs::remove_dir_all`].
pub fn tree(from: &Path, to: &Path, rules: Rules<'_>) -> Result<Size, Problem> {
    let source = open_tree(from)?;
    let at_target = |error: io::Error| Problem {
        path: to.to_owned(),
        error,
    };
    sys::mkdir(to, Mode::RWXU).map_err(|error| at_target(error.into()))?;
    let target = open_tree(to)?;
    let mut copier = Copier {
        top: target.as_fd(),
        rules,
        shares: true,
        linked: HashMap::new(),
        size: Size::default(),
    };
    let place = Place::new(from, rules);
    copier.directory(&source, &target, &place, Path::new(""), 0)?;
    let size = copier.size;
    // One by one, a small copy does not wait for what others write to the same disk.
    match size.entries <= FEW {
        true => flush(&target, 0),
        false => sys::syncfs(&target).map_err(Into::into),
    }
    .map_err(at_target)?;
    Ok(size)
}

/// The most entries that are flushed one by one.
const FEW: u64 = 2000;

fn flush(directory: &OwnedFd, depth: usize) -> io::Result<()> {
    for name in names(directory)? {
        let found = sys::statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory if depth <= DEPTH => {
                flush(&open_directory(directory, &name)?, depth + 1)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                sys::fsync(sys::openat(directory, &*name, flags, Mode::empty())?)?;
            }
            _ => {}
        }
    }
    sys::fsync(directory)?;
    Ok(())
}

/// Where a walk is, for errors and rules.
struct Place {
    path: PathBuf,
    /// Hard links are made here.
    linked: bool,
    skipped: bool,
}

impl Place {
    fn new(path: &Path, rules: Rules<'_>) -> Place {
        Place {
            path: path.to_owned(),
            linked: rules.link && !rules.apart.iter().any(|apart| path.starts_with(apart)),
            skipped: false,
        }
    }

    fn below(&self, name: &CStr, rules: Rules<'_>) -> Place {
        let path = self.path.join(text(name));
        Place {
            linked: self.linked && !rules.apart.contains(&path),
            skipped: rules.skip.contains(&path),
            path,
        }
    }

    fn problem(&self, error: io::Error) -> Problem {
        Problem {
            path: self.path.clone(),
            error,
        }
    }

    fn depth(&self, depth: usize) -> Result<(), Problem> {
        match depth < DEPTH {
            true => Ok(()),
            false => Err(self.problem(io::Error::other(format!(
                "more than {DEPTH} directories within each other"
            )))),
        }
    }
}

struct Copier<'a> {
    /// The copy's own directory.
    top: BorrowedFd<'a>,
    rules: Rules<'a>,
    /// The file systems share content, as far as is known.
    shares: bool,
    /// Files with several names, by device and inode: where the first one is in the copy.
    linked: HashMap<(u64, u64), PathBuf>,
    size: Size,
}

impl Copier<'_> {
    fn directory(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        place: &Place,
        inside: &Path,
        depth: usize,
    ) -> Result<(), Problem> {
        self.size.entries += 1;
        for name in names(source).map_err(|error| place.problem(error))? {
            let below = place.below(&name, self.rules);
            if below.skipped {
                continue;
            }
            let found = sys::statat(source, &*name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| below.problem(error.into()))?;
            let inside = inside.join(text(&name));
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                below.depth(depth)?;
                let opened = || -> io::Result<(OwnedFd, OwnedFd)> {
                    let source = open_directory(source, &name)?;
                    sys::mkdirat(target, &*name, Mode::RWXU)?;
                    Ok((source, open_directory(target, &name)?))
                };
                let (source, target) = opened().map_err(|error| below.problem(error))?;
                self.directory(&source, &target, &below, &inside, depth + 1)?;
            } else {
                self.size.entries += 1;
                self.other(source, target, &name, &found, below.linked, &inside)
                    .map_err(|error| below.problem(error))?;
            }
        }
        let settle = || -> io::Result<()> {
            let found = sys::fstat(source)?;
            attributes(source.as_fd(), target.as_fd(), &found)
        };
        // Last: what is made inside changes the time.
        settle().map_err(|error| place.problem(error))
    }

    /// Anything but a directory.
    fn other(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        found: &Stat,
        linked: bool,
        inside: &Path,
    ) -> io::Result<()> {
        if found.st_nlink > 1 {
            if let Some(first) = self.linked.get(&inode(found)) {
                sys::linkat(self.top, first, target, name, AtFlags::empty())?;
                return Ok(());
            }
            self.linked.insert(inode(found), inside.to_owned());
        }
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => self.file(source, target, name, linked),
            FileType::Symlink => {
                let leads = sys::readlinkat(source, name, Vec::new())?;
                sys::symlinkat(&*leads, target, name)?;
                own_at(target, name, found)?;
                times_at(target, name, found)
            }
            kind => {
                let mode = Mode::from_raw_mode(found.st_mode);
                sys::mknodat(target, name, kind, mode, found.st_rdev)?;
                own_at(target, name, found)?;
                // After the owner, and without the process's umask.
                sys::chmodat(target, name, mode, AtFlags::empty())?;
                times_at(target, name, found)
            }
        }
    }

    fn file(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        linked: bool,
    ) -> io::Result<()> {
        // Without NONBLOCK, a pipe that took the file's place would hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = sys::openat(source, name, flags, Mode::empty())?;
        let found = sys::fstat(&from)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("somebody changes it"));
        }
        if linked && !self.shares && links(source, target, name) {
            return Ok(());
        }
        let create = || {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            sys::openat(target, name, flags, Mode::RUSR | Mode::WUSR)
        };
        let mut to = create()?;
        if found.st_size > 0 && !self.share(&from, &to) {
            if linked {
                sys::unlinkat(target, name, AtFlags::empty())?;
                if links(source, target, name) {
                    return Ok(());
                }
                to = create()?;
            }
            let length = found.st_size.unsigned_abs();
            self.size.bytes += content(&from, &to, length)?;
        }
        attributes(from.as_fd(), to.as_fd(), &found)
    }

    /// Whether the new file has the content of the other one now.
    fn share(&mut self, from: &OwnedFd, to: &OwnedFd) -> bool {
        self.shares = self.shares && sys::ioctl_ficlone(to, from).is_ok();
        self.shares
    }
}

/// Whether the file has a second name now; it cannot on another file system, when it has too
/// many, or when it is somebody else's.
fn links(source: &OwnedFd, target: &OwnedFd, name: &CStr) -> bool {
    sys::linkat(source, name, target, name, AtFlags::empty()).is_ok()
}

/// Copies `length` bytes, holes as holes; how many were written.
fn content(from: &OwnedFd, to: &OwnedFd, length: u64) -> io::Result<u64> {
    let (from, to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
    let (mut at, mut written) = (0, 0);
    while at < length {
        let begin = match sys::seek(&from, sys::SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing but a hole until the end.
            Err(Errno::NXIO) => break,
            // The file system does not tell.
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = sys::seek(&from, sys::SeekFrom::Hole(begin)).unwrap_or(length);
        let end = end.min(length);
        if begin >= end {
            break;
        }
        (&from).seek(SeekFrom::Start(begin))?;
        (&to).seek(SeekFrom::Start(begin))?;
        // The standard library lets the kernel copy (copy_file_range).
        let count = io::copy(&mut (&from).take(end - begin), &mut &to)?;
        written += count;
        if count < end - begin {
            // It became shorter.
            break;
        }
        at = end;
    }
    to.set_len(length)?;
    Ok(written)
}

/// Owner, mode, extended attributes and times, in an order in which none undoes another.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, found: &Stat) -> io::Result<()> {
    let (uid, gid) = (owner(found), group(found));
    tolerated(sys::fchown(to, Some(uid), Some(gid)), found)?;
    sys::fchmod(to, Mode::from_raw_mode(found.st_mode))?;
    extended(from, to)?;
    sys::futimens(to, &times(found))?;
    Ok(())
}

/// Also access control lists and file capabilities, which are attributes. What only the
/// kernel or a greater power may set is left to it.
fn extended(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut list = vec![0_u8; 1 << 16];
    let length = match sys::flistxattr(from, &mut list) {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    list.truncate(length);
    // As much as one can hold (xattr(7)).
    let mut value = vec![0_u8; 1 << 16];
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = CString::new(name)?;
        let length = match sys::fgetxattr(from, &*name, &mut value) {
            Ok(length) => length,
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        };
        let set = sys::fsetxattr(to, &*name, &value[..length], sys::XattrFlags::empty());
        let lesser =
            name.to_bytes().starts_with(b"security.") || name.to_bytes().starts_with(b"trusted.");
        match set {
            Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS) if lesser => {}
            other => other?,
        }
    }
    Ok(())
}

fn own_at(directory: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
    let (uid, gid) = (owner(found), group(found));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let done = sys::chownat(directory, name, Some(uid), Some(gid), flags);
    tolerated(done, found)
}

fn times_at(directory: &OwnedFd, name: &CStr, found: &Stat) -> io::Result<()> {
    sys::utimensat(directory, name, &times(found), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Where the container may not give files away, owners are what they are.
fn tolerated(done: Result<(), Errno>, found: &Stat) -> io::Result<()> {
    match done {
        Err(_) if !crate::sys::may_own(found.st_uid, found.st_gid) => Ok(()),
        other => Ok(other?),
    }
}

fn owner(found: &Stat) -> sys::Uid {
    sys::Uid::from_raw(found.st_uid)
}

fn group(found: &Stat) -> sys::Gid {
    sys::Gid::from_raw(found.st_gid)
}

fn times(found: &Stat) -> sys::Timestamps {
    let time = |seconds: i64, nanoseconds: u64| sys::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.cast_signed(),
    };
    sys::Timestamps {
        last_access: time(found.st_atime, found.st_atime_nsec),
        last_modification: time(found.st_mtime, found.st_mtime_nsec),
    }
}

fn inode(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

/// A directory by its whole path: links on the way there are the box's own affair, but the
/// last name is no link.
fn open_tree(path: &Path) -> Result<OwnedFd, Problem> {
    sys::open(path, DIRECTORY, Mode::empty()).map_err(|error| Problem {
        path: path.to_owned(),
        error: error.into(),
    })
}

fn open_directory(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    sys::openat(parent, name, DIRECTORY, Mode::empty())
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Sorted, so that a copy is made in the same order each time.
fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in sys::Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn text(name: &CStr) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(name.to_bytes())
}

#[cfg(test)]
mod tests;
