//! `TIFFIN_HTTP`: the box's health and figures for orchestrators, within the loop of PID 1.
//!
//! Anybody who reaches the port may be hostile: a connection is one request, has 10 s, and
//! gives way to newer ones when there are too many. What is dear to compute is computed
//! once a second at most.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::machine::{State, describe};
use super::metrics::{self, Sample};
use super::slot::Slot;
use super::usage::Usage;
use super::{HTTP_CLIENT, KIND, Supervisor};
use crate::backup::schedule;
use crate::control::Question;
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::settings::Environment;
use crate::supervisord::http::{self, Parsed};
use crate::sys;

pub const VARIABLE: &str = "TIFFIN_HTTP";

const CLIENTS: usize = 32;
/// From the connection to the last byte.
const TIME: Duration = Duration::from_secs(10);
/// A probe is a few hundred bytes.
const INPUT: usize = 32 << 10;
const FRESH: Duration = Duration::from_secs(1);
/// Names in a reason.
const NAMED: usize = 5;

#[derive(Default)]
pub struct Server {
    listener: Option<TcpListener>,
    /// By age.
    clients: BTreeMap<u64, Client>,
    next: u64,
    measured: Option<(Instant, Vec<Usage>)>,
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Nothing is read any more but its end.
    answered: bool,
    until: Instant,
    watched: EventFlags,
}

impl Server {
    /// Whoever asks for it relies on it: a box that cannot be watched does not start.
    pub fn open(environment: &Environment) -> Result<Self> {
        let Some(wanted) = environment.get(VARIABLE) else {
            return Ok(Server::default());
        };
        let open = || -> std::io::Result<(TcpListener, SocketAddr)> {
            let listener = sys::listen(wanted)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = open().map_err(|error| {
            Failure::new(
                Code::CannotCreate,
                format!("cannot serve {VARIABLE} = {wanted}: {error}"),
            )
            .hint("it takes an address of the box, or 0.0.0.0, and a port that nothing else uses")
        })?;
        say(&format!("health and metrics are at http://{address}"));
        Ok(Server {
            listener: Some(listener),
            ..Server::default()
        })
    }

    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(|listener| listener.as_fd())
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.clients.values().map(|client| client.until).min()
    }

    /// Of one that is taken over: who has connected already is heard as well.
    pub fn watch(&self, epoll: &OwnedFd) {
        for (id, client) in &self.clients {
            let data = EventData::new_u64(HTTP_CLIENT << KIND | id);
            let _ = epoll::add(epoll, &client.stream, data, client.watched);
        }
    }
}

impl Client {
    /// Whether there is still something to do for it.
    fn send(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        // To close with something unread would be a reset, and that may overtake the answer:
        // the other end closes first.
        !self.answered || self.stream.shutdown(Shutdown::Write).is_ok()
    }
}

