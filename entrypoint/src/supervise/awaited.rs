//! What a readiness check waits for, from the start of the service's process on: what was
//! there before, of another run or of another day, does not count.

use super::Supervisor;
use super::machine::{Event, Phase};
use super::probe;
use super::slot::Slot;
use crate::ready::Probe;
use crate::sys::Ended;

#[derive(Debug, Default)]
pub struct Awaited {
    /// The file as it was, see [`probe::identity`].
    pub before: String,
    /// The line came.
    pub seen: bool,
}

impl Slot {
    pub fn awaits_line(&self) -> bool {
        let check = self.planned.ready.as_ref();
        check.is_some_and(|check| matches!(check.probe, Probe::Log(_)))
    }

    /// Its process is about to be started.
    pub fn await_anew(&mut self) {
        self.awaited = Awaited::default();
        let check = self.planned.ready.as_ref();
        let mut pattern = None;
        match check.map(|check| &check.probe) {
            Some(Probe::File(path)) => self.awaited.before = probe::identity(path),
            Some(Probe::Log(text)) => pattern = values::search(text).ok().map(Box::new),
            _ => {}
        }
        for stream in std::iter::once(&mut self.out).chain(&mut self.errors) {
            stream.lines.awaited = pattern.clone();
        }
    }
}

impl Supervisor<'_> {
    /// Output was read: it may be what the readiness check waits for.
    pub(super) fn note_line(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let mut streams = std::iter::once(&slot.out).chain(&slot.errors);
        // Each forgets the pattern where it found it.
        if slot.awaited.seen
            || !slot.awaits_line()
            || streams.all(|stream| stream.lines.awaited.is_some())
        {
            return;
        }
        for stream in std::iter::once(&mut slot.out).chain(&mut slot.errors) {
            stream.lines.awaited = None;
        }
        slot.awaited.seen = true;
        if self.expects(at, Phase::Check, 0) {
            self.handle(at, Event::StepEnded(Ended::Exit(0)));
        }
    }
}
