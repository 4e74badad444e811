//! A private copy of a database's files on their own volume, so that the window in which
//! they must not change does not last as long as somebody reads the archive.
//!
//! Where the file system can share blocks (FICLONE) the copy is made at once. Elsewhere it is
//! made while the database runs, and only what has changed since is copied once more while
//! it holds still.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid};
use rustix::io::Errno;

use super::tree::{self, Entry};
use crate::sys;

const BLOCK: usize = 1 << 20;
/// Times of files are as coarse as the kernel's clock: what changed so shortly before we
/// looked may have changed since without a trace. Seconds.
const DOUBT: u64 = 2;
/// A pass over a running database that copied less than this is followed by the frozen one.
const LITTLE: u64 = 16 << 20;
const PASSES: u32 = 4;

type Broken = (PathBuf, io::Error);

/// What a file was like when it was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: i64,
    changed: (i64, u64),
    modified: (i64, u64),
}

impl Seen {
    fn of(stat: &Stat) -> Self {
        Seen {
            inode: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    fn is_old(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        let last = self.changed.0.max(self.modified.0).max(0).unsigned_abs();
        last + DOUBT < now
    }
}

/// One directory of a database and its copy.
pub struct Stage {
    source: OwnedFd,
    copy: OwnedFd,
    /// Files whose copy is up to date as long as they look like this.
    seen: BTreeMap<PathBuf, Seen>,
    shares_blocks: bool,
}

impl Stage {
    /// `copy` is an empty directory on the file system of `source`, which may share blocks.
    pub fn new(source: OwnedFd, copy: OwnedFd, shares_blocks: bool) -> Self {
        Stage {
            source,
            copy,
            seen: BTreeMap::new(),
            shares_blocks,
        }
    }

    /// Copies while the database runs, until little is left for the frozen pass.
    pub fn ahead(&mut self) -> Result<(), Broken> {
        if self.shares_blocks {
            return Ok(());
        }
        for _ in 0..PASSES {
            if self.pass()? < LITTLE {
                break;
            }
        }
        Ok(())
    }

    /// Makes the copy the same as the source; answers how many bytes were copied.
    pub fn pass(&mut self) -> Result<u64, Broken> {
        let (source, copy) = (
            self.source.try_clone().map_err(|e| (PathBuf::new(), e))?,
            self.copy.try_clone().map_err(|e| (PathBuf::new(), e))?,
        );
        self.level(&source, &copy, Path::new(""))
    }

    fn level(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> Result<u64, Broken> {
        let fail = |error: Errno| (path.to_owned(), io::Error::from(error));
        let mut copied = 0;
        let wanted = tree::names(from).map_err(fail)?;
        for name in tree::names(to).map_err(fail)? {
            if wanted.binary_search(&name).is_err() {
                tree::remove(to, &name).map_err(fail)?;
            }
        }
        for name in wanted {
            use std::os::unix::ffi::OsStrExt as _;
            let path = path.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
            let fail = |error: Errno| (path.clone(), io::Error::from(error));
            let stat = match tree::stat_at(from, &name) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(fail)?,
            };
            let entry = Entry {
                parent: from.as_fd(),
                name: &name,
                path: &path,
                stat,
            };
            let there = tree::stat_at(to, &name).ok();
            let other_kind =
                there.is_some_and(|there| FileType::from_raw_mode(there.st_mode) != entry.kind());
            if other_kind {
                tree::remove(to, &name).map_err(fail)?;
            }
            match entry.kind() {
                FileType::Directory => {
                    let below = match tree::directory_at(from, &name) {
                        Err(Errno::NOENT | Errno::NOTDIR) => continue,
                        other => other.map_err(fail)?,
                    };
                    match rustix::fs::mkdirat(to, &name, Mode::RWXU) {
                        Err(Errno::EXIST) => {}
                        other => other.map_err(fail)?,
                    }
                    let copy = tree::directory_at(to, &name).map_err(fail)?;
                    copied += self.level(&below, &copy, &path)?;
                    like(&copy, &stat).map_err(|error| (path.clone(), error))?;
                }
                FileType::RegularFile => {
                    copied += self
                        .file(&entry, to)
                        .map_err(|error| (path.clone(), error))?;
                }
                FileType::Symlink => {
                    let target = entry.target().map_err(fail)?;
                    let _ = rustix::fs::unlinkat(to, &name, AtFlags::empty());
                    rustix::fs::symlinkat(&target, to, &name).map_err(fail)?;
                }
                // Sockets and FIFOs are made anew by who needs them.
                _ => {}
            }
        }
        Ok(copied)
    }

    fn file(&mut self, entry: &Entry<'_>, to: &OwnedFd) -> io::Result<u64> {
        let from = match entry.open() {
            Err(Errno::NOENT | Errno::LOOP) => return Ok(0),
            other => other?,
        };
        let stat = rustix::fs::fstat(&from)?;
        let now = Seen::of(&stat);
        if self.seen.get(entry.path) == Some(&now) {
            return Ok(0);
        }
        let copy = match open_copy(to, entry.name) {
            Err(Errno::NOENT) => create(to, entry.name)?,
            // Its mode is the original's, and we are nobody who may pass over that.
            Err(Errno::ACCESS) => {
                rustix::fs::unlinkat(to, entry.name, AtFlags::empty())?;
                create(to, entry.name)?
            }
            other => other?,
        };
        let copied = if self.shares_blocks && rustix::fs::ioctl_ficlone(&copy, &from).is_ok() {
            0
        } else {
            // What is written through a mapping moves the file's time only when the page was
            // clean: so the time is looked at first, then the pages are cleaned, then read.
            let _ = rustix::fs::fdatasync(&from);
            same_blocks(&File::from(from), &File::from(copy.try_clone()?))?
        };
        like(&copy, &stat)?;
        if now.is_old() {
            self.seen.insert(entry.path.to_owned(), now);
        }
        Ok(copied)
    }
}

fn create(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
}

fn open_copy(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Writes the blocks that differ; answers how many bytes that were.
fn same_blocks(from: &File, to: &File) -> io::Result<u64> {
    let (mut source, mut copy) = (vec![0; BLOCK], vec![0; BLOCK]);
    let had = to.metadata()?.len();
    let (mut at, mut copied) = (0, 0);
    loop {
        let count = full(from, &mut source, at)?;
        if count == 0 {
            break;
        }
        let is_same = at < had
            && full(to, &mut copy[..count], at)? == count
            && source[..count] == copy[..count];
        if !is_same {
            to.write_all_at(&source[..count], at)?;
            copied += count as u64;
        }
        at += count as u64;
    }
    if had > at {
        to.set_len(at)?;
    }
    Ok(copied)
}

/// As much as there is, up to the buffer's size.
fn full(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Gives it owner, mode and time of another file, as far as the container lets us.
pub fn like(file: &OwnedFd, stat: &Stat) -> io::Result<()> {
    give(file, stat.st_uid, stat.st_gid, stat.st_mode & 0o7777)?;
    rustix::fs::futimens(
        file,
        &Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: stat.st_mtime_nsec.cast_signed(),
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: stat.st_mtime_nsec.cast_signed(),
            },
        },
    )?;
    Ok(())
}

/// Owner first: changing it clears setuid and setgid bits.
pub fn give(file: &OwnedFd, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    let found = rustix::fs::fstat(file)?;
    if (found.st_uid, found.st_gid) != (uid, gid) {
        let given = rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        if sys::may_own(uid, gid) {
            given?;
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    Ok(())
}
