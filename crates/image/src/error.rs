//! What can go wrong, said as what could not be done, to what and why.

use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb: `read`, `create`, `rename`.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The file system or the user's quota is full. `path` is what was being written.
    #[error("cannot write {}: no space left on {}{}", path.display(), device.display(), needed_text(*needed, *free))]
    NoSpace {
        path: PathBuf,
        /// Mount point of the file system that is full.
        device: PathBuf,
        /// Bytes that the whole file needs, where that is known beforehand.
        needed: Option<u64>,
        /// Bytes that are free there.
        free: u64,
    },
    /// Paths are those inside the tree, absolute.
    #[error("cannot pack {}: it is a {kind} device ({major}:{minor})", path.display())]
    Device {
        path: PathBuf,
        kind: &'static str,
        major: u32,
        minor: u32,
    },
    #[error("cannot pack {}: names that begin with `.wh.` mean a deletion in a layer", path.display())]
    ReservedName { path: PathBuf },
    #[error("cannot pack {}: {what} while it was being read", path.display())]
    Changed { path: PathBuf, what: &'static str },
    /// The overlay keeps part of the entry in the layer below, so that the upper
    /// directory alone does not describe it.
    #[error("cannot pack {}: the overlay was mounted with {feature}", path.display())]
    OverlayFeature {
        path: PathBuf,
        feature: &'static str,
    },
    #[error("cannot pack {}: directories are nested more than {limit} deep", path.display())]
    TooDeep { path: PathBuf, limit: usize },
    #[error("cannot pack `{path}`: {reason}")]
    Entry { path: String, reason: &'static str },
    #[error("cannot use the layer {}: {reason}", path.display())]
    Blob { path: PathBuf, reason: String },
    #[error("cannot write {}: {reason}", path.display())]
    Archive { path: PathBuf, reason: String },
    /// Of somebody else: an archive, or what a registry gave.
    #[error("cannot use the image {image}: {reason}")]
    Image { image: String, reason: String },
    /// The same of a tar of a root file system.
    #[error("cannot use the root file system {}: {reason}", file.display())]
    Root { file: PathBuf, reason: String },
    #[error(transparent)]
    Registry(#[from] crate::registry::Problem),
    #[error(transparent)]
    Reference(#[from] crate::InvalidReference),
}

impl Error {
    /// For `map_err`: an [`io::Error`] about `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// As [`Error::io`] for writes below `path`'s directory: a full disk gets the name of
    /// its mount point and what is free.
    pub(crate) fn write(path: &Path, needed: Option<u64>) -> impl FnOnce(io::Error) -> Error {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let (device, free) = crate::atomic::space(path);
                Error::NoSpace {
                    path: path.to_owned(),
                    device,
                    needed,
                    free,
                }
            }
            _ => Error::Io {
                action: "write",
                path: path.to_owned(),
                source,
            },
        }
    }

    /// For a file that somebody else writes beside an image: a full disk gets its name.
    pub fn writing(path: &Path, source: io::Error) -> Error {
        Error::write(path, None)(source)
    }

    /// What to do next, where there is something better than reading the error again.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::NoSpace { device, .. } => format!(
                "free some space on {} (`tiffin cache prune` removes old layers), or choose a directory on another disk",
                device.display()
            ),
            Error::Device { .. } => {
                "engines make /dev themselves; leave the device node out of the image, or name it under `devices` in the recipe"
                    .to_owned()
            }
            Error::ReservedName { .. } => "rename or remove the file in the playbook".to_owned(),
            Error::Changed { .. } => {
                "something still writes to the tree; stop it before the layer is taken".to_owned()
            }
            Error::OverlayFeature { .. } => {
                "mount it with redirect_dir=nofollow,metacopy=off".to_owned()
            }
            Error::Blob { .. } => {
                "remove the file and build again; it will be made anew".to_owned()
            }
            Error::Registry(problem) => return problem.hint.clone(),
            _ => return None,
        })
    }
}

fn needed_text(needed: Option<u64>, free: u64) -> String {
    match needed {
        Some(needed) => format!(
            ": {} MB needed, {} MB free",
            megabytes(needed),
            free / 1_000_000
        ),
        None => format!(": {} MB free", free / 1_000_000),
    }
}

/// Rounded up: "0 MB needed" would help nobody.
fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}
