//! From old data to new by renames, with a journal.
//!
//! All new data lies whole and checked in `.tiffin/restore/new` of each volume when the
//! journal is written. From then on a restore can only go on: what is at the top of a volume
//! moves to `.tiffin/restore/old`, then what is in `new` moves to the top, then `old` is
//! removed. Which of the three is under way, the journal says; each begins again where it
//! was cut off, as what has moved is not there any more. Without a journal nothing was
//! touched yet, and the side directories are removed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use contract::Contract;
use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::place::{self, OWN, RESTORE};
use super::{stage, tree};
use crate::exit::{Code, Failure, Result};
use crate::root::{Owned, Root};
use crate::volume;

const NEW: &CStr = c"new";
const OLD: &CStr = c"old";
const JOURNAL: &str = "journal.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    phase: Phase,
    /// In this order; the first one has the journal.
    volumes: Vec<Volume>,
    /// For the log: what the new data is.
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    /// Old data moves aside.
    Out,
    /// New data moves in.
    In,
    /// Old data is removed.
    Clean,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    pub path: String,
    /// Of the volume's own directory.
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// One volume's directories, open.
pub struct Side {
    pub volume: OwnedFd,
    own: OwnedFd,
    work: OwnedFd,
    pub new: OwnedFd,
    old: OwnedFd,
}

fn cannot(what: &str, path: &str, error: impl Into<io::Error>) -> Failure {
    crate::root::cannot_create(what, path, &error.into())
}

fn made(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => {}
        other => other?,
    }
    tree::directory_at(parent, name)
}

impl Side {
    /// Opens them, and makes those that are not there.
    pub fn open(root: &Root, path: &str) -> Result<Side> {
        let fail = |error: Errno| cannot("a side directory on", path, error);
        let volume = tree::directory(&root.path(path)).map_err(fail)?;
        let own = made(&volume, OWN).map_err(fail)?;
        let work = made(&own, RESTORE).map_err(fail)?;
        let new = made(&work, NEW).map_err(fail)?;
        let old = made(&work, OLD).map_err(fail)?;
        Ok(Side {
            volume,
            own,
            work,
            new,
            old,
        })
    }

    /// Everything on it is on the disk.
    fn sync(&self) -> rustix::io::Result<()> {
        rustix::fs::syncfs(&self.volume)
    }

    fn out(&self) -> rustix::io::Result<()> {
        for name in tree::names(&self.volume)? {
            if name.as_c_str() != OWN && !place::stays(&self.volume, &name) {
                shift(&self.volume, &self.old, &name)?;
            }
        }
        let old = made(&self.old, OWN)?;
        for name in tree::names(&self.own)? {
            if !place::stays_in_own(&name) {
                shift(&self.own, &old, &name)?;
            }
        }
        Ok(())
    }

    fn enter(&self) -> rustix::io::Result<()> {
        for name in tree::names(&self.new)? {
            if name.as_c_str() != OWN {
                shift(&self.new, &self.volume, &name)?;
            }
        }
        match tree::directory_at(&self.new, OWN) {
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
            Ok(new) => {
                for name in tree::names(&new)? {
                    shift(&new, &self.own, &name)?;
                }
                Ok(())
            }
        }
    }

    fn clean(&self) -> rustix::io::Result<()> {
        tree::remove(&self.work, NEW)?;
        tree::remove(&self.work, OLD)
    }
}

/// Nothing is ever written over: what should not be there stops us.
fn shift(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE) {
        // File systems without that flag; the name is free by construction.
        Err(Errno::INVAL | Errno::NOSYS) if tree::stat_at(to, name).is_err() => {
            rustix::fs::renameat(from, name, to, name)
        }
        other => other,
    }
}

fn journal_path(first: &str) -> String {
    format!("{first}/.tiffin/restore/{JOURNAL}")
}

fn write(root: &Root, journal: &Journal) -> Result<()> {
    let path = journal_path(&journal.volumes[0].path);
    let text = format!("{:#}\n", serde_json::json!(journal));
    let own = Owned {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mode: 0o600,
    };
    root.replace(&path, text.as_bytes(), own)
        .map_err(|error| crate::root::cannot_create("the file", &path, &error))
}

