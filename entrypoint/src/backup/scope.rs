//! What belongs to a backup, and where it is read.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::output::PARTIAL;
use super::place::{self, OWN};
use super::progress::bytes;
use super::stage::Stage;
use super::tree::{self, Entry, Next};
use super::work::Work;
use crate::copy as trees;
use crate::exit::{Code, Failure, Result};
use crate::root::Root;

/// Room that is left on a volume beside the copy of its databases.
const SPARE: u64 = 64 << 20;
/// The path, and what is wrong with it.
pub struct Broken(pub Failure);

impl From<(PathBuf, io::Error)> for Broken {
    fn from((path, error): (PathBuf, io::Error)) -> Self {
        Broken(unreadable(&path, &error))
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Broken(failure)
    }
}

pub fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Code::Failed,
        format!("cannot back up /{}: {error}", path.display()),
    )
}

/// What belongs to a backup.
pub struct Scope<'a> {
    pub root: &'a Root,
    pub volumes: &'a [String],
    pub left_out: &'a [String],
    /// Where the copy of a directory is that is read instead of it; by the path in the archive.
    pub staged: BTreeMap<PathBuf, PathBuf>,
    /// The file that the archive is written to, by device and inode.
    pub output: Option<(u64, u64)>,
}

/// The path in the archive.
pub fn member(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches('/'))
}

impl Scope<'_> {
    /// Whether something is no part of the backup, with all below it.
    fn leaves_out(&self, volume: &str, entry: &Entry<'_>) -> bool {
        let rest = entry
            .path
            .strip_prefix(volume.trim_start_matches('/'))
            .unwrap_or(entry.path);
        let mut parts = rest.components();
        let top = parts.next().map(|part| part.as_os_str().as_bytes());
        let in_own = top == Some(OWN.to_bytes());
        let depth = 1 + parts.count();
        (depth == 1 && place::stays(entry.parent, entry.name))
            || (depth == 2 && in_own && place::stays_in_own(entry.name))
            || place::is_leftover(entry.name.to_bytes())
            || entry.name.to_bytes().ends_with(PARTIAL.as_bytes())
            || self.output == Some((entry.stat.st_dev, entry.stat.st_ino))
            || self.left_out.iter().any(|path| member(path) == entry.path)
            || self.volumes.iter().any(|path| member(path) == entry.path)
    }

    /// Files and bytes, for progress and for the room that a restore needs.
    pub fn measure(&self) -> Result<(u64, u64)> {
        let (mut files, mut size) = (0, 0);
        for volume in self.volumes {
            self.walk(volume, &mut |entry| {
                if entry.kind() == FileType::RegularFile {
                    files += 1;
                    size += entry.stat.st_size.max(0).unsigned_abs();
                }
                Ok(Next::Enter)
            })?;
        }
        Ok((files, size))
    }

    /// Visits what is to be in the archive of one volume.
    pub fn walk(
        &self,
        volume: &str,
        visit: &mut dyn FnMut(&Entry<'_>) -> Result<Next, Broken>,
    ) -> Result<()> {
        let path = member(volume);
        let directory = tree::directory(&self.root.path(volume))
            .map_err(|error| unreadable(&path, &error.into()))?;
        tree::walk::<Broken>(
            &directory,
            &path,
            &mut |entry| match self.leaves_out(volume, entry) {
                true => Ok(Next::Pass),
                false => visit(entry),
            },
        )
        .map_err(|Broken(failure)| failure)
    }

    /// Prepares the private copy of a database's directory; none when it does not exist yet.
    pub fn stage(&mut self, work: &Work<'_>, directory: &str) -> Result<Option<(PathBuf, Stage)>> {
        let path = member(directory);
        let fail = |error: Errno| unreadable(&path, &error.into());
        let source = match tree::directory(&self.root.path(directory)) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(Failure::new(
                    Code::Failed,
                    format!("cannot back up {directory}: it is a link or no directory"),
                )
                .hint("mount what it leads to at this place instead"));
            }
            other => other.map_err(fail)?,
        };
        // The copy is on the directory's own volume: only there blocks can be shared.
        let volume = self
            .volumes
            .iter()
            .filter(|volume| path.starts_with(member(volume)))
            .max_by_key(|volume| volume.len())
            .map_or(work.first.as_str(), String::as_str);
        if volume != work.first && !self.staged.keys().any(|p| p.starts_with(member(volume))) {
            work.clear(volume);
        }
        let parent = Work::directory(self.root, volume).map_err(fail)?;
        let name = format!("stage-{}", self.staged.len());
        let place = format!("{volume}/.tiffin/backup/{name}");
        let name = CString::new(name).unwrap_or_default();
        rustix::fs::mkdirat(&parent, &name, Mode::RWXU).map_err(fail)?;
        let copy = tree::directory_at(&parent, &name).map_err(fail)?;
        let mut need = 0;
        tree::walk::<Broken>(&source, &path, &mut |entry| {
            need += entry.stat.st_size.max(0).unsigned_abs();
            Ok(Next::Enter)
        })
        .map_err(|Broken(failure)| failure)?;
        let full = self.root.path(&place);
        let shared = trees::shares(&full);
        let free = trees::room(&full)
            .map_err(|error| unreadable(&path, &error))?
            .bytes;
        let stage = Stage::new(source, copy, shared);
        if !shared && need + SPARE > free {
            return Err(Failure::new(
                Code::CannotCreate,
                format!(
                    "cannot back up {directory}: its copy needs {}, and {} are free on {volume}",
                    bytes(need + SPARE),
                    bytes(free)
                ),
            )
            .hint(
                "make room on the volume; a file system that shares blocks (XFS, btrfs) needs none",
            ));
        }
        self.staged.insert(path.clone(), full);
        Ok(Some((path, stage)))
    }
}
