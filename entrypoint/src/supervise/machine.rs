//! One service's life as a state machine: events in, actions out, no system call.
//!
//! Timers are events too: whoever owns the machine calls it with [`Event::Deadline`] when
//! [`Machine::deadline`] has passed.

use std::time::{Duration, Instant};

use services::{Kind, Origin, Restart, RestartWhen, signal_name};

use crate::plan::Planned;
use crate::supervisord::words::ProcessState;
use crate::sys::Ended;

/// Having run this long, a death is not a quick one.
const STABLE: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// For ExecStopPost=, which has no timeout of its own here, and the part of a stop that is left
/// for it.
const CLEANING: Duration = Duration::from_secs(10);
const CLEANING_PART: u32 = 5;
/// For what ends after the main process did.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// For what it needs, or for its turn.
    Waiting,
    /// ExecStartPre= number n runs.
    Preparing(usize),
    /// ExecStart= number n runs, and does not count as started yet.
    Starting(usize),
    /// ExecStartPost= number n runs.
    Posting(usize),
    /// The readiness check runs.
    Checking,
    Ready,
    /// ExecStop= number n runs.
    StopCommand(usize),
    /// It has its stop signal.
    Stopping,
    /// What it left behind is being killed.
    Clearing,
    /// ExecStopPost= number n runs.
    Cleaning(usize),
    /// Until its next start.
    Backoff,
    /// Ended as it should, and is not started again.
    Finished,
    Stopped,
    Failed,
    /// Not part of this run.
    Skipped,
}

/// All that [`State::name`] says.
pub const STATES: &[&str] = &[
    "waiting", "starting", "ready", "stopping", "backoff", "finished", "stopped", "failed",
    "skipped",
];

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Preparing(_) | State::Starting(_) | State::Posting(_) | State::Checking => {
                "starting"
            }
            State::Ready => "ready",
            State::StopCommand(_) | State::Stopping | State::Clearing | State::Cleaning(_) => {
                "stopping"
            }
            State::Backoff => "backoff",
            State::Finished => "finished",
            State::Stopped => "stopped",
            State::Failed => "failed",
            State::Skipped => "skipped",
        }
    }

    /// Nothing of it runs, and nothing will without being asked to.
    pub fn is_over(self) -> bool {
        matches!(
            self,
            State::Finished | State::Stopped | State::Failed | State::Skipped
        )
    }

    /// What waits for it may start.
    pub fn is_up(self) -> bool {
        matches!(self, State::Ready | State::Finished | State::Skipped)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Start,
    /// The command of the last [`Action::Run`] was started.
    Spawned,
    SpawnFailed(String),
    /// A helper command or the readiness check ended.
    StepEnded(Ended),
    MainEnded(Ended),
    /// A forking service's daemon is known.
    MainFound,
    /// A forking service left no daemon.
    MainMissing(String),
    /// `READY=1`.
    Notified,
    Deadline,
    /// Stop, within this time.
    Stop(Duration),
    /// Stop and start again.
    Restart(Duration),
    /// A stop must end now, whatever is not done yet.
    Hurry,
    /// Nothing of the service is left.
    Cleared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Pre,
    Start,
    Post,
    Check,
    Stop,
    StopPost,
    /// ExecReload=: the machine knows nothing of it.
    Reload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Run(Phase, usize),
    FindMain,
    /// Send the stop signal.
    Signal,
    /// Kill what is left; `gentle` begins with the stop signal.
    Clear {
        gentle: bool,
    },
    Say(String),
    /// A quick death, and what happens next.
    Died(String),
    Ready,
    Finished,
    /// Given up: the reason.
    GaveUp(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Stopped,
    Finished,
    Again,
    Retry(Duration),
    GiveUp(String),
}

/// The part of a service that decides about its states.
#[derive(Debug, Clone)]
pub struct Rules {
    pub kind: Kind,
    pub origin: Origin,
    pub pre: usize,
    pub start: usize,
    pub post: usize,
    pub stop: usize,
    pub stop_post: usize,
    /// The readiness check's limit, and what is the matter while it does not hold.
    pub check: Option<(Duration, String)>,
    pub start_timeout: Option<Duration>,
    pub stop_timeout: Option<Duration>,
    pub restart: Restart,
}

impl Rules {
    pub fn of(planned: &Planned) -> Self {
        let service = &planned.service;
        Rules {
            kind: service.kind.clone(),
            origin: service.origin,
            pre: service.commands.start_pre.len(),
            start: service.commands.start.len(),
            post: service.commands.start_post.len(),
            stop: service.commands.stop.len(),
            stop_post: service.commands.stop_post.len(),
            check: planned
                .ready
                .as_ref()
                .map(|check| (check.timeout, check.probe.missing())),
            start_timeout: service.start_timeout,
            stop_timeout: service.stopping.timeout,
            restart: service.restart.clone(),
        }
    }
}

#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    state: State,
    since: Instant,
    deadline: Option<Instant>,
    started: Instant,
    main: bool,
    was_ready: bool,
    outcome: Outcome,
    quick_deaths: u32,
    pub restarts: u32,
    pub last_end: Option<Ended>,
    /// It failed because its attempts are used up.
    exhausted: bool,
    /// When a stop that is under way must have ended.
    latest: Option<Instant>,
    /// ExecStopPost= has run, and what it left is being cleared.
    cleaned: bool,
    /// How long the last stop took.
    stopped_in: Duration,
}

