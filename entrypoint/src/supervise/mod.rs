//! The supervisor's loop: one epoll over signals, services' output, notifications and
//! control requests. It is the one owner of all waits, and blocks without a timeout when
//! nothing is due.
//!
//! Past [`Supervisor::new`] nothing returns an error out of the loop.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

mod awaited;
mod certificates;
mod children;
mod clients;
mod events;
mod fastcgi;
mod first;
mod follow;
mod leftovers;
mod machine;
#[cfg(test)]
mod machine_tests;
mod metrics;
mod notify;
mod observe;
mod output;
pub mod probe;
mod reload;
pub mod rotate;
mod rpc;
mod slot;
mod timers;
mod usage;
mod watchdog;

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use services::Kind;

use self::clients::Clients;
pub use self::first::{Open, PROGRESS};
pub use self::leftovers::MARK;
pub use self::machine::describe;
use self::machine::{Action, Event, Phase, State, seconds};
pub use self::observe::VARIABLE as HTTP;
pub use self::reload::Loaded;
use self::slot::{Clearing, Slot};
use crate::accounts::Accounts;
use crate::exit::{Code, Failure, Result};
use crate::log::{self, Queue, fail, say, shown, warn};
use crate::plan::{self, Plan};
use crate::root::{Owned, Root, cannot_create};
use crate::settings::Environment;
use crate::supervisord::words::ProcessState;
use crate::sys::{self, Ended};
use crate::upgrade::Upgrade;
use crate::volume::State as Memory;

const SIGCHLD: u32 = 17;
const SIGHUP: u32 = 1;
const SIGINT: u32 = 2;
const SIGQUIT: u32 = 3;
const SIGUSR1: u32 = 10;
const SIGUSR2: u32 = 12;
const SIGTERM: u32 = 15;

/// How often killed processes are looked for until they are gone.
const RECHECK: Duration = Duration::from_millis(2);
/// After the end of a stop, what not even SIGKILL has ended is left to itself.
const UNKILLABLE: Duration = Duration::from_secs(5);
/// What a stop says of its services: those that took this long, and how many at most.
const TOLD: (Duration, usize) = (Duration::from_millis(50), 8);

const SIGNALS: u64 = 0;
const CONTROL: u64 = 1;
const STDOUT: u64 = 2;
const CERTIFICATES: u64 = 3;
const STDERR: u64 = 4;
const KIND: u64 = 32;
const OUTPUT: u64 = 1;
const NOTIFY: u64 = 2;
const CLIENT: u64 = 3;
const ERRORS: u64 = 4;
const RPC_SOCKET: u64 = 5;
const RPC_CLIENT: u64 = 6;
const INPUT: u64 = 7;
const FOLLOWER: u64 = 8;
const HTTP_SOCKET: u64 = 9;
const HTTP_CLIENT: u64 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Main,
    /// A helper command, and which: its failure may count as success.
    Step(Phase, usize),
    /// It rotates a log file, and which.
    Rotation(usize),
}

pub struct Supervisor<'a> {
    root: &'a Root,
    environment: &'a Environment,
    accounts: Accounts,
    memory: &'a Memory<'a>,
    version: &'a str,
    slots: Vec<Slot>,
    processes: HashMap<i32, (usize, Role)>,
    /// The process table as it was in this turn, until a process is started or ends.
    seen: Option<leftovers::Table>,
    queue: Queue,
    /// The services' pipes are not read: the queue is full.
    paused: bool,
    watching_stdout: bool,
    watching_stderr: bool,
    epoll: std::os::fd::OwnedFd,
    signals: SignalFd,
    /// `None` without a box.
    listener: Option<UnixListener>,
    socket: String,
    clients: Clients,
    rpc: rpc::Server,
    http: observe::Server,
    loaded: Option<Loaded<'a>>,
    underway: Option<reload::Underway<'a>>,
    certificates: certificates::Watch,
    events: events::Events,
    /// Without a box: as supervisord, which outlives its programs.
    alone: bool,
    /// This is what comes before the services, and what it is; see `first`.
    first: Option<(u64, String)>,
    /// How the configuration is read again without a box.
    again: Option<&'a dyn Fn() -> Result<Plan>>,
    stop_timeout: Duration,
    /// For so long the box still serves when it is asked to stop.
    drain: Duration,
    /// Until when it does.
    draining: Option<Instant>,
    /// Everything stops, until then at the latest.
    ending: Option<Instant>,
    /// Since when it does.
    ending_since: Instant,
    /// Which services stop last; see [`plan::last`].
    last: Vec<bool>,
    hurried: u32,
    /// Whoever asks for what is done at the moment, for the log.
    by: &'static str,
    /// Services that began to start, or to stop, in this turn: a line for all of them.
    starting: Vec<usize>,
    stopping: Vec<usize>,
    result: Code,
    announced: bool,
    begun: Instant,
    /// To be told when the jobs are done, and when all is ready.
    upgrade: Option<&'a Upgrade<'a>>,
    migrating: bool,
    /// When the next timer unit elapses.
    timers_due: Option<Instant>,
    sizes: rotate::Sizes,
}

