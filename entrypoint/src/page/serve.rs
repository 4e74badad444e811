//! The server: a thread a connection, one request each, few and short.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use contract::Contract;
use sha2::Digest as _;

use super::{VARIABLE, pages, token};
use crate::control::{self, Reply, Request, Status};
use crate::exit::{Code, Failure, Result};
use crate::root::Root;
use crate::settings::Environment;
use crate::supervisord::http::{self, Parsed};
use crate::sys;

/// Connections at once; who comes later is not listened to.
const CLIENTS: usize = 16;
const TIME: Duration = Duration::from_secs(10);
const INPUT: usize = 16 << 10;
/// How often states are looked at, for the history.
const LOOK: Duration = Duration::from_secs(5);
/// Changes that are remembered of each service.
const CHANGES: usize = 20;
pub const COOKIE: &str = "tiffin-status-page";

pub struct About {
    pub contract: Contract,
    pub root: Root,
    pub environment: Environment,
    token: String,
    history: Mutex<History>,
}

/// What a service came to be, by service; the newest first.
pub type History = BTreeMap<String, VecDeque<Change>>;

#[derive(Clone)]
pub struct Change {
    /// RFC 3339.
    pub since: String,
    pub state: String,
    at: Instant,
    restarts: u32,
    pid: Option<i32>,
}

impl Change {
    fn of(service: &Status, now: Instant) -> Self {
        let ago = Duration::from_secs(service.seconds);
        Change {
            since: service.since.clone(),
            state: service.state.clone(),
            at: now.checked_sub(ago).unwrap_or(now),
            restarts: service.restarts,
            pid: service.pid,
        }
    }

    /// Not only in another state: what started again within two looks is in the same one.
    fn follows(&self, before: &Change) -> bool {
        self.state != before.state
            || self.restarts != before.restarts
            || self.pid != before.pid
            // Seconds are cut off.
            || self.at > before.at + Duration::from_secs(2)
    }
}

/// An answer, before it is bytes.
pub struct Answer {
    pub status: u16,
    pub kind: &'static str,
    pub body: String,
    /// The browser is given the token to keep.
    pub sets_cookie: bool,
}

impl Answer {
    pub fn html(body: String) -> Self {
        Answer {
            status: 200,
            kind: "text/html; charset=utf-8",
            body,
            sets_cookie: false,
        }
    }

    pub fn text(status: u16, body: &str) -> Self {
        Answer {
            status,
            kind: "text/plain; charset=utf-8",
            body: body.to_owned(),
            sets_cookie: false,
        }
    }
}

