//! The outer tar of an archive: where each of its files lies, so that they can be read in
//! the order that the documents ask for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::pread;

use crate::Error;
use crate::decompress::{Bounded, Compression, WRITTEN, plain};
use crate::untar::{Flag, Reader};

/// What an archive may list: an image has at most 127 layers, an archive some images.
const MAX_FILES: usize = 100_000;

/// A run of bytes of a file.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) file: Arc<File>,
    /// For errors.
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl Part {
    pub(crate) fn reader(&self) -> PartReader<'_> {
        PartReader { part: self, at: 0 }
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

pub(crate) struct PartReader<'a> {
    part: &'a Part,
    at: u64,
}

impl PartReader<'_> {
    fn jump(&mut self, by: u64) -> io::Result<()> {
        self.at = self
            .at
            .checked_add(by)
            .filter(|at| *at <= self.part.size)
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it ends in the middle of an entry",
                )
            })?;
        Ok(())
    }
}

impl Read for PartReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.part.size.saturating_sub(self.at);
        let room = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let count = pread(
            self.part.file.as_fd(),
            &mut buffer[..room],
            self.part.offset + self.at,
        )?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it ends too early",
            ));
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// The files of an archive by their path without `./`.
pub(crate) struct Container {
    files: HashMap<String, Part>,
    /// `docker save` before 25 and podman write a layer that comes twice as a link.
    links: HashMap<String, String>,
}

impl Container {
    /// Lists the archive at `path`; one that is compressed as a whole is first unpacked
    /// into a nameless file in `scratch`.
    pub(crate) fn open(path: &Path, scratch: &Path) -> Result<Container, Error> {
        let wrong = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::Unsupported => Error::Image {
                image: path.display().to_string(),
                reason: error.to_string(),
            },
            _ => Error::io("read", path)(error),
        };
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let mut whole = Part {
            file: Arc::new(file),
            path: path.to_owned(),
            offset: 0,
            size,
        };
        let (compression, _) = plain(whole.reader()).map_err(wrong)?;
        if compression != Compression::None {
            whole = decompressed(&whole, scratch, wrong)?;
        }
        let mut container = Container {
            files: HashMap::new(),
            links: HashMap::new(),
        };
        // Contents are jumped over, not read.
        let mut reader = Reader::new(whole.reader());
        while let Some(entry) = reader.next().map_err(wrong)? {
            let offset = reader.position();
            reader.jump(|inner, by| inner.jump(by)).map_err(wrong)?;
            let Some(name) = plain_name(&entry.path) else {
                continue;
            };
            if container.files.len() + container.links.len() > MAX_FILES {
                return Err(wrong(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it lists more files than any archive of images",
                )));
            }
            let twice = match entry.flag {
                Flag::File => container
                    .files
                    .insert(
                        name.clone(),
                        Part {
                            offset,
                            size: entry.size,
                            ..whole.clone()
                        },
                    )
                    .is_some(),
                Flag::Symlink => {
                    let base = name.rsplit_once('/').map_or("", |(base, _)| base);
                    let to = String::from_utf8_lossy(&entry.link).into_owned();
                    container
                        .links
                        .insert(name.clone(), join(base, &to))
                        .is_some()
                }
                Flag::HardLink => {
                    let to = String::from_utf8_lossy(&entry.link).into_owned();
                    container
                        .links
                        .insert(name.clone(), join("", &to))
                        .is_some()
                }
                _ => false,
            };
            if twice {
                // Which one counts would be anybody's choice.
                return Err(Error::Image {
                    image: path.display().to_string(),
                    reason: format!("it has the file {name} twice"),
                });
            }
        }
        Ok(container)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Part> {
        let name = join("", name);
        // A link to a link is nobody's writing.
        let name = self.links.get(&name).unwrap_or(&name);
        self.files.get(name)
    }
}

/// Without `./`; `None` for what no document of an image can name.
fn plain_name(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let name = join("", path);
    (!name.is_empty()).then_some(name)
}

/// Names here are keys of a table and never paths of the machine, so `..` is plain text
/// arithmetic.
fn join(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = match path.starts_with('/') {
        true => Vec::new(),
        false => base.split('/').filter(|part| !part.is_empty()).collect(),
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn decompressed(
    whole: &Part,
    scratch: &Path,
    wrong: impl Fn(io::Error) -> Error,
) -> Result<Part, Error> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(CWD, scratch, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|error| Error::io("write in", scratch)(error.into()))?;
    let mut file = File::from(file);
    let (_, stream) = plain(whole.reader()).map_err(&wrong)?;
    let mut stream = Bounded::new(stream, whole.size, WRITTEN);
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(wrong(damaged(error))),
        };
        file.write_all(&buffer[..count])
            .map_err(Error::write(&scratch.join("archive"), None))?;
        size += count as u64;
    }
    Ok(Part {
        file: Arc::new(file),
        path: whole.path.clone(),
        offset: 0,
        size,
    })
}

/// The decompressors' own kinds of error all mean one thing.
pub(crate) fn damaged(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is damaged: {error}"),
        ),
    }
}
