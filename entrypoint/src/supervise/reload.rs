//! Reload: settings are read again, and only services that a change concerns are touched.
//!
//! All that can be wrong is found before anything is written. Services that restart
//! together stop in reverse order and start in order, as a whole box does.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use contract::{Contract, HandlerAction, Variables};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::Pid;
use services::{Kind, Service};

use super::clients::Goal;
use super::machine::{Event, Phase, Rules, State};
use super::slot::{Renewing, Slot};
use super::{KIND, NOTIFY, Role, Supervisor};
use crate::certificates::{self, InUse};
use crate::control::Reply;
use crate::effects::{self, Effect};
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::{say, warn};
use crate::plan::{self, Plan, Planned};
use crate::secrets::Secrets;
use crate::sys::{self, Ended};
use crate::{ca_bundle, render as files, start};

/// For a reload command whose unit sets no limit.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(90);
/// What a Type=notify service that was told to reload has to say `RELOADING=1`: most never do.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the box was started with, or last reloaded.
pub struct Loaded<'a> {
    pub contract: &'a Contract,
    pub variables: Variables,
    /// Also of settings that were replaced: a file may still hold them.
    pub secrets: Secrets,
    pub certificates: Vec<InUse>,
}

/// What a service waits for, to be gone and then something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    pub then: Then,
    /// It was told to stop.
    pub stopping: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Start,
    /// It is no part of the box any more, by its `when` or as a whole.
    LeaveOut,
}

/// Found out without touching anything.
struct Prepared {
    variables: Variables,
    certificates: Vec<InUse>,
    secrets: Secrets,
    diff: String,
    changed: Vec<String>,
    steps: Vec<Step>,
    planned: Vec<Planned>,
    warnings: Vec<String>,
}

/// A reload whose files are being written.
pub struct Underway<'a> {
    lines: Vec<String>,
    prepared: Prepared,
    writing: files::Writing<'a>,
    asker: Asker,
}

/// What is told, and what is to be written before it is true.
type Begun<'a> = (Vec<String>, Option<(Prepared, files::Writing<'a>)>);

impl Underway<'_> {
    pub fn deadline(&self) -> Option<Instant> {
        self.writing.deadline()
    }
}

/// Who is told what came of it.
enum Asker {
    Signal,
    Client(UnixStream),
    /// Certificates have other files, or end soon.
    Clock,
}

/// What is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everything,
    /// Everything, and nothing is changed by it, nor made.
    DryRun,
    /// Certificates and keys of the box's servers.
    Certificates,
}

struct Step {
    service: String,
    what: What,
    because: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Reload,
    Restart,
    Start,
    Stop,
}

impl<'a> Supervisor<'a> {
    /// Without it a box cannot reload.
    pub fn reloadable(mut self, loaded: Loaded<'a>) -> Self {
        self.loaded = Some(loaded);
        self
    }

    /// The configuration as the files have it now.
    pub(super) fn replan(&self) -> Result<Plan> {
        if let Some(again) = self.again {
            return again();
        }
        let loaded = self.loaded()?;
        let engine = Engine::new(loaded.contract, &loaded.variables);
        let environment = &self.environment.variables;
        plan::plan(loaded.contract, &engine, self.root, environment)
    }

