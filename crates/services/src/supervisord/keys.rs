//! The keys of a program beyond how it is run: logs, events, FastCGI sockets. And which
//! keys there are: an unknown one is named, never ignored.

use std::collections::BTreeMap;

use super::daemon::inet;
use super::program::Reader;
use crate::text::octal;
use crate::{Error, FastCgiAddress, FastCgiSocket, Listener, Log, LogFile};

/// Keys whose effect is another one in a box: all output goes to the container's log.
const LOG_KEYS: &[&str] = &[
    "redirect_stderr",
    "stdout_logfile",
    "stderr_logfile",
    "stdout_logfile_maxbytes",
    "stdout_logfile_backups",
    "stderr_logfile_maxbytes",
    "stderr_logfile_backups",
    "stdout_events_enabled",
    "stderr_events_enabled",
    "stdout_syslog",
    "stderr_syslog",
];

/// Keys that are accepted and change nothing.
const NOT_APPLIED: &[&str] = &["stdout_capture_maxbytes", "stderr_capture_maxbytes"];

const KNOWN: &[&str] = &[
    "command",
    "process_name",
    "numprocs",
    "numprocs_start",
    "directory",
    "user",
    "environment",
    "autostart",
    "autorestart",
    "exitcodes",
    "startsecs",
    "startretries",
    "stopsignal",
    "stopwaitsecs",
    "stopasgroup",
    "killasgroup",
    "umask",
    "priority",
    "serverurl",
];

/// Event types of supervisord: those of which there are several kinds, with these.
const EVENTS: &[(&str, &[&str])] = &[
    ("EVENT", &[]),
    (
        "PROCESS_STATE",
        &[
            "STARTING", "RUNNING", "BACKOFF", "STOPPING", "EXITED", "STOPPED", "FATAL", "UNKNOWN",
        ],
    ),
    ("PROCESS_LOG", &["STDOUT", "STDERR"]),
    (NEVER_SENT, &["STDOUT", "STDERR"]),
    ("PROCESS_GROUP", &["ADDED", "REMOVED"]),
    ("REMOTE_COMMUNICATION", &[]),
    ("SUPERVISOR_STATE_CHANGE", &["RUNNING", "STOPPING"]),
    ("TICK", &["5", "60", "3600"]),
];

const NEVER_SENT: &str = "PROCESS_COMMUNICATION";

fn is_event(name: &str) -> bool {
    EVENTS.iter().any(|(family, kinds)| {
        name.strip_prefix(family).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix('_')
                    .is_some_and(|kind| kinds.contains(&kind))
        })
    })
}

const LISTENER_KEYS: &[&str] = &["events", "buffer_size", "result_handler"];
const SOCKET_KEYS: &[&str] = &["socket", "socket_owner", "socket_mode", "socket_backlog"];

/// Which section describes the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Program,
    Listener,
    FastCgi,
}

impl Sort {
    /// The sort and the program's name of a section.
    pub fn of(section: &str) -> Option<(Sort, &str)> {
        [
            ("program:", Sort::Program),
            ("eventlistener:", Sort::Listener),
            ("fcgi-program:", Sort::FastCgi),
        ]
        .into_iter()
        .find_map(|(prefix, sort)| section.strip_prefix(prefix).map(|name| (sort, name.trim())))
    }

    fn own_keys(self) -> &'static [&'static str] {
        match self {
            Sort::Program => &[],
            Sort::Listener => LISTENER_KEYS,
            Sort::FastCgi => SOCKET_KEYS,
        }
    }
}

type Names = BTreeMap<String, String>;

