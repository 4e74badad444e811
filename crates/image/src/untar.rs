//! Reads the tar format as layers and archives use it (POSIX.1-2001 ustar and pax, GNU's
//! long names and large numbers), from somebody who may be hostile.
//!
//! Names and numbers come out as they are written; what they may mean is decided by who
//! unpacks. Records that stand before an entry are bounded, so that no archive can fill
//! the memory, and a size is taken from one place only: two readers that disagree about
//! where the next entry begins see two different archives (CVE-2025-62518, CVE-2026-33055).

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::tarball::{BLOCK, padding};

/// Of all records before one entry, as Go's archive/tar bounds them.
const MAX_RECORDS: u64 = 1 << 20;

/// What an entry of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// An entry of a layer as it is written, whiteouts included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub flag: Flag,
    /// Of links.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Of the content that follows; 0 for all but files.
    pub size: u64,
    /// Major and minor number.
    pub device: (u32, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a tar holds one after the other: after [`Reader::next`] this reads the content of
/// that entry.
pub(crate) struct Reader<R> {
    inner: R,
    /// Of the current content.
    left: u64,
    /// After it.
    pad: u64,
    /// Bytes read.
    at: u64,
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(inner: R) -> Reader<R> {
        Reader {
            inner,
            left: 0,
            pad: 0,
            at: 0,
        }
    }

    /// Where the next byte lies, counted from where the reader was made.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The next entry; what is left of the content of the last one is passed over.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        self.skip()?;
        let mut records = Records::default();
        loop {
            let Some(block) = self.block()? else {
                if records.any() {
                    return Err(invalid("it ends after the records of an entry"));
                }
                return Ok(None);
            };
            let size = number(&block[124..136])?;
            match block[156] {
                b'x' => {
                    let body = self.records(size)?;
                    records.pax(&body)?;
                }
                // Of what git and others note for all entries, nothing is about one.
                b'g' => drop(self.records(size)?),
                b'L' => records.path = Some(text(&self.records(size)?).to_vec()),
                b'K' => records.link = Some(text(&self.records(size)?).to_vec()),
                flag => return self.entry(&block, flag, size, records).map(Some),
            }
        }
    }

    /// Passes over the current content without reading it: `seek` moves the stream.
    pub(crate) fn jump(
        &mut self,
        seek: impl FnOnce(&mut R, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let by = self.left.saturating_add(self.pad);
        (self.left, self.pad) = (0, 0);
        self.at = self.at.saturating_add(by);
        seek(&mut self.inner, by)
    }

    fn entry(&mut self, block: &Block, flag: u8, size: u64, records: Records) -> io::Result<Entry> {
        let flag = match flag {
            // 7 is a file that lies in one piece; an old tar marks directories by a slash.
            b'0' | b'7' | 0 => Flag::File,
            b'1' => Flag::HardLink,
            b'2' => Flag::Symlink,
            b'3' => Flag::Character,
            b'4' => Flag::Block,
            b'5' => Flag::Directory,
            b'6' => Flag::Fifo,
            b'S' => return Err(invalid("it has a sparse file in GNU's own form")),
            other => {
                return Err(invalid(format!(
                    "it has an entry of the unknown type {:?}",
                    other as char
                )));
            }
        };
        let path = match records.path {
            Some(path) => path,
            None => {
                let name = text(&block[..100]);
                // GNU's variant has times where ustar has the beginning of the path.
                let prefix = match &block[257..263] {
                    b"ustar\0" => text(&block[345..500]),
                    _ => b"",
                };
                match prefix {
                    b"" => name.to_vec(),
                    prefix => [prefix, b"/", name].concat(),
                }
            }
        };
        let flag = match flag {
            Flag::File if path.ends_with(b"/") => Flag::Directory,
            flag => flag,
        };
        let size = records.size.unwrap_or(size);
        let own = match flag {
            Flag::File => size,
            // Some writers note the linked file's size; nothing follows.
            _ => 0,
        };
        if flag == Flag::Directory && size > 0 {
            return Err(invalid("it has a directory with content"));
        }
        self.left = own;
        self.pad = padding(own);
        let id = |record: Option<u64>, field: &[u8]| -> io::Result<u32> {
            let id = record.map_or_else(|| number(field), Ok)?;
            // The last one means nobody to the kernel.
            u32::try_from(id)
                .ok()
                .filter(|id| *id < u32::MAX)
                .ok_or_else(|| invalid(format!("an owner is numbered {id}")))
        };
        let device = |field: &[u8]| -> io::Result<u32> {
            match flag {
                Flag::Character | Flag::Block => {
                    u32::try_from(number(field)?).map_err(|_| invalid("a device has no number"))
                }
                _ => Ok(0),
            }
        };
        Ok(Entry {
            flag,
            link: match records.link {
                Some(link) => link,
                None => text(&block[157..257]).to_vec(),
            },
            mode: (number(&block[100..108])? & 0o7777) as u32,
            uid: id(records.uid, &block[108..116])?,
            gid: id(records.gid, &block[116..124])?,
            mtime: match records.mtime {
                Some(mtime) => mtime,
                None => (signed(&block[136..148])?, 0),
            },
            size: own,
            device: (device(&block[329..337])?, device(&block[337..345])?),
            xattrs: records.xattrs,
            path,
        })
    }

    /// Passes over what is left of the current content.
    fn skip(&mut self) -> io::Result<()> {
        let mut left = self.left.saturating_add(self.pad);
        (self.left, self.pad) = (0, 0);
        let mut waste = [0; 1 << 14];
        while left > 0 {
            let take = waste.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.exact(&mut waste[..take])?;
            left -= take as u64;
        }
        Ok(())
    }

    /// The next header; `None` at the end, which is two empty blocks or the end of the stream.
    fn block(&mut self) -> io::Result<Option<Block>> {
        let mut block = [0; BLOCK as usize];
        let mut have = 0;
        while have < block.len() {
            match self.inner.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(invalid("it ends in the middle of a header")),
                Ok(count) => have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| match at {
                148..156 => u64::from(b' '),
                _ => u64::from(*byte),
            })
            .sum();
        if number(&block[148..156])? != sum {
            return Err(invalid("it is no tar, or damaged: a checksum is wrong"));
        }
        Ok(Some(block))
    }

    fn records(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_RECORDS {
            return Err(invalid("the records of an entry are larger than 1 MiB"));
        }
        let mut body = vec![0; (size + padding(size)) as usize];
        self.exact(&mut body)?;
        body.truncate(size as usize);
        Ok(body)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(buffer).map_err(cut)?;
        self.at += buffer.len() as u64;
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(cut(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

fn cut(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid("it ends in the middle of an entry"),
        _ => error,
    }
}

type Block = [u8; BLOCK as usize];

/// What stands before an entry and wins over its header.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Records {
    fn any(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some()
    }

    /// `LENGTH KEY=VALUE\n`, one after the other.
    fn pax(&mut self, mut body: &[u8]) -> io::Result<()> {
        let wrong = || invalid("a pax record is malformed");
        while !body.is_empty() {
            let space = body
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .ok_or_else(wrong)?;
            let length = decimal(&body[..space])
                .and_then(|length| usize::try_from(length).ok())
                .filter(|length| *length > space + 1 && *length <= body.len())
                .ok_or_else(wrong)?;
            let record = &body[space + 1..length];
            body = &body[length..];
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(wrong)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let owned = || Some(value.to_vec());
            match key {
                b"path" => self.path = owned(),
                b"linkpath" => self.link = owned(),
                b"size" => self.size = Some(decimal(value).ok_or_else(wrong)?),
                b"uid" => self.uid = Some(decimal(value).ok_or_else(wrong)?),
                b"gid" => self.gid = Some(decimal(value).ok_or_else(wrong)?),
                b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(invalid("it has a sparse file in GNU's own form"));
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.insert(name.to_vec(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Up to the first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `-1.5`, `1700000000.123456789`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, part) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let digits: Vec<u8> = part
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .collect();
    let nanoseconds = u32::try_from(decimal(&digits)?).ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        // Nanoseconds count upwards.
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

fn number(field: &[u8]) -> io::Result<u64> {
    u64::try_from(signed(field)?).map_err(|_| invalid("a number is negative"))
}

/// Octal digits, or GNU's binary form where the first bit is set.
fn signed(field: &[u8]) -> io::Result<i64> {
    let wrong = || invalid("it is no tar, or damaged: a number is malformed");
    if field[0] & 0x80 != 0 {
        // Two's complement without the marking bit.
        let mut value: i128 = if field[0] & 0x40 != 0 { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 && value == 0 {
                byte & 0x7f
            } else {
                *byte
            };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).map_err(|_| wrong());
    }
    let digits = field
        .split(|byte| matches!(byte, 0 | b' '))
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    let mut value: i64 = 0;
    for digit in digits {
        match digit {
            b'0'..=b'7' => value = value << 3 | i64::from(digit - b'0'),
            _ => return Err(wrong()),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut reader = Reader::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut content = Vec::new();
            reader.read_to_end(&mut content)?;
            found.push((entry, content));
        }
        Ok(found)
    }

    #[test]
    fn times_before_1970_and_parts_of_seconds_are_read() {
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"3.0000000019"), Some((3, 1)));
        assert_eq!(time(b"-7"), Some((-7, 0)));
        assert_eq!(time(b"x"), None);
        assert_eq!(signed(&[0xff; 12]).unwrap(), -1);
        assert_eq!(signed(b"\x80\0\0\0\0\0\0\x02\0\0\0\0").unwrap(), 2 << 32);
    }

    /// What GNU tar writes where ustar has no room: long names, large numbers.
    #[test]
    fn what_the_tar_crate_writes_is_read() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = "d/".repeat(120) + "name";
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(5);
        header.set_mode(0o4755);
        header.set_uid(4_000_000_000);
        header.set_gid(7);
        header.set_mtime(1_700_000_000);
        builder
            .append_data(&mut header, &long, &b"hello"[..])
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_link(&mut header, "link", &long).unwrap();
        let found = all(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(found[0].0.path, long.as_bytes());
        assert_eq!(found[0].1, b"hello");
        assert_eq!(
            (found[0].0.mode, found[0].0.uid, found[0].0.gid),
            (0o4755, 4_000_000_000, 7)
        );
        assert_eq!(found[1].0.flag, Flag::Symlink);
        assert_eq!(found[1].0.link, long.as_bytes());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = all(&bytes);
        }

        /// Damage in a good archive is an error or other content, and ends.
        #[test]
        fn no_damage_makes_it_panic(at in 0usize..2048, value in any::<u8>()) {
            let mut builder = tar::Builder::new(Vec::new());
            builder.append_pax_extensions([("path", &b"some/name"[..]), ("size", b"3"), ("mtime", b"1.5")]).unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_size(3);
            header.set_cksum();
            builder.append(&header, &b"abc"[..]).unwrap();
            let mut bytes = builder.into_inner().unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let _ = all(&bytes);
        }
    }
}
