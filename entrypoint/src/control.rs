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
    Status,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    Done,
    Refused(String),
    Lines(Vec<String>),
    /// Bytes follow, until the box ends.
    Follows,
    Services(Vec<Status>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub state: String,
    /// It need not be waited for: up, or not meant to be.
    pub healthy: bool,
    /// Seconds in this state.
    pub seconds: u64,
    pub restarts: u32,
    pub pid: Option<i32>,
    pub last_end: Option<String>,
    pub note: String,
    pub description: String,
    /// Other names that mean it: its unit's, its group's.
    pub aliases: Vec<String>,
    /// It starts with the box.
    pub enabled: bool,
}

pub fn ask(root: &Root, request: &Request) -> Result<Reply> {
    Ok(begin(root, request)?.0)
}

/// Follows the logs: hands them on until the box ends or nobody takes them any more.
pub fn follow(root: &Root, name: Option<String>, out: &mut dyn Write) -> Result<Reply> {
    let request = Request::Logs { name, follow: true };
    let (reply, mut stream) = begin(root, &request)?;
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
fn begin(root: &Root, request: &Request) -> Result<(Reply, BufReader<UnixStream>)> {
    let talk = || -> std::io::Result<(String, BufReader<UnixStream>)> {
        let mut stream = UnixStream::connect(root.path(SOCKET))?;
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
            format!("cannot ask the running box through {SOCKET}: {error}"),
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
        "{:width$}  {:8}  {:>8}  {:>8}  {:>7}  NOTE\n",
        "SERVICE", "STATE", "SINCE", "RESTARTS", "PID"
    );
    for service in services {
        let since = match service.seconds {
            s @ 0..120 => format!("{s}s"),
            s @ 120..7200 => format!("{}m", s / 60),
            s @ 7200..172_800 => format!("{}h", s / 3600),
            s => format!("{}d", s / 86_400),
        };
        let pid = service
            .pid
            .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let note = if service.note.is_empty() {
            service.last_end.as_deref().unwrap_or("")
        } else {
            &service.note
        };
        out.push_str(
            format!(
                "{:width$}  {:8}  {since:>8}  {:>8}  {pid:>7}  {note}",
                service.name, service.state, service.restarts
            )
            .trim_end(),
        );
        out.push('\n');
    }
    out
}
