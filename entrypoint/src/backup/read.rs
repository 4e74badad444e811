//! An archive as it is read: everything that comes from it is checked before anybody is
//! handed it, and that it is whole is known only at its end.

use std::io::{self, BufRead, Read};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::GzDecoder;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::archive::{Meta, hex, stream_line, sum_line};
use super::description::{DESCRIPTION, Description, FORMAT, SUMS};
use crate::exit::{Code, Failure, Result};

/// What a description is at most.
const SMALL: u64 = 1 << 20;
/// PATH_MAX: nobody could open more.
const LONGEST: u64 = 4096;
/// What [`super::archive`] begins an archive with: no name, no time.
const GZIP: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// One member.
pub struct Member<'a> {
    /// Relative, of usual names alone, below one of the description's volumes.
    pub path: &'a Path,
    pub meta: Meta,
    pub kind: Kind<'a>,
}

pub enum Kind<'a> {
    Directory,
    /// With its content, which is read to its end.
    File(&'a mut dyn Read, u64),
    Symlink(&'a [u8]),
    /// To a member before it.
    HardLink(&'a Path),
}

/// Who does something with what is read.
pub trait Sink {
    /// Comes first.
    fn description(&mut self, description: &Description) -> Result<()>;
    fn member(&mut self, member: Member<'_>) -> Result<()>;
}

/// What was in an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub files: u64,
    pub bytes: u64,
}

pub fn damaged(reason: impl std::fmt::Display) -> Failure {
    Failure::new(
        Code::Data,
        format!("cannot use this backup: {reason}"),
    )
    .hint("the archive is damaged, cut short, or none that `tiffin backup` wrote: fetch it again, or take another one; nothing was changed")
}

fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            damaged(format!("it cannot be uncompressed ({error})"))
        }
        _ => Failure::new(Code::Internal, format!("cannot read the backup: {error}")),
    }
}

/// Counts and sums up all that passes.
struct Summed<R> {
    inner: R,
    hash: Sha256,
    length: u64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

/// The content of one member.
struct Content<'a, R> {
    tar: &'a mut Summed<R>,
    left: u64,
    hash: Sha256,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.tar.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.hash.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}

/// Reads an archive to its end.
///
/// # Errors
///
/// [`Code::Data`] when it is not whole; then the sink may have got a part of it.
pub fn read(mut input: impl BufRead, sink: &mut dyn Sink) -> Result<(Description, Totals)> {
    let start = input.fill_buf().map_err(|e| broken(&e))?;
    if start.is_empty() {
        return Err(damaged("it is empty"));
    }
    let known = start.len().min(GZIP.len());
    if start[..known] != GZIP[..known] {
        return Err(damaged("it does not begin as a backup does"));
    }
    let mut tar = Summed {
        inner: io::BufReader::with_capacity(256 << 10, GzDecoder::new(input)),
        hash: Sha256::new(),
        length: 0,
    };
    let mut archive = Archive {
        sums: Sha256::new(),
        description: None,
        totals: Totals::default(),
    };
    archive.members(&mut tar, sink)?;
    // The checksum of the compression is behind the tar, and nothing may be behind that.
    let mut rest = tar.inner.into_inner();
    if rest.read(&mut [0; 1]).map_err(|e| broken(&e))? != 0 {
        return Err(damaged("something follows its end"));
    }
    if !rest
        .into_inner()
        .fill_buf()
        .map_err(|e| broken(&e))?
        .is_empty()
    {
        return Err(damaged("something follows its end"));
    }
    let description = archive.description.ok_or_else(|| damaged("it is empty"))?;
    Ok((description, archive.totals))
}

struct Archive {
    /// The sum of the text that the last member must be.
    sums: Sha256,
    description: Option<Description>,
    totals: Totals,
}

