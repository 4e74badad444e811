//! The archive as it is written: a gzip'ed tar in GNU's format whose last member has the
//! sums of all others. Compression has a thread of its own; same input, same bytes.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::description::SUMS;

const CHUNK: usize = 256 << 10;
/// Chunks that may wait for the compression.
const WAITING: usize = 8;
/// What a header has room for.
const NAME: usize = 100;

enum Message {
    Bytes(Vec<u8>),
    /// Asks for the sum and the length of all so far.
    Sum(SyncSender<(String, u64)>),
}

/// Owner, mode and time of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

pub struct Writer {
    buffer: Vec<u8>,
    sender: SyncSender<Message>,
    thread: JoinHandle<io::Result<()>>,
    /// The text of the last member, in a file without a name.
    sums: io::BufWriter<File>,
}

/// Whether a file was read as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    Steady,
    /// It ended early: the rest is zeros.
    Shrunk,
    /// It is longer now: the rest is not in the archive.
    Grew,
}

impl Writer {
    /// `sums` is a file without a name that the writer may fill.
    pub fn new(out: Box<dyn Write + Send>, sums: File) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::spawn(move || compress(receiver, out));
        Writer {
            buffer: Vec::with_capacity(CHUNK),
            sender,
            thread,
            sums: io::BufWriter::new(sums),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        let sent = self.sender.send(Message::Bytes(full));
        // The thread's own error says more; it is asked for at the end.
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % 512) as usize;
        match over {
            0 => Ok(()),
            over => self.write(&[0; 512][over..]),
        }
    }

    /// A member without its content.
    fn head(
        &mut self,
        path: &[u8],
        kind: EntryType,
        meta: Meta,
        size: u64,
        link: &[u8],
    ) -> io::Result<()> {
        for (text, kind) in [
            (path, EntryType::GNULongName),
            (link, EntryType::GNULongLink),
        ] {
            if text.len() > NAME {
                let mut header = Header::new_gnu();
                header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
                header.set_entry_type(kind);
                header.set_size(text.len() as u64 + 1);
                header.set_mode(0o644);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                header.set_cksum();
                self.write(header.as_bytes())?;
                self.write(text)?;
                self.write(&[0])?;
                self.pad(text.len() as u64 + 1)?;
            }
        }
        let mut header = Header::new_gnu();
        let cut = |text: &[u8]| text.len().min(NAME);
        header.as_old_mut().name[..cut(path)].copy_from_slice(&path[..cut(path)]);
        header.as_old_mut().linkname[..cut(link)].copy_from_slice(&link[..cut(link)]);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(meta.mode & 0o7777);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(meta.mtime);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    pub fn directory(&mut self, path: &Path, meta: Meta) -> io::Result<()> {
        let path = [path.as_os_str().as_bytes(), b"/"].concat();
        self.head(&path, EntryType::Directory, meta, 0, b"")
    }

    pub fn symlink(&mut self, path: &Path, meta: Meta, target: &[u8]) -> io::Result<()> {
        let path = path.as_os_str().as_bytes();
        self.head(path, EntryType::Symlink, meta, 0, target)
    }

    /// Another name of a file that is in the archive already.
    pub fn hard_link(&mut self, path: &Path, meta: Meta, first: &Path) -> io::Result<()> {
        let path = path.as_os_str().as_bytes();
        self.head(path, EntryType::Link, meta, 0, first.as_os_str().as_bytes())
    }

    /// A file of exactly `size` bytes, whatever its reader has.
    pub fn file(
        &mut self,
        path: &Path,
        meta: Meta,
        size: u64,
        content: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<Stability> {
        let path = path.as_os_str().as_bytes();
        self.head(path, EntryType::Regular, meta, size, b"")?;
        let mut hash = Sha256::new();
        let mut left = size;
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK)).max(1)];
        let mut found = Stability::Steady;
        while left > 0 {
            let wanted = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match found {
                Stability::Shrunk => wanted,
                _ => match content.read(&mut buffer[..wanted]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other?,
                },
            };
            if count == 0 {
                found = Stability::Shrunk;
                buffer.fill(0);
                continue;
            }
            hash.update(&buffer[..count]);
            self.write(&buffer[..count])?;
            left -= count as u64;
            progress(count as u64);
        }
        self.pad(size)?;
        let sum = hex(&hash.finalize());
        self.sums.write_all(&sum_line(&sum, path))?;
        if found == Stability::Steady && content.read(&mut [0])? > 0 {
            found = Stability::Grew;
        }
        Ok(found)
    }

    /// Writes the sums and the end. Answers how the thread that writes fared.
    pub fn finish(mut self) -> io::Result<()> {
        match self.close() {
            Ok(()) => {}
            // Else only the thread knows why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Err(_) => {}
        }
        self.ended()
    }

    /// What went wrong with the output, after a write has failed.
    pub fn ended(self) -> io::Result<()> {
        drop(self.sender);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("a defect in the compression")),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        self.flush()?;
        let (ask, answer) = sync_channel(1);
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.send(Message::Sum(ask)).map_err(|_| gone())?;
        let (sum, length) = answer.recv().map_err(|_| gone())?;
        self.sums.write_all(stream_line(&sum, length).as_bytes())?;
        self.sums.flush()?;
        let mut sums = self.sums.get_ref().try_clone()?;
        let size = sums.stream_position()?;
        sums.rewind()?;
        let meta = Meta {
            uid: 0,
            gid: 0,
            mode: 0o600,
            mtime: 0,
        };
        self.head(SUMS.as_bytes(), EntryType::Regular, meta, size, b"")?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match sums.read(&mut buffer)? {
                0 => break,
                count => self.write(&buffer[..count])?,
            }
        }
        self.pad(size)?;
        self.write(&[0; 1024])?;
        self.flush()
    }
}

fn compress(messages: Receiver<Message>, out: Box<dyn Write + Send>) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut length = 0;
    // No name, no time: the same bytes for the same content.
    let mut gzip = GzBuilder::new().write(
        io::BufWriter::with_capacity(CHUNK, out),
        Compression::new(4),
    );
    for message in messages {
        match message {
            Message::Bytes(bytes) => {
                hash.update(&bytes);
                length += bytes.len() as u64;
                gzip.write_all(&bytes)?;
            }
            Message::Sum(ask) => {
                let _ = ask.send((hex(&hash.clone().finalize()), length));
            }
        }
    }
    gzip.finish()?.flush()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line as sha256sum(1) writes it, which marks and quotes the names that would not fit.
pub fn sum_line(sum: &str, path: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(path.len() + 70);
    if path
        .iter()
        .any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'))
    {
        line.push(b'\\');
    }
    line.extend_from_slice(sum.as_bytes());
    line.extend_from_slice(b"  ");
    for byte in path {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

/// Covers what the other lines do not: paths, owners, modes, times, links. To sha256sum(1)
/// it is a comment.
pub fn stream_line(sum: &str, length: u64) -> String {
    format!("# {sum} is the sum of the {length} bytes of the tar before this member\n")
}