impl Reader<'_> {
    /// `50MB`, `0`, `12KB`; capped at what XML-RPC can say.
    fn bytes(&self, key: &str, default: u32) -> Result<u32, Error> {
        let Some(text) = self.section.get(key) else {
            return Ok(default);
        };
        let lower = text.trim().to_ascii_lowercase();
        let (digits, factor) = [("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30)]
            .into_iter()
            .find_map(|(unit, factor)| lower.strip_suffix(unit).map(|d| (d, factor)))
            .unwrap_or((&lower, 1_u64));
        let number: u64 = digits
            .trim()
            .parse()
            .map_err(|_| self.error(key, format!("`{text}` is not a size such as 50MB")))?;
        let bytes = number.saturating_mul(factor).min(i32::MAX as u64);
        Ok(u32::try_from(bytes).unwrap_or(default))
    }

    pub(super) fn log(&self, channel: &str, names: &Names) -> Result<Log, Error> {
        let key = |name: &str| format!("{channel}_{name}");
        let file = match self.optional(&key("logfile"), names)? {
            None => LogFile::Auto,
            Some(value) => match value.to_ascii_lowercase().as_str() {
                "auto" => LogFile::Auto,
                // Of old, `syslog` as a file name means the key of its own.
                "none" | "off" | "syslog" => LogFile::None,
                _ => LogFile::Path(value),
            },
        };
        Ok(Log {
            file,
            maxbytes: self.bytes(&key("logfile_maxbytes"), 50 << 20)?,
            backups: self.number(&key("logfile_backups"), 10)?,
            capture_maxbytes: self.bytes(&key("capture_maxbytes"), 0)?,
            events: self.flag(&key("events_enabled"), false)?,
            syslog: self.flag(&key("syslog"), false)?,
        })
    }

    pub(super) fn listener(&self, names: &Names) -> Result<Option<Listener>, Error> {
        if self.sort != Sort::Listener {
            return Ok(None);
        }
        if self.flag("redirect_stderr", false)? {
            return Err(self.error(
                "redirect_stderr",
                "an event listener speaks its protocol on stdout, so stderr must not go there",
            ));
        }
        let events: Vec<String> = self
            .optional("events", names)?
            .unwrap_or_default()
            .split(',')
            .map(|event| event.trim().to_ascii_uppercase())
            .filter(|event| !event.is_empty())
            .collect();
        if events.is_empty() {
            return Err(self.error("events", "it is missing, so it would never hear anything"));
        }
        if let Some(unknown) = events.iter().find(|event| !is_event(event)) {
            return Err(self.error("events", format!("there is no event {unknown}")));
        }
        let buffer_size = self.number::<usize>("buffer_size", 10)?.clamp(1, 1000);
        Ok(Some(Listener {
            events,
            buffer_size,
        }))
    }

    pub(super) fn socket(&self, names: &Names) -> Result<Option<FastCgiSocket>, Error> {
        if self.sort != Sort::FastCgi {
            return Ok(None);
        }
        let url = self
            .optional("socket", names)?
            .ok_or_else(|| self.error("socket", "it is missing"))?;
        let address = if let Some(host) = url.strip_prefix("tcp://") {
            FastCgiAddress::Tcp(inet(host).map_err(|reason| self.error("socket", reason))?)
        } else if let Some(path) = url.strip_prefix("unix://").filter(|p| p.starts_with('/')) {
            let mode = self.section.get("socket_mode").unwrap_or("0700");
            FastCgiAddress::Unix {
                path: path.to_owned(),
                mode: octal(mode).ok_or_else(|| {
                    self.error("socket_mode", format!("`{mode}` is not an octal mode"))
                })?,
                owner: self.optional("socket_owner", names)?,
            }
        } else {
            return Err(self.error(
                "socket",
                format!("`{url}` is neither tcp://host:port nor unix:///path"),
            ));
        };
        let backlog = match self.section.get("socket_backlog") {
            None => None,
            Some(_) => Some(self.number("socket_backlog", 0)?),
        };
        Ok(Some(FastCgiSocket { address, backlog }))
    }

    pub(super) fn report_keys(&self, warnings: &mut Vec<String>, not_applied: &mut Vec<String>) {
        let mut missed = Vec::new();
        for (key, value) in &self.section.options {
            let key = key.as_str();
            if NOT_APPLIED.contains(&key) {
                missed.push(key.to_owned());
            } else if key.ends_with("_logfile") && !relayed(value) {
                missed.push(format!(
                    "{key}={value} (its output goes to the container's log)"
                ));
            } else if ![KNOWN, LOG_KEYS, self.sort.own_keys()]
                .iter()
                .any(|keys| keys.contains(&key))
            {
                warnings.push(format!("{}: unknown key `{key}`", self.place));
            } else if key == "result_handler" {
                missed.push(format!("{key} (Python code; a result is OK or FAIL)"));
            } else if key == "events" && value.to_ascii_uppercase().contains(NEVER_SENT) {
                missed.push(format!("{key} {NEVER_SENT} (no output is captured)"));
            }
        }
        if !missed.is_empty() {
            not_applied.push(format!(
                "{}: without effect in a box: {}",
                self.place,
                missed.join(", ")
            ));
        }
    }
}

/// Whether the container's log is what the author of a `stdout_logfile` meant anyway.
fn relayed(value: &str) -> bool {
    matches!(
        value.to_ascii_uppercase().as_str(),
        "AUTO" | "NONE" | "SYSLOG" | ""
    ) || value.starts_with("/dev/")
        || value.starts_with("/proc/self/fd/")
        || value.starts_with("/var/log/")
}
