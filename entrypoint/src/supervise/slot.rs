//! One service at run time: its machine, its processes, its output.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use services::Command;

use super::awaited::Awaited;
use super::leftovers::{self, MARK, Traits};
use super::machine::{Machine, Phase, Rules, State};
use super::reload::Pending;
use super::timers::Timed;
use super::watchdog::Watch;
use crate::accounts::{Accounts, Credentials};
use crate::exit::{Code, Failure, Result};
use crate::log::Lines;
use crate::plan::Planned;
use crate::root::{Owned, Root, cannot_create};
use crate::settings::Environment;
use crate::supervisord::words::unix_time;
use crate::sys::{self, PATH};

/// Of the container's environment, services see these and nothing else.
const PASSED_ON: &[&str] = &["LANG", "LANGUAGE", "LC_ALL", "TMPDIR", "TZ"];

pub struct Slot {
    pub planned: Planned,
    pub machine: Machine,
    pub credentials: Credentials,
    pub out: Stream,
    /// A program's stderr, when supervisord keeps it apart.
    pub errors: Option<Stream>,
    /// For supervisord's clients; see `rpc`.
    pub process: Process,
    pub notify: Option<UnixDatagram>,
    pub main: Option<Pid>,
    /// Sessions that its processes lead or led, and the number that all bear.
    pub sessions: Vec<i32>,
    number: u64,
    /// Of processes that we waited for, and what was told as the sum with the living ones.
    pub cpu_of_ended: Duration,
    pub cpu_told: Duration,
    pub watch: Option<Watch>,
    pub timed: Timed,
    pub awaited: Awaited,
    /// How it ended when it was told to.
    pub asked_end: Option<sys::Ended>,
    /// The last line of the box before it was started.
    pub wrote_before: u64,
    /// The last `STATUS=`.
    pub status: String,
    pub clearing: Option<Clearing>,
    /// Looking for the daemon of a forking service: when to look next, and how long after.
    pub finding: Option<(Instant, Duration)>,
    /// A reload of the box wants it stopped.
    pub pending: Option<Pending>,
    /// The ExecReload= that runs, and until when.
    pub reloading: Option<(Pid, Instant)>,
    pub reload_failed: Option<String>,
    /// It reads its files again, and when that has taken too long.
    pub renewing: Option<Renewing>,
    /// A reload took it out of the box; it keeps its place, which others are counted by.
    pub gone: bool,
}

/// A pipe that a service writes to, and the lines that came out of it.
pub struct Stream {
    pub reader: OwnedFd,
    writer: OwnedFd,
    pub lines: Lines,
}

/// What supervisord's clients are told of a process and the machine does not know.
#[derive(Default)]
pub struct Process {
    /// Tells this program from one that takes its place.
    pub id: u64,
    /// Its group was removed; the place is free for another one.
    pub removed: bool,
    /// Seconds since 1970; 0 is never.
    pub started: i64,
    pub stopped: i64,
    /// -1 for a signal, as Python has it.
    pub exit_status: Option<i32>,
    /// Why it did not start or did not stay.
    pub spawn_error: String,
    /// The last end was one that its file expects, and whose process it was.
    pub expected: bool,
    pub last_pid: i32,
    pub listening: super::events::Listening,
    /// Of an `[fcgi-program]`.
    pub socket: Option<std::rc::Rc<OwnedFd>>,
    /// Our end of its standard input, and what it has not taken yet.
    pub input: Option<OwnedFd>,
    pub unread: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub struct Renewing {
    /// It has said so, or is one that does: `READY=1` is to come.
    pub said: bool,
    pub until: Instant,
}

#[derive(Debug, Clone, Copy)]
pub struct Clearing {
    pub gentle: bool,
    pub signalled: bool,
    pub again: Instant,
}

impl Slot {
    pub fn new(planned: Planned, accounts: &Accounts, root: &Root, now: Instant) -> Result<Self> {
        let service = &planned.service;
        let credentials = accounts.credentials(&service.name, &service.identity)?;
        let out = Stream::new(&service.name, &credentials)?;
        let errors = match &service.program {
            Some(program) if !program.redirect_stderr => {
                Some(Stream::new(&service.name, &credentials)?)
            }
            _ => None,
        };
        let notify = match service.notifies() {
            true => Some(notify_socket(&service.name, root)?),
            false => None,
        };
        let state = match (&planned.skip, service.autostart) {
            (Some(_), _) => State::Skipped,
            (None, true) => State::Waiting,
            (None, false) => State::Stopped,
        };
        let machine = Machine::new(Rules::of(&planned), state, now);
        Ok(Slot {
            machine,
            credentials,
            out,
            errors,
            process: Process::default(),
            notify,
            main: None,
            sessions: Vec::new(),
            number: leftovers::next_number(),
            watch: None,
            timed: Timed::default(),
            cpu_of_ended: Duration::ZERO,
            cpu_told: Duration::ZERO,
            awaited: Awaited::default(),
            asked_end: None,
            wrote_before: 0,
            status: String::new(),
            clearing: None,
            finding: None,
            pending: None,
            reloading: None,
            reload_failed: None,
            renewing: None,
            gone: false,
            planned,
        })
    }

