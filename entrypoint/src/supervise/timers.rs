//! Timer units: services that are started at their times, and not twice at once.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use services::systemd::{Calendar, Timer};

use super::Supervisor;
use super::machine::Event;
use super::slot::Slot;
use crate::control::short_time;
use crate::log::say;
use crate::supervisord::words::{Moment, unix_time};

const DAY: i64 = 86_400;
/// A calendar event that does not come within these days never does.
const DAYS: i64 = 366 * 9;

/// What a timer has done.
#[derive(Debug, Default)]
pub struct Timed {
    /// When it elapsed last.
    elapsed: Option<Instant>,
    /// Its next calendar event, once that was looked for.
    calendar: Option<Option<i64>>,
    /// When it elapses next, as it was last looked at.
    due: Option<Instant>,
}

impl Timed {
    /// The timer says something else now.
    pub fn forget_calendar(&mut self) {
        self.calendar = None;
        self.due = None;
    }

    /// For people: how long it is until its next run.
    pub fn next(&self) -> Option<String> {
        let left = self.due?.saturating_duration_since(Instant::now());
        // Rounded up, as it is said of what is to come.
        let seconds = (left + Duration::from_millis(999)).as_secs();
        Some(format!("next run in {}", short_time(seconds)))
    }
}

/// The first moment after `after`, in seconds since 1970.
fn next(calendar: &Calendar, after: i64) -> Option<i64> {
    let from = after + 1;
    let first = from.div_euclid(DAY);
    (first..first + DAYS).find_map(|day| {
        let moment = Moment::of(day * DAY);
        let year = u32::try_from(moment.year).ok()?;
        let month = u32::try_from(moment.month).ok()?;
        let date = u32::try_from(moment.day).ok()?;
        // The first day of 1970 was a Thursday.
        let weekday = u32::try_from((day + 3).rem_euclid(7)).ok()?;
        if !calendar.has_day(year, month, date, weekday) {
            return None;
        }
        let since = u32::try_from((from - day * DAY).max(0)).ok()?;
        let time = calendar.time_from(since)?;
        Some(day * DAY + i64::from(time))
    })
}

impl Slot {
    /// When its timer elapses next; calendar events are reckoned once.
    fn timer_due(&mut self, timer: &Timer, begun: Instant) -> Option<Instant> {
        let has_run = self.process.started > 0;
        let is_over = self.machine.state().is_over();
        let boot = timer
            .boot
            .iter()
            .map(|span| begun + *span)
            .filter(|due| self.timed.elapsed.is_none_or(|last| *due > last));
        let active = timer
            .active
            .iter()
            .filter(|_| has_run && is_over)
            .map(|span| self.machine.started() + *span);
        let inactive = timer
            .inactive
            .iter()
            .filter(|_| has_run && is_over)
            .map(|span| self.machine.since() + *span);
        let due = boot.chain(active).chain(inactive).min();
        let event = *self.timed.calendar.get_or_insert_with(|| {
            let now = unix_time();
            let events = timer.calendar.iter().filter_map(|event| next(event, now));
            events.min()
        });
        let event = event.map(|at| {
            let at = UNIX_EPOCH + Duration::from_secs(u64::try_from(at).unwrap_or(0));
            Instant::now() + at.duration_since(SystemTime::now()).unwrap_or_default()
        });
        due.into_iter().chain(event).min()
    }
}

impl Supervisor<'_> {
    /// Starts what is due, and says when to look again.
    pub(super) fn service_timers(&mut self) {
        self.timers_due = None;
        if self.ending.is_some() {
            return;
        }
        for at in 0..self.slots.len() {
            let Some(timer) = self.slots[at].planned.timer.clone() else {
                continue;
            };
            // What it needs comes first; that it is up is an event of its own.
            if self.slots[at].is_gone()
                || self.slots[at].planned.skip.is_some()
                || !self.needs_are_up(at)
            {
                continue;
            }
            let begun = self.begun;
            let slot = &mut self.slots[at];
            slot.timed.due = slot.timer_due(&timer, begun);
            let Some(due) = slot.timed.due else {
                continue;
            };
            let now = Instant::now();
            if due > now {
                self.timers_due = Some(self.timers_due.map_or(due, |other| other.min(due)));
                continue;
            }
            slot.timed.elapsed = Some(now);
            slot.timed.calendar = None;
            if slot.machine.state().is_over() {
                say(&format!("{} is started by its timer", slot.name()));
                self.handle(at, Event::Start);
                self.starting.retain(|one| *one != at);
            } else {
                say(&format!(
                    "{} still runs; its timer does not start it twice",
                    slot.name()
                ));
            }
            // Its next time, in the turn that follows.
            let soon = now + Duration::from_millis(1);
            self.timers_due = Some(self.timers_due.map_or(soon, |other| other.min(soon)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_events_are_found_as_systemd_analyze_says() {
        // systemd-analyze calendar --base-time='2026-11-21 07:29:27 UTC'
        let after = 1_795_246_167;
        for (event, wanted) in [
            ("hourly", "2026-11-21 08:00:00"),
            ("daily", "2026-11-22 00:00:00"),
            ("weekly", "2026-11-23 00:00:00"),
            ("monthly", "2026-12-01 00:00:00"),
            ("07:29:27", "2026-11-22 07:29:27"),
            ("*:*:28", "2026-11-21 07:29:28"),
            ("Mon..Fri 04:30", "2026-11-23 04:30:00"),
            ("*-02-29", "2028-02-29 00:00:00"),
            ("Sun *-*-1..7 *:0/20", "2026-12-06 00:00:00"),
        ] {
            let found = next(&Calendar::parse(event).unwrap(), after).unwrap();
            assert_eq!(Moment::of(found).long(), wanted, "{event}");
        }
        assert_eq!(next(&Calendar::parse("2020-01-01").unwrap(), after), None);
        assert_eq!(next(&Calendar::parse("*-02-30").unwrap(), after), None);
    }
}
