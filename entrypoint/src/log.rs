//! Output: the entrypoint's own messages on stderr, the services' lines on stdout.
//!
//! Lines are relayed whole and byte for byte. What the reader of stdout has not taken yet waits
//! in a queue; when that is long the services' pipes are not read, so that nothing is lost and
//! the loop never blocks in a write, to stderr neither.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

mod json;

use std::collections::VecDeque;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use values::Regex;

pub use self::json::{Level, level, rfc3339};

/// Longer lines are split.
const LINE_LIMIT: usize = 1 << 20;
/// Kept for `logs` and for the report of a service that was given up.
const RING_LINES: usize = 200;
const RING_BYTES: usize = 256 << 10;
/// From here on the services have to wait.
const QUEUE_LIMIT: usize = 4 << 20;
/// What an empty queue keeps for the next lines.
const QUEUE_KEPT: usize = 32 << 10;
/// What a pipe that poll(2) calls writable takes without blocking.
const CHUNK: usize = 4096;
/// Messages of our own that stderr does not take; then they are remembered and nothing more.
const UNSAID_LIMIT: usize = 1 << 20;

/// What stderr has not taken yet, while there is a loop that must not wait for it.
static UNSAID: Mutex<Option<VecDeque<u8>>> = Mutex::new(None);

fn unsaid() -> std::sync::MutexGuard<'static, Option<VecDeque<u8>>> {
    UNSAID
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// From here on messages wait for stderr and nobody waits for them: see [`drain_messages`].
pub fn queue_messages() {
    unsaid().get_or_insert_default();
}

/// Writes messages while stderr takes them; whether some have to wait.
pub fn drain_messages() -> bool {
    unsaid().as_mut().is_some_and(|waiting| {
        pour(std::io::stderr().as_fd(), waiting);
        !waiting.is_empty()
    })
}

/// At the end: everything, for as long as the reader takes something every 2 seconds.
pub fn finish_messages() {
    let stderr = std::io::stderr();
    if let Some(mut waiting) = unsaid().take() {
        while !waiting.is_empty() && writable(stderr.as_fd(), 2000) {
            pour(stderr.as_fd(), &mut waiting);
        }
    }
}

fn utter(text: &[u8]) {
    match unsaid().as_mut() {
        Some(waiting) => {
            if waiting.len() < UNSAID_LIMIT {
                waiting.extend(text);
            }
            pour(std::io::stderr().as_fd(), waiting);
        }
        None => drop(std::io::stderr().lock().write_all(text)),
    }
}

/// What was said, for clients that ask for the main log.
static SAID: Mutex<Lines> = Mutex::new(Lines::new());

/// The recent messages of the entrypoint itself.
pub fn said<T>(look: impl FnOnce(&mut Lines) -> T) -> T {
    look(
        &mut SAID
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    )
}

/// `TIFFIN_LOG=json`
static JSON: AtomicBool = AtomicBool::new(false);

/// From here on every line is a JSON object, the entrypoint's own too.
pub fn speak_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Set when we are called `supervisord`: messages are those of its log.
static DAEMON: Mutex<Option<DaemonLog>> = Mutex::new(None);

struct DaemonLog {
    file: Option<std::fs::File>,
    debug: bool,
}

/// supervisord's log file is rotated once it is this large.
const DAEMON_LOG_LIMIT: u64 = 50 << 20;

pub fn speak_as_supervisord(file: Option<&str>, level: &str) {
    let file = file
        .filter(|path| !path.starts_with("/dev/"))
        .and_then(|path| {
            if std::fs::metadata(path).is_ok_and(|meta| meta.len() > DAEMON_LOG_LIMIT) {
                let _ = std::fs::rename(path, format!("{path}.1"));
            }
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .ok()
        });
    let debug = matches!(level, "debug" | "trace" | "blather");
    *DAEMON
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(DaemonLog { file, debug });
}

/// Whether supervisord's log is to be as detailed as that.
pub fn debugging() -> bool {
    DAEMON
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .as_ref()
        .is_some_and(|daemon| daemon.debug)
}

/// For supervisord's log at its level `debug`; nowhere else.
pub fn debug(message: &str) {
    if debugging() {
        speak("DEBG", message);
    }
}

