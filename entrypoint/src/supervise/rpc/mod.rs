//! supervisord's sockets: connections, requests and answers, within the loop of PID 1.
//!
//! Nothing here blocks or waits: an answer that depends on a process is a [`Pending`] that
//! is asked again after each turn of the loop, and what a client has not read yet is kept
//! up to a limit. Clients are few and bounded; a new one takes the place of the one that
//! has been silent longest.

mod answers;
mod groups;
mod logs;
mod processes;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use services::supervisord::{Address, Daemon};

use super::{KIND, RPC_CLIENT, Supervisor};
use crate::accounts::Accounts;
use crate::exit::Result;
use crate::log::say;
use crate::root::Root;
use crate::supervisord::xmlrpc::{self, Value};
use crate::supervisord::{http, login_matches};
use crate::sys;

use self::answers::{Answer, Pending};
use self::groups::Available;
use self::logs::Tail;

const CLIENTS: usize = 64;
/// What waits for a client that does not read; then it is let go.
const UNSENT: usize = 8 << 20;
/// For a whole request, from its first byte or from the connection on.
const REQUEST: Duration = Duration::from_secs(10);
/// Between two requests; supervisord's own server waits as long.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Without taking a byte of what waits for it.
const UNREAD: Duration = Duration::from_secs(30);

pub struct Server {
    pub identifier: String,
    sockets: Vec<Socket>,
    clients: HashMap<u64, Client>,
    next: u64,
    /// What the configuration offered when it was read last; `None` is what runs.
    pub(super) available: Option<Vec<Available>>,
    /// `supervisorctl reload`: everything stops, then the configuration is read again.
    restarting: bool,
    pub(super) next_process: u64,
}

struct Socket {
    fd: OwnedFd,
    /// To be removed at the end.
    path: Option<String>,
    login: Option<(String, String)>,
}

struct Client {
    fd: OwnedFd,
    socket: usize,
    input: Vec<u8>,
    output: Vec<u8>,
    state: State,
    /// The turn in which it was last heard.
    heard: u64,
    watched: EventFlags,
    /// How much it took so far.
    taken: u64,
    /// It was answered once.
    known: bool,
    awaits: Awaits,
    /// Then it is let go.
    until: Option<Instant>,
}

/// What a client has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// Nothing: it is our turn.
    Us,
    Request,
    /// Another request, which it need not make.
    More,
    /// Read, when it has read so much.
    Reader(u64),
}

impl Awaits {
    fn patience(self) -> Option<Duration> {
        match self {
            Awaits::Us => None,
            Awaits::Request => Some(REQUEST),
            Awaits::More => Some(IDLE),
            Awaits::Reader(_) => Some(UNREAD),
        }
    }
}

impl Client {
    /// Its time begins anew when it got on.
    fn reckon(&mut self) {
        let awaits = match self.state {
            _ if !self.output.is_empty() => Awaits::Reader(self.taken),
            State::Reading if self.known && self.input.is_empty() => Awaits::More,
            State::Reading => Awaits::Request,
            State::Waiting(..) | State::Tailing(_) | State::Closing => Awaits::Us,
        };
        if awaits != self.awaits {
            self.awaits = awaits;
            self.until = awaits.patience().map(|time| Instant::now() + time);
        }
    }
}

enum State {
    Reading,
    /// An answer is being waited for; whether the connection stays open after it.
    Waiting(Box<Pending>, bool),
    Tailing(Tail),
    /// Nothing is read any more; it ends when all is sent.
    Closing,
}

impl Server {
    /// Opens the sockets that `daemon` names. One that cannot be opened is said, and no
    /// reason not to start: the services matter more than who may look at them.
    pub fn open(daemon: &Option<Daemon>, root: &Root, accounts: &Accounts) -> Self {
        let mut server = Server {
            identifier: daemon
                .as_ref()
                .map_or_else(|| "supervisor".to_owned(), |d| d.identifier.clone()),
            sockets: Vec::new(),
            clients: HashMap::new(),
            next: 0,
            available: None,
            restarting: false,
            next_process: 1,
        };
        for wanted in daemon.iter().flat_map(|daemon| &daemon.servers) {
            let (opened, shown) = match &wanted.address {
                Address::Unix { path, mode, owner } => (
                    unix(root, path, *mode, owner.as_deref(), accounts)
                        .map(|fd| (fd, Some(path.clone()))),
                    path,
                ),
                Address::Inet(address) => (inet(address).map(|fd| (fd, None)), address),
            };
            match opened {
                Ok((fd, path)) => server.sockets.push(Socket {
                    fd,
                    path,
                    login: wanted.login.clone(),
                }),
                Err(error) => say(&format!(
                    "cannot serve supervisorctl on {shown}: {error}; the services start without it"
                )),
            }
        }
        server
    }

    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.fd.as_fd())
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.clients
            .values()
            .filter_map(|client| client.until)
            .min()
    }

    /// At the end: what is still to be said, as far as it is taken at once.
    pub fn close(&mut self, root: &Root) {
        for client in self.clients.values_mut() {
            let _ = send(client);
        }
        for path in self.sockets.iter().filter_map(|s| s.path.as_deref()) {
            let _ = std::fs::remove_file(root.landing(path));
        }
    }
}