    fn loaded(&self) -> Result<&Loaded<'a>> {
        let none = || Failure::new(Code::Failed, "this box cannot read its configuration again");
        self.loaded.as_ref().ok_or_else(none)
    }

    /// For SIGHUP: what a client would be told goes to the log.
    pub(super) fn reload_on_signal(&mut self) {
        say("SIGHUP: reading the settings again");
        self.reload(Scope::Everything, Asker::Signal);
    }

    pub(super) fn serve_reload(&mut self, stream: UnixStream, dry_run: bool) {
        let scope = match dry_run {
            true => Scope::DryRun,
            false => Scope::Everything,
        };
        self.reload(scope, Asker::Client(stream));
    }

    /// As `tiffin reload`, of certificates and keys alone: what else somebody is editing
    /// waits for his word.
    pub(super) fn renew_certificates(&mut self) {
        self.reload(Scope::Certificates, Asker::Clock);
    }

    pub(super) fn serve_diff(&mut self, stream: UnixStream, paths: &[String]) {
        let reply = match self.prepare(paths, Scope::DryRun) {
            Ok(prepared) => Reply::Lines(prepared.diff.lines().map(str::to_owned).collect()),
            Err(failure) => Reply::Refused(failure.to_string()),
        };
        self.answer(stream, &reply);
    }

    fn reload(&mut self, scope: Scope, asker: Asker) {
        match self.begin_reload(scope) {
            Ok((lines, None)) => self.reloaded(asker, Ok((lines, Vec::new()))),
            Ok((lines, Some((prepared, writing)))) => {
                self.underway = Some(Underway {
                    lines,
                    prepared,
                    writing,
                    asker,
                });
                self.go_on_reloading();
            }
            Err(failure) => self.reloaded(asker, Err(failure)),
        }
    }

    /// Tells whoever asked what was done, and of which services that is to be awaited.
    fn reloaded(&mut self, asker: Asker, done: Result<(Vec<String>, Vec<usize>)>) {
        match (asker, done) {
            (Asker::Signal, Ok((lines, _))) => say(&lines.join("\n")),
            (Asker::Signal, Err(failure)) => say(&format!("nothing is reloaded: {failure}")),
            (Asker::Client(stream), Ok((lines, services))) => {
                self.wait_for(stream, services, Goal::Settled, Reply::Lines(lines));
            }
            (Asker::Client(stream), Err(failure)) => {
                self.answer(stream, &Reply::Refused(failure.to_string()));
            }
            (Asker::Clock, Ok((lines, _))) if lines.is_empty() => {}
            (Asker::Clock, Ok((lines, _))) => {
                say(&format!("certificates are renewed\n{}", lines.join("\n")));
            }
            (Asker::Clock, Err(failure)) => warn(&format!(
                "certificates are not renewed, the former stay in use: {failure}"
            )),
        }
    }

    pub(super) fn is_reloading(&self) -> bool {
        self.underway.is_some() || self.slots.iter().any(|slot| slot.pending.is_some())
    }

    fn begin_reload(&mut self, scope: Scope) -> Result<Begun<'a>> {
        if self.is_reloading() {
            return Err(Failure::new(Code::Failed, "another reload is under way"));
        }
        let prepared = self.prepare(&[], scope)?;
        let is_nothing = prepared.changed.is_empty() && prepared.steps.is_empty();
        if is_nothing && scope == Scope::Certificates {
            return Ok((Vec::new(), None));
        }
        let mut lines: Vec<String> = match scope {
            // People asked for nothing: which files changed says enough.
            Scope::Certificates => Vec::new(),
            _ => prepared.diff.lines().map(str::to_owned).collect(),
        };
        lines.extend(prepared.warnings.iter().map(|w| format!("note: {w}")));
        lines.extend(prepared.steps.iter().map(Step::told));
        if is_nothing {
            lines.push("nothing changes".to_owned());
        }
        if scope == Scope::DryRun {
            return Ok((lines, None));
        }
        // Users that do not exist are found before a file is written.
        for planned in &prepared.planned {
            let service = &planned.service;
            self.accounts
                .credentials(&service.name, &service.identity)?;
        }
        let contract = self.loaded()?.contract;
        let engine = Engine::new(contract, &prepared.variables);
        let writing = files::Writing::begin(contract, &engine)?;
        Ok((lines, Some((prepared, writing))))
    }

    /// Writes files until one must be checked first: that check is a process like others, and
    /// services, signals and clients are served while it runs.
    fn go_on_reloading(&mut self) {
        let Some(mut underway) = self.underway.take() else {
            return;
        };
        let done = match underway.writing.go_on(self.root) {
            Ok(false) => {
                self.underway = Some(underway);
                return;
            }
            Ok(true) => self.finish_reload(underway.prepared),
            Err(failure) => Err(failure),
        };
        let done = done.map(|services| (underway.lines, services));
        self.reloaded(underway.asker, done);
    }

    /// A process ended that is no service's: the check that a reload waits for, perhaps.
    pub(super) fn check_ended(&mut self, pid: Pid, ended: Ended) {
        let is_it = |underway: &mut Underway<'_>| {
            let check = underway.writing.check();
            check.is_some_and(|check| check.pid() == Some(pid))
        };
        let Some(mut underway) = self.underway.take_if(is_it) else {
            return;
        };
        let secrets = &underway.prepared.secrets;
        let success = ended == Ended::Exit(0);
        match underway.writing.answered(self.root, success, secrets) {
            Ok(()) => {
                self.underway = Some(underway);
                self.go_on_reloading();
            }
            Err(failure) => self.reloaded(underway.asker, Err(failure)),
        }
    }

    /// The box stops: files that were written are put back.
    pub(super) fn abandon_reload(&mut self) {
        if let Some(underway) = self.underway.take() {
            underway.writing.abandon(self.root);
            let failure = Failure::new(Code::Failed, "the box is stopping");
            self.reloaded(underway.asker, Err(failure));
        }
    }

    /// All is written: what that means for services.
    fn finish_reload(&mut self, prepared: Prepared) -> Result<Vec<usize>> {
        let contract = self.loaded()?.contract;
        let engine = Engine::new(contract, &prepared.variables);
        ca_bundle::write(contract, &engine, self.root)?;
        say(&format!("reload: {} files changed", prepared.changed.len()));
        for step in &prepared.steps {
            say(&format!("reload: {}", step.told()));
        }
        let before = self.loaded()?.certificates.clone();
        let services = self.apply(prepared)?;
        self.follow_certificates();
        let mut new = self.loaded()?.certificates.clone();
        new.retain(|one| !before.contains(one));
        certificates::announce(&new);
        self.advance();
        Ok(services)
    }

    fn prepare(&self, paths: &[String], scope: Scope) -> Result<Prepared> {
        let loaded = self.loaded()?;
        let contract = loaded.contract;
        let mut resolved = start::resolve(contract, self.memory, self.environment)?;
        if scope != Scope::DryRun {
            start::generate(contract, self.memory, &mut resolved)?;
        }
        let mut variables = start::values(contract, self.root, &resolved);
        if scope == Scope::Certificates {
            let read = std::mem::replace(&mut variables, loaded.variables.clone());
            for name in certificates::variables(contract) {
                match read.get(name) {
                    Some(value) => drop(variables.insert(name.to_owned(), value.clone())),
                    None => drop(variables.shift_remove(name)),
                }
            }
        }
        let mut secrets = files::secrets(contract, &variables, &self.memory.kept()?.values);
        secrets.merge(loaded.secrets.clone());
        let rendered = start::chosen(contract, &variables, paths)?;
        let (diff, changed) = files::difference(self.root, &rendered, &secrets, None);

        let texts = rendered
            .iter()
            .map(|(t, text)| (t.dest.as_str(), text.as_str()));
        let later = self.root.with(texts);
        let engine = Engine::new(contract, &variables);
        let plan = plan::plan(contract, &engine, &later, &self.environment.variables)?;
        if plan.services.is_empty() {
            return Err(Failure::new(Code::Config, "no service would be left"));
        }
        let services: Vec<&Service> = plan.services.iter().map(|p| &p.service).collect();
        let mut effects: Vec<Effect> = Vec::new();
        for template in contract
            .templates
            .iter()
            .filter(|t| changed.contains(&t.dest))
        {
            let own = effects::of(contract, &services, &later, template);
            effects.extend(own.into_iter().filter(|effect| !effect.defines));
        }
        let steps = self.steps(&plan.services, &effects)?;
        Ok(Prepared {
            variables,
            certificates: resolved.certificates,
            secrets,
            diff,
            changed,
            steps,
            warnings: plan.warnings,
            planned: plan.services,
        })
    }

    fn slot_of(&self, name: &str) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| !slot.is_gone() && slot.name() == name)
    }

    fn steps(&self, planned: &[Planned], effects: &[Effect]) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        let mut add = |service: &str, what, because: &str| {
            steps.push(Step {
                service: service.to_owned(),
                what,
                because: because.to_owned(),
            });
        };
        for new in planned {
            let name = &new.service.name;
            let Some(slot) = self.slot_of(name).map(|at| &self.slots[at]) else {
                if new.skip.is_none() && new.service.autostart {
                    add(name, What::Start, "it is new");
                }
                continue;
            };
            let old = &slot.planned;
            let state = slot.machine.state();
            let effect = effects
                .iter()
                .filter(|effect| effect.service == *name)
                .max_by_key(|effect| effect.action);
            let is_done = new.once && self.memory.is_done(name, self.version, &new.again)?;
            match (&old.skip, &new.skip) {
                (_, Some(_)) if state == State::Skipped => {}
                (_, Some(reason)) => add(name, What::Stop, reason),
                // A job that is done runs again when the playbook's handler would run it.
                (_, None) if is_done => {
                    if let Some(effect) = effect.filter(|e| e.action == HandlerAction::Restart) {
                        add(name, What::Restart, &effect.because);
                    }
                }
                (_, None) if new.once && matches!(state, State::Skipped | State::Finished) => {
                    add(
                        name,
                        What::Restart,
                        "a setting changed for which it runs again",
                    );
                }
                // Its next time is soon enough; a run that is under way goes on as it began.
                _ if new.timer.is_some() => {}
                (Some(_), None) if state == State::Skipped => {
                    if new.service.autostart {
                        add(name, What::Start, "it was left out so far");
                    }
                }
                // What somebody stopped stays so, and starts with the new files some day.
                _ if state == State::Stopped => {}
                _ if old.service != new.service || old.ready != new.ready => {
                    add(name, What::Restart, "its unit or program changed");
                }
                _ => match effect {
                    Some(effect) if effect.action == HandlerAction::Restart => {
                        add(name, What::Restart, &effect.because);
                    }
                    Some(effect) if state == State::Ready => {
                        add(name, What::Reload, &effect.because)
                    }
                    // It is starting, and may have read the old file already.
                    Some(effect) if !state.is_over() => add(name, What::Restart, &effect.because),
                    _ => {}
                },
            }
        }
        for slot in self.slots.iter().filter(|slot| !slot.is_gone()) {
            let name = slot.name();
            if !planned.iter().any(|new| new.service.name == name) {
                add(name, What::Stop, "it is no part of the box any more");
            }
        }
        Ok(steps)
    }

    /// The files are written: from here on nothing is refused, but for a socket or pipe
    /// that cannot be made.
    fn apply(&mut self, prepared: Prepared) -> Result<Vec<usize>> {
        let names: Vec<String> = prepared
            .planned
            .iter()
            .map(|p| p.service.name.clone())
            .collect();
        let groups = self.groups();
        let mut places = BTreeMap::new();
        let mut needs = BTreeMap::new();
        for new in prepared.planned {
            let name = new.service.name.clone();
            needs.insert(name.clone(), new.needs.clone());
            let at = match self.slot_of(&name) {
                Some(at) => {
                    self.redefine(at, new)?;
                    at
                }
                None => self.add(new)?,
            };
            places.insert(name, at);
        }
        for (name, needs) in needs {
            let at = places[&name];
            self.slots[at].planned.needs = needs
                .iter()
                .filter_map(|need| places.get(names.get(*need)?).copied())
                .collect();
        }
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if !slot.is_gone() && !places.values().any(|place| *place == at) {
                slot.gone = true;
                slot.process.removed = slot.machine.state().is_over();
                slot.planned.needs.clear();
            }
        }
        self.groups_changed(&groups);
        if let Some(loaded) = &mut self.loaded {
            loaded.variables = prepared.variables;
            loaded.secrets = prepared.secrets;
            loaded.certificates = prepared.certificates;
        }
        // supervisord's clients are offered what runs.
        self.rpc.available = None;
        let mut concerned = Vec::new();
        for step in prepared.steps {
            let at = places.get(&step.service).copied().or_else(|| {
                let mut slots = self.slots.iter();
                slots.position(|slot| {
                    slot.gone && slot.name() == step.service && !slot.machine.state().is_over()
                })
            });
            let Some(at) = at else { continue };
            let mut then = |then| {
                self.slots[at].pending = Some(Pending {
                    then,
                    stopping: false,
                });
            };
            match step.what {
                What::Restart | What::Start => then(Then::Start),
                What::Stop => then(Then::LeaveOut),
                What::Reload => {
                    if self.reload_service(at).is_err() {
                        // It cannot be told: as good as what the handler asks for.
                        self.slots[at].pending = Some(Pending {
                            then: Then::Start,
                            stopping: false,
                        });
                    }
                }
            }
            concerned.push(at);
        }
        Ok(concerned)
    }

    fn redefine(&mut self, at: usize, mut new: Planned) -> Result<()> {
        let had_socket = self.slots[at].notify.is_some();
        let slot = &mut self.slots[at];
        if new.skip.is_none() && slot.machine.state() == State::Skipped && new.once {
            // Done for this version, as at the start.
            new.skip.clone_from(&slot.planned.skip);
        }
        slot.redefine(new, &self.accounts, self.root)?;
        if !had_socket && slot.notify.is_some() {
            self.watch_notify(at)?;
        }
        Ok(())
    }

    fn add(&mut self, new: Planned) -> Result<usize> {
        let mut slot = Slot::new(new, &self.accounts, self.root, Instant::now())?;
        slot.process.id = self.rpc.next_process;
        self.rpc.next_process += 1;
        self.slots.push(slot);
        let at = self.slots.len() - 1;
        self.watch_output(at);
        self.watch_notify(at)?;
        Ok(at)
    }

    fn watch_notify(&self, at: usize) -> Result<()> {
        let Some(socket) = &self.slots[at].notify else {
            return Ok(());
        };
        let data = EventData::new_u64(NOTIFY << KIND | at as u64);
        epoll::add(&self.epoll, socket.as_fd(), data, EventFlags::IN).map_err(|error| {
            Failure::new(Code::Internal, format!("cannot watch a socket: {error}"))
        })
    }

    /// Stops what is to restart when nobody who needs it, and restarts too, still runs;
    /// true when something moved.
    pub(super) fn advance_pending(&mut self) -> bool {
        let mut moved = false;
        for at in 0..self.slots.len() {
            let Some(pending) = self.slots[at].pending else {
                continue;
            };
            let now = Instant::now();
            if self.slots[at].machine.state().is_over() {
                let slot = &mut self.slots[at];
                slot.pending = None;
                match pending.then {
                    Then::Start => {
                        slot.planned.skip = None;
                        slot.machine.set_aside(State::Waiting, now);
                    }
                    Then::LeaveOut => {
                        slot.machine.set_aside(State::Skipped, now);
                        slot.process.removed |= slot.gone;
                    }
                }
                moved = true;
                continue;
            }
            let needed = self.slots.iter().any(|other| {
                other.pending.is_some()
                    && other.planned.needs.contains(&at)
                    && !other.machine.state().is_over()
            });
            if !pending.stopping && !needed {
                self.slots[at].pending = Some(Pending {
                    stopping: true,
                    ..pending
                });
                self.ask(at, Event::Stop(self.stop_timeout), "reload");
                moved = true;
            }
        }
        moved
    }

    // --- one service

    /// ExecReload=, or SIGHUP for what handles it.
    pub(super) fn reload_service(&mut self, at: usize) -> Result<(), String> {
        let slot = &self.slots[at];
        if slot.machine.state() != State::Ready {
            return Err(format!(
                "it is not running ({})",
                slot.machine.state().name()
            ));
        }
        if slot.reloading.is_some() || slot.renewing.is_some() {
            return Err("it is reloading already".to_owned());
        }
        self.slots[at].reload_failed = None;
        let slot = &self.slots[at];
        if let (Some(signal), Some(main)) = (slot.planned.service.reload_signal, slot.main) {
            sys::kill(main, signal);
            self.renews(at);
            return Ok(());
        }
        if !slot.planned.service.commands.reload.is_empty() {
            let limit = slot.planned.service.start_timeout.unwrap_or(RELOAD_TIMEOUT);
            return self.reload_step(at, 0, Instant::now() + limit);
        }
        match slot.main {
            Some(main) if sys::catches_hangup(main) => {
                sys::kill(main, 1);
                self.may_renew(at);
                Ok(())
            }
            _ => Err("it has no ExecReload= and does not handle SIGHUP: restart it".to_owned()),
        }
    }

    fn reload_step(&mut self, at: usize, index: usize, until: Instant) -> Result<(), String> {
        let slot = &mut self.slots[at];
        let pid = slot.spawn(
            Phase::Reload,
            index,
            self.root,
            &self.accounts,
            self.environment,
        )?;
        slot.reloading = Some((pid, until));
        let raw = pid.as_raw_nonzero().get();
        self.processes
            .insert(raw, (at, Role::Step(Phase::Reload, index)));
        Ok(())
    }

    pub(super) fn reload_step_ended(&mut self, at: usize, index: usize, ended: Ended) {
        let Some((_, until)) = self.slots[at].reloading.take() else {
            return;
        };
        if ended != Ended::Exit(0) {
            let reason = format!("its reload command {}", super::machine::describe(ended));
            say(&format!("{}: {reason}", self.slots[at].name()));
            self.slots[at].reload_failed = Some(reason);
        } else if index + 1 < self.slots[at].planned.service.commands.reload.len() {
            if let Err(reason) = self.reload_step(at, index + 1, until) {
                self.slots[at].reload_failed = Some(reason);
            }
        } else {
            self.may_renew(at);
            if self.slots[at].renewing.is_none() {
                say(&format!("{} is reloaded", self.slots[at].name()));
            }
        }
    }

    /// It was told to reload, and may say `RELOADING=1`.
    fn may_renew(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if slot.planned.service.kind == Kind::Notify && slot.renewing.is_none() {
            slot.renewing = Some(Renewing {
                said: false,
                until: Instant::now() + PATIENCE,
            });
        }
    }

    /// `RELOADING=1`
    pub(super) fn renews(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if slot.machine.state() == State::Ready {
            let limit = slot.planned.service.start_timeout.unwrap_or(RELOAD_TIMEOUT);
            slot.renewing = Some(Renewing {
                said: true,
                until: Instant::now() + limit,
            });
        }
    }

    /// `READY=1` after it, or nothing was to be said.
    pub(super) fn is_renewed(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if slot.renewing.take().is_some() {
            say(&format!("{} is reloaded", slot.name()));
        }
    }

    /// A reload command that takes too long is killed; its end is an event like any other.
    pub(super) fn reload_timers(&mut self, now: Instant) {
        for slot in &mut self.slots {
            if let Some((pid, until)) = &mut slot.reloading
                && *until <= now
            {
                sys::kill(*pid, 9);
                *until = now + RELOAD_TIMEOUT;
            }
        }
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            let Some(renewing) = slot.renewing.filter(|renewing| renewing.until <= now) else {
                continue;
            };
            if renewing.said {
                slot.renewing = None;
                let reason = "it did not say READY=1 in time".to_owned();
                say(&format!("{}: {reason}", slot.name()));
                slot.reload_failed = Some(reason);
            } else {
                self.is_renewed(at);
            }
        }
        if let Some(underway) = &mut self.underway
            && underway
                .writing
                .deadline()
                .is_some_and(|until| until <= now)
            && let Some(check) = underway.writing.check()
        {
            check.kill();
        }
    }
}

impl Step {
    fn told(&self) -> String {
        let verb = match self.what {
            What::Reload => "reloads",
            What::Restart => "restarts",
            What::Start => "starts",
            What::Stop => "stops",
        };
        format!("{} {verb}: {}", self.service, self.because)
    }
}

impl Slot {
    /// It was taken out of the box.
    pub fn is_gone(&self) -> bool {
        self.gone || self.process.removed
    }

    fn redefine(
        &mut self,
        new: Planned,
        accounts: &crate::accounts::Accounts,
        root: &crate::root::Root,
    ) -> Result<()> {
        self.credentials = accounts.credentials(&new.service.name, &new.service.identity)?;
        if new.service.notifies() && self.notify.is_none() {
            self.notify = Some(super::slot::notify_socket(&new.service.name, root)?);
        }
        self.machine.redefine(Rules::of(&new));
        if new.timer.is_some() && new.skip.is_none() && self.machine.state() == State::Skipped {
            self.machine.set_aside(State::Stopped, Instant::now());
        }
        if self.planned.timer != new.timer {
            self.timed.forget_calendar();
        }
        self.planned = new;
        Ok(())
    }
}