/// The point of no return: all is unpacked and checked.
pub fn begin(root: &Root, volumes: Vec<Volume>, sides: &[Side], what: String) -> Result<Journal> {
    for (side, volume) in sides.iter().zip(&volumes) {
        side.sync()
            .map_err(|error| cannot("the data on", &volume.path, error))?;
    }
    let journal = Journal {
        phase: Phase::Out,
        volumes,
        what,
    };
    write(root, &journal)?;
    Ok(journal)
}

/// Goes on from where the journal is.
pub fn go_on(root: &Root, mut journal: Journal) -> Result<()> {
    let mut sides = Vec::new();
    for volume in &journal.volumes {
        sides.push(Side::open(root, &volume.path)?);
    }
    let stuck = |path: &str, error: io::Error| {
        Failure::new(
            Code::CannotCreate,
            format!("cannot finish the restore on {path}: {error}"),
        )
        .hint("nothing is lost: the next start or `restore` goes on from here")
    };
    loop {
        for (side, volume) in sides.iter().zip(&journal.volumes) {
            let step = || -> io::Result<()> {
                match journal.phase {
                    Phase::Out => side.out()?,
                    Phase::In => {
                        side.enter()?;
                        stage::give(&side.volume, volume.uid, volume.gid, volume.mode)?;
                    }
                    Phase::Clean => side.clean()?,
                }
                Ok(side.sync()?)
            };
            step().map_err(|error| stuck(&volume.path, error))?;
        }
        journal.phase = match journal.phase {
            Phase::Out => Phase::In,
            Phase::In => Phase::Clean,
            Phase::Clean => break,
        };
        write(root, &journal)?;
    }
    drop(sides);
    // The journal goes last, and with it the directory.
    for volume in journal.volumes.iter().rev() {
        discard(root, &volume.path)?;
    }
    Ok(())
}

/// Removes what a restore works with on a volume.
pub fn discard(root: &Root, path: &str) -> Result<()> {
    let fail = |error: Errno| cannot("free room on", path, error);
    let volume = tree::directory(&root.path(path)).map_err(fail)?;
    match tree::directory_at(&volume, OWN) {
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(own) => tree::remove(&own, RESTORE).map_err(fail)?,
    }
    // Only of the first volume it holds anything.
    let _ = rustix::fs::unlinkat(volume.as_fd(), OWN, AtFlags::REMOVEDIR);
    Ok(())
}

/// A restore that was cut off, on the volumes of this box.
pub enum Unfinished {
    /// It had touched nothing yet.
    Nothing,
    Swapping(Journal),
}

/// Looks, and changes nothing.
pub fn unfinished(contract: &Contract, root: &Root) -> Result<Option<Unfinished>> {
    let volumes = place::volumes(contract);
    let Some(first) = volumes.first() else {
        return Ok(None);
    };
    // The first that a start reads on a volume: who owns it is what stands in the way.
    volume::usable(root, &format!("{first}/.tiffin"))?;
    if let Some(text) = root.read(&journal_path(first))? {
        let journal: Journal = serde_json::from_str(&text).map_err(|error| {
            Failure::new(
                Code::Config,
                format!("cannot read {}: {error}", journal_path(first)),
            )
            .hint("a restore was cut off, and its journal is damaged: restore once more, into a new volume")
        })?;
        let own: Vec<&String> = journal.volumes.iter().map(|volume| &volume.path).collect();
        if own.is_empty() || !own.iter().all(|path| volumes.contains(path)) {
            return Err(Failure::new(
                Code::Config,
                format!(
                    "cannot use {}: it is about other volumes",
                    journal_path(first)
                ),
            ));
        }
        return Ok(Some(Unfinished::Swapping(journal)));
    }
    let has_side = |volume: &String| {
        let path = format!("{volume}/.tiffin/restore");
        root.path(&path).symlink_metadata().is_ok()
    };
    Ok(volumes.iter().any(has_side).then_some(Unfinished::Nothing))
}

