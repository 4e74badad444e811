//! Processes of services: who ended, who is the main one, and what is left to kill.

use std::time::{Duration, Instant};

use rustix::process::Pid;
use services::{Kind, StopScope};

use super::machine::{Event, Phase, State, describe};
use super::{RECHECK, Role, Supervisor, leftovers};
use crate::log::say;
use crate::sys::{self, Ended};

impl Supervisor<'_> {
    /// The stop signal, to whom the unit says.
    pub(super) fn signal(&mut self, at: usize) {
        let slot = &self.slots[at];
        let stopping = &slot.planned.service.stopping;
        let signal = stopping.signal;
        if stopping.scope == StopScope::All {
            for pid in self.living(at) {
                sys::kill(pid, signal);
            }
        } else if let Some(main) = slot.main {
            sys::kill(main, signal);
        }
    }

    pub(super) fn living(&mut self, at: usize) -> Vec<Pid> {
        let slot = &self.slots[at];
        self.seen
            .get_or_insert_with(leftovers::Table::read)
            .of(slot.traits())
            .into_iter()
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// The daemon of a forking service: the process that its PID file names, or the one
    /// that is left.
    pub(super) fn find_main(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let Kind::Forking { pid_file } = &slot.planned.service.kind else {
            return;
        };
        let living = leftovers::Table::read().of(slot.traits());
        let named = match pid_file {
            Some(path) => self
                .root
                .read(path)
                .ok()
                .flatten()
                .and_then(|text| text.trim().parse::<i32>().ok()),
            None => living.iter().copied().min(),
        };
        // The kernel must agree: a PID file may be old, or be somebody else's work.
        let found = named.filter(|pid| {
            sys::process(*pid).is_some_and(|p| !p.zombie)
                && is_descendant(*pid)
                && !self.is_anothers(at, *pid)
        });
        let slot = &mut self.slots[at];
        if let Some(pid) = found.and_then(Pid::from_raw) {
            slot.finding = None;
            slot.main = Some(pid);
            let raw = pid.as_raw_nonzero().get();
            if let Some(process) = sys::process(raw) {
                slot.sessions.push(process.session);
            }
            self.processes.insert(raw, (at, Role::Main));
            self.handle(at, Event::MainFound);
        } else if living.is_empty() {
            slot.finding = None;
            self.handle(
                at,
                Event::MainMissing("it left no daemon running".to_owned()),
            );
        } else if let Some((_, pause)) = slot.finding {
            let pause = pause.mul_f64(1.5).min(Duration::from_millis(200));
            slot.finding = Some((Instant::now() + pause, pause));
        }
    }

    /// Kills what is left of services that are being cleared, and says so to those of
    /// which nothing is.
    pub(super) fn clear(&mut self) {
        let now = Instant::now();
        let due: Vec<usize> = (0..self.slots.len())
            .filter(|at| self.slots[*at].clearing.is_some_and(|c| c.again <= now))
            .collect();
        if due.is_empty() {
            return;
        }
        let mut table = None;
        for at in due {
            let processes = &self.processes;
            let is_others = |pid| matches!(processes.get(&pid), Some((owner, _)) if *owner != at);
            if self.slots[at].main.is_none() && !leftovers::are_there_orphans(is_others) {
                self.cleared(at);
                continue;
            }
            let table = table.get_or_insert_with(leftovers::Table::read);
            let slot = &mut self.slots[at];
            let Some(mut clearing) = slot.clearing else {
                continue;
            };
            let keep = slot.planned.service.stopping.scope == StopScope::MainKeepRest
                && self.ending.is_none();
            let main = slot.main.map(|pid| pid.as_raw_nonzero().get());
            let left: Vec<i32> = table
                .of(slot.traits())
                .into_iter()
                // A command of the unit is none of what is to stay.
                .filter(|pid| !keep || Some(*pid) == main || self.processes.contains_key(pid))
                .collect();
            if left.is_empty() {
                if main.is_some() {
                    // It is dead and waits to be reaped: how it ended counts.
                    self.reap();
                }
                self.cleared(at);
                continue;
            }
            let signal = if clearing.gentle {
                slot.planned.service.stopping.signal
            } else {
                9
            };
            if !clearing.signalled || signal == 9 {
                for pid in left.into_iter().filter_map(Pid::from_raw) {
                    sys::kill(pid, signal);
                }
            }
            clearing.signalled = true;
            clearing.again = now + RECHECK * if clearing.gentle { 5 } else { 1 };
            slot.clearing = Some(clearing);
        }
        // A service without leftovers may start again at once, and others after it.
        self.advance();
    }

    fn cleared(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        slot.clearing = None;
        slot.main = None;
        slot.sessions.clear();
        self.handle(at, Event::Cleared);
    }

    pub(super) fn reap(&mut self) {
        self.seen = None;
        while let Some((pid, ended, cpu)) = sys::reap_with_usage() {
            // No service's: an orphan, which is all there is to do about it, or a check.
            let Some((at, role)) = self.processes.remove(&pid.as_raw_nonzero().get()) else {
                self.check_ended(pid, ended);
                continue;
            };
            self.slots[at].cpu_of_ended += cpu;
            match role {
                Role::Main => {
                    self.read_output(at, true);
                    let slot = &mut self.slots[at];
                    slot.main = None;
                    let stops = slot.machine.state().name() == "stopping";
                    let asked = stops && slot.machine.is_asked_to_stop();
                    slot.asked_end = asked.then_some(ended);
                    self.note_end(at, ended);
                    let forgiven = self.slots[at].planned.service.kind == Kind::Oneshot
                        && matches!(self.slots[at].machine.state(), State::Starting(index) if self.slots[at].ignores_failure(Phase::Start, index));
                    self.handle(
                        at,
                        Event::MainEnded(if forgiven { Ended::Exit(0) } else { ended }),
                    );
                }
                Role::Rotation(index) => self.rotated(at, index, ended),
                Role::Step(Phase::Reload, index) => {
                    let forgiven = self.slots[at].ignores_failure(Phase::Reload, index);
                    let ended = if forgiven { Ended::Exit(0) } else { ended };
                    self.reload_step_ended(at, index, ended);
                }
                Role::Step(phase, index) => {
                    let forgiven = self.slots[at].ignores_failure(phase, index);
                    if ended != Ended::Exit(0)
                        && !forgiven
                        && matches!(phase, Phase::Stop | Phase::StopPost)
                    {
                        say(&format!(
                            "{}: its stop command {}",
                            self.slots[at].name(),
                            describe(ended)
                        ));
                    }
                    if self.expects(at, phase, index) {
                        self.handle(
                            at,
                            Event::StepEnded(if forgiven { Ended::Exit(0) } else { ended }),
                        );
                    }
                }
            }
        }
    }

    /// The machine waits for exactly this command; one from before is of no interest.
    pub(super) fn expects(&self, at: usize, phase: Phase, index: usize) -> bool {
        let state = match phase {
            Phase::Pre => State::Preparing(index),
            Phase::Post => State::Posting(index),
            Phase::Check => State::Checking,
            Phase::Stop => State::StopCommand(index),
            Phase::StopPost => State::Cleaning(index),
            Phase::Start | Phase::Reload => return false,
        };
        self.slots[at].machine.state() == state
    }

    /// A service may call any process of its own its main one, but none of another service:
    /// that one would be stopped with it.
    fn is_anothers(&self, at: usize, pid: i32) -> bool {
        let session = sys::process(pid).map(|process| process.session);
        let owns = |slot: &super::Slot| {
            slot.main
                .is_some_and(|main| main.as_raw_nonzero().get() == pid)
                || session.is_some_and(|session| slot.sessions.contains(&session))
        };
        let mut others = self.slots.iter().enumerate();
        others.any(|(other, slot)| other != at && owns(slot))
    }

    pub(super) fn adopt(&mut self, at: usize, pid: i32) {
        let Some(pid) = Some(pid)
            .filter(|pid| is_descendant(*pid) && !self.is_anothers(at, *pid))
            .and_then(Pid::from_raw)
        else {
            return;
        };
        let raw = pid.as_raw_nonzero().get();
        if let Some(old) = self.slots[at].main.replace(pid)
            && old != pid
        {
            self.processes.remove(&old.as_raw_nonzero().get());
        }
        if let Some(process) = sys::process(raw) {
            self.slots[at].sessions.push(process.session);
        }
        self.processes.insert(raw, (at, Role::Main));
    }
}

/// Started by us or by what we started.
fn is_descendant(pid: i32) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut at = pid;
    while let Some(process) = sys::process(at) {
        if process.parent == own {
            return true;
        }
        if process.parent <= 1 {
            return false;
        }
        at = process.parent;
    }
    false
}