    pub fn name(&self) -> &str {
        &self.planned.service.name
    }

    /// What a stop wants: its signal, or a success of its own.
    pub fn is_clean(&self, ended: sys::Ended) -> bool {
        ended == sys::Ended::Signal(self.planned.service.stopping.signal)
            || self.machine.is_success(ended)
    }

    /// Given up, and the box goes on.
    pub fn is_done_without(&self) -> bool {
        !self.planned.required && self.machine.state() == State::Failed
    }

    /// What its processes are known by.
    pub fn traits(&self) -> Traits<'_> {
        Traits {
            name: self.name(),
            number: self.number,
            sessions: &self.sessions,
        }
    }

    fn command(&self, phase: Phase, at: usize) -> Option<&Command> {
        let commands = &self.planned.service.commands;
        match phase {
            Phase::Pre => commands.start_pre.get(at),
            Phase::Start => commands.start.get(at),
            Phase::Post => commands.start_post.get(at),
            Phase::Stop => commands.stop.get(at),
            Phase::StopPost => commands.stop_post.get(at),
            Phase::Reload => commands.reload.get(at),
            Phase::Check => None,
        }
    }

    /// A failure of this command counts as success.
    pub fn ignores_failure(&self, phase: Phase, at: usize) -> bool {
        self.command(phase, at)
            .is_some_and(|command| command.ignore_failure)
    }

