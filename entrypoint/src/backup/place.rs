//! Where things lie on a volume: what is its data, and what is of one box or one moment.

use std::ffi::CStr;
use std::os::fd::AsFd;

use contract::Contract;
use rustix::fs::FileType;

use super::tree;

/// The entrypoint's own directory at the top of a volume.
pub const OWN: &CStr = c".tiffin";
/// In [`OWN`]: what a backup works with.
pub const WORK: &CStr = c"backup";
/// In [`OWN`]: what a restore works with.
pub const RESTORE: &CStr = c"restore";
/// In [`OWN`], and of this volume alone: no backup holds it, no restore replaces it.
const KEPT: [&CStr; 5] = [c"lock", WORK, RESTORE, c"copies", LAST];
/// In [`OWN`]: what became of the last scheduled backup.
pub const LAST: &CStr = c"last-backup.json";
/// In a directory of scheduled backups: their names, a line each.
pub const INDEX: &CStr = c".tiffin-backups";

/// The volumes' paths, without a slash at the end.
pub fn volumes(contract: &Contract) -> Vec<String> {
    let paths = contract.volumes.iter();
    paths
        .map(|volume| volume.path.trim_end_matches('/').to_owned())
        .collect()
}

/// Whether something at the top of a volume is none of its data. A directory of scheduled
/// backups must outlive the restore of one of them.
pub fn stays(volume: impl AsFd, name: &CStr) -> bool {
    if name == c"lost+found" || name == c".tiffin-tmp" {
        return true;
    }
    let index = || {
        let directory = tree::directory_at(volume, name).ok()?;
        let found = tree::stat_at(&directory, INDEX).ok()?;
        Some(FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
    };
    index().unwrap_or(false)
}

/// The same for something in [`OWN`].
pub fn stays_in_own(name: &CStr) -> bool {
    KEPT.contains(&name)
}

/// What a write that was cut off leaves: `.NAME.tiffin-PID`, see `root::Root::replace`.
pub fn is_leftover(name: &[u8]) -> bool {
    let marked = |at: usize| {
        let rest = &name[at + b".tiffin-".len()..];
        !rest.is_empty() && rest.iter().all(u8::is_ascii_digit)
    };
    name.starts_with(b".")
        && name
            .windows(b".tiffin-".len())
            .rposition(|window| window == b".tiffin-")
            .is_some_and(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_cut_off_is_known_by_its_name() {
        assert!(is_leftover(b".version.tiffin-12"));
        for name in [
            &b".tiffin"[..],
            b".tiffin-tmp",
            b".x.tiffin-",
            b"x.tiffin-12",
        ] {
            assert!(!is_leftover(name), "{}", name.escape_ascii());
        }
    }
}
