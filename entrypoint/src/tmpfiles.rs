//! What packages list in tmpfiles.d(5) for every start of a machine. Debian's PostgreSQL,
//! PHP and memcached find their directories below `/run` in no other way.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use contract::Contract;
use services::systemd::{Tmpfile, Wanted, tmpfiles, tmpfiles_paths};

use crate::accounts::Accounts;
use crate::exit::Result;
use crate::log::warn;
use crate::root::{Owned, Root};

/// Makes all of it that is not there. What cannot be made is told and no more: whoever needs
/// it says so, and most of it nobody does.
pub fn make(contract: &Contract, root: &Root) -> Result<()> {
    // Every Debian has it, whoever starts the machine; apache2 does not start without.
    if fs::symlink_metadata(root.path("/run/lock")).is_err() {
        let everybodys = Owned {
            uid: 0,
            gid: 0,
            mode: 0o1777,
        };
        let _ = root.directory("/run/lock", everybodys);
    }
    let files = tmpfiles_paths(|directory| root.names(directory));
    if files.is_empty() {
        return Ok(());
    }
    let accounts = Accounts::read(root)?;
    for path in &files {
        let parsed = tmpfiles(&root.read(path)?.unwrap_or_default());
        let told = parsed.warnings.iter().cloned();
        let passed_over = parsed.not_applied.iter();
        for note in told.chain(passed_over.map(|line| format!("not applied: {line}"))) {
            warn(&format!("note: {path}: {note}"));
        }
        for tmpfile in &parsed.value {
            if is_elsewhere(contract, &tmpfile.path) {
                continue;
            }
            if let Err(reason) = one(root, &accounts, tmpfile) {
                warn(&format!(
                    "note: {path}: {} is not made: {reason}",
                    tmpfile.path
                ));
            }
        }
    }
    Ok(())
}

/// What the kernel, the recipe or the entrypoint has the say over.
fn is_elsewhere(contract: &Contract, path: &str) -> bool {
    let below = |directory: &str| Path::new(path).starts_with(directory);
    ["/dev", "/proc", "/sys", contract::RUN]
        .into_iter()
        .any(below)
        || contract.volumes.iter().any(|volume| below(&volume.path))
}

fn one(root: &Root, accounts: &Accounts, tmpfile: &Tmpfile) -> std::result::Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let path = &tmpfile.path;
    let name = |given: &Option<String>| given.clone().unwrap_or_else(|| "0".to_owned());
    let (uid, gid) =
        accounts.owner(&format!("{}:{}", name(&tmpfile.user), name(&tmpfile.group)))?;
    let owned = Owned {
        uid,
        gid: gid.unwrap_or(0),
        mode: tmpfile.mode,
    };
    let there = || fs::symlink_metadata(root.path(path)).is_ok();
    match &tmpfile.what {
        Wanted::Directory => root
            .directory(path, owned)
            .map_err(|failure| failure.message),
        Wanted::File { anew: false, .. } | Wanted::Link { anew: false, .. } if there() => Ok(()),
        Wanted::File { content, .. } => root.render(path, content.as_bytes(), owned).map_err(told),
        Wanted::Link { target, .. } => {
            let full = root.path(path);
            if let Some(parent) = full.parent() {
                fs::create_dir_all(parent).map_err(told)?;
            }
            match fs::remove_file(&full) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => symlink(target, full),
            }
            .map_err(told)
        }
        Wanted::Nothing => match fs::remove_file(root.path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told(error)),
            _ => Ok(()),
        },
    }
}
