//! Whose the data is, by number. A release whose image numbers its users otherwise would leave
//! its databases with files that they cannot open: who owned each directory of the volumes is
//! remembered, and when the same user has another number now, what lies below is given to it,
//! once. All other starts look at the directories themselves and at nothing in them.
//!
//! `DIRECTORY: "USER UID:GID …"`: all pairs that files there may have. While they are put right
//! there are two, so that whoever is killed in between, and goes forward or back, is understood.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::Contract;
use rustix::fs::{AtFlags, Gid, Uid, chownat};

use crate::accounts::Accounts;
use crate::backup::tree::{self, Entry, Next};
use crate::exit::Result;
use crate::root::{Root, cannot_create};
use crate::sys;
use crate::volume::State;

type Pair = (u32, u32);

/// How often the one who waits is told how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// A directory whose files have other numbers than their user has now.
struct Shift {
    path: String,
    user: String,
    own: Pair,
    old: Vec<Pair>,
}

fn text(user: &str, pairs: impl Iterator<Item = Pair>) -> String {
    pairs.fold(user.to_owned(), |text, (uid, gid)| {
        format!("{text} {uid}:{gid}")
    })
}

/// The directories that the box may give to others, with the user's name and numbers.
fn owned(contract: &Contract, root: &Root) -> Result<Vec<(String, String, Pair)>> {
    let accounts = Accounts::read(root)?;
    let directories = contract.volumes.iter().flat_map(|v| &v.directories);
    Ok(directories
        .filter(|d| sys::may_own(d.uid, d.gid))
        .filter_map(|d| {
            let user = accounts.user(&d.uid.to_string())?;
            Some((d.path.clone(), user.name, (d.uid, d.gid)))
        })
        .collect())
}

fn shifts(contract: &Contract, root: &Root, state: &State<'_>) -> Result<Vec<Shift>> {
    let known = state.owners()?;
    let has_data = state.has_data()?;
    let mut shifts = Vec::new();
    for (path, user, own) in owned(contract, root)? {
        let old: Vec<Pair> = match known.get(&path) {
            Some(text) => {
                let mut words = text.split(' ');
                // Another user on purpose: the playbook's own affair.
                if words.next() != Some(&user) {
                    continue;
                }
                let pair = |word: &str| {
                    let (uid, gid) = word.split_once(':')?;
                    Some((uid.parse().ok()?, gid.parse().ok()?))
                };
                words.filter_map(pair).collect()
            }
            // Written before anybody remembered.
            None if has_data => std::fs::symlink_metadata(root.path(&path))
                .ok()
                .filter(|found| found.is_dir() && found.uid() != 0)
                .map(|found| (found.uid(), found.gid()))
                .into_iter()
                .collect(),
            None => Vec::new(),
        };
        if old.iter().any(|pair| *pair != own) {
            shifts.push(Shift {
                path,
                user,
                own,
                old,
            });
        }
    }
    Ok(shifts)
}

/// Whether [`put_right`] has something to do.
pub fn are_wrong(contract: &Contract, root: &Root, state: &State<'_>) -> Result<bool> {
    Ok(!shifts(contract, root, state)?.is_empty())
}

/// Gives files to the users that have their numbers now; `say` is told how far it is. It can be
/// done again, and goes on with what is left.
pub fn put_right(
    contract: &Contract,
    root: &Root,
    state: &State<'_>,
    say: &dyn Fn(&str),
) -> Result<()> {
    let shifts = shifts(contract, root, state)?;
    let others: Vec<PathBuf> = contract
        .volumes
        .iter()
        .flat_map(|v| &v.directories)
        .map(|d| root.path(&d.path))
        .collect();
    let mut known = state.owners()?;
    for Shift {
        path,
        user,
        own,
        old,
    } in shifts
    {
        let others_than_own = old.iter().copied().filter(|pair| *pair != own);
        let pairs = std::iter::once(own).chain(others_than_own);
        known.insert(path.clone(), text(&user, pairs));
        state.remember_owners(&known)?;
        say(&format!(
            "{path} is given to {user}, whose number was {} and is {}:{} now",
            old[0].0, own.0, own.1
        ));
        give(&root.path(&path), own, &old, &others, &|count| {
            say(&format!("{path} is given to {user}: {count} files so far"));
        })
        .map_err(|(at, error)| cannot_create("the owner of", &at.to_string_lossy(), &error))?;
        known.insert(path, text(&user, std::iter::once(own)));
        state.remember_owners(&known)?;
    }
    Ok(())
}

fn give(
    top: &Path,
    own: Pair,
    old: &[Pair],
    others: &[PathBuf],
    say: &dyn Fn(u64),
) -> Result<(), (PathBuf, io::Error)> {
    let fail = |error: rustix::io::Errno| (top.to_owned(), io::Error::from(error));
    let directory = match tree::directory(top) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        other => other.map_err(fail)?,
    };
    let device = rustix::fs::fstat(&directory).map_err(fail)?.st_dev;
    let (mut count, mut told) = (0, Instant::now());
    tree::walk::<(PathBuf, io::Error)>(&directory, top, &mut |entry: &Entry<'_>| {
        let stat = &entry.stat;
        let is_others = || others.iter().any(|other| other == entry.path);
        // Ours (copies among it), another file system's, or a directory with its own owner.
        if stat.st_dev != device || entry.path.ends_with(".tiffin") || is_others() {
            return Ok(Next::Pass);
        }
        let uid = old.iter().any(|(uid, _)| *uid == stat.st_uid && *uid != 0);
        let gid = old.iter().any(|(_, gid)| *gid == stat.st_gid && *gid != 0);
        let uid = (uid && stat.st_uid != own.0).then(|| Uid::from_raw(own.0));
        let gid = (gid && stat.st_gid != own.1).then(|| Gid::from_raw(own.1));
        if uid.is_some() || gid.is_some() {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            chownat(entry.parent, entry.name, uid, gid, flags)
                .map_err(|error| (entry.path.to_owned(), io::Error::from(error)))?;
        }
        count += 1;
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            say(count);
        }
        Ok(Next::Enter)
    })
}

/// Who owns what, from now on. The directories themselves are right.
pub fn remember(contract: &Contract, root: &Root, state: &State<'_>) -> Result<()> {
    let old = state.owners()?;
    let now: BTreeMap<String, String> = owned(contract, root)?
        .into_iter()
        .map(|(path, user, own)| (path, text(&user, std::iter::once(own))))
        .collect();
    match old == now || now.is_empty() {
        true => Ok(()),
        false => state.remember_owners(&now),
    }
}
