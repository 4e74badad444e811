//! The control protocol, and the client's half of it.
//!
//! One line of JSON each way on a unix socket that only root can open: a [`Request`], then
//! a [`Reply`].

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure, Result};
use crate::root::Root;

pub const SOCKET: &str = "/run/tiffin/control.sock";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    Status {
        /// With memory and CPU time, which take a look at every process.
        #[serde(default)]
        measure: bool,
    },
    Health {
        question: Question,
    },
    /// Those that the box's servers use.
    Certificates,
    Logs {
        name: Option<String>,
        /// Then all lines to come, as they are, after [`Reply::Follows`].
        #[serde(default)]
        follow: bool,
    },
    Start {
        name: String,
    },
    Stop {
        name: String,
    },
    Restart {
        name: String,
    },
    /// One service reads its files again.
    ReloadService {
        name: String,
    },
    /// Settings are read again, and what changes with them.
    Reload {
        dry_run: bool,
    },
    /// What a reload would change in files; in all when there are no paths.
    Diff {
        paths: Vec<String>,
    },
}

/// What `health` is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// Would a new container do no better?
    Live,
    /// Do all services take work?
    Ready,
    /// Has everything been ready once?
    Started,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    Done,
    Refused(String),
    Lines(Vec<String>),
    /// Bytes follow, until the box ends.
    Follows,
    Services(Vec<Status>),
    Certificates(Vec<crate::certificates::Told>),
    Health {
        yes: bool,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub state: String,
    /// It need not be waited for: up, or not meant to be.
    pub healthy: bool,
    /// What needs it may run.
    pub ready: bool,
    /// When it got into this state (RFC 3339), and seconds since.
    pub since: String,
    pub seconds: u64,
    pub restarts: u32,
    pub pid: Option<i32>,
    /// Of all its processes, resident, in bytes.
    pub memory: Option<u64>,
    /// Of all its processes since the box started.
    pub cpu_seconds: Option<f64>,
    /// How many they are; 0 when nobody asked to measure.
    #[serde(default)]
    pub processes: u32,
    pub last_end: Option<String>,
    pub note: String,
    pub description: String,
    /// Other names that mean it: its unit's, its group's.
    pub aliases: Vec<String>,
    /// It starts with the box.
    pub enabled: bool,
    /// A unit that says of itself to be active when it is done.
    #[serde(default)]
    pub remains: bool,
}

pub fn ask(root: &Root, request: &Request) -> Result<Reply> {
    ask_at(root, SOCKET, request)
}

/// The same, of a supervisor that has its socket elsewhere.
pub fn ask_at(root: &Root, socket: &str, request: &Request) -> Result<Reply> {
    Ok(begin(root, socket, request)?.0)
}

/// `status --json`: the services, and the certificates that they use.
pub fn report(root: &Root, services: &[Status]) -> Result<serde_json::Value> {
    let certificates = match ask(root, &Request::Certificates)? {
        Reply::Certificates(all) => all,
        _ => Vec::new(),
    };
    Ok(serde_json::json!({"services": services, "certificates": certificates}))
}

/// Follows the logs: hands them on until the box ends or nobody takes them any more.
pub fn follow(root: &Root, name: Option<String>, out: &mut dyn Write) -> Result<Reply> {
    let request = Request::Logs { name, follow: true };
    let (reply, mut stream) = begin(root, SOCKET, &request)?;
    if reply == Reply::Follows {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if out.write_all(&buffer[..count]).is_err() || out.flush().is_err() {
                break;
            }
        }
    }
    Ok(reply)
}

/// The answer, and what may come after it.
fn begin(root: &Root, socket: &str, request: &Request) -> Result<(Reply, BufReader<UnixStream>)> {
    let talk = || -> std::io::Result<(String, BufReader<UnixStream>)> {
        let mut stream = UnixStream::connect(root.path(socket))?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        let mut answer = String::new();
        let mut stream = BufReader::new(stream);
        stream.read_line(&mut answer)?;
        Ok((answer, stream))
    };
    let (answer, stream) = talk().map_err(|error| {
        Failure::new(
            Code::Failed,
            format!("cannot ask the running box through {socket}: {error}"),
        )
        .hint("this command works in a box that was started: docker exec BOX tiffin …")
    })?;
    let reply = serde_json::from_str(&answer)
        .map_err(|_| Failure::new(Code::Failed, "the box ended before it answered"))?;
    Ok((reply, stream))
}

/// A table, the name's column as wide as it must be.
pub fn table(services: &[Status]) -> String {
    let width = services
        .iter()
        .map(|s| s.name.len())
        .max()
        .unwrap_or(0)
        .max(7);
    let mut out = format!(
        "{:width$}  {:8}  {:>5}  {:>8}  {:>7}  {:>7}  {:>7}  NOTE\n",
        "SERVICE", "STATE", "SINCE", "RESTARTS", "PID", "MEMORY", "CPU"
    );
    for service in services {
        let since = short_time(service.seconds);
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let pid = or_dash(service.pid.map(|pid| pid.to_string()));
        let memory = or_dash(service.memory.map(short_bytes));
        let cpu = or_dash(service.cpu_seconds.map(|seconds| format!("{seconds:.1}s")));
        let last = service.last_end.as_ref().map(|last| format!("last {last}"));
        let note: Vec<&str> = std::iter::once(service.note.as_str())
            .chain(last.as_deref())
            .filter(|part| !part.is_empty())
            .collect();
        out.push_str(
            format!(
                "{:width$}  {:8}  {since:>5}  {:>8}  {pid:>7}  {memory:>7}  {cpu:>7}  {}",
                service.name,
                service.state,
                service.restarts,
                note.join("; ")
            )
            .trim_end(),
        );
        out.push('\n');
    }
    out
}

pub fn short_time(seconds: u64) -> String {
    match seconds {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// In the units of docker's own `stats`: KiB and so on.
pub fn short_bytes(bytes: u64) -> String {
    match bytes >> 10 {
        kib @ 0..10_000 => format!("{kib}K"),
        kib @ 10_000..10_240_000 => format!("{}M", kib >> 10),
        kib => format!("{}G", kib >> 20),
    }
}
