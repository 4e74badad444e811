//! `logs -f`: lines go to those who follow them as they come, as they are.
//!
//! A follower that does not read never holds up a service: what is too much for it is left
//! out, and it is told how much.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{FOLLOWER, KIND, Supervisor};
use crate::control::Reply;
use crate::log::{Tapped, shown};

const LIMIT: usize = 16;
/// What waits for a follower that does not read.
const UNSENT: usize = 4 << 20;
/// Without taking a byte of what waits for it.
const UNREAD: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Followers {
    open: HashMap<usize, Follower>,
    next: usize,
}

struct Follower {
    stream: UnixStream,
    /// `None` for all services.
    name: Option<String>,
    /// It has all lines up to this one.
    seen: u64,
    output: Vec<u8>,
    /// Lines that were left out.
    missed: u64,
    watched: EventFlags,
    /// Something waits for it; then it is let go.
    until: Option<Instant>,
}

impl Followers {
    pub fn deadline(&self) -> Option<Instant> {
        self.open
            .values()
            .filter_map(|follower| follower.until)
            .min()
    }

    pub fn let_go(&mut self, now: Instant) {
        self.open
            .retain(|_, follower| follower.until.is_none_or(|until| until > now));
    }
}

impl Follower {
    fn take(&mut self, tapped: &Tapped) {
        // Until it has been told of the gap nothing comes after it.
        if self.missed > 0 || self.output.len() > UNSENT {
            self.missed += 1;
            return;
        }
        self.output.extend(shown(&tapped.name, &tapped.line));
        self.output.push(b'\n');
    }

    /// Whether it is still there.
    fn send(&mut self) -> bool {
        loop {
            if self.output.is_empty() && self.missed > 0 {
                let missed = std::mem::take(&mut self.missed);
                self.output.extend(
                    format!("tiffin: {missed} lines were not read in time and are left out here\n")
                        .into_bytes(),
                );
            }
            if self.output.is_empty() {
                self.until = None;
                return true;
            }
            match self.stream.write(&self.output) {
                Ok(count) => {
                    self.output.drain(..count);
                    self.until = None;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.until.get_or_insert_with(|| Instant::now() + UNREAD);
                    return error.kind() == std::io::ErrorKind::WouldBlock;
                }
            }
        }
    }
}

impl Supervisor<'_> {
    pub(super) fn follow_logs(&mut self, stream: UnixStream, name: Option<String>) {
        let lines = match self.recent_lines(name.as_deref()) {
            Ok(lines) => lines,
            Err(reason) => return self.answer(stream, &Reply::Refused(reason)),
        };
        if self.clients.followers.open.len() >= LIMIT {
            let reason = format!("{LIMIT} others follow the logs already");
            return self.answer(stream, &Reply::Refused(reason));
        }
        let mut output = serde_json::to_vec(&Reply::Follows).unwrap_or_default();
        output.push(b'\n');
        for line in lines {
            output.extend(line);
            output.push(b'\n');
        }
        let followers = &mut self.clients.followers;
        let id = followers.next & 0x7fff_ffff;
        followers.next = id + 1;
        let data = EventData::new_u64(FOLLOWER << KIND | id as u64);
        if stream.set_nonblocking(true).is_ok()
            && epoll::add(&self.epoll, &stream, data, EventFlags::IN).is_ok()
        {
            followers.open.insert(
                id,
                Follower {
                    stream,
                    name,
                    seen: self.queue.sequence(),
                    output,
                    missed: 0,
                    watched: EventFlags::IN,
                    until: None,
                },
            );
            self.queue.tap.get_or_insert_default();
        }
    }

    /// It went away, has room again, or says something, which nobody asked it to.
    pub(super) fn heard_follower(&mut self, id: usize) {
        let followers = &mut self.clients.followers.open;
        let Some(follower) = followers.get_mut(&id) else {
            return;
        };
        let there = match follower.stream.read(&mut [0; 512]) {
            Ok(count) => count > 0,
            Err(error) => matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
            ),
        };
        if !there {
            followers.remove(&id);
        }
    }

    /// After each turn: its lines to those who want them.
    pub(super) fn serve_followers(&mut self) {
        let Some(lines) = self.queue.tap.take() else {
            return;
        };
        let mut followers = std::mem::take(&mut self.clients.followers.open);
        followers.retain(|id, follower| {
            let names: Option<Vec<&str>> = follower.name.as_ref().map(|name| {
                let chosen = self.called(name);
                chosen.into_iter().map(|at| self.slots[at].name()).collect()
            });
            let seen = follower.seen;
            for line in lines.iter().filter(|line| line.sequence > seen) {
                if names
                    .as_ref()
                    .is_none_or(|names| names.contains(&line.name.as_str()))
                {
                    follower.take(line);
                }
            }
            if !follower.send() {
                return false;
            }
            let mut wanted = EventFlags::IN;
            if !follower.output.is_empty() {
                wanted |= EventFlags::OUT;
            }
            if wanted != follower.watched {
                follower.watched = wanted;
                let data = EventData::new_u64(FOLLOWER << KIND | *id as u64);
                let _ = epoll::modify(&self.epoll, &follower.stream, data, wanted);
            }
            true
        });
        if !followers.is_empty() {
            self.queue.tap = Some(Vec::new());
        }
        self.clients.followers.open = followers;
    }

    /// The last lines, within a second for all.
    pub(super) fn finish_followers(&mut self) {
        self.serve_followers();
        let until = Instant::now() + Duration::from_secs(1);
        for (_, mut follower) in self.clients.followers.open.drain() {
            let left = until.saturating_duration_since(Instant::now());
            let _ = follower.stream.set_nonblocking(false);
            let _ = follower
                .stream
                .set_write_timeout(Some(left.max(Duration::from_millis(1))));
            let _ = follower.send();
        }
    }
}
