//! `/run/tiffin`: rendered files, sockets and PID files, for as long as the box runs.
//!
//! In the image it is a link to `/dev/shm/tiffin`: memory that every engine makes writable
//! for every user, also with a read-only root. With `--tmpfs /run` it is a directory there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use contract::{Contract, FILES, RUN, Template};
use rustix::fs::{Access, FlockOperation};
use rustix::io::Errno;

use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::root::{Owned, Root, cannot_create};

/// Ours for as long as this lives.
#[derive(Debug)]
pub struct Place(#[allow(dead_code, reason = "the lock is the open file")] File);

/// Makes the directory, or says which flag gives the box one.
pub fn prepare(root: &Root) -> Result<Place> {
    let path = root.path(RUN);
    let reason = match claim(root) {
        Ok(place) => return Ok(place),
        Err(reason) => reason,
    };
    // /dev/shm is somebody else's too (--ipc=host), or is not there (--ipc=none), or an
    // engine made the directory for a file that it mounts: one of our own, if that can be.
    let shared = root.landing(RUN);
    if shared != path && fs::remove_file(&path).is_ok() {
        let place = claim(root).map_err(|reason| cannot(&reason))?;
        keep_mounted(root, &shared).map_err(|error| cannot(&error.to_string()))?;
        return Ok(place);
    }
    Err(cannot(&reason))
}

fn cannot(reason: &str) -> Failure {
    Failure::new(Code::CannotCreate, format!("cannot use {RUN}: {reason}"))
        .hint("give the box a place of its own for what lives in memory: --tmpfs /run")
}

fn claim(root: &Root) -> Result<Place, String> {
    let path = root.landing(RUN);
    let told = |error: io::Error| error.to_string();
    match fs::create_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && path == root.path(RUN) => {
            fs::create_dir_all(&path).map_err(told)?;
        }
        other => other.map_err(told)?,
    }
    let found = fs::symlink_metadata(&path).map_err(told)?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() {
        return Err("it is no directory".to_owned());
    }
    if found.uid() == own {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(told)?;
    } else if found.uid() != 0 {
        // Whoever it is could exchange our files.
        return Err(format!("it belongs to user {}", found.uid()));
    }
    rustix::fs::access(&path, Access::WRITE_OK).map_err(|error| told(error.into()))?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path.join("lock"))
        .map_err(told)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| "another running box uses it (is /dev/shm shared?)".to_owned())?;
    // Here lead the links that the image has in /run, of PID files too: nobody makes a
    // directory for those.
    match fs::create_dir(path.join("run")) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(told)?,
    }
    Ok(Place(lock))
}

/// Files that the operator mounted where the links of the image lead to: seen from the new
/// place too.
fn keep_mounted(root: &Root, shared: &Path) -> io::Result<()> {
    let files = shared.join("files");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mounted in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        let Ok(dest) = Path::new(mounted).strip_prefix(&files) else {
            continue;
        };
        let path = root.path(FILES).join(dest);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(mounted, path)?;
    }
    Ok(())
}

/// Where a template's text goes: below [`FILES`] when the image's link leads there, else
/// where it always was, as after somebody put a file of their own in the link's place.
pub fn destination(root: &Root, template: &Template) -> Result<String> {
    let inside = format!("{FILES}{}", template.dest);
    let link = root.path(&template.dest);
    let leads_there = || {
        let target = fs::read_link(&link).ok()?;
        Some(lexical(&link.parent()?.join(target)) == root.path(&inside))
    };
    if !template.link || leads_there() != Some(true) {
        return Ok(template.dest.clone());
    }
    for (at, _) in template.dest.match_indices('/').skip(1) {
        let original = &template.dest[..at];
        let Ok(found) = fs::metadata(root.path(original)) else {
            continue;
        };
        // What a directory keeps private stays so.
        let owned = Owned {
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode() & 0o7777 | 0o700,
        };
        let path = format!("{FILES}{original}");
        root.directory(&path, owned)?;
        let full = root.path(&path);
        fs::set_permissions(&full, fs::Permissions::from_mode(owned.mode))
            .map_err(|error| cannot_create("the directory", &path, &error))?;
    }
    Ok(inside)
}

/// `a/../b` is `b`, whatever links there are.
pub fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        if component == std::path::Component::ParentDir {
            out.pop();
        } else {
            out.push(component);
        }
    }
    out
}

/// A directory for temporary files when the root, and `/tmp` with it, is read-only: on the
/// first volume, since uploads may be larger than memory. It is emptied.
pub fn temporary(contract: &Contract, root: &Root) -> Result<Option<String>> {
    if rustix::fs::access(root.path("/tmp"), Access::WRITE_OK) != Err(Errno::ROFS) {
        return Ok(None);
    }
    let path = match contract.volumes.first() {
        Some(volume) => format!("{}/.tiffin-tmp", volume.path.trim_end_matches('/')),
        None => format!("{RUN}/tmp"),
    };
    let full = root.path(&path);
    let make = || -> io::Result<()> {
        match fs::remove_dir_all(&full) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&full)?,
        }
        fs::set_permissions(&full, fs::Permissions::from_mode(0o1777))
    };
    make().map_err(|error| cannot_create("the directory", &path, &error))?;
    say(&format!("/tmp is read-only: TMPDIR is {path}"));
    Ok(Some(path))
}
