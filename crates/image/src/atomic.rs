//! Files that are whole or absent: written beside their place under a name that nobody
//! asks for, synced, then renamed.
//!
//! A killed process leaves at most a file named `.tiffin-partial-*`, which any later
//! run may remove.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// How the name of a file begins that is on its way to its final one.
pub const PARTIAL: &str = ".tiffin-partial-";

/// A file on its way to its final name; dropped before [`Partial::persist`] it is removed.
#[derive(Debug)]
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    kept: bool,
    /// Bytes since the disk was last asked to begin.
    unflushed: u64,
    flusher: Option<Flusher>,
}

/// So much is on its way to the disk while more is written: a sync of everything at the end would
/// be waited for by all processors.
const FLUSH: u64 = 16 << 20;

/// Syncs whenever it is asked to, and is asked in vain while it does.
#[derive(Debug)]
struct Flusher {
    ask: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Flusher {
    fn new(file: File) -> Flusher {
        let (ask, asked) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            for () in asked {
                // Told to whoever syncs first, and to nobody after.
                file.sync_data()?;
            }
            Ok(())
        });
        Flusher { ask, thread }
    }

    fn end(self) -> io::Result<()> {
        drop(self.ask);
        self.thread.join().expect("syncing does not panic")
    }
}

impl Partial {
    /// Creates `dir` too when it is missing.
    pub(crate) fn new(dir: &Path) -> Result<Partial, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        loop {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{PARTIAL}{}-{next}", std::process::id()));
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    // Tells a later run that somebody still writes it.
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    return Ok(Partial {
                        file,
                        path,
                        kept: false,
                        unflushed: 0,
                        flusher: None,
                    });
                }
                // Left by a killed process that had this one's number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::write(&path, None)(error)),
            }
        }
    }

    /// Syncs, gives the file its name, and syncs the directory, so that the name outlives
    /// a power failure. What was there before is replaced.
    pub(crate) fn persist(mut self, path: &Path) -> Result<(), Error> {
        let flushed = self.flusher.take().map_or(Ok(()), Flusher::end);
        flushed
            .and_then(|()| self.file.sync_all())
            .map_err(Error::write(path, None))?;
        fs::rename(&self.path, path).map_err(Error::io("rename the finished", path))?;
        self.kept = true;
        let dir = parent(path);
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io("sync", dir))
    }
}

impl Write for Partial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.unflushed += count as u64;
        if self.unflushed >= FLUSH {
            self.unflushed = 0;
            if self.flusher.is_none() {
                self.flusher = self.file.try_clone().ok().map(Flusher::new);
            }
            if let Some(flusher) = &self.flusher {
                let _ = flusher.ask.try_send(());
            }
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing more can be done about a failure here; the name marks it as waste.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes from `dir` what killed processes left half written.
pub fn remove_leftovers(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PARTIAL);
        // Between making a file and locking it lies a moment.
        let old = |file: &File| {
            let made = file.metadata().and_then(|found| found.modified()).ok();
            made.and_then(|time| time.elapsed().ok())
                .is_some_and(|age| age.as_secs() > 60)
        };
        if ours
            && let Ok(file) = File::open(entry.path())
            && old(&file)
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The directory that holds `path`; `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => Path::new("/"),
    }
}

/// Mount point of the file system that holds `path`, and the bytes that are free there.
pub(crate) fn space(path: &Path) -> (PathBuf, u64) {
    // The directory may still have to be made; its place is on the same file system.
    let dir = std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .ancestors()
        .skip(1)
        .find_map(|dir| fs::canonicalize(dir).ok())
        .unwrap_or_else(|| parent(path).to_owned());
    let free = rustix::fs::statvfs(&dir).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
    let device = |path: &Path| rustix::fs::stat(path).ok().map(|stat| stat.st_dev);
    let here = device(&dir);
    let mount = dir
        .ancestors()
        .take_while(|path| device(path) == here)
        .last()
        .unwrap_or(&dir)
        .to_owned();
    (mount, free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_being_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
        let left = dir.path().join(format!("{PARTIAL}1-0"));
        let other = dir.path().join("other");
        for path in [&left, &other] {
            File::create(path).unwrap().set_modified(hour_ago).unwrap();
        }
        let writing = Partial::new(dir.path()).unwrap();
        writing.file.set_modified(hour_ago).unwrap();
        let fresh = dir.path().join(format!("{PARTIAL}2-0"));
        File::create(&fresh).unwrap();
        remove_leftovers(dir.path());
        assert!(!left.exists() && other.exists() && fresh.exists() && writing.path.exists());
    }
}
