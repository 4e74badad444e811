//! What takes long before there are services: one process that is supervised as they are, so
//! that the box says meanwhile how it is, and stops when it is asked to.

use std::os::unix::net::UnixListener;

use super::machine::State;
use super::{Supervisor, observe};
use crate::log::{Queue, say};
use crate::sys::Ended;

/// A line that begins with this says how far it is: the box's log has it, and who asks.
pub const PROGRESS: &str = "progress: ";

/// What is open to those who ask: the next supervisor takes it over, and nobody finds it shut.
#[derive(Default)]
pub struct Open {
    pub(super) listener: Option<UnixListener>,
    pub(super) http: Option<observe::Server>,
}

/// How it came to its end.
pub struct First {
    /// It did all that it was for.
    pub done: bool,
    /// Of a process that did not.
    pub ended: Option<Ended>,
    /// The box was asked to stop.
    pub stopped: bool,
    /// What the process wrote; nobody else has seen it.
    pub lines: Vec<String>,
    pub open: Open,
}

impl Supervisor<'_> {
    pub(super) fn note_progress(&mut self) {
        for (at, line) in self.slots[0].out.lines.recent(usize::MAX) {
            let line = String::from_utf8_lossy(&line);
            if let (Some((seen, what)), Some(text)) = (&mut self.first, line.strip_prefix(PROGRESS))
                && at > *seen
            {
                say(text);
                (*seen, *what) = (at, text.to_owned());
            }
        }
    }

    /// Runs what is there to its end. `what` it is, everybody is told who asks.
    pub fn run_first(mut self, what: String) -> First {
        self.first = Some((0, what));
        // Nobody is served yet who would have to be drained.
        self.drain = std::time::Duration::ZERO;
        self.queue = Queue::closed();
        self.supervise();
        let lines = self.recent_lines(None).unwrap_or_default();
        let text = |line: Vec<u8>| {
            let line = String::from_utf8_lossy(&line).into_owned();
            let said = line.split_once(" | ").map(|(_, said)| said.to_owned());
            said.unwrap_or(line)
        };
        First {
            done: (self.slots.iter()).all(|slot| slot.machine.state() == State::Finished),
            ended: self.slots.first().and_then(|slot| slot.machine.last_end),
            stopped: self.hurried > 0,
            lines: lines.into_iter().map(text).collect(),
            open: Open {
                listener: self.listener,
                http: Some(self.http),
            },
        }
    }
}