/// Whether it was said in supervisord's words.
fn speak(level: &str, message: &str) -> bool {
    use crate::supervisord::words::Moment;
    let mut daemon = DAEMON
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(daemon) = daemon.as_mut() else {
        return false;
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(0);
    let text = format!(
        "{},{:03} {level} {message}\n",
        Moment::of(seconds).long(),
        now.subsec_millis()
    );
    said(|lines| {
        for line in text.lines() {
            lines.remember(0, line.as_bytes());
        }
    });
    utter(text.as_bytes());
    if let Some(file) = &mut daemon.file {
        let _ = file.write_all(text.as_bytes());
    }
    true
}

/// `tiffin: message`, each line of it.
pub fn say(message: &str) {
    tell(Level::Info, message);
}

/// Something that may be wrong.
pub fn warn(message: &str) {
    tell(Level::Warning, message);
}

/// Something that was not done or does not go on.
pub fn fail(message: &str) {
    tell(Level::Error, message);
}

fn tell(level: Level, message: &str) {
    if speak("INFO", message) {
        return;
    }
    said(|lines| {
        for line in message.lines() {
            lines.remember(0, line.as_bytes());
        }
    });
    if JSON.load(Ordering::Relaxed) {
        let object = json::object(SystemTime::now(), level, "tiffin", message.as_bytes());
        return utter(&object);
    }
    let mut text = String::new();
    for line in message.lines() {
        text.push_str("tiffin: ");
        text.push_str(line);
        text.push('\n');
    }
    utter(text.as_bytes());
}

/// Cuts one service's output into lines and remembers the last ones.
#[derive(Default)]
pub struct Lines {
    partial: Vec<u8>,
    ring: Ring,
    /// Bytes of all lines since the last [`Lines::clear`], line ends included.
    total: u64,
    /// Looked for in each line, until it is found.
    pub awaited: Option<Box<Regex>>,
}

/// What is kept for the next line that comes in pieces.
const PARTIAL_KEPT: usize = 64 << 10;
/// A line that says that a service is ready says so at its beginning.
const LOOKED_AT: usize = 4096;

impl Lines {
    const fn new() -> Self {
        Lines {
            partial: Vec::new(),
            ring: Ring::new(),
            total: 0,
            awaited: None,
        }
    }

    /// As if the lines were a file: its length, with what is not ended yet.
    pub fn length(&self) -> u64 {
        self.total + self.partial.len() as u64
    }

    /// What that file holds from `offset` on, as far as it is remembered.
    pub fn since(&self, offset: u64) -> Vec<u8> {
        let missing = self.length().saturating_sub(offset);
        let partial = self.partial.len() as u64;
        let missing = missing.saturating_sub(partial);
        let mut left = (self.ring.text + self.ring.lines) as u64;
        let mut out = Vec::new();
        for (_, line) in self.ring.iter() {
            left -= line.len() as u64 + 1;
            if left < missing {
                out.extend(self.ring.bytes.range(line));
                out.push(b'\n');
            }
        }
        out.extend_from_slice(&self.partial);
        // The first line may begin before the offset.
        let keep = usize::try_from(self.length().saturating_sub(offset)).unwrap_or(usize::MAX);
        let skip = out.len().saturating_sub(keep);
        out.drain(..skip);
        out
    }

    /// Bytes of the lines that are ended.
    pub fn ended(&self) -> u64 {
        self.total
    }

    pub fn clear(&mut self) {
        self.ring = Ring::new();
        self.total = 0;
    }

    pub fn feed(&mut self, name: &str, bytes: &[u8], out: &mut Queue) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(at);
            if self.partial.is_empty() && line.len() <= LINE_LIMIT {
                self.line(name, line, out);
            } else {
                self.partial.extend_from_slice(line);
                self.split(name, out);
                let mut whole = std::mem::take(&mut self.partial);
                self.line(name, &whole, out);
                if whole.capacity() <= PARTIAL_KEPT {
                    whole.clear();
                    self.partial = whole;
                }
            }
            rest = &after[1..];
        }
        self.partial.extend_from_slice(rest);
        self.split(name, out);
    }

    /// A line that is as long as may be is whole: its end may come next.
    fn split(&mut self, name: &str, out: &mut Queue) {
        while self.partial.len() > LINE_LIMIT {
            let tail = self.partial.split_off(LINE_LIMIT);
            let head = std::mem::replace(&mut self.partial, tail);
            self.line(name, &head, out);
        }
    }

    /// What the service wrote last without ending the line.
    pub fn flush(&mut self, name: &str, out: &mut Queue) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.line(name, &line, out);
        }
    }

    fn line(&mut self, name: &str, line: &[u8], out: &mut Queue) {
        out.push(name, line);
        if let Some(pattern) = &self.awaited {
            // Where lines end as on Windows, `$` means the end of the text.
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = String::from_utf8_lossy(&line[..line.len().min(LOOKED_AT)]);
            // An error is a pattern that backtracks without end on this line.
            if pattern.is_match(&*text).unwrap_or(false) {
                self.awaited = None;
            }
        }
        self.remember(out.sequence, line);
    }

    fn remember(&mut self, sequence: u64, line: &[u8]) {
        self.total += line.len() as u64 + 1;
        self.ring.push(sequence, line);
    }

    /// The last lines with their place among those of all services, oldest first.
    pub fn recent(&self, count: usize) -> impl Iterator<Item = (u64, Vec<u8>)> + '_ {
        let skip = self.ring.lines.saturating_sub(count);
        let lines = self.ring.iter().skip(skip);
        lines.map(|(at, line)| (at, self.ring.bytes.range(line).copied().collect()))
    }
}

