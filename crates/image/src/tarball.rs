//! The tar format as layers use it: ustar headers, with PAX records before an entry for
//! what they cannot hold (POSIX.1-2001 pax; image-spec, layer.md).
//!
//! Owners are numbers only, there are no access or change times, and records come in the
//! order of their keys: the same entry always has the same bytes.

use std::collections::BTreeMap;

/// Everything in a tar comes in blocks of so many bytes.
pub(crate) const BLOCK: u64 = 512;

/// Two empty blocks end the archive.
pub(crate) const END: u64 = 2 * BLOCK;

/// The largest size that eleven octal digits hold: 8 GiB - 1.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// The largest owner that seven octal digits hold.
const MAX_ID: u32 = 0o7_777_777;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type<'a> {
    File {
        size: u64,
    },
    /// To the path of an earlier entry of the same archive.
    HardLink {
        to: &'a [u8],
    },
    /// The target verbatim.
    Symlink {
        to: &'a [u8],
    },
    Directory,
    Fifo,
    Character {
        device: (u32, u32),
    },
    Block {
        device: (u32, u32),
    },
}

/// The largest major or minor number that seven octal digits hold. Linux has 12 and 20 bits.
const MAX_DEVICE: u32 = 0o7_777_777;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    /// Relative to the root, without a slash at either end.
    pub(crate) path: &'a [u8],
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    pub(crate) kind: Type<'a>,
    pub(crate) xattrs: &'a BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Header<'_> {
    /// All blocks that stand before the entry's content.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut path = self.path.to_vec();
        let (flag, size, link): (u8, u64, &[u8]) = match self.kind {
            Type::File { size } => (b'0', size, b""),
            Type::HardLink { to } => (b'1', 0, to),
            Type::Symlink { to } => (b'2', 0, to),
            Type::Directory => {
                path.push(b'/');
                (b'5', 0, b"")
            }
            Type::Fifo => (b'6', 0, b""),
            Type::Character { .. } => (b'3', 0, b""),
            Type::Block { .. } => (b'4', 0, b""),
        };
        let device = match self.kind {
            Type::Character { device } | Type::Block { device } => device,
            _ => (0, 0),
        };

        let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut record = |key: &str, value: &[u8]| {
            records.insert(key.as_bytes().to_vec(), value.to_vec());
        };
        if path.len() > 100 {
            record("path", &path);
        }
        if link.len() > 100 {
            record("linkpath", link);
        }
        if size > MAX_SIZE {
            record("size", size.to_string().as_bytes());
        }
        if self.uid > MAX_ID {
            record("uid", self.uid.to_string().as_bytes());
        }
        if self.gid > MAX_ID {
            record("gid", self.gid.to_string().as_bytes());
        }
        if self.mtime > MAX_SIZE {
            record("mtime", self.mtime.to_string().as_bytes());
        }
        let names_are_text =
            |bytes: &[u8]| bytes.len() <= 100 || std::str::from_utf8(bytes).is_ok();
        if !names_are_text(&path) || !names_are_text(link) {
            // Records are UTF-8 unless this says otherwise.
            record("hdrcharset", b"BINARY");
        }
        for (name, value) in self.xattrs {
            records.insert([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
        }

        let mut out = Vec::with_capacity(BLOCK as usize);
        if !records.is_empty() {
            let body: Vec<u8> = records
                .iter()
                .flat_map(|(key, value)| pax_record(key, value))
                .collect();
            let base = self
                .path
                .rsplit(|byte| *byte == b'/')
                .next()
                .unwrap_or_default();
            let name = [b"PaxHeaders/", base].concat();
            let owner = (0, 0);
            let size = body.len() as u64;
            out.extend(ustar(
                &name,
                0o644,
                owner,
                size,
                self.mtime,
                (b'x', b""),
                (0, 0),
            ));
            out.extend(&body);
            out.resize(out.len() + padding(body.len() as u64) as usize, 0);
        }
        let owner = (self.uid, self.gid);
        out.extend(ustar(
            &path,
            self.mode,
            owner,
            size,
            self.mtime,
            (flag, link),
            device,
        ));
        out
    }
}

/// Zero bytes that fill the last block of a content of so many bytes.
pub(crate) fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// What does not fit is cut or zero: a PAX record before this header holds it.
fn ustar(
    path: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
    size: u64,
    mtime: u64,
    (flag, link): (u8, &[u8]),
    (major, minor): (u32, u32),
) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let octal = |number: u64, max: u64| if number > max { 0 } else { number };
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &path[..path.len().min(100)]);
    put(100, format!("{mode:07o}").as_bytes());
    put(
        108,
        format!("{:07o}", octal(uid.into(), MAX_ID.into())).as_bytes(),
    );
    put(
        116,
        format!("{:07o}", octal(gid.into(), MAX_ID.into())).as_bytes(),
    );
    put(124, format!("{:011o}", octal(size, MAX_SIZE)).as_bytes());
    put(136, format!("{:011o}", octal(mtime, MAX_SIZE)).as_bytes());
    // The checksum counts its own field as spaces.
    put(148, b"        ");
    put(156, &[flag]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", major.min(MAX_DEVICE)).as_bytes());
    put(337, format!("{:07o}", minor.min(MAX_DEVICE)).as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
