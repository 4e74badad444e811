//! A compressed stream made on all cores whose bytes do not depend on how many there are.
//!
//! gzip: the stream (one member, RFC 1952) is cut into chunks of [`CHUNK`] bytes. Each is
//! deflated on its own (RFC 1951) and ends with a sync flush, so that the pieces lie on
//! byte boundaries and can be joined; the last one ends the deflate stream. Each chunk
//! is primed with the 32 KiB before it, as pigz does, so cutting costs no matches. A chunk
//! depends only on its place and on the bytes before it, never on which thread took it.
//!
//! 1 MiB a chunk: what a cut costs (a sync flush, Huffman tables that start afresh) is
//! spread over eight times what pigz takes, and a layer of 30 MB still keeps 16 cores busy.
//!
//! zstd: chunks of [`ZSTD_CHUNK`] bytes, each a frame of its own (RFC 8878, section 3: decoders
//! read one frame after the other), with its length in its header.
//!
//! One thread feeds, N deflate, one hashes the plain bytes, one hashes and writes the
//! compressed ones. Everything in between is bounded: at most `2 N + 2` chunks are alive,
//! plain and compressed, so about `4 N + 4` MiB: 36 MiB with 8 threads, and four times that for zstd.

use std::io::{self, Read, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::{Compress, Crc, FlushCompress, Status};
use sha2::{Digest, Sha256};

use crate::{Compression, Error};

/// Bytes of the plain stream that are compressed at once. Part of the output's format:
/// another value gives other digests.
pub(crate) const CHUNK: usize = 1 << 20;

/// As [`CHUNK`], for zstd. Larger, since no frame sees the one before it.
const ZSTD_CHUNK: usize = 4 << 20;

/// What a layer is compressed with when it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Packing {
    /// Level 6, which every engine reads.
    #[default]
    Gzip,
    /// Docker from 23, containerd from 1.5 and podman from 3 read it; Docker 20.10 does not.
    /// From 1 to 19: higher ones want more memory from whoever reads the stream.
    Zstd { level: i32 },
}

impl Packing {
    fn chunk(self) -> usize {
        match self {
            Packing::Gzip => CHUNK,
            Packing::Zstd { .. } => ZSTD_CHUNK,
        }
    }

    pub fn compression(self) -> Compression {
        match self {
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd { .. } => Compression::Zstd,
        }
    }
}

/// How far back deflate looks (RFC 1951, section 2).
const WINDOW: usize = 32 << 10;

/// Part of the output's format. Of the reference stack's 454 MB on two cores level 4 makes
/// 149.0 MB in 3.1 s, level 5 146.7 MB in 3.4 s, level 6 146.3 MB in 4.1 s; `pigz -6` 143 MB in
/// 7.7 s. Level 7 takes three times as long as 6.
const LEVEL: u32 = 5;

/// No name, no time, no extra flags, unknown system: nothing of this machine (RFC 1952, 2.3.1).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// What is known of a stream once it is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// `sha256:…` of the plain bytes, an OCI diff_id.
    pub(crate) diff_id: String,
    /// `sha256:…` of the compressed bytes, an OCI digest.
    pub(crate) digest: String,
    pub(crate) plain: u64,
    pub(crate) compressed: u64,
}

/// Why [`compress`] stopped early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The feeder gave up.
    Feed(Error),
    /// `out` did not take the bytes.
    Write(io::Error),
}

/// Why a feeder stopped early.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The writer is gone; what went wrong is its to tell.
    Stopped,
    Error(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Error(error)
    }
}

struct Job {
    chunk: Arc<Vec<u8>>,
    before: Option<Arc<Vec<u8>>>,
    last: bool,
    done: SyncSender<(Vec<u8>, Crc)>,
}

/// Takes the plain stream piece by piece.
pub(crate) struct Feed {
    chunk: Vec<u8>,
    /// Bytes of a full chunk.
    full: usize,
    before: Option<Arc<Vec<u8>>>,
    jobs: SyncSender<Job>,
    hash: SyncSender<Arc<Vec<u8>>>,
    order: SyncSender<Receiver<(Vec<u8>, Crc)>>,
}

