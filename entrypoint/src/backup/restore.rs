//! `restore`: an archive is unpacked beside the data, checked to its last byte, and only
//! then put in its place.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, BufRead};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use contract::Contract;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps};
use rustix::io::Errno;

use super::archive::Meta;
use super::description::Description;
use super::place::{self, OWN};
use super::progress::{Progress, bytes};
use super::read::{self, Kind, Member, Sink, damaged};
use super::swap::{self, Side, Volume};
use super::{stage, tree, version};
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::root::{Root, cannot_create};
use crate::settings::Environment;
use crate::volume::State;

/// What `restore` was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `-` is standard input.
    pub file: String,
    pub overwrite: bool,
    pub progress: bool,
}

pub fn restore(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    options: &Options,
) -> Result<Code> {
    let volumes = place::volumes(contract);
    if volumes.is_empty() {
        return Err(Failure::new(
            Code::Config,
            "cannot restore: the box has no volume",
        ));
    }
    let input = super::open(&options.file)?;
    let host = environment.get("HOSTNAME").unwrap_or("unknown");
    let _lock = State::new(contract, root).lock(&format!("restore on {host}"))?;
    if let Some(done) = swap::recover(contract, root)? {
        say(&done);
    }
    for volume in &volumes {
        check_target(root, volume, options.overwrite)?;
    }
    let unpacked = unpack(contract, root, &volumes, input, options.progress);
    let (found, description, totals) = match unpacked {
        Ok(unpacked) => unpacked,
        Err(failure) => {
            // The data is as it was; so is the disk.
            for volume in &volumes {
                let _ = swap::discard(root, volume);
            }
            return Err(failure);
        }
    };
    let what = format!(
        "{} {}, taken {}",
        description.product, description.version, description.created
    );
    let (volumes, sides): (Vec<Volume>, Vec<Side>) = found.into_iter().unzip();
    let journal = swap::begin(root, volumes, &sides, what.clone())?;
    drop(sides);
    swap::go_on(root, journal)?;
    say(&format!(
        "restored {what}: {} files, {}; start the box now",
        totals.files,
        bytes(totals.bytes)
    ));
    Ok(Code::Ok)
}

/// Directories alone are what an engine copies out of an image into a new volume.
fn check_target(root: &Root, volume: &str, overwrite: bool) -> Result<()> {
    let fail = |error: io::Error| cannot_create("new data on", volume, &error);
    let top = tree::directory(&root.path(volume)).map_err(|error| fail(error.into()))?;
    let device = rustix::fs::fstat(&top).map_err(|e| fail(e.into()))?.st_dev;
    let mut found = None;
    for name in tree::names(&top).map_err(|e| fail(e.into()))? {
        if place::stays(&top, &name) {
            continue;
        }
        let path = PathBuf::from(volume).join(OsStr::from_bytes(name.as_bytes()));
        let stat = tree::stat_at(&top, &name).map_err(|e| fail(e.into()))?;
        if stat.st_dev != device {
            return Err(Failure::new(
                Code::CannotCreate,
                format!(
                    "cannot restore into {volume}: {} is a mount of its own, which cannot be exchanged",
                    path.display()
                ),
            )
            .hint("run the restore without that mount, and copy what belongs there afterwards"));
        }
        if found.is_none() {
            found = data_in(&top, &name, &path).map_err(fail)?;
        }
    }
    match found {
        Some(path) if !overwrite => Err(Failure::new(
            Code::CannotCreate,
            format!(
                "cannot restore into {volume}: it holds data ({})",
                path.display()
            ),
        )
        .hint("give a new volume; or, to lose what is there, add --overwrite")),
        _ => Ok(()),
    }
}