impl Supervisor<'_> {
    pub(super) fn accept_http(&mut self) {
        let Some(listener) = &self.http.listener else {
            return;
        };
        // The rest has its turn after everybody else had theirs.
        for _ in 0..CLIENTS {
            let Some(client) = sys::accept(listener.as_fd()) else {
                return;
            };
            self.http.next += 1;
            let id = self.http.next & 0x7fff_ffff;
            let data = EventData::new_u64(HTTP_CLIENT << KIND | id);
            if epoll::add(&self.epoll, &client, data, EventFlags::IN).is_err() {
                continue;
            }
            if self.http.clients.len() >= CLIENTS {
                self.http.clients.pop_first();
            }
            self.http.clients.insert(
                id,
                Client {
                    stream: client.into(),
                    input: Vec::new(),
                    output: Vec::new(),
                    answered: false,
                    until: Instant::now() + TIME,
                    watched: EventFlags::IN,
                },
            );
        }
    }

    pub(super) fn http_timers(&mut self, now: Instant) {
        self.http.clients.retain(|_, client| client.until > now);
    }

    /// Something is to be read from the client, or can be written to it.
    pub(super) fn read_http(&mut self, id: usize) {
        let id = id as u64;
        let Some(client) = self.http.clients.get_mut(&id) else {
            return;
        };
        let mut buffer = [0_u8; 8 << 10];
        let gone = match client.stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                if !client.answered {
                    client.input.extend_from_slice(&buffer[..count]);
                }
                false
            }
            Err(error) => !matches!(
                error.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
            ),
        };
        if gone {
            self.http.clients.remove(&id);
            return;
        }
        let parsed = (!client.answered).then(|| http::parse(&client.input));
        let too_much = client.input.len() > INPUT;
        let answer = match parsed {
            None => None,
            Some(Parsed::More) if too_much => Some(http::refuse(413)),
            Some(Parsed::More) => None,
            Some(Parsed::Refused(status)) => Some(http::refuse(status)),
            Some(Parsed::Request(request, _)) => Some(self.answer_http(&request)),
        };
        let Some(client) = self.http.clients.get_mut(&id) else {
            return;
        };
        if let Some(answer) = answer {
            client.output = answer;
            client.answered = true;
            client.input = Vec::new();
        }
        if !client.send() {
            self.http.clients.remove(&id);
            return;
        }
        let wanted = if client.output.is_empty() {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        };
        if wanted != client.watched {
            client.watched = wanted;
            let data = EventData::new_u64(HTTP_CLIENT << KIND | id);
            let _ = epoll::modify(&self.epoll, &client.stream, data, wanted);
        }
    }

    fn answer_http(&mut self, request: &http::Request) -> Vec<u8> {
        const TEXT: &str = "text/plain; charset=utf-8";
        let is_head = request.method == "HEAD";
        if !is_head && request.method != "GET" {
            return http::refuse(405);
        }
        let question = match request.path.as_str() {
            "/livez" => Some(Question::Live),
            "/readyz" => Some(Question::Ready),
            "/startupz" => Some(Question::Started),
            _ => None,
        };
        let (status, kind, body) = match (question, request.path.as_str()) {
            (Some(question), _) => {
                let (yes, reason) = self.verdict(question);
                (if yes { 200 } else { 503 }, TEXT, format!("{reason}\n"))
            }
            (None, "/metrics") => (200, metrics::CONTENT_TYPE, self.metrics()),
            _ => {
                let known = "there are /livez, /readyz, /startupz and /metrics\n";
                (404, TEXT, known.to_owned())
            }
        };
        let mut answer = http::answer(status, kind, body.as_bytes(), false);
        if is_head {
            answer.truncate(answer.len() - body.len());
        }
        answer
    }

    /// Yes or no, and why.
    pub(super) fn verdict(&self, question: Question) -> (bool, String) {
        if let (Some((_, what)), None) = (&self.first, self.ending) {
            return (question == Question::Live, what.clone());
        }
        let wanted = || {
            let slots = self.slots.iter().filter(|slot| !slot.is_gone());
            slots.filter(|slot| slot.planned.service.autostart && slot.planned.skip.is_none())
        };
        let told = |is: &dyn Fn(&Slot) -> bool| -> Option<String> {
            let mut all: Vec<String> = wanted()
                .filter(|slot| is(slot))
                .map(|slot| {
                    let state = slot.machine.state();
                    let why = match (state, slot.machine.last_end) {
                        (State::Backoff | State::Failed, Some(ended)) => {
                            format!(" (it {})", describe(ended))
                        }
                        _ => String::new(),
                    };
                    format!("{} is {}{why}", slot.name(), state.name())
                })
                .collect();
            let more = all.len().saturating_sub(NAMED);
            all.truncate(NAMED);
            let more = match more {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            (!all.is_empty()).then(|| all.join(", ") + &more)
        };
        let is_up = |slot: &Slot| slot.machine.state().is_up();
        // At the start each has its chance; from then on the box does without these.
        let is_lacking = |slot: &Slot| {
            !slot.planned.required && !is_up(slot) && (self.announced || slot.is_done_without())
        };
        let answer = |missing: Option<String>, yes: &str| match missing {
            Some(missing) => (false, missing),
            None => match told(&is_lacking) {
                Some(lacking) => (true, format!("degraded: {lacking}")),
                None => (true, yes.to_owned()),
            },
        };
        let stops = || (false, "the box stops".to_owned());
        match question {
            // A new container could do better, and only then.
            Question::Live => {
                let is_failed =
                    |slot: &Slot| slot.planned.required && slot.machine.state() == State::Failed;
                match told(&is_failed) {
                    Some(failed) => (false, failed),
                    None if self.result != Code::Ok => {
                        (false, "a service was given up, the box stops".to_owned())
                    }
                    None if self.ending.is_some() => {
                        (true, "the box stops, as it was asked to".to_owned())
                    }
                    None => answer(None, "the services are supervised"),
                }
            }
            Question::Ready if self.draining.is_some() => (false, "the box drains".to_owned()),
            Question::Ready if self.ending.is_some() => stops(),
            Question::Ready => {
                let missing = told(&|slot| !is_up(slot) && !is_lacking(slot));
                answer(missing, "all services are ready")
            }
            Question::Started if self.announced => (true, "all services have started".to_owned()),
            Question::Started if self.ending.is_some() => stops(),
            Question::Started => {
                let is_missing = |slot: &Slot| {
                    !is_up(slot) && !is_lacking(slot) && slot.machine.state() != State::Stopped
                };
                answer(told(&is_missing), "all services have started")
            }
        }
    }

    fn metrics(&mut self) -> String {
        let now = Instant::now();
        let usages = match self.http.measured.take() {
            // Services that a reload added have no figures yet.
            Some((at, usages)) if now - at < FRESH && usages.len() == self.slots.len() => {
                self.http.measured = Some((at, usages.clone()));
                usages
            }
            _ => {
                let usages = self.measure();
                self.http.measured = Some((now, usages.clone()));
                usages
            }
        };
        let samples: Vec<Sample<'_>> = self
            .slots
            .iter()
            .zip(&usages)
            .filter(|(slot, _)| !slot.is_gone())
            .map(|(slot, usage)| Sample {
                service: slot.name(),
                state: slot.machine.state().name(),
                up: slot.machine.state().is_up(),
                restarts: slot.machine.restarts,
                uptime: slot.main.map(|_| slot.machine.started().elapsed()),
                usage: *usage,
            })
            .collect();
        let health = [Question::Live, Question::Ready, Question::Started];
        let health = health.map(|question| self.verdict(question).0);
        let certificates = self.loaded.as_ref().map_or(&[][..], |l| &l.certificates);
        let ends = crate::certificates::ends(certificates);
        let scheduled = samples.iter().any(|s| s.service == schedule::SERVICE);
        let backup = self
            .loaded
            .as_ref()
            .filter(|_| scheduled)
            .map(|loaded| schedule::Last::of(loaded.contract, self.root));
        metrics::text(
            self.version,
            self.begun.elapsed(),
            health,
            self.is_degraded(),
            &samples,
            &ends,
            backup.as_ref(),
        )
    }
}
