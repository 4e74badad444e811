//! The files of the volumes, as members of the archive.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::archive::{Meta, Stability, Writer};
use super::description::{DESCRIPTION, Description};
use super::output::unwritten;
use super::progress::Progress;
use super::scope::{Broken, Scope, member, unreadable};
use super::tree::{self, Entry, Next};
use crate::exit::Result;

/// The archive while it is written.
pub struct Stream<'a> {
    pub scope: &'a Scope<'a>,
    pub writer: Writer,
    /// Files with several names, by device and inode.
    pub links: HashMap<(u64, u64), PathBuf>,
    pub warnings: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    pub progress: Progress,
}

fn meta(stat: &Stat) -> Meta {
    Meta {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        mtime: stat.st_mtime.max(0).unsigned_abs(),
    }
}

impl Stream<'_> {
    pub fn everything(&mut self, description: &Description) -> Result<()> {
        let text = format!("{:#}\n", serde_json::json!(description));
        let own = Meta {
            uid: 0,
            gid: 0,
            mode: 0o600,
            mtime: 0,
        };
        let size = text.len() as u64;
        self.writer
            .file(
                Path::new(DESCRIPTION),
                own,
                size,
                &mut text.as_bytes(),
                &mut |_| {},
            )
            .map_err(unwritten)?;
        for volume in self.scope.volumes {
            self.volume(volume)?;
        }
        Ok(())
    }

    fn volume(&mut self, volume: &str) -> Result<()> {
        let scope = self.scope;
        let mut above = BTreeSet::new();
        let own = member(volume);
        self.directory(&own, &mut above)?;
        // Databases first: a file that one of them speaks of is there already.
        let inner = |path: &Path| {
            let volumes = scope.volumes.iter().map(|volume| member(volume));
            volumes
                .filter(|volume| path.starts_with(volume))
                .max_by_key(|v| v.as_os_str().len())
        };
        let staged = scope
            .staged
            .iter()
            .filter(|(path, _)| inner(path).as_ref() == Some(&own));
        for (path, copy) in staged {
            let folders: Vec<&Path> = path.ancestors().skip(1).collect();
            for folder in folders.into_iter().rev().filter(|f| f.starts_with(&own)) {
                self.directory(folder, &mut above)?;
            }
            self.directory(path, &mut above)?;
            let directory = tree::directory(copy).map_err(|e| unreadable(path, &e.into()))?;
            tree::walk::<Broken>(&directory, path, &mut |entry| {
                self.entry(entry)?;
                Ok(Next::Enter)
            })
            .map_err(|Broken(failure)| failure)?;
        }
        scope.walk(volume, &mut |entry| {
            if scope.staged.contains_key(entry.path) {
                return Ok(Next::Pass);
            }
            if !above.contains(entry.path) {
                self.entry(entry)?;
            }
            Ok(Next::Enter)
        })
    }

    /// A directory of the volume itself, once.
    fn directory(&mut self, path: &Path, above: &mut BTreeSet<PathBuf>) -> Result<()> {
        if !above.insert(path.to_owned()) {
            return Ok(());
        }
        let text = path.to_string_lossy();
        let stat = rustix::fs::lstat(self.scope.root.path(&text))
            .map_err(|error| unreadable(path, &error.into()))?;
        self.writer.directory(path, meta(&stat)).map_err(unwritten)
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Broken> {
        let path = entry.path;
        match entry.kind() {
            FileType::Directory => self
                .writer
                .directory(path, meta(&entry.stat))
                .map_err(unwritten)?,
            FileType::Symlink => match entry.target() {
                Ok(target) => self
                    .writer
                    .symlink(path, meta(&entry.stat), target.to_bytes())
                    .map_err(unwritten)?,
                Err(_) => self.vanished(path),
            },
            FileType::RegularFile => self.file(entry)?,
            // Sockets and FIFOs are made anew by who needs them.
            FileType::Socket | FileType::Fifo => {}
            _ => self
                .warnings
                .push(format!("/{} is a device: it is left out", path.display())),
        }
        Ok(())
    }

    fn vanished(&mut self, path: &Path) {
        self.warnings.push(format!(
            "/{} was removed before it was read",
            path.display()
        ));
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<(), Broken> {
        let path = entry.path;
        let file = match entry.open() {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP) => {
                self.vanished(path);
                return Ok(());
            }
            Err(error) => return Err(unreadable(path, &error.into()).into()),
        };
        let stat = rustix::fs::fstat(file.as_fd()).map_err(|e| unreadable(path, &e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            self.vanished(path);
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&identity) {
                return Ok(self
                    .writer
                    .hard_link(path, meta(&stat), first)
                    .map_err(unwritten)?);
            }
            self.links.insert(identity, path.to_owned());
        }
        let size = stat.st_size.max(0).unsigned_abs();
        let mut content = Reading {
            file: File::from(file),
            failed: None,
        };
        let progress = &mut self.progress;
        let written = self
            .writer
            .file(path, meta(&stat), size, &mut content, &mut |n| {
                progress.add(n)
            });
        if let Some(error) = content.failed {
            return Err(unreadable(path, &error).into());
        }
        match written.map_err(unwritten)? {
            Stability::Steady => {}
            Stability::Shrunk => self.warnings.push(format!(
                "/{} became shorter while it was read: its end is zeros",
                path.display()
            )),
            Stability::Grew => self.warnings.push(format!(
                "/{} became longer while it was read: its new end is not in the backup",
                path.display()
            )),
        }
        self.files += 1;
        self.bytes += size;
        Ok(())
    }
}

/// Tells an error of reading from one of writing.
struct Reading {
    file: File,
    failed: Option<io::Error>,
}

impl io::Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                let told = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(told)
            }
            other => other,
        }
    }
}