/// The first thing that is no directory.
fn data_in(top: &OwnedFd, name: &CStr, path: &Path) -> io::Result<Option<PathBuf>> {
    struct Broken(io::Error);
    impl From<(PathBuf, io::Error)> for Broken {
        fn from((_, error): (PathBuf, io::Error)) -> Self {
            Broken(error)
        }
    }
    let directory = match tree::directory_at(top, name) {
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Some(path.to_owned())),
        other => other?,
    };
    let is_own = name == OWN;
    let mut found = None;
    let walked = tree::walk::<Broken>(&directory, path, &mut |entry| {
        let depth = entry.path.components().count() - path.components().count();
        if found.is_some() || (is_own && depth == 1 && place::stays_in_own(entry.name)) {
            return Ok(tree::Next::Pass);
        }
        if entry.kind() != FileType::Directory {
            found = Some(entry.path.to_owned());
        }
        Ok(tree::Next::Enter)
    });
    walked.map_err(|Broken(error)| error)?;
    Ok(found)
}

type Unpacked = (Vec<(Volume, Side)>, Description, read::Totals);

fn unpack(
    contract: &Contract,
    root: &Root,
    volumes: &[String],
    input: impl BufRead,
    progress: bool,
) -> Result<Unpacked> {
    let mut unpack = Unpack {
        contract,
        root,
        known: volumes,
        found: Vec::new(),
        directories: Vec::new(),
        last: None,
        progress: Progress::new("restored", progress),
    };
    let (description, totals) = read::read(input, &mut unpack)?;
    unpack.progress.clear();
    unpack.finish_directories()?;
    Ok((unpack.found, description, totals))
}

struct Unpack<'a> {
    contract: &'a Contract,
    root: &'a Root,
    known: &'a [String],
    /// The archive's volumes.
    found: Vec<(Volume, Side)>,
    /// What directories get at the end, when nothing is written to them any more.
    directories: Vec<(PathBuf, Meta)>,
    /// The directory that was used last.
    last: Option<(PathBuf, OwnedFd)>,
    progress: Progress,
}