impl Feed {
    /// Appends bytes.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Result<(), Halt> {
        while !bytes.is_empty() {
            let take = bytes.len().min(self.full - self.chunk.len());
            self.chunk.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            self.send_full()?;
        }
        Ok(())
    }

    /// Appends `count` zero bytes.
    pub(crate) fn zeros(&mut self, mut count: u64) -> Result<(), Halt> {
        while count > 0 {
            let take = count.min((self.full - self.chunk.len()) as u64);
            self.chunk.resize(self.chunk.len() + take as usize, 0);
            count -= take;
            self.send_full()?;
        }
        Ok(())
    }

    /// Appends what one call of `read` puts behind the content of the buffer that it is given,
    /// whose capacity it keeps to: at most `limit` bytes and what is left of the chunk. Gives
    /// the count.
    pub(crate) fn fill(
        &mut self,
        limit: u64,
        read: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<usize, Halt> {
        let start = self.chunk.len();
        let room = limit.min((self.full - start) as u64) as usize;
        self.chunk.reserve_exact(self.full - start);
        read(&mut self.chunk)?;
        self.chunk.truncate(start + room);
        let count = self.chunk.len() - start;
        self.send_full()?;
        Ok(count)
    }

    fn send_full(&mut self) -> Result<(), Halt> {
        if self.chunk.len() == self.full {
            self.send(false)
        } else {
            Ok(())
        }
    }

    fn send(&mut self, last: bool) -> Result<(), Halt> {
        let capacity = if last { 0 } else { self.full };
        let chunk = Arc::new(std::mem::replace(
            &mut self.chunk,
            Vec::with_capacity(capacity),
        ));
        let (done, result) = mpsc::sync_channel(1);
        let job = Job {
            chunk: Arc::clone(&chunk),
            before: self.before.replace(Arc::clone(&chunk)),
            last,
            done,
        };
        // The order first: its bound is what limits the memory.
        self.order.send(result).map_err(|_| Halt::Stopped)?;
        self.hash.send(chunk).map_err(|_| Halt::Stopped)?;
        self.jobs.send(job).map_err(|_| Halt::Stopped)
    }
}

/// Compresses what `feed` puts into the [`Feed`] and writes it to `out`.
///
/// `threads` compress; 0 takes as many as there are cores. Without a packing the stream is
/// only hashed, and nothing is written.
pub(crate) fn compress(
    out: &mut (impl Write + Send),
    packing: Option<Packing>,
    threads: usize,
    feed: impl FnOnce(&mut Feed) -> Result<(), Halt>,
) -> Result<Written, Failure> {
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (jobs, queue) = mpsc::sync_channel::<Job>(threads);
    let (hash, plain) = mpsc::sync_channel::<Arc<Vec<u8>>>(2);
    let (order, results) = mpsc::sync_channel(2 * threads);
    // Owned by the deflating threads alone: when they are gone, the feeder is told.
    let queue = Arc::new(Mutex::new(queue));

    thread::scope(|scope| {
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            scope.spawn(move || work(&queue, packing));
        }
        drop(queue);
        let hasher = scope.spawn(move || {
            let (mut hash, mut length) = (Sha256::new(), 0);
            for chunk in plain {
                hash.update(&*chunk);
                length += chunk.len() as u64;
            }
            (hash, length)
        });
        let writer = scope.spawn(move || join(out, packing, results));

        let full = packing.map_or(CHUNK, Packing::chunk);
        let mut feeder = Feed {
            chunk: Vec::with_capacity(full),
            full,
            before: None,
            jobs,
            hash,
            order,
        };
        let fed = feed(&mut feeder).and_then(|()| feeder.send(true));
        drop(feeder);

        let (plain_hash, plain) = hasher.join().expect("hashing does not panic");
        let written = writer.join().expect("writing does not panic");
        match (fed, written) {
            (Err(Halt::Error(error)), _) => Err(Failure::Feed(error)),
            (_, Err(error)) => Err(Failure::Write(error)),
            (Err(Halt::Stopped), Ok(_)) => {
                unreachable!("the writer stops early with an error only")
            }
            (Ok(()), Ok((hash, compressed))) => Ok(Written {
                diff_id: digest(plain_hash),
                digest: digest(hash),
                plain,
                compressed,
            }),
        }
    })
}

