//! The tree that stacked trees make together, read without mounting it: an upper entry
//! hides a lower one, directories merge unless opaque, whiteouts delete.
//!
//! Entries are opened relative to the directory that holds them, by their last name alone
//! and never through a link, so nothing in a tree leads out of it.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};

use crate::Error;
use crate::walk::{DIRECTORY, FILE, MAX_DEPTH, Source, names};
use crate::xattr;

/// A file of the merged tree.
pub struct UnionFile<'a> {
    /// Relative to the root, as bytes.
    pub path: &'a [u8],
    /// No more than was asked for.
    pub content: Vec<u8>,
    /// Bytes of the whole file.
    pub size: u64,
}

/// Gives `visit` the regular files for whose path `wanted` gives the bytes to read at most,
/// in byte order within a directory. `trees` are the lowest first.
///
/// # Errors
///
/// What the system refuses, and nesting deeper than a layer may have.
pub fn union_files(
    trees: &[(&Path, Source)],
    wanted: &dyn Fn(&[u8]) -> Option<u64>,
    visit: &mut dyn FnMut(UnionFile),
) -> Result<(), Error> {
    let mut roots = Vec::new();
    for (path, source) in trees.iter().rev() {
        let fd = openat(CWD, *path, DIRECTORY - OFlags::NOFOLLOW, Mode::empty())
            .map_err(|error| Error::io("open", path)(error.into()))?;
        let opaque = is_opaque(&fd, *source).map_err(Error::io("read", path))?;
        roots.push(Part {
            fd,
            source: *source,
            outside: path.to_path_buf(),
        });
        if opaque {
            break;
        }
    }
    Walk { wanted, visit }.directory(&roots, &mut Vec::new(), 1)
}

/// A directory of one of the trees.
struct Part {
    fd: OwnedFd,
    source: Source,
    /// For errors.
    outside: PathBuf,
}

/// What the trees looked at so far, from the top down, say of a name.
enum Node {
    /// Whatever lower trees have is hidden.
    Gone,
    File(usize),
    Directory {
        parts: Vec<Part>,
        closed: bool,
    },
}

struct Walk<'a> {
    wanted: &'a dyn Fn(&[u8]) -> Option<u64>,
    visit: &'a mut dyn FnMut(UnionFile),
}

impl Walk<'_> {
    fn directory(&mut self, parts: &[Part], path: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let path = Path::new("/").join(std::ffi::OsStr::from_bytes(path));
            return Err(Error::TooDeep {
                path,
                limit: MAX_DEPTH,
            });
        }
        let mut nodes: BTreeMap<CString, Node> = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            let listed = names(&part.fd).map_err(|e| Error::io("list", &part.outside)(e.into()))?;
            for name in listed {
                part.merge(index, name, &mut nodes)?;
            }
        }
        for (name, node) in nodes {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend(name.as_bytes());
            match node {
                Node::Gone => {}
                Node::Directory { parts, .. } => self.directory(&parts, path, depth + 1)?,
                Node::File(index) => {
                    if let Some(limit) = (self.wanted)(path) {
                        let part = &parts[index];
                        let (content, size) = read(part, &name, limit)
                            .map_err(Error::io("read", &part.below(&name)))?;
                        (self.visit)(UnionFile {
                            path,
                            content,
                            size,
                        });
                    }
                }
            }
            path.truncate(length);
        }
        Ok(())
    }
}

impl Part {
    fn below(&self, name: &CString) -> PathBuf {
        self.outside
            .join(std::ffi::OsStr::from_bytes(name.as_bytes()))
    }

    /// Adds what this tree, the `index`th from the top, has under `name`.
    fn merge(
        &self,
        index: usize,
        name: CString,
        nodes: &mut BTreeMap<CString, Node>,
    ) -> Result<(), Error> {
        let above = nodes.get_mut(&name);
        if let Some(Node::Gone | Node::File(_) | Node::Directory { closed: true, .. }) = above {
            return Ok(());
        }
        let outside = self.below(&name);
        let fail = |error: rustix::io::Errno| Error::io("read", &outside)(error.into());
        let stat = statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        let overlay = self.source == Source::Overlay;
        let found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let fd = openat(&self.fd, &name, DIRECTORY, Mode::empty()).map_err(fail)?;
                let closed = is_opaque(&fd, self.source).map_err(Error::io("read", &outside))?;
                let part = Part {
                    fd,
                    source: self.source,
                    outside,
                };
                Node::Directory {
                    parts: vec![part],
                    closed,
                }
            }
            FileType::RegularFile => {
                // A whiteout made where device nodes cannot be.
                let whiteout = overlay && stat.st_size == 0 && {
                    let fd = openat(&self.fd, &name, FILE, Mode::empty()).map_err(fail)?;
                    let found = xattr::read(fd.as_fd()).map_err(Error::io("read", &outside))?;
                    found.overlay.whiteout
                };
                if whiteout {
                    Node::Gone
                } else {
                    Node::File(index)
                }
            }
            // A whiteout, or nothing that has content.
            _ => Node::Gone,
        };
        match (above, found) {
            (None, found) => {
                nodes.insert(name, found);
            }
            (
                Some(Node::Directory { parts, closed }),
                Node::Directory {
                    parts: more,
                    closed: end,
                },
            ) => {
                parts.extend(more);
                *closed = end;
            }
            // Something else of that name: the directory above hides it and all below it.
            (Some(Node::Directory { closed, .. }), _) => *closed = true,
            (Some(_), _) => {}
        }
        Ok(())
    }
}

fn is_opaque(fd: &OwnedFd, source: Source) -> io::Result<bool> {
    Ok(source == Source::Overlay && xattr::read(fd.as_fd())?.overlay.opaque)
}

fn read(part: &Part, name: &CString, limit: u64) -> io::Result<(Vec<u8>, u64)> {
    let fd = openat(&part.fd, name, FILE, Mode::empty())?;
    let stat = fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it was replaced while it was being read"));
    }
    let mut content = Vec::new();
    std::fs::File::from(fd)
        .take(limit)
        .read_to_end(&mut content)?;
    Ok((content, stat.st_size as u64))
}