/// The last lines, in one buffer: one for each line takes half as much again.
#[derive(Default)]
struct Ring {
    /// Of each line its place among those of all services, its length, and itself.
    bytes: VecDeque<u8>,
    lines: usize,
    /// Bytes of the lines alone.
    text: usize,
}

/// `u64` and `u32`
const LINE_HEAD: usize = 12;

impl Ring {
    const fn new() -> Self {
        Ring {
            bytes: VecDeque::new(),
            lines: 0,
            text: 0,
        }
    }

    fn push(&mut self, sequence: u64, line: &[u8]) {
        while self.lines >= RING_LINES || (self.lines > 0 && self.text + line.len() > RING_BYTES) {
            self.forget_oldest();
        }
        let (wanted, there) = (LINE_HEAD + line.len(), self.bytes.len());
        if self.bytes.capacity() - there < wanted {
            // Doubling it, as it would itself, leaves half of it unused.
            self.bytes.reserve_exact(wanted.max(there / 8).max(512));
        } else if self.bytes.capacity() > 2 * RING_BYTES {
            self.bytes.shrink_to(RING_BYTES);
        }
        self.bytes.extend(&sequence.to_le_bytes());
        // Lines are split long before that.
        let length = u32::try_from(line.len()).unwrap_or(u32::MAX);
        self.bytes.extend(&length.to_le_bytes());
        self.bytes.extend(line);
        self.lines += 1;
        self.text += line.len();
    }

    fn forget_oldest(&mut self) {
        let Some((_, line)) = self.iter().next() else {
            return;
        };
        self.lines -= 1;
        self.text -= line.len();
        self.bytes.drain(..line.end);
    }

    /// Of each line its place among those of all services, and where it stands in `bytes`.
    fn iter(&self) -> impl Iterator<Item = (u64, Range<usize>)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == self.bytes.len() {
                return None;
            }
            let sequence = u64::from_le_bytes(self.array(at));
            let from = at + LINE_HEAD;
            at = from + u32::from_le_bytes(self.array(from - 4)) as usize;
            Some((sequence, from..at))
        })
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|n| self.bytes[at + n])
    }
}

/// What waits to be written to stdout.
#[derive(Default)]
pub struct Queue {
    bytes: VecDeque<u8>,
    sequence: u64,
    /// Nobody reads stdout any more.
    closed: bool,
    /// The lines of this turn, while somebody follows them.
    pub tap: Option<Vec<Tapped>>,
}

/// A line for those who follow the logs.
pub struct Tapped {
    pub sequence: u64,
    pub name: String,
    pub line: Vec<u8>,
}

impl Queue {
    /// Takes lines and writes none.
    pub fn closed() -> Self {
        Queue {
            closed: true,
            ..Queue::default()
        }
    }

    fn push(&mut self, name: &str, line: &[u8]) {
        self.sequence += 1;
        if let Some(tap) = &mut self.tap {
            tap.push(Tapped {
                sequence: self.sequence,
                name: name.to_owned(),
                line: line.to_vec(),
            });
        }
        if self.closed {
            return;
        }
        if JSON.load(Ordering::Relaxed) {
            let (level, text) = json::level(line);
            self.bytes
                .extend(json::object(SystemTime::now(), level, name, text));
            return;
        }
        // Without a name it passes as it is.
        if name.is_empty() {
            self.bytes.extend(line);
        } else {
            let (level, text) = level(line);
            self.bytes.extend(name.as_bytes());
            self.bytes.extend(b" | ");
            self.bytes.extend(level.mark().as_bytes());
            self.bytes.extend(text);
        }
        self.bytes.push_back(b'\n');
    }

