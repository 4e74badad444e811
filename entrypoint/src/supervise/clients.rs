//! Control connections: requests bounded in size, answers that may have to wait.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::follow::Followers;
use super::machine::{Event, State, describe};
use super::slot::Slot;
use super::{CLIENT, KIND, Supervisor};
use crate::backup::schedule;
use crate::control::{Reply, Request, Status};
use crate::log::{rfc3339, shown};
use crate::plan::is_called;
use crate::sys;

const REQUEST_LIMIT: usize = 4096;
const CLIENT_LIMIT: usize = 64;
/// Those whose services are on their way.
const WAITING_LIMIT: usize = 64;
/// For services to get there.
const WAIT: Duration = Duration::from_secs(3600);
/// For a request, from the connection on, and then for reading the answer.
const REQUEST: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Clients {
    open: HashMap<usize, (UnixStream, Vec<u8>, Instant)>,
    answers: HashMap<usize, Answer>,
    next: usize,
    waiting: Vec<Waiting>,
    pub(super) followers: Followers,
}

struct Waiting {
    stream: UnixStream,
    services: Vec<usize>,
    goal: Goal,
    /// What it is told when they are there.
    reply: Reply,
    until: Instant,
}

/// Where services are to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Up,
    Over,
    /// Up or over, and nothing under way.
    Settled,
}

impl Clients {
    pub fn accept(&mut self, listener: &UnixListener, epoll: &OwnedFd, token: u64) {
        while let Some(client) = sys::accept(listener.as_fd()) {
            if self.open.len() >= CLIENT_LIMIT {
                // The one that connects gets an end of file, which says as much.
                continue;
            }
            let id = self.next & 0x7fff_ffff;
            self.next = id + 1;
            let data = EventData::new_u64(token | id as u64);
            if epoll::add(epoll, &client, data, EventFlags::IN).is_ok() {
                let until = Instant::now() + REQUEST;
                self.open.insert(id, (client.into(), Vec::new(), until));
            }
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        let asking = self.open.values().map(|(_, _, until)| *until);
        let waiting = self.waiting.iter().map(|client| client.until);
        let reading = self.answers.values().map(|answer| answer.until);
        let all = asking.chain(waiting).chain(reading);
        all.chain(self.followers.deadline()).min()
    }

    /// Whether one more may wait; those who went away make room.
    fn have_room(&mut self) -> bool {
        if self.waiting.len() >= WAITING_LIMIT {
            self.waiting.retain(|client| {
                let _ = client.stream.set_nonblocking(true);
                // It has nothing more to say.
                let end = (&client.stream).read(&mut [0]);
                end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            });
        }
        self.waiting.len() < WAITING_LIMIT
    }

    /// Lets go who says nothing, and who does not read.
    pub fn let_go(&mut self, now: Instant) {
        self.open.retain(|_, (_, _, until)| *until > now);
        self.answers.retain(|_, answer| answer.until > now);
        self.followers.let_go(now);
    }
}

/// What a client has not read yet.
struct Answer {
    stream: UnixStream,
    text: Vec<u8>,
    sent: usize,
    until: Instant,
}

impl Answer {
    /// Whether something is left that the client may still read.
    fn send(&mut self) -> bool {
        while self.sent < self.text.len() {
            match self.stream.write(&self.text[self.sent..]) {
                Ok(count @ 1..) => self.sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
                Ok(0) => return false,
            }
        }
        false
    }
}

impl Supervisor<'_> {
    /// What the client does not take at once waits for it; the loop does not.
    pub(super) fn answer(&mut self, stream: UnixStream, reply: &Reply) {
        let Ok(mut text) = serde_json::to_vec(reply) else {
            return;
        };
        text.push(b'\n');
        let until = Instant::now() + REQUEST;
        let mut answer = Answer {
            stream,
            text,
            sent: 0,
            until,
        };
        let clients = &mut self.clients;
        if answer.stream.set_nonblocking(true).is_err()
            || !answer.send()
            || clients.answers.len() >= CLIENT_LIMIT
        {
            return;
        }
        let id = clients.next & 0x7fff_ffff;
        clients.next = id + 1;
        let data = EventData::new_u64(CLIENT << KIND | id as u64);
        if epoll::add(&self.epoll, &answer.stream, data, EventFlags::OUT).is_ok() {
            clients.answers.insert(id, answer);
        }
    }