impl Sink for Unpack<'_> {
    fn description(&mut self, description: &Description) -> Result<()> {
        let refused = |reason: String| {
            Failure::new(Code::Data, format!("cannot restore this backup: {reason}"))
        };
        let product = &self.contract.product;
        if bare(&description.product) != bare(&product.name) {
            return Err(refused(format!(
                "it is of {}, and this box is {}",
                description.product, product.name
            ))
            .hint("run `restore` with the image of that product; nothing was changed"));
        }
        if version::is_newer(&description.version, &product.version) {
            return Err(refused(format!(
                "{} {} took it, and this box is {}",
                description.product, description.version, product.version
            ))
            .hint(format!(
                "restore it with {} or newer; nothing was changed",
                description.version
            )));
        }
        if let Some(volume) = description.volumes.iter().find(|v| !self.known.contains(v)) {
            return Err(refused(format!(
                "it holds {volume}, and this box has no such volume"
            )));
        }
        for path in &description.volumes {
            let side = Side::open(self.root, path)?;
            let fail = |e: Errno| cannot_create("new data on", path, &e.into());
            let room = crate::copy::room(&self.root.path(path));
            let free = room
                .map_err(|e| cannot_create("new data on", path, &e))?
                .bytes;
            if free < description.bytes {
                return Err(Failure::new(
                    Code::CannotCreate,
                    format!(
                        "cannot restore into {path}: the backup needs {}, and {} are free",
                        bytes(description.bytes),
                        bytes(free)
                    ),
                )
                .hint("old data stays until the new is checked, so there must be room for both; or give a new volume"));
            }
            let stat = rustix::fs::fstat(&side.volume).map_err(fail)?;
            let volume = Volume {
                path: path.clone(),
                uid: stat.st_uid,
                gid: stat.st_gid,
                mode: stat.st_mode & 0o7777,
            };
            self.found.push((volume, side));
        }
        self.progress.expect(description.bytes);
        Ok(())
    }

    fn member(&mut self, member: Member<'_>) -> Result<()> {
        let Member { path, meta, kind } = member;
        let fail = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::EXIST) => damaged(format!("it has `{}` twice", path.display())),
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => damaged(format!(
                "`{}` is in no directory that came before it",
                path.display()
            )),
            // The decoder's errors; the kernel's have a number.
            None if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
            ) =>
            {
                damaged(format!("it ends or breaks within `{}`", path.display()))
            }
            _ => cannot_create("the file", &format!("/{}", path.display()), &error),
        };
        let (at, rest) = self.volume_of(path)?;
        if rest.as_os_str().is_empty() {
            let Kind::Directory = kind else {
                return Err(damaged(format!("`{}` is no directory", path.display())));
            };
            let (volume, _) = &mut self.found[at];
            (volume.uid, volume.gid, volume.mode) = (meta.uid, meta.gid, meta.mode);
            return Ok(());
        }
        if rest.starts_with(".tiffin") && !matches!(kind, Kind::Directory | Kind::File(..)) {
            return Err(damaged(format!("`{}` is a link", path.display())));
        }
        let mut parts = rest
            .components()
            .skip(usize::from(rest.starts_with(".tiffin")));
        let own = parts.next().filter(|_| rest.starts_with(".tiffin"));
        if own.is_some_and(|name| {
            CString::new(name.as_os_str().as_bytes()).is_ok_and(|name| place::stays_in_own(&name))
        }) {
            return Err(damaged(format!(
                "`{}` belongs into no backup",
                path.display()
            )));
        }
        let name = CString::new(rest.file_name().unwrap_or_default().as_bytes())
            .map_err(|_| damaged("it has a wrong path"))?;
        let parent = self.parent(at, path, &rest).map_err(|e| fail(e.into()))?;
        match kind {
            Kind::Directory => {
                rustix::fs::mkdirat(&parent, &name, Mode::RWXU).map_err(|e| fail(e.into()))?;
                self.directories.push((path.to_owned(), meta));
            }
            Kind::File(content, size) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(|e| fail(e.into()))?;
                self.fill(&file, content, size).map_err(fail)?;
                finish(&file, meta).map_err(fail)?;
            }
            Kind::Symlink(target) => self.link(&parent, &name, path, target, meta)?,
            Kind::HardLink(first) => {
                let (first_at, first_rest) = self.volume_of(first)?;
                let target = CString::new(first_rest.file_name().unwrap_or_default().as_bytes())
                    .map_err(|_| damaged("it has a wrong path"))?;
                let missing = || {
                    damaged(format!(
                        "`{}` is a link to `{}`, which is no file that came before it",
                        path.display(),
                        first.display()
                    ))
                };
                if first_at != at {
                    return Err(missing());
                }
                let from = self.parent(at, first, &first_rest).map_err(|_| missing())?;
                let stat = tree::stat_at(&from, &target).map_err(|_| missing())?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(missing());
                }
                rustix::fs::linkat(&from, &target, &parent, &name, AtFlags::empty())
                    .map_err(|e| fail(e.into()))?;
            }
        }
        Ok(())
    }
}

/// Without the registry that an image was pulled from.
fn bare(product: &str) -> &str {
    match product.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => rest,
        _ => product,
    }
}

fn finish(file: &OwnedFd, meta: Meta) -> io::Result<()> {
    stage::give(file, meta.uid, meta.gid, meta.mode)?;
    rustix::fs::futimens(file, &times(meta))?;
    Ok(())
}