impl Archive {
    fn members<R: Read>(&mut self, tar: &mut Summed<R>, sink: &mut dyn Sink) -> Result<()> {
        let (mut name, mut link): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
        loop {
            let before = (tar.hash.clone(), tar.length);
            let header = header(tar)?;
            let size = header
                .entry_size()
                .map_err(|_| damaged("a size cannot be read"))?;
            let kind = header.entry_type();
            if let EntryType::GNULongName | EntryType::GNULongLink = kind {
                let slot = match kind {
                    EntryType::GNULongName => &mut name,
                    _ => &mut link,
                };
                if slot.is_some() {
                    return Err(damaged("a member has two names"));
                }
                *slot = Some(long(tar, size)?);
                continue;
            }
            let path = name
                .take()
                .unwrap_or_else(|| header.path_bytes().into_owned());
            let target = match link.take() {
                Some(target) => target,
                None => header.link_name_bytes().unwrap_or_default().into_owned(),
            };
            if path == SUMS.as_bytes() && kind == EntryType::Regular {
                return self.end(tar, before, size);
            }
            self.one(tar, sink, &header, &path, &target)?;
        }
    }

    fn one<R: Read>(
        &mut self,
        tar: &mut Summed<R>,
        sink: &mut dyn Sink,
        header: &Header,
        path: &[u8],
        target: &[u8],
    ) -> Result<()> {
        let size = header
            .entry_size()
            .map_err(|_| damaged("a size cannot be read"))?;
        let number = |found: io::Result<u64>| {
            found
                .ok()
                .and_then(|number| u32::try_from(number).ok())
                .ok_or_else(|| damaged("an owner or a mode cannot be read"))
        };
        let meta = Meta {
            uid: number(header.uid())?,
            gid: number(header.gid())?,
            mode: header
                .mode()
                .map_err(|_| damaged("a mode cannot be read"))?
                & 0o7777,
            mtime: header
                .mtime()
                .map_err(|_| damaged("a time cannot be read"))?,
        };
        let kind = header.entry_type();
        if kind != EntryType::Regular && size != 0 {
            return Err(damaged("a member that is no file has content"));
        }
        let Some(description) = &self.description else {
            if path != DESCRIPTION.as_bytes() || kind != EntryType::Regular || size > SMALL {
                return Err(damaged("it does not begin with a description"));
            }
            let mut text = Vec::new();
            self.content(tar, path, size, &mut |content| {
                content
                    .read_to_end(&mut text)
                    .map(drop)
                    .map_err(|e| broken(&e))
            })?;
            let description = describe(&text)?;
            sink.description(&description)?;
            self.description = Some(description);
            return Ok(());
        };
        let clean = clean(path, kind == EntryType::Directory)?;
        below(&clean, description)?;
        match kind {
            EntryType::Regular => {
                self.totals.files += 1;
                self.totals.bytes = self.totals.bytes.saturating_add(size);
                self.content(tar, path, size, &mut |content| {
                    let kind = Kind::File(content, size);
                    let path = &clean;
                    sink.member(Member { path, meta, kind })
                })
            }
            EntryType::Directory => {
                let kind = Kind::Directory;
                let path = &clean;
                sink.member(Member { path, meta, kind })
            }
            EntryType::Symlink => {
                if target.is_empty() || target.contains(&0) {
                    return Err(damaged("a link leads nowhere"));
                }
                let kind = Kind::Symlink(target);
                let path = &clean;
                sink.member(Member { path, meta, kind })
            }
            EntryType::Link => {
                let first = self::clean(target, false)?;
                below(&first, description)?;
                let kind = Kind::HardLink(&first);
                let path = &clean;
                sink.member(Member { path, meta, kind })
            }
            _ => Err(damaged(format!(
                "`{}` is a device or something else that no backup holds",
                clean.display()
            ))),
        }
    }

    fn content<R: Read>(
        &mut self,
        tar: &mut Summed<R>,
        path: &[u8],
        size: u64,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut content = Content {
            tar,
            left: size,
            hash: Sha256::new(),
        };
        take(&mut content)?;
        io::copy(&mut content, &mut io::sink()).map_err(|e| broken(&e))?;
        let sum = hex(&content.hash.finalize());
        self.sums.update(sum_line(&sum, path));
        padding(tar, size)
    }