type Actions = Vec<Action>;

impl Machine {
    pub fn new(rules: Rules, state: State, now: Instant) -> Self {
        Machine {
            rules,
            state,
            since: now,
            deadline: None,
            started: now,
            main: false,
            was_ready: false,
            outcome: Outcome::Stopped,
            quick_deaths: 0,
            restarts: 0,
            last_end: None,
            exhausted: false,
            latest: None,
            cleaned: false,
            stopped_in: Duration::ZERO,
        }
    }

    /// What supervisord would call the state.
    pub fn process_state(&self) -> ProcessState {
        use ProcessState as P;
        match self.state {
            State::Waiting
            | State::Preparing(_)
            | State::Starting(_)
            | State::Posting(_)
            | State::Checking => P::Starting,
            State::Ready => P::Running,
            State::StopCommand(_) | State::Stopping => P::Stopping,
            State::Clearing | State::Cleaning(_) => match self.outcome {
                Outcome::Stopped | Outcome::Again => P::Stopping,
                Outcome::Finished => P::Exited,
                Outcome::Retry(_) if self.was_ready => P::Exited,
                Outcome::Retry(_) => P::Backoff,
                Outcome::GiveUp(_) if self.exhausted => P::Backoff,
                Outcome::GiveUp(_) => P::Exited,
            },
            State::Backoff => P::Backoff,
            State::Finished => P::Exited,
            State::Stopped | State::Skipped => P::Stopped,
            State::Failed if self.exhausted => P::Fatal,
            State::Failed => P::Exited,
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    /// When it was started last.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// While it stops: that is what somebody wanted.
    pub fn is_asked_to_stop(&self) -> bool {
        matches!(self.outcome, Outcome::Stopped | Outcome::Again)
    }

    /// How long its last stop took.
    pub fn stopped_in(&self) -> Duration {
        self.stopped_in
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Its file says something else now.
    pub fn redefine(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Another state of rest; only when the service [is over](State::is_over).
    pub fn set_aside(&mut self, state: State, now: Instant) {
        self.deadline = None;
        self.quick_deaths = 0;
        self.enter(state, now);
    }

    fn enter(&mut self, state: State, now: Instant) {
        if self.state.name() != state.name() {
            if self.state.name() == State::Stopping.name() {
                self.stopped_in = now.duration_since(self.since);
            }
            self.since = now;
        }
        self.state = state;
    }

    pub fn handle(&mut self, event: &Event, now: Instant) -> Actions {
        use State as S;
        match (self.state, event) {
            (S::Waiting | S::Stopped | S::Finished | S::Failed, Event::Start) => {
                // Who asks for it after it was given up gives it all its attempts again.
                self.quick_deaths = 0;
                self.begin(now)
            }
            (S::Backoff, Event::Start | Event::Deadline) => self.begin(now),

            (S::Preparing(at), Event::StepEnded(ended)) => {
                if *ended == Ended::Exit(0) {
                    self.prepare(at + 1, now)
                } else {
                    self.died(*ended, "its ExecStartPre=", now)
                }
            }
            (S::Starting(_), Event::Spawned) => self.spawned(now),
            (S::Starting(_), Event::Notified) if self.rules.kind == Kind::Notify => {
                self.post(0, now)
            }
            (S::Starting(_), Event::MainFound) => {
                self.main = true;
                self.post(0, now)
            }
            (S::Starting(at), Event::MainEnded(ended)) => self.ended_in_start(at, *ended, now),
            (S::Starting(_), Event::MainMissing(reason)) => self.failed(reason, now),
            (S::Starting(_), Event::Deadline) => match self.rules.kind {
                Kind::Simple { .. } => {
                    // That was when it had settled: its ExecStartPost= has the usual time.
                    self.deadline = self.rules.start_timeout.map(|timeout| now + timeout);
                    self.post(0, now)
                }
                Kind::Oneshot => self.failed("it did not end in time", now),
                _ => self.failed("it did not become ready in time", now),
            },
            (S::Posting(at), Event::StepEnded(ended)) => {
                if *ended == Ended::Exit(0) {
                    self.post(at + 1, now)
                } else {
                    self.died(*ended, "its ExecStartPost=", now)
                }
            }
            (S::Checking, Event::StepEnded(Ended::Exit(0))) => self.ready(now),
            (S::Checking, Event::StepEnded(_) | Event::Deadline) => {
                let missing = self.rules.check.as_ref().map(|(_, missing)| missing);
                let reason = format!(
                    "it did not become ready in time: {}",
                    missing.map_or("", String::as_str)
                );
                self.failed(&reason, now)
            }
            (S::Preparing(_) | S::Posting(_), Event::Deadline) => {
                self.failed("it did not become ready in time", now)
            }
            (
                S::Preparing(_) | S::Starting(_) | S::Posting(_) | S::Checking,
                Event::SpawnFailed(reason),
            ) => self.failed(reason, now),
            (S::Posting(_) | S::Checking | S::Ready, Event::MainEnded(ended)) => {
                self.died(*ended, "it", now)
            }

            (_, Event::Stop(limit)) => self.stop(Outcome::Stopped, *limit, now),
            (_, Event::Restart(limit)) => self.stop(Outcome::Again, *limit, now),
            (S::StopCommand(at), Event::StepEnded(_) | Event::SpawnFailed(_)) => {
                self.stop_command(at + 1, now)
            }
            (S::StopCommand(_), Event::MainEnded(ended)) => {
                // The command is waited for: it may have more to do.
                self.main = false;
                self.last_end = Some(*ended);
                Vec::new()
            }
            (S::Stopping, Event::MainEnded(ended)) => {
                self.last_end = Some(*ended);
                self.clear(true, now)
            }
            // What SIGKILL ended did not stop by itself, and whoever asks for its end is told.
            (S::Clearing, Event::MainEnded(ended)) if self.is_asked_to_stop() => {
                self.last_end = Some(*ended);
                Vec::new()
            }
            (S::StopCommand(_) | S::Stopping, Event::Deadline) => {
                let waited = now.duration_since(self.since);
                let mut actions = vec![Action::Say(format!(
                    "did not stop within {}, killed",
                    seconds(waited)
                ))];
                actions.extend(self.clear(false, now));
                actions
            }
            (S::StopCommand(_) | S::Stopping | S::Clearing | S::Cleaning(_), Event::Hurry) => {
                self.deadline = Some(now);
                self.latest = Some(now);
                Vec::new()
            }
            // Only what is deaf to the gentle way: everything else is cleared by its owner.
            (S::Clearing, Event::Deadline) => {
                self.deadline = None;
                vec![Action::Clear { gentle: false }]
            }
            (S::Clearing, Event::Cleared) => {
                self.main = false;
                match self.cleaned {
                    true => self.conclude(now),
                    false => self.cleaning(0, now),
                }
            }
            (S::Cleaning(at), Event::StepEnded(_) | Event::SpawnFailed(_)) => {
                self.cleaning(at + 1, now)
            }
            (S::Cleaning(_), Event::Deadline) => {
                let mut actions = vec![Action::Say(
                    "its ExecStopPost= did not end in time, killed".to_owned(),
                )];
                actions.extend(self.cleaning(usize::MAX, now));
                actions
            }
            // A process that was told to go is gone; a message came too late.
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, now: Instant) -> Actions {
        self.started = now;
        self.was_ready = false;
        self.exhausted = false;
        self.main = false;
        self.latest = None;
        self.deadline = self.rules.start_timeout.map(|timeout| now + timeout);
        self.prepare(0, now)
    }

    fn prepare(&mut self, at: usize, now: Instant) -> Actions {
        if at < self.rules.pre {
            self.enter(State::Preparing(at), now);
            return vec![Action::Run(Phase::Pre, at)];
        }
        if self.rules.start == 0 {
            return self.post(0, now);
        }
        self.enter(State::Starting(0), now);
        vec![Action::Run(Phase::Start, 0)]
    }

    fn spawned(&mut self, now: Instant) -> Actions {
        self.main = true;
        match self.rules.kind {
            // With a check of its own nobody waits for startsecs.
            Kind::Simple { settle } if !settle.is_zero() && self.rules.check.is_none() => {
                self.deadline = Some(now + settle);
                Vec::new()
            }
            Kind::Simple { .. } => self.post(0, now),
            _ => Vec::new(),
        }
    }

    fn ended_in_start(&mut self, at: usize, ended: Ended, now: Instant) -> Actions {
        self.main = false;
        match self.rules.kind {
            Kind::Oneshot if self.is_success(ended) => {
                if at + 1 < self.rules.start {
                    self.enter(State::Starting(at + 1), now);
                    vec![Action::Run(Phase::Start, at + 1)]
                } else {
                    self.post(0, now)
                }
            }
            Kind::Forking { .. } if ended == Ended::Exit(0) => vec![Action::FindMain],
            _ => self.died(ended, "it", now),
        }
    }

    fn post(&mut self, at: usize, now: Instant) -> Actions {
        if at < self.rules.post {
            self.enter(State::Posting(at), now);
            return vec![Action::Run(Phase::Post, at)];
        }
        if self.rules.kind == Kind::Oneshot {
            self.deadline = None;
            self.outcome = Outcome::Finished;
            self.was_ready = true;
            return self.clear(true, now);
        }
        match &self.rules.check {
            Some((timeout, _)) => {
                self.deadline = Some(now + *timeout);
                self.enter(State::Checking, now);
                vec![Action::Run(Phase::Check, 0)]
            }
            None => self.ready(now),
        }
    }

    fn ready(&mut self, now: Instant) -> Actions {
        self.deadline = None;
        self.was_ready = true;
        self.enter(State::Ready, now);
        vec![Action::Ready]
    }

    pub fn is_success(&self, ended: Ended) -> bool {
        match ended {
            // supervisord's exitcodes may leave 0 out; systemd's 0 is always one.
            Ended::Exit(code) => {
                (code == 0 && self.rules.origin == Origin::Unit)
                    || self.rules.restart.success_codes.contains(&code)
            }
            Ended::Signal(signal) => {
                self.rules.restart.success_signals.contains(&signal)
                    && self.rules.kind != Kind::Oneshot
            }
        }
    }

    fn died(&mut self, ended: Ended, who: &str, now: Instant) -> Actions {
        self.last_end = Some(ended);
        let success = who == "it" && self.is_success(ended);
        // supervisord tries again before startsecs have passed, whatever autorestart says.
        let too_early = self.rules.origin == Origin::Program
            && !self.was_ready
            && matches!(self.state, State::Starting(_));
        let is_among = |codes: &[i32]| matches!(ended, Ended::Exit(code) if codes.contains(&code));
        let wanted = too_early
            || is_among(&self.rules.restart.force_codes)
            || match self.rules.restart.when {
                RestartWhen::Never => false,
                RestartWhen::Always => true,
                RestartWhen::OnSuccess => success,
                RestartWhen::OnFailure => !success,
                RestartWhen::OnAbnormal => !success && matches!(ended, Ended::Signal(_)),
            };
        let prevented = is_among(&self.rules.restart.prevent_codes);
        self.main = false;
        self.conclude_death(
            &format!("{who} {}", describe(ended)),
            wanted && !prevented,
            success,
            now,
        )
    }

    /// A start that came to nothing without a process that ended.
    fn failed(&mut self, reason: &str, now: Instant) -> Actions {
        self.last_end = None;
        let wanted = self.rules.origin == Origin::Program
            || !matches!(
                self.rules.restart.when,
                RestartWhen::Never | RestartWhen::OnSuccess
            );
        self.conclude_death(reason, wanted, false, now)
    }

    fn conclude_death(
        &mut self,
        reason: &str,
        restart: bool,
        success: bool,
        now: Instant,
    ) -> Actions {
        let up = now.duration_since(self.started);
        let mut actions = Vec::new();
        if !restart {
            self.outcome = if success {
                actions.push(Action::Say(format!("{reason}; it is not started again")));
                Outcome::Finished
            } else {
                Outcome::GiveUp(format!(
                    "{reason} after {}, and it is not to be restarted",
                    seconds(up)
                ))
            };
        } else {
            if self.was_ready && up >= STABLE {
                self.quick_deaths = 0;
            } else {
                self.quick_deaths += 1;
            }
            let times = self.quick_deaths;
            match self.rules.restart.limit {
                Some(limit) if times >= limit => {
                    self.exhausted = true;
                    self.outcome = Outcome::GiveUp(format!(
                        "{reason} after {}, for the {times}. time in a row",
                        seconds(up)
                    ));
                }
                limit => {
                    let delay = self.delay();
                    self.restarts += 1;
                    let of = limit
                        .map(|l| format!(", attempt {} of {l}", times + 1))
                        .filter(|_| times > 0)
                        .unwrap_or_default();
                    let when = if delay.is_zero() {
                        "now".to_owned()
                    } else {
                        format!("in {}", seconds(delay))
                    };
                    let text = format!("{reason} after {}; restarting {when}{of}", seconds(up));
                    actions.push(match times {
                        0 => Action::Say(text),
                        _ => Action::Died(text),
                    });
                    self.outcome = Outcome::Retry(delay);
                }
            }
        }
        actions.extend(self.clear(false, now));
        actions
    }

    /// None after a stable run, then 0.1 s, doubling up to 10 s, give or take a fifth.
    fn delay(&self) -> Duration {
        let backoff = match self.quick_deaths {
            0 => Duration::ZERO,
            n => FIRST_DELAY
                .saturating_mul(1 << (n - 1).min(10))
                .min(LONGEST_DELAY),
        };
        let jitter = 0.8 + 0.4 * f64::from(self.started.elapsed().subsec_nanos() % 1000) / 1000.0;
        backoff
            .mul_f64(jitter)
            .max(self.rules.restart.delay.unwrap_or_default())
    }

    fn stop(&mut self, outcome: Outcome, limit: Duration, now: Instant) -> Actions {
        use State as S;
        match self.state {
            S::Waiting | S::Backoff | S::Stopped | S::Finished | S::Failed => {
                if outcome == Outcome::Again {
                    return self.begin(now);
                }
                self.deadline = None;
                if !matches!(self.state, S::Finished | S::Failed) {
                    self.enter(S::Stopped, now);
                }
                Vec::new()
            }
            S::Skipped => Vec::new(),
            S::StopCommand(_) | S::Stopping => {
                self.outcome = outcome;
                let latest = now + limit;
                self.within(latest);
                self.deadline = Some(self.deadline.map_or(latest, |d| d.min(latest)));
                Vec::new()
            }
            S::Clearing | S::Cleaning(_) => {
                // What was given up or has finished stays so.
                if matches!(
                    self.outcome,
                    Outcome::Retry(_) | Outcome::Again | Outcome::Stopped
                ) {
                    self.outcome = outcome;
                }
                self.within(now + limit);
                // Without a deadline it is killed already.
                self.deadline = self.deadline.min(self.latest);
                Vec::new()
            }
            S::Preparing(_) | S::Starting(_) | S::Posting(_) | S::Checking | S::Ready => {
                self.outcome = outcome;
                self.quick_deaths = 0;
                self.latest = Some(now + limit);
                let reserve = match self.rules.stop_post {
                    0 => Duration::ZERO,
                    _ => CLEANING.min(limit / CLEANING_PART),
                };
                let limit = limit - reserve;
                let timeout = self.rules.stop_timeout.map_or(limit, |own| own.min(limit));
                let started = matches!(self.state, S::Posting(_) | S::Checking | S::Ready);
                self.enter(S::Stopping, now);
                self.deadline = Some(now + timeout);
                if started && self.main {
                    self.stop_command(0, now)
                } else {
                    self.signal(now)
                }
            }
        }
    }

    fn within(&mut self, latest: Instant) {
        self.latest = Some(self.latest.map_or(latest, |before| before.min(latest)));
    }

    fn stop_command(&mut self, at: usize, now: Instant) -> Actions {
        if at < self.rules.stop {
            self.enter(State::StopCommand(at), now);
            return vec![Action::Run(Phase::Stop, at)];
        }
        self.signal(now)
    }

    fn signal(&mut self, now: Instant) -> Actions {
        if !self.main {
            return self.clear(true, now);
        }
        self.enter(State::Stopping, now);
        vec![Action::Signal]
    }

    fn clear(&mut self, gentle: bool, now: Instant) -> Actions {
        self.cleaned = false;
        self.enter(State::Clearing, now);
        let soon = now + LEFT_BEHIND;
        self.deadline = gentle.then(|| self.deadline.map_or(soon, |d| d.min(soon)));
        vec![Action::Clear { gentle }]
    }

    fn cleaning(&mut self, at: usize, now: Instant) -> Actions {
        // A one-shot that is done has not stopped.
        let has_stopped = !(self.rules.kind == Kind::Oneshot && self.outcome == Outcome::Finished);
        if self.rules.stop_post == 0 || !has_stopped {
            return self.conclude(now);
        }
        let in_time = self.latest.is_none_or(|latest| latest > now);
        if at < self.rules.stop_post && in_time {
            self.enter(State::Cleaning(at), now);
            let until = now + CLEANING;
            self.deadline = Some(self.latest.map_or(until, |latest| latest.min(until)));
            return vec![Action::Run(Phase::StopPost, at)];
        }
        let actions = self.clear(false, now);
        self.cleaned = true;
        actions
    }

    /// Nothing of it runs.
    fn conclude(&mut self, now: Instant) -> Actions {
        self.deadline = None;
        self.latest = None;
        match std::mem::replace(&mut self.outcome, Outcome::Stopped) {
            Outcome::Stopped => {
                self.enter(State::Stopped, now);
                Vec::new()
            }
            Outcome::Finished => {
                self.enter(State::Finished, now);
                vec![Action::Finished]
            }
            Outcome::Again => self.begin(now),
            Outcome::Retry(delay) if delay.is_zero() => self.begin(now),
            Outcome::Retry(delay) => {
                self.enter(State::Backoff, now);
                self.deadline = Some(now + delay);
                Vec::new()
            }
            Outcome::GiveUp(reason) => {
                self.enter(State::Failed, now);
                vec![Action::GaveUp(reason)]
            }
        }
    }
}

pub fn describe(ended: Ended) -> String {
    match ended {
        Ended::Exit(code) => format!("exited with code {code}"),
        Ended::Signal(signal) => format!("was killed by {}", signal_name(signal)),
    }
}

pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{seconds:.0} s")
    }
}
