//! The supervisor's loop: one epoll over signals, services' output, notifications and
//! control requests. It is the one owner of all waits, and blocks without a timeout when
//! nothing is due.
//!
//! Past [`Supervisor::new`] nothing returns an error out of the loop.

mod clients;
mod leftovers;
mod machine;
#[cfg(test)]
mod machine_tests;
pub mod probe;
mod slot;

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use services::{Kind, StopScope};

use self::clients::Clients;
use self::machine::{Action, Event, Phase, State, describe, seconds};
use self::slot::{Clearing, Slot};
use crate::accounts::Accounts;
use crate::exit::{Code, Failure, Result};
use crate::log::{Queue, say};
use crate::plan::Plan;
use crate::root::{Owned, Root, cannot_create};
use crate::settings::Environment;
use crate::sys::{self, Ended};
use crate::volume::State as Memory;

const SIGCHLD: u32 = 17;
const SIGHUP: u32 = 1;
const SIGUSR1: u32 = 10;
const SIGUSR2: u32 = 12;

/// How often killed processes are looked for until they are gone.
const RECHECK: Duration = Duration::from_millis(2);

const SIGNALS: u64 = 0;
const CONTROL: u64 = 1;
const STDOUT: u64 = 2;
const KIND: u64 = 32;
const OUTPUT: u64 = 1;
const NOTIFY: u64 = 2;
const CLIENT: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    /// A helper command, and which: its failure may count as success.
    Step(Phase, usize),
}

pub struct Supervisor<'a> {
    root: &'a Root,
    environment: &'a Environment,
    accounts: Accounts,
    memory: &'a Memory<'a>,
    version: &'a str,
    slots: Vec<Slot>,
    processes: HashMap<i32, (usize, Role)>,
    queue: Queue,
    /// The services' pipes are not read: the queue is full.
    paused: bool,
    watching_stdout: bool,
    epoll: std::os::fd::OwnedFd,
    signals: SignalFd,
    listener: UnixListener,
    clients: Clients,
    stop_timeout: Duration,
    /// Everything stops, until then at the latest.
    ending: Option<Instant>,
    hurried: u32,
    result: Code,
    announced: bool,
    begun: Instant,
}