    /// The last member must be what its writer would have made of all before it.
    fn end<R: Read>(
        &mut self,
        tar: &mut Summed<R>,
        (hash, length): (Sha256, u64),
        size: u64,
    ) -> Result<()> {
        self.sums
            .update(stream_line(&hex(&hash.finalize()), length));
        let mut content = Content {
            tar,
            left: size,
            hash: Sha256::new(),
        };
        io::copy(&mut content, &mut io::sink()).map_err(|e| broken(&e))?;
        if content.hash.finalize() != self.sums.clone().finalize() {
            return Err(damaged("its sums do not match"));
        }
        padding(tar, size)?;
        let mut end = Vec::new();
        tar.take(1025)
            .read_to_end(&mut end)
            .map_err(|e| broken(&e))?;
        match end.len() == 1024 && end.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(damaged("it does not end as it should")),
        }
    }
}

fn header(tar: &mut impl Read) -> Result<Header> {
    let mut bytes = [0; 512];
    tar.read_exact(&mut bytes).map_err(|e| broken(&e))?;
    let header = Header::from_byte_slice(&bytes).clone();
    let sum: u32 = bytes[..148]
        .iter()
        .chain(&bytes[156..])
        .map(|byte| u32::from(*byte))
        .sum::<u32>()
        + 8 * 32;
    if header.cksum().ok() != Some(sum) || header.as_gnu().is_none() {
        return Err(damaged("a member's header is wrong"));
    }
    Ok(header)
}

/// A name that a header has no room for, and the zero behind it.
fn long(tar: &mut impl Read, size: u64) -> Result<Vec<u8>> {
    if size > LONGEST + 1 {
        return Err(damaged("a path is too long"));
    }
    let mut text = Vec::new();
    tar.take(size)
        .read_to_end(&mut text)
        .map_err(|e| broken(&e))?;
    if text.len() as u64 != size || text.pop() != Some(0) {
        return Err(damaged("a path cannot be read"));
    }
    padding(tar, size)?;
    Ok(text)
}

fn padding(tar: &mut impl Read, size: u64) -> Result<()> {
    let over = (size % 512) as usize;
    let mut bytes = [0; 512];
    match over {
        0 => Ok(()),
        over => tar.read_exact(&mut bytes[over..]).map_err(|e| broken(&e)),
    }
}

/// A relative path of usual names alone.
fn clean(path: &[u8], directory: bool) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let text = match directory {
        true => path.strip_suffix(b"/").unwrap_or(path),
        false => path,
    };
    let wrong = || damaged(format!("it has a wrong path, `{}`", path.escape_ascii()));
    let is_usual =
        |part: &[u8]| !part.is_empty() && part.len() < 256 && part != b"." && part != b"..";
    if text.len() as u64 > LONGEST || text.contains(&0) || !text.split(|b| *b == b'/').all(is_usual)
    {
        return Err(wrong());
    }
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(text)))
}

/// Whether it belongs to one of the volumes.
fn below(path: &Path, description: &Description) -> Result<()> {
    let inside = |volume: &String| path.starts_with(volume.trim_start_matches('/'));
    match description.volumes.iter().any(inside) {
        true => Ok(()),
        false => Err(damaged(format!(
            "`{}` is on none of its volumes",
            path.display()
        ))),
    }
}

fn describe(text: &[u8]) -> Result<Description> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let wrong = |_| damaged("its description cannot be read");
    let Format { format } = serde_json::from_slice(text).map_err(wrong)?;
    if format != FORMAT {
        return Err(Failure::new(
            Code::Data,
            format!("cannot use this backup: its format is {format}, this box reads {FORMAT}"),
        )
        .hint("use the box that took it, or a newer one; nothing was changed"));
    }
    let description: Description = serde_json::from_slice(text).map_err(wrong)?;
    let is_good = |volume: &String| {
        let mut parts = Path::new(volume).components();
        parts.next() == Some(Component::RootDir)
            && parts.clone().next().is_some()
            && parts.all(|part| matches!(part, Component::Normal(_)))
            && !volume.contains("//")
            && !volume.ends_with('/')
    };
    match !description.volumes.is_empty() && description.volumes.iter().all(is_good) {
        true => Ok(description),
        false => Err(damaged("its description names no volumes")),
    }
}