    /// The place of the last line among those of all services.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() > QUEUE_LIMIT
    }

    /// Writes while stdout takes it without blocking.
    pub fn drain(&mut self) {
        self.closed |= !pour(std::io::stdout().as_fd(), &mut self.bytes);
        if self.bytes.is_empty() && self.bytes.capacity() > QUEUE_KEPT {
            self.bytes = VecDeque::new();
        }
    }

    /// At the end: everything, for as long as the reader takes something every 2 seconds.
    pub fn finish(&mut self) {
        let stdout = std::io::stdout();
        while !self.bytes.is_empty() && writable(stdout.as_fd(), 2000) {
            self.drain();
        }
    }
}

/// Writes while `fd` takes it without blocking; whether it still takes anything.
fn pour(fd: BorrowedFd<'_>, bytes: &mut VecDeque<u8>) -> bool {
    while !bytes.is_empty() && writable(fd, 0) {
        let (head, _) = bytes.as_slices();
        let chunk = &head[..head.len().min(CHUNK)];
        // Whole lines: stdout and stderr may be one pipe or terminal.
        let end = chunk.iter().rposition(|b| *b == b'\n');
        let chunk = &chunk[..end.map_or(chunk.len(), |end| end + 1)];
        match rustix::io::write(fd, chunk) {
            Ok(count) => drop(bytes.drain(..count)),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => break,
            Err(_) => {
                bytes.clear();
                return false;
            }
        }
    }
    true
}

/// A line as stdout shows it, without its end: its level too, if it says another than `info`.
pub fn shown(name: &str, line: &[u8]) -> Vec<u8> {
    let (level, text) = level(line);
    [name.as_bytes(), b" | ", level.mark().as_bytes(), text].concat()
}