impl<'a> Supervisor<'a> {
    pub fn new(
        plan: Plan,
        root: &'a Root,
        environment: &'a Environment,
        memory: &'a Memory<'a>,
        version: &'a str,
    ) -> Result<Self> {
        let internal = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(Code::Internal, format!("cannot {what}: {error}"))
        };
        let signals = sys::signal_fd().map_err(|e| internal("receive signals", &e))?;
        if rustix::process::getpid().as_raw_nonzero().get() != 1 {
            // Orphans come to us all the same.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .map_err(|e| internal("become a subreaper", &e))?;
        }
        let me = |mode| Owned {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode,
        };
        root.directory("/run/tiffin", me(0o755))?;
        root.directory("/run/tiffin/notify", me(0o711))?;
        let listener = control_socket(root)?;
        let accounts = Accounts::read(root)?;
        let now = Instant::now();
        let done = memory.done()?;
        let mut slots = Vec::with_capacity(plan.services.len());
        for mut planned in plan.services {
            if planned.once && done.get(&planned.service.name).map(String::as_str) == Some(version)
            {
                planned.skip = Some(format!("it is done for {version}"));
            }
            slots.push(Slot::new(planned, &accounts, root, now)?);
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| internal("make an epoll", &e))?;
        let add = |fd: BorrowedFd<'_>, token: u64| {
            epoll::add(&epoll, fd, EventData::new_u64(token), EventFlags::IN)
                .map_err(|e| internal("watch a descriptor", &e))
        };
        add(signals.as_fd(), SIGNALS)?;
        add(listener.as_fd(), CONTROL)?;
        for (at, slot) in slots.iter().enumerate() {
            add(slot.reader.as_fd(), OUTPUT << KIND | at as u64)?;
            if let Some(socket) = &slot.notify {
                add(socket.as_fd(), NOTIFY << KIND | at as u64)?;
            }
        }
        let stop_timeout = environment
            .get("TIFFIN_STOP_TIMEOUT")
            .and_then(|t| t.parse().ok())
            .map_or(Duration::from_secs(30), Duration::from_secs);
        Ok(Supervisor {
            root,
            environment,
            accounts,
            memory,
            version,
            slots,
            processes: HashMap::new(),
            queue: Queue::default(),
            paused: false,
            watching_stdout: false,
            epoll,
            signals,
            listener,
            clients: Clients::default(),
            stop_timeout,
            ending: None,
            hurried: 0,
            result: Code::Ok,
            announced: false,
            begun: now,
        })
    }

    pub fn run(mut self) -> Code {
        for slot in &self.slots {
            if let Some(reason) = &slot.planned.skip {
                say(&format!("{} is left out: {reason}", slot.name()));
            }
        }
        let mut events = Vec::with_capacity(64);
        loop {
            self.timers();
            self.advance();
            self.clear();
            self.answer_waiting();
            self.flush_output();
            if self.is_over() {
                break;
            }
            events.clear();
            let timeout = self.next_deadline().map(|at| {
                // Rounded up: to wake early would be to spin.
                let wait = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                rustix::event::Timespec {
                    tv_sec: wait.as_secs().cast_signed(),
                    tv_nsec: wait.subsec_nanos().into(),
                }
            });
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    // Cannot happen with descriptors of our own; better slow than gone.
                    say(&format!("cannot wait for events: {error}"));
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            for event in &events {
                let token = event.data.u64();
                let at = usize::try_from(token & ((1 << KIND) - 1)).unwrap_or(usize::MAX);
                match token {
                    SIGNALS => self.read_signals(),
                    CONTROL => self
                        .clients
                        .accept(&self.listener, &self.epoll, CLIENT << KIND),
                    STDOUT => {}
                    _ => match token >> KIND {
                        OUTPUT => self.read_output(at, false),
                        NOTIFY => self.read_notifications(at),
                        CLIENT => self.request(at),
                        _ => {}
                    },
                }
            }
        }
        self.finish()
    }

    fn finish(&mut self) -> Code {
        // Whatever is left by now belongs to nobody.
        for _ in 0..250 {
            let left = leftovers::Table::read().all();
            if left.is_empty() {
                break;
            }
            for pid in left.into_iter().filter_map(Pid::from_raw) {
                sys::kill(pid, 9);
            }
            std::thread::sleep(RECHECK);
            while sys::reap().is_some() {}
        }
        for at in 0..self.slots.len() {
            self.read_output(at, true);
        }
        self.queue.finish();
        let _ = std::fs::remove_file(self.root.path(crate::control::SOCKET));
        if self.result == Code::Ok {
            say("stopped");
        } else {
            say(&format!(
                "stopped: a service was given up (exit code {})",
                self.result as u8
            ));
        }
        self.result
    }

    // --- time

    fn next_deadline(&self) -> Option<Instant> {
        self.slots
            .iter()
            .flat_map(|slot| {
                [
                    slot.machine.deadline(),
                    slot.clearing.map(|c| c.again),
                    slot.finding.map(|(at, _)| at),
                ]
            })
            .flatten()
            .min()
    }

    fn timers(&mut self) {
        let now = Instant::now();
        for at in 0..self.slots.len() {
            if self.slots[at].machine.deadline().is_some_and(|d| d <= now) {
                self.handle(at, Event::Deadline);
            }
            if self.slots[at].finding.is_some_and(|(next, _)| next <= now) {
                self.find_main(at);
            }
        }
    }

    // --- order

    /// Starts what has waited long enough; when ending, stops what nobody needs any more.
    fn advance(&mut self) {
        // A start may finish at once and let others start: until nothing moves.
        let mut moved = true;
        while moved {
            moved = false;
            for at in 0..self.slots.len() {
                let state = self.slots[at].machine.state();
                let event = match self.ending {
                    None if state == State::Waiting && self.needs_are_up(at) => Event::Start,
                    Some(latest) if self.must_stop(at) => {
                        let left = latest.saturating_duration_since(Instant::now());
                        // What others need must have time left when they are gone.
                        let has_needs = self.slots[at]
                            .planned
                            .needs
                            .iter()
                            .any(|n| !self.slots[*n].machine.state().is_over());
                        Event::Stop(if has_needs { left.mul_f64(0.7) } else { left })
                    }
                    _ => continue,
                };
                self.handle(at, event);
                moved |= self.slots[at].machine.state() != state;
            }
        }
        if self.ending.is_some() {
            return;
        }
        let all_up = self
            .slots
            .iter()
            .all(|s| s.machine.state().is_up() || s.machine.state() == State::Stopped);
        if all_up && !self.announced {
            self.announced = true;
            say(&format!("ready after {}", seconds(self.begun.elapsed())));
        }
        // One-shots alone do not keep a box running; what an operator stopped does.
        if self.slots.iter().all(|s| {
            matches!(
                s.machine.state(),
                State::Finished | State::Skipped | State::Failed
            )
        }) {
            say("every service has ended");
            self.end(Code::Ok);
        }
    }

    fn needs_are_up(&self, at: usize) -> bool {
        self.slots[at].planned.needs.iter().all(|need| {
            let needed = &self.slots[*need];
            // What is not started by itself is not waited for.
            needed.machine.state().is_up()
                || (!needed.planned.service.autostart && needed.machine.state() == State::Stopped)
        })
    }

    fn must_stop(&self, at: usize) -> bool {
        use State as S;
        let slot = &self.slots[at];
        let runs = matches!(
            slot.machine.state(),
            S::Waiting
                | S::Backoff
                | S::Preparing(_)
                | S::Starting(_)
                | S::Posting(_)
                | S::Checking
                | S::Ready
        );
        runs && self
            .slots
            .iter()
            .filter(|other| other.planned.needs.contains(&at))
            .all(|other| other.machine.state().is_over())
    }

    fn end(&mut self, result: Code) {
        if self.result == Code::Ok {
            self.result = result;
        }
        if self.ending.is_none() {
            self.ending = Some(Instant::now() + self.stop_timeout);
        }
    }

    fn is_over(&self) -> bool {
        self.ending.is_some() && self.slots.iter().all(|slot| slot.machine.state().is_over())
    }

    // --- one service

    fn handle(&mut self, at: usize, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let actions = self.slots[at].machine.handle(&event, Instant::now());
            for action in actions {
                if let Some(next) = self.act(at, action) {
                    events.push(next);
                }
            }
        }
    }

    fn act(&mut self, at: usize, action: Action) -> Option<Event> {
        match action {
            Action::Run(phase, index) => return self.spawn(at, phase, index),
            Action::FindMain => {
                self.slots[at].finding = Some((Instant::now(), Duration::from_millis(5)));
                self.find_main(at);
            }
            Action::Signal => self.signal(at),
            Action::Clear { gentle } => {
                let slot = &mut self.slots[at];
                slot.finding = None;
                slot.clearing = Some(Clearing {
                    gentle,
                    signalled: false,
                    again: Instant::now(),
                });
            }
            Action::Say(message) => say(&format!("{}: {message}", self.slots[at].name())),
            Action::Ready => say(&format!("{} is ready", self.slots[at].name())),
            Action::Finished => self.finished(at),
            Action::GaveUp(reason) => {
                self.read_output(at, true);
                let slot = &self.slots[at];
                let name = slot.name();
                let mut message = format!("{name} is given up: {reason}");
                let lines: Vec<String> = slot
                    .lines
                    .recent(20)
                    .map(|(_, line)| format!("\n  {name} | {line}"))
                    .collect();
                if lines.is_empty() {
                    message.push_str("\nit wrote nothing");
                } else {
                    message.push_str("\nits last lines:");
                    message.extend(lines);
                }
                say(&message);
                self.end(Code::Service);
            }
        }
        None
    }

    fn finished(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.planned.service.kind == Kind::Oneshot {
            say(&format!("{} is done", slot.name()));
        }
        if slot.planned.once
            && let Err(failure) = self.memory.mark_done(slot.name(), self.version)
        {
            say(&format!(
                "{}: it is done, but that cannot be remembered: {failure}",
                slot.name()
            ));
        }
    }

    fn spawn(&mut self, at: usize, phase: Phase, index: usize) -> Option<Event> {
        let slot = &mut self.slots[at];
        if phase == Phase::Start && index == 0 || phase == Phase::Pre && index == 0 {
            slot.status.clear();
        }
        match slot.spawn(phase, index, self.root, &self.accounts, self.environment) {
            Ok(pid) => {
                let role = if phase == Phase::Start {
                    Role::Main
                } else {
                    Role::Step(phase, index)
                };
                if role == Role::Main {
                    slot.main = Some(pid);
                }
                self.processes
                    .insert(pid.as_raw_nonzero().get(), (at, role));
                (role == Role::Main).then_some(Event::Spawned)
            }
            Err(reason) => Some(Event::SpawnFailed(reason)),
        }
    }

    /// The stop signal, to whom the unit says.
    fn signal(&self, at: usize) {
        let slot = &self.slots[at];
        let stopping = &slot.planned.service.stopping;
        if stopping.scope == StopScope::All {
            for pid in self.living(at) {
                sys::kill(pid, stopping.signal);
            }
        } else if let Some(main) = slot.main {
            sys::kill(main, stopping.signal);
        }
    }

    fn living(&self, at: usize) -> Vec<Pid> {
        let slot = &self.slots[at];
        leftovers::Table::read()
            .of(slot.name(), &slot.sessions)
            .into_iter()
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// The daemon of a forking service: the process that its PID file names, or the one
    /// that is left.
    fn find_main(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let Kind::Forking { pid_file } = &slot.planned.service.kind else {
            return;
        };
        let living = leftovers::Table::read().of(&slot.planned.service.name, &slot.sessions);
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
        let found = named
            .filter(|pid| sys::process(*pid).is_some_and(|p| !p.zombie) && is_descendant(*pid));
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
    fn clear(&mut self) {
        let now = Instant::now();
        let due: Vec<usize> = (0..self.slots.len())
            .filter(|at| self.slots[*at].clearing.is_some_and(|c| c.again <= now))
            .collect();
        if due.is_empty() {
            return;
        }
        let mut table = leftovers::Table::read();
        for at in due {
            let slot = &mut self.slots[at];
            let Some(mut clearing) = slot.clearing else {
                continue;
            };
            let keep = slot.planned.service.stopping.scope == StopScope::MainKeepRest
                && self.ending.is_none();
            let main = slot.main.map(|pid| pid.as_raw_nonzero().get());
            let left: Vec<i32> = table
                .of(&slot.planned.service.name, &slot.sessions)
                .into_iter()
                .filter(|pid| !keep || Some(*pid) == main)
                .collect();
            if left.is_empty() {
                slot.clearing = None;
                slot.main = None;
                slot.sessions.clear();
                self.handle(at, Event::Cleared);
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

    // --- signals and children

    fn read_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match info.ssi_signo {
                SIGCHLD => self.reap(),
                SIGHUP | SIGUSR1 | SIGUSR2 => {
                    say("this signal has no meaning here; `tiffin restart NAME` restarts a service")
                }
                signal => self.asked_to_stop(signal),
            }
        }
    }

    fn asked_to_stop(&mut self, signal: u32) {
        let name = services::signal_name(signal.cast_signed());
        self.hurried += 1;
        if self.ending.is_none() {
            say(&format!(
                "{name}: stopping, within {} at most",
                seconds(self.stop_timeout)
            ));
            self.end(Code::Ok);
            return;
        }
        // The second one shortens the grace, the third one ends it.
        let left = if self.hurried == 2 {
            Duration::from_secs(2)
        } else {
            Duration::ZERO
        };
        say(&format!("{name} again: stopping within {}", seconds(left)));
        self.ending = Some(Instant::now() + left);
        for at in 0..self.slots.len() {
            let state = self.slots[at].machine.state();
            if matches!(state, State::StopCommand(_) | State::Stopping) {
                self.handle(
                    at,
                    if left.is_zero() {
                        Event::Hurry
                    } else {
                        Event::Stop(left)
                    },
                );
            }
        }
    }

    fn reap(&mut self) {
        while let Some((pid, ended)) = sys::reap() {
            // Nobody's: an orphan, which is all there is to do about it.
            let Some((at, role)) = self.processes.remove(&pid.as_raw_nonzero().get()) else {
                continue;
            };
            match role {
                Role::Main => {
                    self.read_output(at, true);
                    self.slots[at].main = None;
                    let forgiven = self.slots[at].planned.service.kind == Kind::Oneshot
                        && matches!(self.slots[at].machine.state(), State::Starting(index) if self.slots[at].ignores_failure(Phase::Start, index));
                    self.handle(
                        at,
                        Event::MainEnded(if forgiven { Ended::Exit(0) } else { ended }),
                    );
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
    fn expects(&self, at: usize, phase: Phase, index: usize) -> bool {
        let state = match phase {
            Phase::Pre => State::Preparing(index),
            Phase::Post => State::Posting(index),
            Phase::Check => State::Checking,
            Phase::Stop => State::StopCommand(index),
            Phase::StopPost => State::Cleaning(index),
            Phase::Start => return false,
        };
        self.slots[at].machine.state() == state
    }

    // --- output

    /// Reads what is there; `last` also takes a line that is not ended.
    fn read_output(&mut self, at: usize, last: bool) {
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let name = slot.planned.service.name.clone();
        let mut buffer = [0_u8; 64 << 10];
        while let Ok(count @ 1..) = rustix::io::read(&slot.reader, &mut buffer) {
            slot.lines.feed(&name, &buffer[..count], &mut self.queue);
            // Others have a turn too, and a full queue waits for its reader.
            if !last || self.queue.is_full() {
                break;
            }
        }
        if last {
            slot.lines.flush(&name, &mut self.queue);
        }
    }

    fn flush_output(&mut self) {
        self.queue.drain();
        let full = self.queue.is_full();
        if full != self.paused {
            self.paused = full;
            let flags = if full {
                EventFlags::empty()
            } else {
                EventFlags::IN
            };
            for (at, slot) in self.slots.iter().enumerate() {
                let _ = epoll::modify(
                    &self.epoll,
                    &slot.reader,
                    EventData::new_u64(OUTPUT << KIND | at as u64),
                    flags,
                );
            }
        }
        let watch = !self.queue.is_empty();
        if watch != self.watching_stdout {
            self.watching_stdout = watch;
            let stdout = std::io::stdout();
            // A regular file cannot be watched, and need not be: it never blocks.
            let _ = if watch {
                epoll::add(
                    &self.epoll,
                    stdout.as_fd(),
                    EventData::new_u64(STDOUT),
                    EventFlags::OUT,
                )
            } else {
                epoll::delete(&self.epoll, stdout.as_fd())
            };
        }
    }

    /// sd_notify(3): lines of NAME=VALUE.
    fn read_notifications(&mut self, at: usize) {
        let mut buffer = [0_u8; 4096];
        while let Some(Ok(count)) = self
            .slots
            .get(at)
            .and_then(|s| s.notify.as_ref())
            .map(|s| s.recv(&mut buffer))
        {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            for line in text.lines() {
                match line.split_once('=') {
                    Some(("READY", "1")) => self.handle(at, Event::Notified),
                    Some(("STATUS", status)) => {
                        self.slots[at].status = status.chars().take(200).collect()
                    }
                    Some(("STOPPING", "1")) => self.slots[at].status = "stopping".to_owned(),
                    Some(("MAINPID", pid)) => self.adopt(at, pid),
                    _ => {}
                }
            }
        }
    }

    fn adopt(&mut self, at: usize, pid: &str) {
        let Some(pid) = pid
            .parse()
            .ok()
            .filter(|pid| is_descendant(*pid))
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

fn control_socket(root: &Root) -> Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = root.path(crate::control::SOCKET);
    let make = || -> std::io::Result<UnixListener> {
        let _ = std::fs::remove_file(&path);
        // Nobody else may connect, not even for the moment before the mode is set.
        let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(&path);
        rustix::process::umask(old);
        let listener = listener?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    make().map_err(|error| cannot_create("the socket", crate::control::SOCKET, &error))
}