fn times(meta: Meta) -> Timestamps {
    let time = rustix::fs::Timespec {
        tv_sec: i64::try_from(meta.mtime).unwrap_or(0),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

impl Unpack<'_> {
    /// Which volume a path is on, and its rest.
    fn volume_of(&self, path: &Path) -> Result<(usize, PathBuf)> {
        let volumes = self.found.iter().enumerate();
        let below = volumes.filter_map(|(at, (volume, _))| {
            let top = volume.path.trim_start_matches('/');
            Some((at, path.strip_prefix(top).ok()?, top.len()))
        });
        // Of volumes within each other, the inner one.
        let (at, rest, _) = below
            .max_by_key(|(_, _, length)| *length)
            .ok_or_else(|| damaged("it has a path on no volume"))?;
        Ok((at, rest.to_owned()))
    }

    /// The directory that holds a member, every step of the way a directory of ours.
    fn parent(&mut self, at: usize, path: &Path, rest: &Path) -> rustix::io::Result<OwnedFd> {
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some((known, directory)) = &self.last
            && known == folder
        {
            return rustix::io::fcntl_dupfd_cloexec(directory, 0);
        }
        let new = &self.found[at].1.new;
        let mut directory = rustix::io::fcntl_dupfd_cloexec(new, 0)?;
        for part in rest.parent().into_iter().flat_map(Path::components) {
            let name = CString::new(part.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
            directory = tree::directory_at(&directory, &name)?;
        }
        let kept = rustix::io::fcntl_dupfd_cloexec(&directory, 0)?;
        self.last = Some((folder.to_owned(), kept));
        Ok(directory)
    }

    fn fill(&mut self, file: &OwnedFd, content: &mut dyn io::Read, size: u64) -> io::Result<()> {
        let mut buffer = vec![
            0;
            usize::try_from(size)
                .unwrap_or(usize::MAX)
                .clamp(1, 256 << 10)
        ];
        let mut left = size;
        while left > 0 {
            let count = content.read(&mut buffer)?;
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                let written = rustix::io::write(file, rest)?;
                rest = &rest[written..];
            }
            left -= count as u64;
            self.progress.add(count as u64);
        }
        Ok(())
    }

    /// A link is data like any other and leads where it likes: nobody here follows it. But
    /// where the box itself makes directories, the start would.
    fn link(
        &self,
        parent: &OwnedFd,
        name: &CStr,
        path: &Path,
        target: &[u8],
        meta: Meta,
    ) -> Result<()> {
        let made = self
            .contract
            .volumes
            .iter()
            .flat_map(|volume| &volume.directories);
        let own = made.map(|directory| directory.path.as_str()).chain(
            self.contract
                .services
                .values()
                .flat_map(|service| service.data.iter().map(String::as_str)),
        );
        for directory in own {
            if Path::new(directory.trim_start_matches('/')).starts_with(path) {
                return Err(damaged(format!(
                    "`{}` is a link where this box has a directory",
                    path.display()
                )));
            }
        }
        let target = CString::new(target).map_err(|_| damaged("a link leads nowhere"))?;
        let make = || -> io::Result<()> {
            rustix::fs::symlinkat(&target, parent, name)?;
            let owner = (
                rustix::fs::Uid::from_raw(meta.uid),
                rustix::fs::Gid::from_raw(meta.gid),
            );
            if crate::sys::may_own(meta.uid, meta.gid) {
                rustix::fs::chownat(
                    parent,
                    name,
                    Some(owner.0),
                    Some(owner.1),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            rustix::fs::utimensat(parent, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(())
        };
        make().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => damaged(format!("it has `{}` twice", path.display())),
            _ => cannot_create("the link", &format!("/{}", path.display()), &error),
        })
    }

    /// From below, as a directory's time changes with what is made in it.
    fn finish_directories(&mut self) -> Result<()> {
        self.last = None;
        for (path, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            let (at, rest) = self.volume_of(&path)?;
            let mut set = || -> io::Result<()> {
                let parent = self.parent(at, &path, &rest)?;
                let name = CString::new(rest.file_name().unwrap_or_default().as_bytes())?;
                finish(&tree::directory_at(parent.as_fd(), &name)?, meta)
            };
            set().map_err(|error| {
                cannot_create("the directory", &format!("/{}", path.display()), &error)
            })?;
        }
        Ok(())
    }
}
