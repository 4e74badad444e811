//! What is there and a copy of it change places, by renames within each volume. Every step
//! can be done again: whoever comes after a `kill -9` goes on where it ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::copies::Copies;
use super::journal::{rename, sync};
use crate::volume::REMEMBERED;

/// What could not be moved.
#[derive(Debug)]
pub struct Stuck {
    pub path: PathBuf,
    pub error: io::Error,
}

/// All that is there goes to the copy `aside`.
pub fn put_aside(copies: &Copies<'_>, home: &Path, aside: &str) -> Result<(), Stuck> {
    for volume in copies.volumes() {
        let to = Copies::files(&volume, aside);
        move_all(&volume, &to, &volume, &copies.left_out(&volume))?;
    }
    move_remembered(home, &copies.remembered(aside))
}

/// All that is in the copy goes to where it was.
pub fn put_back(copies: &Copies<'_>, home: &Path, copy: &str) -> Result<(), Stuck> {
    for volume in copies.volumes() {
        let from = Copies::files(&volume, copy);
        move_all(&from, &volume, &volume, &copies.left_out(&volume))?;
    }
    move_remembered(&copies.remembered(copy), home)
}

fn move_remembered(from: &Path, to: &Path) -> Result<(), Stuck> {
    for name in REMEMBERED {
        let path = from.join(name);
        match rename(&path, &to.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Stuck { path, error });
            }
            _ => {}
        }
    }
    settle(from, to)
}

/// Moves what is in `from` into `to`, but what `left_out` names; `place` is where the entries
/// belong on the volume. A directory that holds something of `left_out` stays, and what is
/// in it is moved one by one.
fn move_all(from: &Path, to: &Path, place: &Path, left_out: &[PathBuf]) -> Result<(), Stuck> {
    let stuck = |path: &Path| {
        let path = path.to_owned();
        move |error| Stuck { path, error }
    };
    let entries = match fs::read_dir(from).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        // All of it has been moved, and the directory removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(stuck(from)(error)),
    };
    for entry in entries {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let belongs = place.join(entry.file_name());
        if left_out.contains(&belongs) {
            continue;
        }
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && left_out.iter().any(|path| path.starts_with(&belongs)) {
            match fs::create_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(stuck(&target)(error));
                }
                _ => move_all(&path, &target, &belongs, left_out)?,
            }
            continue;
        }
        // A rename would take a file's place without a word.
        if target.symlink_metadata().is_ok() {
            let error = io::Error::new(
                io::ErrorKind::AlreadyExists,
                "somebody put another one in its place: move that one away",
            );
            return Err(stuck(&target)(error));
        }
        rename(&path, &target).map_err(stuck(&path))?;
    }
    settle(from, to)
}

fn settle(from: &Path, to: &Path) -> Result<(), Stuck> {
    for path in [from, to] {
        match sync(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = path.to_owned();
                return Err(Stuck { path, error });
            }
            _ => {}
        }
    }
    Ok(())
}