fn work(queue: &Mutex<Receiver<Job>>, packing: Option<Packing>) {
    loop {
        // A statement of its own: the lock must not be held while compressing.
        let job = queue
            .lock()
            .expect("nothing panics with the lock held")
            .recv();
        let Ok(job) = job else { return };
        let mut crc = Crc::new();
        let packed = match packing {
            None => Vec::new(),
            Some(Packing::Gzip) => {
                crc.update(&job.chunk);
                deflate(&job)
            }
            // A context of its own for each frame: nothing of another can show.
            Some(Packing::Zstd { level }) => zstd::bulk::compress(&job.chunk, level)
                .expect("zstd does not fail on any input that fits the memory"),
        };
        // The writer stopped; the feeder will be told.
        let _ = job.done.send((packed, crc));
    }
}

fn deflate(job: &Job) -> Vec<u8> {
    // New for each chunk: one that was reset does not give the same bytes (zlib-rs 0.6
    // keeps something of what it saw before), and 0.3 MB are quickly had.
    let mut deflate = Compress::new(flate2::Compression::new(LEVEL), false);
    if let Some(before) = &job.before {
        let window = before.len().saturating_sub(WINDOW);
        deflate
            .set_dictionary(&before[window..])
            .expect("a raw deflate stream takes a dictionary at its start");
    }
    let flush = if job.last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut packed = Vec::with_capacity(job.chunk.len() / 2 + 1024);
    loop {
        let consumed = deflate.total_in() as usize;
        let status = deflate
            .compress_vec(&job.chunk[consumed..], &mut packed, flush)
            .expect("deflate does not fail on any input");
        let full = packed.len() == packed.capacity();
        if status == Status::StreamEnd || (!job.last && !full) {
            return packed;
        }
        packed.reserve(CHUNK / 4);
    }
}

/// Writes the pieces in order and counts and hashes what was written.
fn join(
    out: &mut impl Write,
    packing: Option<Packing>,
    results: Receiver<Receiver<(Vec<u8>, Crc)>>,
) -> io::Result<(Sha256, u64)> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        length += bytes.len() as u64;
        out.write_all(bytes)
    };
    if packing == Some(Packing::Gzip) {
        put(&HEADER)?;
    }
    let mut crc = Crc::new();
    for result in results {
        // The feeder gave up between promising the chunk and handing it over.
        let Ok((packed, part)) = result.recv() else {
            break;
        };
        put(&packed)?;
        crc.combine(&part);
    }
    if packing == Some(Packing::Gzip) {
        put(&crc.sum().to_le_bytes())?;
        put(&crc.amount().to_le_bytes())?;
    }
    Ok((hash, length))
}

/// Hashes all that is left of `from`; gives its length.
pub(crate) fn hash_all(from: &mut (impl Read + ?Sized), hash: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 17];
    let mut length = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(count) => {
                hash.update(&buffer[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// 64 hexadecimal digits of all that is left of `from`.
pub fn sha256(from: &mut dyn Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash_all(from, &mut hash)?;
    Ok(hex(hash))
}

/// `sha256:` and 64 hexadecimal digits (image-spec, descriptor.md, Digests).
pub(crate) fn digest(hash: Sha256) -> String {
    format!("sha256:{}", hex(hash))
}

/// 64 lower-case hexadecimal digits.
pub(crate) fn hex(hash: Sha256) -> String {
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("below 16"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("below 16"));
    }
    text
}