    /// Starts the command; the error is fit to be shown.
    pub fn spawn(
        &mut self,
        phase: Phase,
        at: usize,
        root: &Root,
        accounts: &Accounts,
        container: &Environment,
    ) -> Result<Pid, String> {
        let service = &self.planned.service;
        if at == 0 && matches!(phase, Phase::Start | Phase::Pre) {
            self.make_directories(root)
                .map_err(|failure| failure.to_string())?;
        }
        let as_root = accounts.root();
        let (argv, argv0, credentials) = match self.command(phase, at) {
            Some(command) => {
                let environment = self.environment(&self.credentials, root, container)?;
                let lookup = |name: &str| {
                    environment
                        .iter()
                        .rev()
                        .find(|(k, _)| k == name)
                        .map(|(_, v)| v.clone())
                };
                let who = if command.privileged {
                    &as_root
                } else {
                    &self.credentials
                };
                (command.argv(lookup), command.argv0.clone(), who)
            }
            None => {
                let check = self
                    .planned
                    .ready
                    .as_ref()
                    .ok_or("it has no such command")?;
                let words = super::probe::arguments(&check.probe, &self.awaited.before);
                (words, None, &as_root)
            }
        };
        let environment = self.environment(credentials, root, container)?;
        let directory = match &service.working_directory {
            _ if phase == Phase::Check => None,
            Some(directory) => {
                let path = if directory.path == "~" {
                    &credentials.user.home
                } else {
                    &directory.path
                };
                let path = std::path::PathBuf::from(path);
                (!directory.optional || path.is_dir()).then_some(path)
            }
            None => Some("/".into()),
        };
        let shown = directory.clone();
        let (input, own_end) = match &service.program {
            Some(program) if program.socket.is_some() => {
                let socket = self.process.socket.as_ref();
                (socket.and_then(|socket| socket.try_clone().ok()), None)
            }
            Some(_) if phase == Phase::Start => {
                let (theirs, ours) = pipe(&service.name).map_err(|failure| failure.message)?;
                let _ = rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::NONBLOCK);
                (Some(theirs), Some(ours))
            }
            _ => (None, None),
        };
        let mut setup = sys::Setup {
            argv: &argv,
            argv0: argv0.as_deref(),
            environment: &environment,
            directory,
            credentials,
            umask: service.umask,
            nice: service.nice,
            oom_score_adj: service.oom_score_adj,
            limits: if phase == Phase::Check {
                &[]
            } else {
                &service.limits
            },
            number: Some(self.number),
            // Of a command with the prefix `+` they are not taken away.
            privileges: (!std::ptr::eq(credentials, &raw const as_root))
                .then_some(&service.privileges),
            output: &self.out.writer,
            errors: &self.errors.as_ref().unwrap_or(&self.out).writer,
            input,
        };
        let pid = sys::spawn(&mut setup).map_err(|error| {
            let program = argv.first().map_or("", String::as_str);
            match shown.filter(|d| !d.is_dir()) {
                Some(directory) => format!(
                    "its working directory {} does not exist",
                    directory.display()
                ),
                None => format!("cannot execute {program}: {error}"),
            }
        })?;
        self.sessions.push(pid.as_raw_nonzero().get());
        if own_end.is_some() {
            self.process.input = own_end;
            self.process.unread.clear();
        }
        Ok(pid)
    }

    /// Starts a process beside the service's, as its user; what it prints is the service's.
    pub fn spawn_helper(&self, argv: &[String]) -> std::io::Result<Pid> {
        sys::spawn(&mut sys::Setup {
            argv,
            argv0: None,
            environment: &[],
            directory: Some("/".into()),
            credentials: &self.credentials,
            umask: self.planned.service.umask,
            nice: None,
            oom_score_adj: None,
            limits: &[],
            privileges: Some(&self.planned.service.privileges),
            number: None,
            output: &self.out.writer,
            errors: &self.errors.as_ref().unwrap_or(&self.out).writer,
            input: None,
        })
    }

    /// The program, where its PATH finds it; else what supervisord says of it.
    pub fn executable(&self) -> Result<(), NotExecutable> {
        use std::os::unix::fs::PermissionsExt as _;
        let service = &self.planned.service;
        let word = service
            .commands
            .start
            .first()
            .and_then(|command| command.words.first())
            .map_or("", String::as_str);
        let found = if word.contains('/') {
            std::fs::metadata(word)
                .ok()
                .map(|meta| (word.to_owned(), meta))
        } else {
            let path = service
                .environment
                .iter()
                .rev()
                .find(|(name, _)| name == "PATH")
                .map_or(PATH, |(_, path)| path);
            path.split(':').find_map(|directory| {
                let path = format!("{directory}/{word}");
                std::fs::metadata(&path).ok().map(|meta| (path, meta))
            })
        };
        let (path, meta) =
            found.ok_or_else(|| NotExecutable::Missing(format!("can't find command '{word}'")))?;
        if meta.is_dir() {
            return Err(NotExecutable::Other(format!(
                "command at '{path}' is a directory"
            )));
        }
        if meta.permissions().mode() & 0o111 == 0 {
            return Err(NotExecutable::Other(format!(
                "command at '{path}' is not executable"
            )));
        }
        Ok(())
    }

    /// A process of it is about to be started.
    pub fn begins(&mut self) {
        self.process.started = unix_time();
        self.process.exit_status = None;
        self.process.spawn_error.clear();
    }

    fn make_directories(&self, root: &Root) -> Result<()> {
        for directory in &self.planned.service.directories {
            let owned = Owned {
                uid: self.credentials.user.uid,
                gid: self.credentials.gid,
                mode: directory.mode,
            };
            root.directory(&directory.path, owned)?;
        }
        Ok(())
    }

    /// A clean environment: nothing of the container's that could be a secret.
    fn environment(
        &self,
        who: &Credentials,
        root: &Root,
        container: &Environment,
    ) -> Result<Vec<(String, String)>, String> {
        let service = &self.planned.service;
        let mut out: Vec<(String, String)> = vec![("PATH".to_owned(), PATH.to_owned())];
        let mut put = |name: &str, value: &str| {
            out.retain(|(k, _)| k != name);
            out.push((name.to_owned(), value.to_owned()));
        };
        for name in PASSED_ON {
            if let Some(value) = container.get(name) {
                put(name, value);
            }
        }
        for (name, value) in [
            ("HOME", &who.user.home),
            ("USER", &who.user.name),
            ("LOGNAME", &who.user.name),
            ("SHELL", &who.user.shell),
        ] {
            put(name, value);
        }
        for directory in &service.directories {
            put(directory.variable, &directory.path);
        }
        for (name, value) in &service.environment {
            put(name, value);
        }
        for file in &service.environment_files {
            match root.read(&file.path) {
                Ok(Some(text)) => {
                    for (name, value) in services::systemd::environment_file(&text) {
                        put(&name, &value);
                    }
                }
                Ok(None) if file.optional => {}
                Ok(None) => {
                    return Err(format!("its EnvironmentFile= {} does not exist", file.path));
                }
                Err(failure) => return Err(failure.message),
            }
        }
        if let Some(main) = self.main {
            put("MAINPID", &main.as_raw_nonzero().to_string());
        }
        if self.notify.is_some() {
            put("NOTIFY_SOCKET", &notify_path(&service.name, root));
        }
        if let Some(period) = service.watchdog {
            put("WATCHDOG_USEC", &period.as_micros().to_string());
        }
        put(MARK, &service.name);
        Ok(out)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotExecutable {
    Missing(String),
    Other(String),
}

impl Stream {
    fn new(name: &str, credentials: &Credentials) -> Result<Self> {
        let (reader, writer) = pipe(name)?;
        // Our end only: a service must not find its stdout non-blocking.
        let _ = rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK);
        // A program that opens /dev/stdout anew needs the right to, after setuid.
        let _ =
            std::os::unix::fs::fchown(&writer, Some(credentials.user.uid), Some(credentials.gid));
        Ok(Stream {
            reader,
            writer,
            lines: Lines::default(),
        })
    }
}

fn pipe(name: &str) -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| {
        Failure::new(
            Code::Internal,
            format!("cannot make a pipe for {name}: {error}"),
        )
    })
}

fn notify_path(name: &str, root: &Root) -> String {
    root.path(&format!("/run/tiffin/notify/{}", name.replace('/', "_")))
        .to_string_lossy()
        .into_owned()
}

/// One socket a service, so that nobody has to ask who sent a message.
pub fn notify_socket(name: &str, root: &Root) -> Result<UnixDatagram> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = notify_path(name, root);
    let make = || -> std::io::Result<UnixDatagram> {
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        // The service writes to it as its own user.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(socket)
    };
    make().map_err(|error| cannot_create("the socket", &path, &error))
}
