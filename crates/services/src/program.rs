//! What supervisord knows of a program and a [`Service`](crate::Service) has no word for:
//! its place in a group, and the keys that its clients are shown.

/// A process of supervisord: `supervisorctl status` calls it `group:process`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub process: String,
    pub group: String,
    pub group_priority: i32,
    pub priority: i32,
    /// `command=` with its variables expanded.
    pub command: String,
    pub startsecs: u32,
    pub startretries: u32,
    pub killasgroup: bool,
    pub redirect_stderr: bool,
    pub stdout: Log,
    pub stderr: Log,
    /// `serverurl=`; `None` is AUTO.
    pub server_url: Option<String>,
    /// Set for an `[eventlistener]`.
    pub listener: Option<Listener>,
    /// Set for a `[fcgi-program]`: its standard input.
    pub socket: Option<FastCgiSocket>,
}

/// The `stdout_*` or `stderr_*` keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub file: LogFile,
    pub maxbytes: u32,
    pub backups: u32,
    pub capture_maxbytes: u32,
    /// The output is sent to listeners as PROCESS_LOG events.
    pub events: bool,
    pub syslog: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFile {
    Auto,
    None,
    Path(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Event names, such as PROCESS_STATE or TICK_5.
    pub events: Vec<String>,
    /// Events that may wait for it; the oldest is dropped for one more.
    pub buffer_size: usize,
}

/// One socket for all processes of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FastCgiSocket {
    pub address: FastCgiAddress,
    pub backlog: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FastCgiAddress {
    /// `host:port`.
    Tcp(String),
    Unix {
        path: String,
        mode: u32,
        /// `user` or `user:group`; else the program's own user.
        owner: Option<String>,
    },
}