    pub(super) fn request(&mut self, id: usize) {
        if let Some(answer) = self.clients.answers.get_mut(&id) {
            if !answer.send() {
                self.clients.answers.remove(&id);
            }
            return;
        }
        let Some((stream, bytes, _)) = self.clients.open.get_mut(&id) else {
            return;
        };
        let mut buffer = [0; REQUEST_LIMIT];
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            _ => {
                self.clients.open.remove(&id);
                return;
            }
        }
        let end = bytes.iter().position(|b| *b == b'\n');
        if end.is_none() && bytes.len() < REQUEST_LIMIT {
            return;
        }
        if let Some((stream, bytes, _)) = self.clients.open.remove(&id) {
            let _ = epoll::delete(&self.epoll, &stream);
            if end.is_none_or(|end| end >= REQUEST_LIMIT) {
                let reason = format!("the request is longer than {REQUEST_LIMIT} bytes");
                return self.answer(stream, &Reply::Refused(reason));
            }
            match serde_json::from_slice(&bytes) {
                Ok(request) => self.serve(stream, request),
                Err(error) => self.answer(
                    stream,
                    &Reply::Refused(format!("the request cannot be read: {error}")),
                ),
            }
        }
    }

    fn serve(&mut self, stream: UnixStream, request: Request) {
        if self.ending.is_some()
            && !matches!(
                request,
                Request::Status { .. }
                    | Request::Health { .. }
                    | Request::Certificates
                    | Request::Logs { .. }
            )
        {
            return self.answer(stream, &Reply::Refused("the box is stopping".to_owned()));
        }
        let (name, goal) = match request {
            Request::Status { measure } => {
                let reply = Reply::Services(self.status(measure));
                return self.answer(stream, &reply);
            }
            Request::Certificates => {
                let all = self.loaded.iter().flat_map(|loaded| &loaded.certificates);
                let told = all.map(crate::certificates::InUse::told).collect();
                return self.answer(stream, &Reply::Certificates(told));
            }
            Request::Health { question } => {
                let (yes, reason) = self.verdict(question);
                return self.answer(stream, &Reply::Health { yes, reason });
            }
            Request::Logs { name, follow: true } => return self.follow_logs(stream, name),
            Request::Logs { name, .. } => {
                let reply = match self.recent_lines(name.as_deref()) {
                    Ok(lines) => Reply::Lines(
                        lines
                            .iter()
                            .map(|line| String::from_utf8_lossy(line).into_owned())
                            .collect(),
                    ),
                    Err(reason) => Reply::Refused(reason),
                };
                return self.answer(stream, &reply);
            }
            Request::Diff { paths } => return self.serve_diff(stream, &paths),
            // The others wait for services. Asked before anything is done.
            _ if !self.clients.have_room() => {
                let reason = format!("{WAITING_LIMIT} others wait for services already");
                return self.answer(stream, &Reply::Refused(reason));
            }
            Request::Reload { dry_run } => return self.serve_reload(stream, dry_run),
            Request::ReloadService { ref name } => (name.clone(), Goal::Settled),
            Request::Start { ref name } | Request::Restart { ref name } => (name.clone(), Goal::Up),
            Request::Stop { ref name } => (name.clone(), Goal::Over),
        };
        let services = self.called(&name);
        if services.is_empty() {
            let names: Vec<&str> = self.slots.iter().map(super::Slot::name).collect();
            let reason = format!(
                "no service is called {name}; there are {}",
                names.join(", ")
            );
            return self.answer(stream, &Reply::Refused(reason));
        }
        if let Request::ReloadService { .. } = request {
            for at in &services {
                if let Err(reason) = self.reload_service(*at) {
                    let name = self.slots[*at].name();
                    let reason = format!("cannot reload {name}: {reason}");
                    return self.answer(stream, &Reply::Refused(reason));
                }
            }
            return self.wait_for(stream, services, goal, Reply::Done);
        }
        let limit = self.stop_timeout;
        for at in &services {
            let (event, by) = match request {
                Request::Start { .. } => (Event::Start, "tiffin start"),
                Request::Stop { .. } => (Event::Stop(limit), "tiffin stop"),
                _ => (Event::Restart(limit), "tiffin restart"),
            };
            self.ask(*at, event, by);
        }
        self.wait_for(stream, services, goal, Reply::Done);
    }

    /// Answers when the services have got there.
    pub(super) fn wait_for(
        &mut self,
        stream: UnixStream,
        services: Vec<usize>,
        goal: Goal,
        reply: Reply,
    ) {
        self.clients.waiting.push(Waiting {
            stream,
            services,
            goal,
            reply,
            until: Instant::now() + WAIT,
        });
    }

    pub(super) fn called(&self, name: &str) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|at| !self.slots[*at].is_gone())
            .filter(|at| is_called(&self.slots[*at].planned.service, name))
            .collect()
    }

    /// Answers those whose services have got where they were to go.
    pub(super) fn answer_waiting(&mut self) {
        let now = Instant::now();
        for client in std::mem::take(&mut self.clients.waiting) {
            let states = || {
                client
                    .services
                    .iter()
                    .map(|at| self.slots[*at].machine.state())
            };
            let slots = || client.services.iter().map(|at| &self.slots[*at]);
            let failed = states()
                .any(|s| s == State::Failed || (client.goal == Goal::Up && s == State::Stopped));
            let there = match client.goal {
                Goal::Up => states().all(State::is_up),
                Goal::Over => states().all(State::is_over),
                Goal::Settled => {
                    let rests = |slot: &Slot| {
                        slot.pending.is_none()
                            && slot.reloading.is_none()
                            && slot.renewing.is_none()
                    };
                    slots().all(rests) && states().all(|s| s.is_up() || s.is_over())
                }
            };
            let reload_failed = slots()
                .filter(|_| client.goal == Goal::Settled)
                .find_map(|slot| Some((slot.name(), slot.reload_failed.as_ref()?)));
            let reply = if let Some((name, reason)) = reload_failed.filter(|_| there) {
                Reply::Refused(format!("cannot reload {name}: {reason}"))
            } else if failed {
                Reply::Refused("it did not start; `tiffin logs NAME` shows why".to_owned())
            } else if there {
                client.reply
            } else if client.until <= now {
                let reason = "it is still under way; `tiffin status` says how far it is";
                Reply::Refused(reason.to_owned())
            } else {
                self.clients.waiting.push(client);
                continue;
            };
            self.answer(client.stream, &reply);
        }
    }

    fn status(&mut self, measure: bool) -> Vec<Status> {
        let usages = measure.then(|| self.measure());
        let now = SystemTime::now();
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| !slot.is_gone())
            .map(|(at, slot)| {
                let usage = usages.as_ref().map(|usages| usages[at]);
                let runs = usage.filter(|usage| usage.processes > 0);
                let state = slot.machine.state();
                let wanted = slot.planned.service.autostart && slot.planned.skip.is_none();
                Status {
                    name: slot.name().to_owned(),
                    state: state.name().to_owned(),
                    healthy: state.is_up() || !wanted,
                    description: slot.planned.service.description.clone(),
                    aliases: slot.planned.service.aliases.clone(),
                    enabled: wanted,
                    remains: slot.planned.service.remains,
                    ready: state.is_up(),
                    since: rfc3339(
                        now.checked_sub(slot.machine.since().elapsed())
                            .unwrap_or(now),
                    ),
                    memory: runs.map(|usage| usage.memory),
                    cpu_seconds: usage.map(|usage| usage.cpu.as_secs_f64()),
                    processes: usage.map_or(0, |usage| usage.processes),
                    seconds: slot.machine.since().elapsed().as_secs(),
                    restarts: slot.machine.restarts,
                    pid: slot.main.map(|pid| pid.as_raw_nonzero().get()),
                    last_end: slot.machine.last_end.map(describe),
                    note: self.note(slot),
                }
            })
            .collect()
    }

    fn note(&self, slot: &Slot) -> String {
        if let Some((_, what)) = &self.first {
            return what.clone();
        }
        let mut note = match (&slot.planned.skip, &self.loaded) {
            (Some(reason), _) => return reason.clone(),
            (None, Some(loaded)) if slot.name() == schedule::SERVICE => {
                schedule::Last::of(loaded.contract, self.root).text()
            }
            _ => slot.status.clone(),
        };
        if slot.renewing.is_some_and(|renewing| renewing.said) {
            note = match note.as_str() {
                "" => "reloading".to_owned(),
                status => format!("reloading; {status}"),
            };
        }
        let rests = slot.planned.timer.is_some() && slot.machine.state().is_over();
        if let Some(next) = slot.timed.next().filter(|_| rests) {
            if !note.is_empty() {
                note.push_str("; ");
            }
            note.push_str(&next);
        }
        note
    }

    /// What is remembered of one service or of all, as `NAME | line`.
    pub(super) fn recent_lines(&self, name: Option<&str>) -> Result<Vec<Vec<u8>>, String> {
        let chosen = match name {
            // The box's own messages, unless a service has that name.
            Some("tiffin") if self.called("tiffin").is_empty() => {
                return Ok(crate::log::said(|lines| {
                    lines.recent(usize::MAX).map(|(_, line)| line).collect()
                }));
            }
            Some(name) => self.called(name),
            None => (0..self.slots.len())
                .filter(|at| !self.slots[*at].is_gone())
                .collect(),
        };
        if chosen.is_empty() {
            return Err(format!("no service is called {}", name.unwrap_or_default()));
        }
        let mut lines: Vec<(u64, Vec<u8>)> = Vec::new();
        for at in chosen {
            let slot = &self.slots[at];
            for stream in std::iter::once(&slot.out).chain(&slot.errors) {
                lines.extend(
                    stream
                        .lines
                        .recent(usize::MAX)
                        .map(|(order, line)| (order, shown(slot.name(), &line))),
                );
            }
        }
        lines.sort();
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }
}