fn writable(fd: BorrowedFd<'_>, milliseconds: i64) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    let timeout = Timespec {
        tv_sec: milliseconds / 1000,
        tv_nsec: (milliseconds % 1000) * 1_000_000,
    };
    matches!(poll(&mut fds, Some(&timeout)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(queue: &Queue) -> String {
        String::from_utf8(queue.bytes.iter().copied().collect()).unwrap()
    }

    #[test]
    fn lines_come_out_whole_and_the_last_one_when_flushed() {
        let (mut lines, mut queue) = (Lines::default(), Queue::default());
        lines.feed("web", b"on", &mut queue);
        lines.feed("web", b"e\ntwo\nthr", &mut queue);
        assert_eq!(text(&queue), "web | one\nweb | two\n");
        lines.flush("web", &mut queue);
        assert_eq!(text(&queue), "web | one\nweb | two\nweb | thr\n");
    }

    /// What stdout was given, without `x | `, as one service wrote it.
    fn written(queue: &Queue) -> Vec<u8> {
        let all: Vec<u8> = queue.bytes.iter().copied().collect();
        let lines = all.split_inclusive(|b| *b == b'\n');
        let texts = lines.map(|line| line.strip_prefix(b"x | ").unwrap());
        texts.collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_carriage_return_before_a_line_end_was_lost() {
        // Of a progress bar, of Windows' line ends, of binary data; whole and in pieces.
        let bytes = b"one\r\n\r\n50%\r100%\r\r\n\0\xff\r\x1b[0m\n\n";
        for cut in 0..=bytes.len() {
            let (mut lines, mut queue) = (Lines::default(), Queue::default());
            lines.feed("x", &bytes[..cut], &mut queue);
            lines.feed("x", &bytes[cut..], &mut queue);
            assert_eq!(written(&queue), bytes, "cut at {cut}");
            assert_eq!(lines.since(0), bytes, "cut at {cut}");
        }
        let (mut lines, mut queue) = (Lines::default(), Queue::default());
        lines.feed("x", b"left\r", &mut queue);
        lines.flush("x", &mut queue);
        assert_eq!(written(&queue), b"left\r\n");
    }

    #[test]
    fn a_line_of_just_the_limit_was_followed_by_an_empty_one_and_a_longer_one_not_split() {
        for length in [
            LINE_LIMIT - 1,
            LINE_LIMIT,
            LINE_LIMIT + 1,
            2 * LINE_LIMIT,
            2 * LINE_LIMIT + 7,
        ] {
            // A carriage return stands at the border, and what follows tells the pieces apart.
            let mut line: Vec<u8> = (0..length).map(|n| b'a' + (n % 23) as u8).collect();
            for at in [LINE_LIMIT - 1, LINE_LIMIT] {
                line.iter_mut().skip(at).take(1).for_each(|b| *b = b'\r');
            }
            for piece in [4096, 64 << 10, 100_003, 4 * LINE_LIMIT] {
                let (mut lines, mut queue) = (Lines::default(), Queue::default());
                let bytes = [&line[..], b"\nnext\n"].concat();
                for piece in bytes.chunks(piece) {
                    lines.feed("x", piece, &mut queue);
                }
                let mut expected = line.chunks(LINE_LIMIT).collect::<Vec<_>>().join(&b'\n');
                expected.extend(b"\nnext\n");
                assert!(written(&queue) == expected, "{length} in {piece}");
                assert!(lines.partial.capacity() <= PARTIAL_KEPT);
            }
        }
    }

    #[test]
    fn a_level_that_is_not_info_is_shown_in_the_prefixs_place() {
        let (mut lines, mut queue) = (Lines::default(), Queue::default());
        let bytes = b"<3>broken\n<4>odd\n<5>note\n<6>plain\n<7>detail\n<8>x\n <3>x\n<3\n";
        lines.feed("web", bytes, &mut queue);
        assert_eq!(
            text(&queue),
            "web | error: broken\nweb | warning: odd\nweb | note\nweb | plain\nweb | debug: detail\nweb | <8>x\nweb |  <3>x\nweb | <3\n"
        );
        let recent: Vec<u8> = lines
            .recent(usize::MAX)
            .flat_map(|(_, line)| [shown("web", &line), b"\n".to_vec()].concat())
            .collect();
        assert_eq!(recent, text(&queue).as_bytes());
        // Clients of supervisord and who has no name see what was written.
        assert_eq!(lines.since(0), bytes);
        let mut queue = Queue::default();
        lines.feed("", b"<3>broken\n", &mut queue);
        assert_eq!(text(&queue), "<3>broken\n");
    }

    #[test]
    fn the_ring_reads_like_the_end_of_a_file() {
        let (mut lines, mut queue) = (Lines::default(), Queue::default());
        for i in 0..1000 {
            lines.feed("x", format!("line {i}\n").as_bytes(), &mut queue);
        }
        lines.feed("x", b"and", &mut queue);
        let whole: String = (0..1000).map(|i| format!("line {i}\n")).collect::<String>() + "and";
        assert_eq!(lines.length(), whole.len() as u64);
        for back in [0, 1, 3, 4, 5, 11, 12, 500] {
            let from = whole.len() - back;
            assert_eq!(lines.since(from as u64), whole.as_bytes()[from..], "{back}");
        }
        let kept = lines.since(0);
        assert!(whole.as_bytes().ends_with(&kept) && kept.len() > 1500);
        lines.clear();
        assert_eq!((lines.length(), lines.since(0)), (3, b"and".to_vec()));
    }

    #[test]
    fn a_long_line_is_split_and_the_ring_is_bounded() {
        let (mut lines, mut queue) = (Lines::default(), Queue::default());
        lines.feed("x", &vec![b'a'; 2 * LINE_LIMIT + 5], &mut queue);
        lines.feed("x", b"\n", &mut queue);
        assert_eq!(text(&queue).lines().count(), 3);
        for i in 0..1000 {
            lines.feed("x", format!("{i}\n").as_bytes(), &mut queue);
        }
        assert_eq!(
            lines.recent(2).map(|(_, l)| l).collect::<Vec<_>>(),
            [b"998", b"999"]
        );
        assert_eq!(lines.recent(usize::MAX).count(), RING_LINES);
        assert!(lines.ring.bytes.capacity() < 2 * RING_BYTES);
        // Long lines leave fewer, but the last of them always.
        for (length, kept) in [(RING_BYTES / 4, 4), (RING_BYTES + 1, 1), (3, 2)] {
            for _ in 0..10 {
                lines.feed("x", &[&vec![b'b'; length][..], b"\n"].concat(), &mut queue);
            }
            let found: Vec<usize> = lines.recent(usize::MAX).map(|(_, l)| l.len()).collect();
            assert!(found.len() >= kept, "{found:?}");
            assert_eq!(found.last(), Some(&length));
            assert_eq!(lines.ring.text, found.iter().sum::<usize>());
            assert!(lines.ring.text <= RING_BYTES.max(length));
        }
    }
}