fn unix(
    root: &Root,
    path: &str,
    mode: u32,
    owner: Option<&str>,
    accounts: &Accounts,
) -> std::io::Result<OwnedFd> {
    let full = root.landing(path);
    if let Some(parent) = full.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // One from an earlier start; anything else of that name stays, and is an error.
    use std::os::unix::fs::FileTypeExt as _;
    if std::fs::symlink_metadata(&full).is_ok_and(|meta| meta.file_type().is_socket()) {
        std::fs::remove_file(&full)?;
    }
    // Nobody may connect before it has its owner and mode.
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&full);
    rustix::process::umask(old);
    let listener = listener?;
    if let Some(owner) = owner {
        let (uid, gid) = accounts.owner(owner).map_err(std::io::Error::other)?;
        std::os::unix::fs::chown(&full, Some(uid), gid)?;
    }
    std::fs::set_permissions(&full, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

fn inet(address: &str) -> std::io::Result<OwnedFd> {
    let listener = sys::listen(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// Whether the client is still there.
fn send(client: &mut Client) -> bool {
    let mut sent = 0;
    while sent < client.output.len() {
        match rustix::io::write(&client.fd, &client.output[sent..]) {
            Ok(count) => sent += count,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    client.output.drain(..sent);
    client.taken += sent as u64;
    client.output.len() <= UNSENT
}

impl Supervisor<'_> {
    /// Lets go who has had its time.
    pub(super) fn rpc_timers(&mut self, now: Instant) {
        let clients = &mut self.rpc.clients;
        clients.retain(|_, client| client.until.is_none_or(|until| until > now));
    }

    pub(super) fn accept_rpc(&mut self, socket: usize) {
        let Some(listening) = self.rpc.sockets.get(socket) else {
            return;
        };
        while let Some(fd) = sys::accept(listening.fd.as_fd()) {
            if self.rpc.clients.len() >= CLIENTS {
                let silent = self
                    .rpc
                    .clients
                    .iter()
                    .filter(|(_, c)| matches!(c.state, State::Reading | State::Closing))
                    .min_by_key(|(_, c)| c.heard)
                    .map(|(id, _)| *id);
                match silent {
                    Some(id) => drop(self.rpc.clients.remove(&id)),
                    // All are waiting for an answer of theirs.
                    None => continue,
                }
            }
            self.rpc.next += 1;
            let id = self.rpc.next & 0x7fff_ffff;
            let data = EventData::new_u64(RPC_CLIENT << KIND | id);
            if epoll::add(&self.epoll, &fd, data, EventFlags::IN).is_ok() {
                self.rpc.clients.insert(
                    id,
                    Client {
                        fd,
                        socket,
                        input: Vec::new(),
                        output: Vec::new(),
                        state: State::Reading,
                        heard: self.rpc.next,
                        watched: EventFlags::IN,
                        taken: 0,
                        known: false,
                        awaits: Awaits::Request,
                        until: Some(Instant::now() + REQUEST),
                    },
                );
            }
        }
    }

    /// Something is to be read from the client, or can be written to it.
    pub(super) fn read_rpc(&mut self, id: usize) {
        let id = id as u64;
        self.rpc.next += 1;
        let Some(client) = self.rpc.clients.get_mut(&id) else {
            return;
        };
        client.heard = self.rpc.next;
        let mut buffer = [0_u8; 16 << 10];
        let gone = match rustix::io::read(&client.fd, &mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                // Who waits or listens has nothing to say that could not wait.
                if matches!(client.state, State::Reading) || client.input.len() < buffer.len() {
                    client.input.extend_from_slice(&buffer[..count]);
                }
                false
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        };
        if gone || !send(client) {
            self.rpc.clients.remove(&id);
            return;
        }
        self.answer_rpc(id);
    }

    /// Answers as many requests as are there, until one has to wait.
    fn answer_rpc(&mut self, id: u64) {
        loop {
            let Some(client) = self.rpc.clients.get_mut(&id) else {
                return;
            };
            if !matches!(client.state, State::Reading) || client.output.len() > UNSENT {
                break;
            }
            match http::parse(&client.input) {
                http::Parsed::More => break,
                http::Parsed::Refused(status) => {
                    client.output.extend(http::refuse(status));
                    client.state = State::Closing;
                }
                http::Parsed::Request(request, used) => {
                    client.input.drain(..used);
                    client.known = true;
                    client.awaits = Awaits::Us;
                    self.handle_rpc(id, &request);
                }
            }
        }
        self.settle(id);
    }

    fn handle_rpc(&mut self, id: u64, request: &http::Request) {
        let Some(socket) = self.rpc.clients.get(&id).map(|client| client.socket) else {
            return;
        };
        let login = self.rpc.sockets[socket].login.as_ref();
        if login.is_some_and(|login| !login_matches(login, request.authorization.as_deref())) {
            return self.respond(id, http::refuse(401), false);
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/RPC2" | "/RPC2/") => match xmlrpc::call(&request.body) {
                Some((name, parameters)) => match self.call(&name, &parameters) {
                    Answer::Now(answer) => self.respond_value(id, &answer, request.keep_alive),
                    Answer::Later(pending) => {
                        if let Some(client) = self.rpc.clients.get_mut(&id) {
                            client.state = State::Waiting(pending, request.keep_alive);
                        }
                    }
                },
                None => self.respond(id, http::refuse(400), false),
            },
            ("GET", path) => match self.tail(path) {
                Some(tail) => {
                    if let Some(client) = self.rpc.clients.get_mut(&id) {
                        client.output.extend_from_slice(http::STREAM);
                        client.state = State::Tailing(tail);
                    }
                }
                None => self.respond(id, http::refuse(404), false),
            },
            _ => self.respond(id, http::refuse(400), false),
        }
    }

    fn respond_value(
        &mut self,
        id: u64,
        answer: &Result<Value, crate::supervisord::faults::Fault>,
        keep_alive: bool,
    ) {
        let body = xmlrpc::response(answer);
        self.respond(
            id,
            http::answer(200, "text/xml", &body, keep_alive),
            keep_alive,
        );
    }

    fn respond(&mut self, id: u64, bytes: Vec<u8>, keep_alive: bool) {
        if let Some(client) = self.rpc.clients.get_mut(&id) {
            client.output.extend(bytes);
            client.state = if keep_alive {
                State::Reading
            } else {
                State::Closing
            };
        }
    }

    /// Sends what can be sent and watches for what is left to do.
    fn settle(&mut self, id: u64) {
        let Some(client) = self.rpc.clients.get_mut(&id) else {
            return;
        };
        let there = send(client);
        let done = matches!(client.state, State::Closing) && client.output.is_empty();
        if !there || done {
            self.rpc.clients.remove(&id);
            return;
        }
        client.reckon();
        let mut wanted = EventFlags::IN;
        if !client.output.is_empty() {
            wanted |= EventFlags::OUT;
        }
        if wanted != client.watched {
            client.watched = wanted;
            let data = EventData::new_u64(RPC_CLIENT << KIND | id);
            let _ = epoll::modify(&self.epoll, &client.fd, data, wanted);
        }
    }

    /// After each turn: answers that were waited for, and new lines for who follows a log.
    pub(super) fn serve_rpc(&mut self) {
        self.restart_when_stopped();
        let busy: Vec<u64> = self
            .rpc
            .clients
            .iter()
            .filter(|(_, c)| matches!(c.state, State::Waiting(..) | State::Tailing(_)))
            .map(|(id, _)| *id)
            .collect();
        for id in busy {
            let Some(client) = self.rpc.clients.get_mut(&id) else {
                continue;
            };
            match std::mem::replace(&mut client.state, State::Reading) {
                State::Waiting(mut pending, keep_alive) => match self.poll(&mut pending) {
                    Some(answer) => {
                        self.respond_value(id, &answer, keep_alive);
                        self.answer_rpc(id);
                    }
                    None => {
                        if let Some(client) = self.rpc.clients.get_mut(&id) {
                            client.state = State::Waiting(pending, keep_alive);
                        }
                    }
                },
                State::Tailing(mut tail) => {
                    let more = self.follow(&mut tail);
                    if let Some(client) = self.rpc.clients.get_mut(&id) {
                        client.state = match more {
                            Some(bytes) => {
                                if !bytes.is_empty() {
                                    client.output.extend(http::chunk(&bytes));
                                }
                                State::Tailing(tail)
                            }
                            None => {
                                client.output.extend(http::chunk(b""));
                                State::Closing
                            }
                        };
                    }
                    self.settle(id);
                }
                other => client.state = other,
            }
        }
    }
}

/// Members in the order in which they are written here.
fn members<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Struct(
        members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

pub type Groups = BTreeMap<String, Vec<usize>>;