pub fn serve(contract: Contract, root: &Root, environment: &Environment) -> Result<Code> {
    let address = environment.get(VARIABLE).unwrap_or_default();
    let listener = sys::listen(address).map_err(|error| {
        Failure::new(
            Code::CannotCreate,
            format!("cannot serve {VARIABLE} = {address}: {error}"),
        )
    })?;
    let about = Arc::new(About {
        token: token(&contract, root)?,
        contract,
        root: root.clone(),
        environment: environment.clone(),
        history: Mutex::default(),
    });
    let watched = Arc::clone(&about);
    std::thread::spawn(move || {
        loop {
            watched.services();
            std::thread::sleep(LOOK);
        }
    });
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept() else {
            // Out of descriptors, say: others end meanwhile.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if open.fetch_add(1, Ordering::SeqCst) >= CLIENTS {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (about, counted) = (Arc::clone(&about), Arc::clone(&open));
        let thread = std::thread::Builder::new().spawn(move || {
            about.converse(stream);
            counted.fetch_sub(1, Ordering::SeqCst);
        });
        // No room for another process: this client has none, and the next may.
        if thread.is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl About {
    /// One request and its answer, within [`TIME`].
    fn converse(&self, mut stream: TcpStream) {
        let until = Instant::now() + TIME;
        let mut input = Vec::new();
        let mut buffer = [0_u8; 4096];
        let bytes = loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
                return;
            }
            let Ok(count @ 1..) = stream.read(&mut buffer) else {
                return;
            };
            input.extend_from_slice(&buffer[..count]);
            match http::parse(&input) {
                Parsed::More if input.len() > INPUT => break http::refuse(413),
                Parsed::More => {}
                Parsed::Refused(status) => break http::refuse(status),
                Parsed::Request(request, _) => break self.answer(&request),
            }
        };
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(100));
        let _ = stream.set_write_timeout(Some(left));
        if stream.write_all(&bytes).is_ok() {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn answer(&self, request: &http::Request) -> Vec<u8> {
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return http::refuse(405);
        }
        let answer = match request.path.strip_prefix("/open/") {
            Some(given) if self.is_token(given) => Answer {
                sets_cookie: true,
                ..pages::opened()
            },
            Some(_) => pages::closed(),
            // They tell nothing.
            None if request.path == "/style.css" => pages::style(),
            None if request.path == "/page.js" => pages::script(),
            None if !self.may_see(request) => pages::closed(),
            None => pages::page(self, &request.path),
        };
        self.bytes(&answer, request.method == "HEAD")
    }

    /// By the cookie, or `Authorization: Bearer TOKEN` for programs.
    fn may_see(&self, request: &http::Request) -> bool {
        let bearer = request
            .authorization
            .as_deref()
            .and_then(|text| text.strip_prefix("Bearer "));
        let cookies = request.cookie.as_deref().unwrap_or_default().split(';');
        let cookie = cookies
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == COOKIE);
        bearer
            .or(cookie.map(|(_, value)| value))
            .is_some_and(|given| self.is_token(given.trim()))
    }

    /// Takes as long for any text: hashes are compared, to the end.
    fn is_token(&self, given: &str) -> bool {
        let (given, own) = (
            sha2::Sha256::digest(given),
            sha2::Sha256::digest(&self.token),
        );
        given
            .iter()
            .zip(own.iter())
            .fold(0, |all, (a, b)| all | (a ^ b))
            == 0
    }

    fn bytes(&self, answer: &Answer, only_head: bool) -> Vec<u8> {
        let mut more = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
            Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n\
            Content-Security-Policy: default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
            .to_owned();
        if answer.sets_cookie {
            more.push_str(&format!(
                "Set-Cookie: {COOKIE}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000\r\n",
                self.token
            ));
        }
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n",
            answer.status,
            match answer.status {
                200 => "OK",
                401 => "Unauthorized",
                404 => "Not Found",
                _ => "Service Unavailable",
            },
            answer.kind,
            answer.body.len()
        )
        .into_bytes();
        if !only_head {
            out.extend_from_slice(answer.body.as_bytes());
        }
        out
    }

    /// What `status` says, and what changed since it was last asked.
    pub fn services(&self) -> Option<Vec<Status>> {
        let Ok(Reply::Services(services)) =
            control::ask(&self.root, &Request::Status { measure: true })
        else {
            return None;
        };
        let mut history = self
            .history
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        history.retain(|name, _| services.iter().any(|service| service.name == *name));
        let now = Instant::now();
        for service in &services {
            let changes = history.entry(service.name.clone()).or_default();
            let change = Change::of(service, now);
            if changes.front().is_none_or(|last| change.follows(last)) {
                changes.push_front(change);
                changes.truncate(CHANGES);
            }
        }
        Some(services)
    }

    pub fn history(&self) -> History {
        self.history
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// The last lines of one service, of the box itself (`tiffin`), or of all.
    pub fn lines(&self, name: Option<&str>) -> Option<Vec<String>> {
        let request = Request::Logs {
            name: name.map(str::to_owned),
            follow: false,
        };
        match control::ask(&self.root, &request) {
            Ok(Reply::Lines(lines)) => Some(lines),
            _ => None,
        }
    }
}
