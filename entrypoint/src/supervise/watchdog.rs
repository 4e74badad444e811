//! WatchdogSec=: a service that does not say `WATCHDOG=1` in time hangs. It gets SIGABRT,
//! which leaves a trace in its own log, and SIGKILL when it is deaf to that.

use std::time::{Duration, Instant};

use super::Supervisor;
use super::machine::{State, seconds};
use super::slot::Slot;
use crate::log::warn;
use crate::sys;

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// For an abort where nothing else is said (DefaultTimeoutAbortSec=).
const ABORT: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy)]
pub struct Watch {
    due: Instant,
    aborted: bool,
}

impl Slot {
    /// It is ready, or gave a sign of life.
    pub fn lives(&mut self) {
        let aborted = self.watch.is_some_and(|watch| watch.aborted);
        // Who was told to abort is beyond saving.
        if self.machine.state() == State::Ready && !aborted {
            let period = self.planned.service.watchdog;
            self.watch = period.map(|period| Watch {
                due: Instant::now() + period,
                aborted: false,
            });
        }
    }

    pub fn watch_deadline(&self) -> Option<Instant> {
        let watch = self.watch?;
        (self.machine.state() == State::Ready && self.main.is_some()).then_some(watch.due)
    }
}

impl Supervisor<'_> {
    pub(super) fn watchdog_timers(&mut self, now: Instant) {
        for at in 0..self.slots.len() {
            let is_due = |slot: &Slot| slot.watch_deadline().is_some_and(|due| due <= now);
            if !is_due(&self.slots[at]) {
                continue;
            }
            // It may be we who are late: a sign of life that lies there counts.
            self.read_notifications(at);
            if is_due(&self.slots[at]) {
                self.hangs(at);
            }
        }
    }

    /// `WATCHDOG=trigger`, or nothing for too long.
    pub(super) fn hangs(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let (Some(period), Some(watch), Some(main)) =
            (slot.planned.service.watchdog, slot.watch, slot.main)
        else {
            return;
        };
        let grace = slot.planned.service.stopping.timeout.unwrap_or(ABORT);
        slot.watch = Some(Watch {
            due: Instant::now() + grace,
            aborted: true,
        });
        if watch.aborted {
            warn(&format!(
                "{}: it did not end within {} of SIGABRT, killed",
                slot.name(),
                seconds(grace)
            ));
            sys::kill(main, SIGKILL);
        } else {
            warn(&format!(
                "{}: it hangs: no WATCHDOG=1 within {} (WatchdogSec=); it gets SIGABRT",
                slot.name(),
                seconds(period)
            ));
            sys::kill(main, SIGABRT);
        }
    }
}
