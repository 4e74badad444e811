//! What a compressed stream is, told by its first bytes, and reading it within bounds.

use std::io::{self, BufRead, BufReader, Read};

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
            [0xfd, b'7', b'z', b'X', ..] => Err(refused("xz")),
            [b'B', b'Z', b'h', ..] => Err(refused("bzip2")),
            _ => Ok(Compression::None),
        }
    }
}

fn refused(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("it is compressed with {name}: decompress it first"),
    )
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