/// Finishes or undoes a restore that was cut off; the volume must be locked. Answers what
/// there is to say.
pub fn recover(contract: &Contract, root: &Root) -> Result<Option<String>> {
    match unfinished(contract, root)? {
        None => Ok(None),
        Some(Unfinished::Swapping(journal)) => {
            let what = journal.what.clone();
            go_on(root, journal)?;
            Ok(Some(format!(
                "a restore that was cut off is finished: {what}"
            )))
        }
        Some(Unfinished::Nothing) => {
            for volume in place::volumes(contract) {
                discard(root, &volume)?;
            }
            Ok(Some(
                "a restore that was cut off had changed nothing yet; what it left is removed"
                    .to_owned(),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    fn content(dir: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut queue = vec![dir.to_owned()];
        while let Some(next) = queue.pop() {
            for entry in fs::read_dir(next).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    queue.push(path);
                } else {
                    let name = path.strip_prefix(dir).unwrap().display().to_string();
                    found.insert(name, fs::read_to_string(path).unwrap());
                }
            }
        }
        found
    }

    /// The moves of a swap, one at a time: what a kill leaves is the first so many of them.
    fn moves(side: &Side, phase: Phase, most: usize) -> usize {
        let mut done = 0;
        let mut one = |from: &OwnedFd, to: &OwnedFd, name: &CStr| {
            if done < most {
                shift(from, to, name).unwrap();
                done += 1;
            }
        };
        match phase {
            Phase::Out => {
                for name in tree::names(&side.volume).unwrap() {
                    if name.as_c_str() != OWN {
                        one(&side.volume, &side.old, &name);
                    }
                }
            }
            Phase::In => {
                for name in tree::names(&side.new).unwrap() {
                    if name.as_c_str() != OWN {
                        one(&side.new, &side.volume, &name);
                    }
                }
            }
            Phase::Clean => {}
        }
        done
    }

    #[test]
    fn a_swap_that_is_cut_off_anywhere_ends_with_the_new_data_and_nothing_else() {
        let contract: Contract = serde_json::from_value(serde_json::json!({
            "format": contract::FORMAT,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "volumes": [{"path": "/data"}]
        }))
        .unwrap();
        for phase in [Phase::Out, Phase::In, Phase::Clean] {
            for most in 0..5 {
                let dir = tempfile::tempdir().unwrap();
                let root = Root::new(dir.path());
                let put = |path: &str, text: &str| {
                    let path = root.path(path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, text).unwrap();
                };
                put("/data/.tiffin/lock", "me");
                put("/data/.tiffin/settings.json", "old");
                put("/data/only-old", "old");
                put("/data/both/a", "old");
                put("/data/both2", "old");
                let side = Side::open(&root, "/data").unwrap();
                for (path, text) in [
                    ("both/a", "new"),
                    ("both2", "new"),
                    ("only-new/x", "new"),
                    (".tiffin/settings.json", "new"),
                ] {
                    put(&format!("/data/.tiffin/restore/new/{path}"), text);
                }
                let owned = fs::metadata(dir.path()).unwrap();
                use std::os::unix::fs::MetadataExt as _;
                let volumes = vec![Volume {
                    path: "/data".to_owned(),
                    uid: owned.uid(),
                    gid: owned.gid(),
                    mode: 0o755,
                }];
                let mut journal =
                    begin(&root, volumes, std::slice::from_ref(&side), "x".to_owned()).unwrap();
                if phase != Phase::Out {
                    side.out().unwrap();
                    journal.phase = Phase::In;
                }
                if phase == Phase::Clean {
                    side.enter().unwrap();
                    journal.phase = Phase::Clean;
                }
                write(&root, &journal).unwrap();
                moves(&side, phase, most);
                drop(side);
                assert!(recover(&contract, &root).unwrap().is_some());
                let wanted = [
                    (".tiffin/lock", "me"),
                    (".tiffin/settings.json", "new"),
                    ("both/a", "new"),
                    ("both2", "new"),
                    ("only-new/x", "new"),
                ]
                .map(|(path, text)| (path.to_owned(), text.to_owned()));
                assert_eq!(
                    content(&root.path("/data")),
                    BTreeMap::from(wanted),
                    "{phase:?} after {most}"
                );
                assert!(recover(&contract, &root).unwrap().is_none());
            }
        }
    }
}
