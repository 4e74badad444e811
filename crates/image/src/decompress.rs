//! What a compressed stream is, told by its first bytes, and reading it within bounds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::process::{Child, ChildStdout, Command, Stdio};

use flate2::bufread::MultiGzDecoder;

/// What a layer may be compressed with (image-spec, layer.md), and an archive as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    #[default]
    Gzip,
    Zstd,
}

/// The memory that a zstd stream may ask for: 2 to this power, zstd's own `--long` default.
const ZSTD_WINDOW: u32 = 27;

impl Compression {
    fn of(start: &[u8]) -> io::Result<Compression> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
            start => match foreign(start) {
                None => Ok(Compression::None),
                Some(name) => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("it is compressed with {name}: decompress it first"),
                )),
            },
        }
    }
}

/// The program that reads what is none of an image's formats.
fn foreign(start: &[u8]) -> Option<&'static str> {
    match start {
        [0xfd, b'7', b'z', b'X', ..] => Some("xz"),
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        _ => None,
    }
}

/// The plain bytes of a stream, whatever it is compressed with.
pub(crate) fn plain<'a>(stream: impl Read + 'a) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut stream = BufReader::with_capacity(1 << 17, stream);
    let compression = Compression::of(stream.fill_buf()?)?;
    let plain: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(MultiGzDecoder::new(stream)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            Box::new(decoder)
        }
    };
    Ok((compression, plain))
}

/// As [`plain`], and what programs of this machine decompress: root file systems often are xz.
pub(crate) fn any(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut start = Vec::new();
    (&mut file).take(6).read_to_end(&mut start)?;
    file.rewind()?;
    let Some(program) = foreign(&start) else {
        return Ok(plain(file)?.1);
    };
    let mut command = Command::new(program);
    if program == "xz" {
        // Its highest level wants 65 MiB; a file may ask for any amount.
        command.arg("--memlimit-decompress=256MiB");
    }
    let mut child = command
        .args(["--decompress", "--stdout"])
        .stdin(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            let text = format!("it is compressed with {program}, which does not run: {error}");
            io::Error::new(error.kind(), text)
        })?;
    let out = child.stdout.take().expect("piped above");
    Ok(Box::new(Piped {
        program,
        child,
        out,
    }))
}

/// What a program writes; ends it when nobody reads on.
struct Piped {
    program: &'static str,
    child: Child,
    out: ChildStdout,
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.out.read(buffer)?;
        if count > 0 || buffer.is_empty() || self.child.wait()?.success() {
            return Ok(count);
        }
        let mut said = String::new();
        if let Some(errors) = self.child.stderr.take() {
            // It has ended, and says no more than a line.
            let _ = errors.take(500).read_to_string(&mut said);
        }
        let line = said.lines().next().unwrap_or("it does not say why");
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} cannot decompress it: {line}", self.program),
        ))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends a stream with an error when it grows past all reason: a few kilobytes can
/// otherwise become terabytes.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    ratio: u64,
}

/// So much may come out of anything.
const ALWAYS: u64 = 1 << 30;

/// And so many times the compressed size, where it goes to a disk: binaries and text stay
/// below 10.
pub(crate) const WRITTEN: u64 = 200;

/// Where it is only looked at. Deflate reaches 1032 with nothing but zeros, which is what
/// the holes of a sparse file are in a layer.
pub(crate) const READ: u64 = 1100;

impl<R: Read> Bounded<R> {
    pub(crate) fn new(inner: R, compressed: u64, ratio: u64) -> Bounded<R> {
        Bounded {
            inner,
            left: compressed.saturating_mul(ratio).max(ALWAYS),
            ratio,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "it becomes more than {} times larger when it is decompressed",
                    self.ratio
                ),
            )
        })?;
        Ok(count)
    }
}
