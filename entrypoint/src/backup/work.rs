//! The directory that a backup works in, on each volume that it needs one on.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::place::{OWN, WORK};
use super::tree;
use crate::exit::{Code, Failure, Result};
use crate::root::{Root, cannot_create};

/// The directory that a backup works in: one at a time, and what it leaves is removed with it.
pub struct Work<'a> {
    root: &'a Root,
    pub first: String,
    /// Held for as long as the backup lasts.
    lock: OwnedFd,
}

impl<'a> Work<'a> {
    pub fn open(root: &'a Root, first: &str) -> Result<Self> {
        let fail = |error: Errno| cannot_create("the lock of backups on", first, &error.into());
        let lock = Self::directory(root, first).map_err(fail)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Failure::new(
                Code::Locked,
                "cannot back up: another backup of this volume is under way",
            )
            .hint(
                "wait for it; one whose reader is gone ends when its `tiffin backup` is killed",
            ));
        }
        let work = Work {
            root,
            first: first.to_owned(),
            lock,
        };
        work.clear(first);
        Ok(work)
    }

    pub fn directory(root: &Root, volume: &str) -> rustix::io::Result<OwnedFd> {
        let mut directory = tree::directory(&root.path(volume))?;
        for name in [OWN, WORK] {
            match rustix::fs::mkdirat(&directory, name, Mode::RWXU) {
                Err(Errno::EXIST) => {}
                other => other?,
            }
            directory = tree::directory_at(&directory, name)?;
        }
        Ok(directory)
    }

    pub fn clear(&self, volume: &str) {
        if let Ok(directory) = Self::directory(self.root, volume)
            && let Ok(names) = tree::names(&directory)
        {
            for name in names {
                let _ = tree::remove(&directory, &name);
            }
        }
    }

    /// A file that ends with its descriptor.
    pub fn nameless(&self) -> Result<File> {
        let fail = |error: Errno| {
            cannot_create(
                "a file in",
                &format!("{}/.tiffin", self.first),
                &error.into(),
            )
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.lock, c"sums", flags, Mode::RUSR | Mode::WUSR)
            .map_err(fail)?;
        rustix::fs::unlinkat(&self.lock, c"sums", rustix::fs::AtFlags::empty()).map_err(fail)?;
        Ok(File::from(file))
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.clear(&self.first);
    }
}