impl<'a> Supervisor<'a> {
    pub fn new(
        plan: Plan,
        root: &'a Root,
        environment: &'a Environment,
        memory: &'a Memory<'a>,
        version: &'a str,
    ) -> Result<Self> {
        Self::taking_over(Open::default(), plan, root, environment, memory, version)
    }

    /// With what the one before it left open.
    pub fn taking_over(
        open: Open,
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
            if !plan.alone && !plan.quiet {
                warn(
                    "note: this is not process 1: what `docker exec` leaves behind is not reaped here, and services outlive a SIGKILL of this process",
                );
            }
            // Orphans of services come to us all the same.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .map_err(|e| internal("become a subreaper", &e))?;
        }
        let me = |mode| Owned {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode,
        };
        let alone = plan.alone;
        let listener = if alone {
            None
        } else {
            root.directory("/run/tiffin", me(0o755))?;
            root.directory("/run/tiffin/notify", me(0o711))?;
            match open.listener {
                Some(listener) => Some(listener),
                None => Some(control_socket(root, &plan.socket)?),
            }
        };
        let accounts = Accounts::read(root)?;
        sys::keep_spare();
        sys::keep_no_buffers();
        let now = Instant::now();
        let mut slots = Vec::with_capacity(plan.services.len());
        for mut planned in plan.services {
            if planned.once && memory.is_done(&planned.service.name, version, &planned.again)? {
                planned.skip = Some(format!("it is done for {version}"));
            }
            slots.push(Slot::new(planned, &accounts, root, now)?);
        }
        let rpc = rpc::Server::open(&plan.daemon, root, &accounts);
        let http = match (alone, open.http) {
            (true, _) => observe::Server::default(),
            (false, Some(http)) => http,
            (false, None) => observe::Server::open(environment)?,
        };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|e| internal("make an epoll", &e))?;
        let add = |fd: BorrowedFd<'_>, token: u64| {
            epoll::add(&epoll, fd, EventData::new_u64(token), EventFlags::IN)
                .map_err(|e| internal("watch a descriptor", &e))
        };
        add(signals.as_fd(), SIGNALS)?;
        if let Some(listener) = &listener {
            add(listener.as_fd(), CONTROL)?;
        }
        for (at, socket) in rpc.sockets().enumerate() {
            add(socket, RPC_SOCKET << KIND | at as u64)?;
        }
        if let Some(socket) = http.socket() {
            add(socket, HTTP_SOCKET << KIND)?;
        }
        http.watch(&epoll);
        for (at, slot) in slots.iter().enumerate() {
            add(slot.out.reader.as_fd(), OUTPUT << KIND | at as u64)?;
            if let Some(errors) = &slot.errors {
                add(errors.reader.as_fd(), ERRORS << KIND | at as u64)?;
            }
            if let Some(socket) = &slot.notify {
                add(socket.as_fd(), NOTIFY << KIND | at as u64)?;
            }
        }
        let stop_timeout = environment
            .get("TIFFIN_STOP_TIMEOUT")
            .and_then(|t| t.parse().ok())
            .map_or(Duration::from_secs(30), Duration::from_secs);
        let drain = environment.get(crate::roles::DRAIN);
        let drain = drain.and_then(|text| text.parse().ok()).unwrap_or(0);
        let drain = Duration::from_secs(drain);
        Ok(Supervisor {
            root,
            environment,
            accounts,
            memory,
            version,
            slots,
            processes: HashMap::new(),
            seen: None,
            queue: Queue::default(),
            paused: false,
            watching_stdout: false,
            watching_stderr: false,
            epoll,
            signals,
            listener,
            socket: plan.socket,
            clients: Clients::default(),
            rpc,
            http,
            loaded: None,
            underway: None,
            certificates: certificates::Watch::default(),
            events: events::Events::default(),
            alone,
            first: None,
            again: None,
            stop_timeout,
            drain,
            draining: None,
            ending: None,
            ending_since: now,
            last: Vec::new(),
            hurried: 0,
            by: "",
            starting: Vec::new(),
            stopping: Vec::new(),
            result: Code::Ok,
            announced: false,
            begun: now,
            upgrade: None,
            migrating: false,
            timers_due: None,
            sizes: rotate::Sizes::default(),
        })
    }

    /// For a supervisord without a box: how its configuration is read again.
    pub fn rereading(mut self, plan: &'a dyn Fn() -> Result<Plan>) -> Self {
        self.again = Some(plan);
        self
    }

    /// The data may be on its way from another version.
    pub fn upgrading(mut self, upgrade: &'a Upgrade<'a>) -> Self {
        self.upgrade = Some(upgrade);
        self.migrating = true;
        self
    }

    /// How it ended, and the container's exit code.
    pub fn run(mut self) -> (Code, u8) {
        (self.supervise(), self.exit_code())
    }

    /// The same, and the names of services that only SIGKILL has ended.
    pub fn run_and_tell(mut self) -> (Code, Vec<String>) {
        let code = self.supervise();
        let killed = |slot: &&Slot| slot.machine.last_end == Some(crate::sys::Ended::Signal(9));
        let names = self.slots.iter().filter(killed);
        (code, names.map(|slot| slot.name().to_owned()).collect())
    }

    fn supervise(&mut self) -> Code {
        log::queue_messages();
        for slot in &self.slots {
            if let Some(reason) = &slot.planned.skip {
                say(&format!("{} is left out: {reason}", slot.name()));
            }
        }
        self.follow_certificates();
        self.groups_changed(&rpc::Groups::new());
        self.supervisor_runs();
        let mut events = Vec::with_capacity(64);
        loop {
            self.timers();
            self.advance();
            self.clear();
            self.service_timers();
            self.tell_moves();
            self.answer_waiting();
            self.serve_rpc();
            self.send_events();
            self.flush_output();
            self.serve_followers();
            self.seen = None;
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
                    CONTROL => {
                        if let Some(listener) = &self.listener {
                            self.clients.accept(listener, &self.epoll, CLIENT << KIND);
                        }
                    }
                    STDOUT | STDERR => {}
                    CERTIFICATES => self.certificate_files(),
                    _ => match token >> KIND {
                        OUTPUT | ERRORS => self.read_output(at, false),
                        RPC_SOCKET => self.accept_rpc(at),
                        RPC_CLIENT => self.read_rpc(at),
                        INPUT => self.feed_input(at),
                        NOTIFY => self.read_notifications(at),
                        CLIENT => self.request(at),
                        HTTP_SOCKET => self.accept_http(),
                        HTTP_CLIENT => self.read_http(at),
                        FOLLOWER => self.heard_follower(at),
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
        self.finish_followers();
        if self.first.is_some() {
            log::finish_messages();
            return self.result;
        }
        if self.listener.is_some() {
            let _ = std::fs::remove_file(self.root.path(&self.socket));
        }
        self.rpc.close(self.root);
        let why = match self.result {
            Code::Ok => "",
            _ => ": a service was given up",
        };
        say(&self.stop_told());
        match self.exit_code() {
            0 => {}
            code => say(&format!("stopped{why} (exit code {code})")),
        }
        log::finish_messages();
        self.result
    }

    /// The one service that a box is for, besides jobs and what is the box's own.
    fn only(&self) -> Option<&Slot> {
        let is_for = |slot: &&Slot| {
            let planned = &slot.planned;
            let is_job = planned.timer.is_some() || planned.service.kind == Kind::Oneshot;
            let is_part = planned.service.autostart && planned.skip.is_none() && !slot.is_gone();
            is_part && !is_job && slot.name() != crate::page::SERVICE
        };
        let mut all = self.slots.iter().filter(is_for);
        all.next().filter(|_| all.next().is_none())
    }

    /// The only service's own, as without us; its end by the signal that was asked for is none.
    fn exit_code(&self) -> u8 {
        let own = || {
            let slot = self.only()?;
            let stopped = slot.machine.state() == State::Stopped;
            let ended = match stopped {
                true => slot.asked_end?,
                false => slot.machine.last_end?,
            };
            // Another one was given up, and it had to go with it.
            if stopped && (slot.is_clean(ended) || self.result != Code::Ok) {
                return None;
            }
            let code = match ended {
                Ended::Exit(code) => code,
                Ended::Signal(signal) => 128 + signal,
            };
            u8::try_from(code).ok().filter(|code| *code != 0)
        };
        own().unwrap_or(self.result as u8)
    }

    /// How long the stop took, and whose time that was.
    fn stop_told(&self) -> String {
        let mut told = format!("stopped in {}", seconds(self.ending_since.elapsed()));
        let here = |slot: &&Slot| slot.machine.since() >= self.ending_since;
        let mut slots: Vec<&Slot> = self.slots.iter().filter(here).collect();
        slots.retain(|slot| slot.machine.stopped_in() >= TOLD.0);
        slots.sort_by_key(|slot| std::cmp::Reverse(slot.machine.stopped_in()));
        for (at, slot) in slots.into_iter().take(TOLD.1).enumerate() {
            let killed = match slot.machine.last_end {
                Some(Ended::Signal(9)) => " (killed)",
                _ => "",
            };
            told.push_str(&format!(
                "{} {} {}{killed}",
                if at == 0 { ":" } else { "," },
                slot.name(),
                seconds(slot.machine.stopped_in())
            ));
        }
        for slot in &self.slots {
            if !slot.machine.state().is_over() {
                told.push_str(&format!("; {} cannot be killed", slot.name()));
            }
        }
        told
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
                    slot.reloading.map(|(_, until)| until),
                    slot.renewing.map(|renewing| renewing.until),
                    slot.watch_deadline(),
                ]
            })
            .flatten()
            .chain(self.events.deadline())
            .chain(self.http.deadline())
            .chain(self.rpc.deadline())
            .chain(self.clients.deadline())
            .chain(self.certificates.deadline())
            .chain(
                self.underway
                    .as_ref()
                    .and_then(|underway| underway.deadline()),
            )
            .chain(self.timers_due)
            .chain(self.sizes.deadline())
            .chain(self.draining)
            .min()
    }

    fn timers(&mut self) {
        let now = Instant::now();
        self.reload_timers(now);
        self.http_timers(now);
        self.rpc_timers(now);
        self.clients.let_go(now);
        self.certificate_timers(now);
        self.watchdog_timers(now);
        self.rotation_timers(now);
        if self.draining.is_some_and(|until| until <= now) {
            say(&format!(
                "stopping, within {} at most",
                seconds(self.stop_timeout)
            ));
            self.end(Code::Ok);
        }
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
        // Before what waits for the jobs lets users write.
        self.note_migrated();
        // A start may finish at once and let others start: until nothing moves.
        let mut moved = true;
        while moved {
            moved = self.ending.is_none() && self.advance_pending();
            for at in 0..self.slots.len() {
                let state = self.slots[at].machine.state();
                let event = match self.ending {
                    None if state == State::Waiting && self.needs_are_up(at) => Event::Start,
                    Some(latest) if self.must_stop(at) => {
                        let left = latest.saturating_duration_since(Instant::now());
                        // What others need must have time left when they are gone.
                        let needs = &self.slots[at].planned.needs;
                        let has_needs = (0..self.slots.len())
                            .filter(|other| needs.contains(other) || self.waits_for(*other, at))
                            .any(|other| !self.slots[other].machine.state().is_over());
                        Event::Stop(if has_needs { left.mul_f64(0.7) } else { left })
                    }
                    _ => continue,
                };
                self.handle(at, event);
                moved |= self.slots[at].machine.state() != state;
            }
        }
        if self.ending.is_some() || self.alone {
            return;
        }
        if self.first.is_some() {
            if self.slots.iter().all(|s| s.machine.state().is_over()) {
                self.end(Code::Ok);
            }
            return;
        }
        let all = |is: fn(State) -> bool| {
            let mut slots = self.slots.iter();
            slots.all(|slot| is(slot.machine.state()) || slot.is_done_without())
        };
        let all_up = all(|state| state.is_up() || state == State::Stopped);
        // One-shots alone do not keep a box running; what an operator stopped does.
        // Nor does it end while groups are taken out and put in.
        let stays = |slot: &Slot| slot.process.removed || slot.planned.timer.is_some();
        let has_ended =
            all(|state| matches!(state, State::Finished | State::Skipped | State::Failed))
                && !self.slots.iter().any(stays);
        let nothing_runs = has_ended && self.is_degraded();
        if all_up && !self.announced && !nothing_runs {
            self.announced = true;
            let so = if self.is_degraded() { ", degraded" } else { "" };
            say(&format!(
                "ready after {}{so}",
                seconds(self.begun.elapsed())
            ));
            if let Some(upgrade) = self.upgrade {
                upgrade.complete();
            }
            sys::settle();
        }
        if has_ended {
            say("every service has ended");
            self.end(match nothing_runs {
                true => Code::Service,
                false => Code::Ok,
            });
        }
    }

    /// The box runs on without a service that was given up.
    fn is_degraded(&self) -> bool {
        let mut slots = self.slots.iter().filter(|slot| !slot.is_gone());
        slots.any(|slot| slot.planned.service.autostart && slot.is_done_without())
    }

    fn note_migrated(&mut self) {
        let mut jobs = self.slots.iter().filter(|slot| slot.planned.once);
        if self.migrating && jobs.all(|job| job.machine.state().is_up()) {
            self.migrating = false;
            if let Some(upgrade) = self.upgrade {
                upgrade.migrated();
            }
        }
    }

    fn needs_are_up(&self, at: usize) -> bool {
        self.slots[at].planned.needs.iter().all(|need| {
            let needed = &self.slots[*need];
            // What is not started by itself is not waited for.
            (needed.machine.state().is_up() && needed.pending.is_none())
                || needed.is_done_without()
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
        let mut others = self.slots.iter().enumerate();
        runs && others.all(|(other, slot)| {
            let first = slot.planned.needs.contains(&at) || self.waits_for(at, other);
            !first || slot.machine.state().is_over()
        })
    }

    /// Databases stop when nobody is left who could write to them, whatever the order says.
    fn waits_for(&self, at: usize, other: usize) -> bool {
        let is_last = |at: usize| self.last.get(at).copied().unwrap_or(false);
        is_last(at) && !is_last(other)
    }

    fn end(&mut self, result: Code) {
        self.end_within(result, self.stop_timeout);
    }

    fn end_within(&mut self, result: Code, limit: Duration) {
        if self.result == Code::Ok {
            self.result = result;
        }
        self.draining = None;
        if self.ending.is_some() {
            return;
        }
        self.ending_since = Instant::now();
        self.ending = Some(self.ending_since + limit);
        self.supervisor_stops();
        self.abandon_reload();
        self.last = plan::last(self.slots.iter().map(|slot| &slot.planned));
        // What stops already, perhaps with a limit of its own, has no more time than all.
        for at in 0..self.slots.len() {
            if self.slots[at].machine.state().name() == State::Stopping.name() {
                self.handle(at, Event::Stop(limit));
            }
        }
    }

    fn is_over(&self) -> bool {
        let Some(latest) = self.ending else {
            return false;
        };
        let mut slots = self.slots.iter();
        slots.all(|slot| slot.machine.state().is_over()) || latest + UNKILLABLE < Instant::now()
    }

    // --- one service

    /// Somebody outside wants it.
    fn ask(&mut self, at: usize, event: Event, by: &'static str) {
        self.tell_moves();
        self.by = by;
        self.handle(at, event);
        self.tell_moves();
        self.by = "";
    }

    fn handle(&mut self, at: usize, event: Event) {
        let from = self.slots[at].machine.state();
        self.take(at, event);
        let to = self.slots[at].machine.state();
        if to != State::Ready {
            self.slots[at].renewing = None;
        }
        if from.name() != to.name() && !self.alone {
            self.note_transition(at, from, to);
        }
    }

    /// What no action tells. A death has told what comes next, and who is ready says so.
    fn note_transition(&mut self, at: usize, from: State, to: State) {
        match (from.name(), to.name()) {
            ("backoff" | "stopping", "starting") => {}
            (_, "starting") => self.starting.push(at),
            (_, "stopping") if self.slots[at].machine.is_asked_to_stop() => self.stopping.push(at),
            (from, "stopped") => {
                self.tell_moves();
                let slot = &self.slots[at];
                let how = match slot.machine.last_end {
                    Some(ended) if from == "stopping" && !slot.is_clean(ended) => {
                        format!(": it {}", describe(ended))
                    }
                    _ => String::new(),
                };
                say(&format!("{} is stopped{how}", slot.name()));
            }
            _ => {}
        }
    }

    fn tell_moves(&mut self) {
        let by = match self.by {
            "" => String::new(),
            by => format!(" ({by})"),
        };
        let slots = &self.slots;
        let names = |all: Vec<usize>, is: &str| -> Option<String> {
            let all = all.into_iter().map(|at| &slots[at]);
            let all = all.filter(|slot| slot.machine.state().name() == is);
            let names: Vec<&str> = all.map(Slot::name).collect();
            (!names.is_empty()).then(|| format!("{is} {}{by}", names.join(", ")))
        };
        let starting = names(std::mem::take(&mut self.starting), "starting");
        let stopping = names(std::mem::take(&mut self.stopping), "stopping");
        stopping.iter().chain(&starting).for_each(|line| say(line));
    }

    /// What it wrote last, but not before the line `since`.
    fn last_lines(&mut self, at: usize, since: u64) -> String {
        self.read_output(at, true);
        let slot = &self.slots[at];
        let mut recent: Vec<(u64, Vec<u8>)> = std::iter::once(&slot.out)
            .chain(&slot.errors)
            .flat_map(|stream| stream.lines.recent(20))
            .filter(|(order, _)| *order > since)
            .collect();
        recent.sort();
        let mut text = match recent.is_empty() {
            true => "\nit wrote nothing".to_owned(),
            false => "\nits last lines:".to_owned(),
        };
        for (_, line) in recent.split_off(recent.len().saturating_sub(20)) {
            let line = shown(slot.name(), &line);
            text.push_str("\n  ");
            text.push_str(&String::from_utf8_lossy(&line));
        }
        text
    }

    fn take(&mut self, at: usize, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let machine = &mut self.slots[at].machine;
            let before = match machine.state() {
                // It has its turn now, and was not started before.
                State::Waiting if event == Event::Start => ProcessState::Stopped,
                _ => machine.process_state(),
            };
            let actions = machine.handle(&event, Instant::now());
            let after = machine.process_state();
            if before != after {
                self.state_changed(at, before, after);
            }
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
            // Its own words for all of these: see `state_changed` and `note_end`.
            Action::Say(_) | Action::Died(_) | Action::Ready | Action::GaveUp(_)
                if self.alone || self.first.is_some() =>
            {
                self.read_output(at, true);
            }
            Action::Say(message) => say(&format!("{}: {message}", self.slots[at].name())),
            Action::Ready => {
                let slot = &mut self.slots[at];
                slot.watch = None;
                slot.lives();
                say(&format!("{} is ready", slot.name()));
            }
            Action::Finished => self.finished(at),
            Action::Died(message) => {
                let lines = self.last_lines(at, self.slots[at].wrote_before);
                warn(&format!("{}: {message}{lines}", self.slots[at].name()));
            }
            Action::GaveUp(reason) => {
                let lines = self.last_lines(at, 0);
                let slot = &self.slots[at];
                let name = slot.name();
                let mut message = format!("{name} is given up: {reason}{lines}");
                let required = slot.planned.required;
                if !required && slot.planned.service.autostart {
                    message.push_str(&format!(
                        "\nthe box goes on without it; `tiffin start {name}` tries it again"
                    ));
                }
                fail(&message);
                if required {
                    self.end(Code::Service);
                }
            }
        }
        None
    }

    fn finished(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.planned.service.kind == Kind::Oneshot && self.first.is_none() {
            say(&format!("{} is done", slot.name()));
        }
        if slot.planned.once
            && let Err(failure) =
                self.memory
                    .mark_done(slot.name(), self.version, &slot.planned.again)
        {
            say(&format!(
                "{}: it is done, but that cannot be remembered: {failure}",
                slot.name()
            ));
        }
    }

    fn spawn(&mut self, at: usize, phase: Phase, index: usize) -> Option<Event> {
        self.seen = None;
        let slot = &mut self.slots[at];
        if index == 0 && matches!(phase, Phase::Start | Phase::Pre) {
            slot.status.clear();
            slot.wrote_before = self.queue.sequence();
            slot.begins();
        }
        if phase == Phase::Start && index == 0 {
            slot.await_anew();
        }
        if phase == Phase::Check && slot.awaits_line() {
            return slot
                .awaited
                .seen
                .then_some(Event::StepEnded(Ended::Exit(0)));
        }
        if phase == Phase::Start
            && let Err(reason) = self.prepare_socket(at)
        {
            self.slots[at].process.spawn_error.clone_from(&reason);
            return Some(Event::SpawnFailed(reason));
        }
        let slot = &mut self.slots[at];
        match slot.spawn(phase, index, self.root, &self.accounts, self.environment) {
            Ok(pid) => {
                let role = if phase == Phase::Start {
                    Role::Main
                } else {
                    Role::Step(phase, index)
                };
                if role == Role::Main {
                    slot.main = Some(pid);
                    slot.process.last_pid = pid.as_raw_nonzero().get();
                    if self.alone {
                        let name = slot.program().map_or("", |p| &p.process);
                        say(&format!(
                            "spawned: '{name}' with pid {}",
                            slot.process.last_pid
                        ));
                    }
                }
                self.processes
                    .insert(pid.as_raw_nonzero().get(), (at, role));
                (role == Role::Main).then_some(Event::Spawned)
            }
            Err(reason) => {
                let slot = &mut self.slots[at];
                slot.process.spawn_error = match slot.executable() {
                    Err(slot::NotExecutable::Missing(why) | slot::NotExecutable::Other(why)) => why,
                    Ok(()) => reason.clone(),
                };
                if self.alone {
                    say(&format!("spawnerr: {}", slot.process.spawn_error));
                }
                Some(Event::SpawnFailed(reason))
            }
        }
    }

    // --- signals

    fn read_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match info.ssi_signo {
                SIGCHLD => {
                    crate::log::debug("received SIGCHLD indicating a child quit");
                    self.reap();
                }
                SIGHUP if self.alone => {
                    say("received SIGHUP indicating restart request");
                    self.restart_all();
                }
                SIGHUP if self.ending.is_none() => self.reload_on_signal(),
                signal @ (SIGINT | SIGQUIT | SIGTERM) => self.asked_to_stop(signal),
                signal => match self
                    .only()
                    .filter(|_| !self.alone)
                    .and_then(|slot| slot.main)
                {
                    Some(main) => sys::kill(main, signal.cast_signed()),
                    None if [SIGHUP, SIGUSR1, SIGUSR2].contains(&signal) => {
                        say(
                            "this signal has no meaning here; `tiffin restart NAME` restarts a service",
                        );
                    }
                    None => {}
                },
            }
        }
    }

    fn asked_to_stop(&mut self, signal: u32) {
        let name = services::signal_name(signal.cast_signed());
        self.hurried += 1;
        if self.alone {
            if self.ending.is_none() {
                say(&format!("received {name} indicating exit request"));
                // Each has its own stopwaitsecs.
                self.end_within(Code::Ok, Duration::from_secs(3600));
            }
            return;
        }
        if self.ending.is_none() {
            if self.draining.is_none() && !self.drain.is_zero() {
                say(&format!(
                    "{name}: not ready from now on, and stopping in {}",
                    seconds(self.drain)
                ));
                self.draining = Some(Instant::now() + self.drain);
                return;
            }
            say(&format!(
                "{name}: stopping, within {} at most",
                seconds(self.stop_timeout)
            ));
            self.hurried = 1;
            self.end(Code::Ok);
            return;
        }
        if self.hurried == 1 {
            say(&format!("{name}: stopping already"));
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
            if left.is_zero() && state.name() == State::Stopping.name() {
                self.handle(at, Event::Hurry);
            } else {
                // Order gives way: whoever still runs, databases above all, gets its own
                // signal and what time is left.
                self.handle(at, Event::Stop(left));
            }
        }
    }
}

fn control_socket(root: &Root, socket: &str) -> Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = root.path(socket);
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
    make().map_err(|error| cannot_create("the socket", socket, &error))
}
