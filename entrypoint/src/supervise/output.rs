//! What services write: their output, and their notifications.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::machine::Event;
use super::notify::{self, Said};
use super::rotate;
use super::slot::Stream;
use super::{ERRORS, KIND, OUTPUT, STDERR, STDOUT, Supervisor};
use crate::log::{Queue, debug, debugging, drain_messages};

/// Writes to the end of a program's log file; full ones are kept as `.1` and so on.
fn append((path, limit, backups): &(String, u32, u32), bytes: &[u8]) {
    use std::io::Write as _;
    if bytes.is_empty() {
        return;
    }
    let is_full = *limit > 0 && std::fs::metadata(path).is_ok_and(|m| m.len() > (*limit).into());
    if is_full && *backups > 0 {
        let _ = rotate::shift(path, *backups);
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    if is_full && *backups == 0 {
        options.append(false).write(true).truncate(true);
    }
    if let Ok(mut file) = options.open(path) {
        let _ = file.write_all(bytes);
    }
}

/// As Python's repr() shows bytes.
fn python_bytes(bytes: &[u8]) -> String {
    let mut out = "b'".to_owned();
    for byte in bytes {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'\\' | b'\'' => out.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('\'');
    out
}

/// Is told when `fd` takes something again, or not any more.
fn watch(epoll: &OwnedFd, (fd, token): (BorrowedFd<'_>, u64), wanted: bool, watching: &mut bool) {
    if wanted != *watching {
        *watching = wanted;
        // A regular file cannot be watched, and need not be: it never blocks.
        let _ = match wanted {
            true => epoll::add(epoll, fd, EventData::new_u64(token), EventFlags::OUT),
            false => epoll::delete(epoll, fd),
        };
    }
}

impl Supervisor<'_> {
    /// Reads what is there; `last` also takes a line that is not ended.
    pub(super) fn read_output(&mut self, at: usize, last: bool) {
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let name = slot.planned.service.name.clone();
        if slot.planned.service.program.is_some() {
            self.read_program(at, last);
            return self.note_line(at);
        }
        let mut buffer = [0_u8; 64 << 10];
        for stream in std::iter::once(&mut slot.out).chain(&mut slot.errors) {
            while let Ok(count @ 1..) = rustix::io::read(&stream.reader, &mut buffer) {
                stream.lines.feed(&name, &buffer[..count], &mut self.queue);
                // Others have a turn too, and a full queue waits for its reader.
                if !last || self.queue.is_full() {
                    break;
                }
            }
            if last {
                stream.lines.flush(&name, &mut self.queue);
            }
        }
        if self.first.is_some() {
            return self.note_progress();
        }
        self.note_line(at);
    }

    /// As [`Self::read_output`], for a program: its lines may be events, and what a
    /// listener says on its stdout is no output.
    fn read_program(&mut self, at: usize, last: bool) {
        let mut buffer = [0_u8; 64 << 10];
        for channel in ["stdout", "stderr"] {
            loop {
                let slot = &mut self.slots[at];
                let Some(program) = &slot.planned.service.program else {
                    return;
                };
                let listens = program.listener.is_some() && channel == "stdout";
                let log = if channel == "stdout" {
                    &program.stdout
                } else {
                    &program.stderr
                };
                let (silent, name) = match (&log.file, self.alone) {
                    _ if listens => (true, ""),
                    (_, false) => (false, slot.planned.service.name.as_str()),
                    // By its own name supervisord passes on what is to go to its terminal.
                    (services::LogFile::Path(path), true)
                        if path.starts_with("/dev/") || path.starts_with("/proc/self/fd/") =>
                    {
                        (false, "")
                    }
                    (_, true) => (true, ""),
                };
                let process = program.process.clone();
                let file = match &log.file {
                    services::LogFile::Path(path) if !path.starts_with("/dev/") => {
                        Some((path.clone(), log.maxbytes, log.backups))
                    }
                    _ => None,
                };
                let stream = if channel == "stdout" {
                    Some(&mut slot.out)
                } else {
                    slot.errors.as_mut()
                };
                let Some(stream) = stream else { break };
                let mut nowhere = Queue::closed();
                let queue = if silent {
                    &mut nowhere
                } else {
                    &mut self.queue
                };
                let before = stream.lines.ended();
                let count = rustix::io::read(&stream.reader, &mut buffer).unwrap_or(0);
                if count > 0 {
                    stream.lines.feed(name, &buffer[..count], queue);
                } else if last {
                    stream.lines.flush(name, queue);
                }
                // A listener's protocol has lines; what others write is told as it comes.
                let told = if listens {
                    let ended = usize::try_from(stream.lines.ended() - before).unwrap_or(0);
                    let mut lines = stream.lines.since(before);
                    lines.truncate(ended);
                    lines
                } else {
                    buffer[..count].to_vec()
                };
                if !told.is_empty() && (log.events || debugging()) {
                    let text = match std::str::from_utf8(&told) {
                        Ok(text) => text.to_owned(),
                        Err(_) => format!("Undecodable: {}", python_bytes(&told)),
                    };
                    debug(&format!("'{process}' {channel} output:\n{text}"));
                    self.log_event(at, channel, &told);
                }
                if let (true, Some(file)) = (self.alone, file) {
                    append(&file, &buffer[..count]);
                }
                if count > 0 && listens {
                    self.listener_wrote(at, &buffer[..count]);
                }
                // Others have a turn too, and a full queue waits for its reader.
                if count == 0 || !last || self.queue.is_full() {
                    break;
                }
            }
        }
    }

    /// Both pipes of a service are watched, or neither.
    pub(super) fn watch_output(&self, at: usize) {
        let flags = if self.paused {
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        let slot = &self.slots[at];
        let watch = |stream: &Stream, kind: u64| {
            let data = EventData::new_u64(kind << KIND | at as u64);
            if epoll::modify(&self.epoll, &stream.reader, data, flags).is_err() {
                let _ = epoll::add(&self.epoll, &stream.reader, data, flags);
            }
        };
        watch(&slot.out, OUTPUT);
        if let Some(errors) = &slot.errors {
            watch(errors, ERRORS);
        }
    }

    pub(super) fn flush_output(&mut self) {
        self.queue.drain();
        let full = self.queue.is_full();
        if full != self.paused {
            self.paused = full;
            for at in 0..self.slots.len() {
                self.watch_output(at);
            }
        }
        let stdout = std::io::stdout();
        let wanted = !self.queue.is_empty();
        watch(
            &self.epoll,
            (stdout.as_fd(), STDOUT),
            wanted,
            &mut self.watching_stdout,
        );
        let stderr = std::io::stderr();
        let wanted = drain_messages();
        watch(
            &self.epoll,
            (stderr.as_fd(), STDERR),
            wanted,
            &mut self.watching_stderr,
        );
    }

    /// What the service told about itself since.
    pub(super) fn read_notifications(&mut self, at: usize) {
        let mut buffer = [0_u8; notify::LONGEST];
        while let Some(Ok(count)) = self
            .slots
            .get(at)
            .and_then(|s| s.notify.as_ref())
            .map(|s| s.recv(&mut buffer))
        {
            for said in notify::read(&buffer[..count]) {
                match said {
                    Said::Ready => {
                        self.is_renewed(at);
                        self.handle(at, Event::Notified);
                    }
                    Said::Reloading => self.renews(at),
                    Said::Status(status) => self.slots[at].status = status,
                    Said::Stopping => "stopping".clone_into(&mut self.slots[at].status),
                    Said::Alive => self.slots[at].lives(),
                    Said::Hangs => self.hangs(at),
                    Said::Main(pid) => self.adopt(at, pid),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_programs_full_log_files_one_was_kept_whatever_backups_said() {
        let home = tempfile::tempdir().unwrap();
        for backups in [0, 1, 3] {
            let path = home.path().join(format!("{backups}.log"));
            let path = path.to_str().unwrap();
            for n in 0..6 {
                append(
                    &(path.to_owned(), 3, backups),
                    format!("{n}{n}{n}\n").as_bytes(),
                );
            }
            let there = |number: u32| std::fs::read_to_string(format!("{path}.{number}")).ok();
            assert_eq!(std::fs::read_to_string(path).unwrap(), "555\n");
            let kept: Vec<String> = (1..6).map_while(there).collect();
            let wanted = ["444\n", "333\n", "222\n"];
            assert_eq!(kept, wanted[..backups as usize], "{backups}");
        }
    }
}
