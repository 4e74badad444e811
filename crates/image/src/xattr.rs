//! Extended attributes: which ones a layer keeps, and which ones are overlayfs's own notes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{fgetxattr, fgetxattr_query, flistxattr, flistxattr_query};
use rustix::io::Errno;

/// What overlayfs notes about an entry of its upper directory (kernel documentation,
/// filesystems/overlayfs.rst), from `trusted.overlay.*`, or `user.overlay.*` where it was mounted with `userxattr`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overlay {
    /// Hides the directory of that name below.
    pub(crate) opaque: bool,
    /// A whiteout made where device nodes cannot be: an empty file with this note.
    pub(crate) whiteout: bool,
    /// The directory was renamed, and the rest of its content is below under its old name.
    pub(crate) redirect: bool,
    /// The file's content is below.
    pub(crate) metacopy: bool,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// To be written to the layer, by name.
    pub(crate) kept: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) overlay: Overlay,
}

/// Reads the attributes of an open file or directory.
pub(crate) fn read(fd: BorrowedFd) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    for name in names(fd)?.split(|byte| *byte == 0) {
        let note = name
            .strip_prefix(b"trusted.overlay.")
            .or_else(|| name.strip_prefix(b"user.overlay."));
        let overlay = &mut attributes.overlay;
        match note {
            // `x` only says that the directory holds whiteouts made with attributes.
            Some(b"opaque") => overlay.opaque = value(fd, name)? == b"y",
            Some(b"whiteout") => overlay.whiteout = true,
            Some(b"redirect") => overlay.redirect = true,
            Some(b"metacopy") => overlay.metacopy = true,
            Some(_) => {}
            None if keep(name) => {
                let value = value(fd, name)?;
                attributes.kept.insert(name.to_vec(), value);
            }
            None => {}
        }
    }
    Ok(attributes)
}

/// What is part of a file: capabilities, access control lists and what users attached.
/// Labels of a security module and `trusted.*` belong to the machine, not to the file.
pub(crate) fn keep(name: &[u8]) -> bool {
    // A PAX record cannot hold a key with `=`.
    !name.contains(&b'=')
        && (name == b"security.capability"
            || name.starts_with(b"system.posix_acl_")
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")))
}

fn names(fd: BorrowedFd) -> io::Result<Vec<u8>> {
    loop {
        let size = match flistxattr_query(fd) {
            Ok(size) => size,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        };
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut list = vec![0; size];
        match flistxattr(fd, &mut list[..]) {
            Ok(size) => {
                list.truncate(size);
                return Ok(list);
            }
            // It grew in between.
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn value(fd: BorrowedFd, name: &[u8]) -> io::Result<Vec<u8>> {
    loop {
        let size = fgetxattr_query(fd, name)?;
        let mut value = vec![0; size];
        if size == 0 {
            return Ok(value);
        }
        match fgetxattr(fd, name, &mut value[..]) {
            Ok(size) => {
                value.truncate(size);
                return Ok(value);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
