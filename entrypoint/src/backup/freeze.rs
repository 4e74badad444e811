//! A database that holds still: the recipe's `freeze` command, from its line to its end.
//!
//! The command holds while we hold the other end of its standard input. When this process
//! dies in any way, the kernel closes it, and the database goes on.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::accounts::Credentials;
use crate::exit::{Code, Failure, Result};
use crate::root::Root;
use crate::sys;

/// Until the command says that the files are consistent.
const FREEZE: Duration = Duration::from_secs(180);
/// Until the command has ended after that.
const THAW: Duration = Duration::from_secs(60);
/// More than this is no line.
const LINE: usize = 4096;

pub struct Command<'a> {
    pub service: &'a str,
    pub words: &'a [String],
    pub credentials: Credentials,
}

/// A database that takes no writes for as long as this lives.
pub struct Frozen {
    service: String,
    pid: Pid,
    hold: Option<OwnedFd>,
    /// Kept open: what it says when it thaws is no broken pipe.
    out: OwnedFd,
    since: Instant,
}

/// Starts all commands at once, then waits for each: the window is that of the slowest.
pub fn freeze(root: &Root, commands: &[Command<'_>]) -> Result<Vec<Frozen>> {
    let mut started = Vec::new();
    for command in commands {
        started.push(
            start(root, command)
                .map_err(|error| cannot(command.service, &format!("cannot start: {error}")))?,
        );
    }
    let until = Instant::now() + FREEZE;
    for frozen in &mut started {
        read_line(&frozen.out, until).map_err(|reason| cannot(&frozen.service, &reason))?;
        frozen.since = Instant::now();
    }
    Ok(started)
}

fn cannot(service: &str, reason: &str) -> Failure {
    Failure::new(
        Code::Failed,
        format!("cannot back up {service}: its freeze command {reason}"),
    )
    .hint("`tiffin status` and `tiffin logs` show how the service is; nothing was changed")
}

fn start(root: &Root, command: &Command<'_>) -> io::Result<Frozen> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (input, hold) = pipe()?;
    let (out, output) = pipe()?;
    let errors = io::stderr().as_fd().try_clone_to_owned()?;
    let pid = sys::spawn(&mut sys::Setup {
        argv: command.words,
        argv0: None,
        environment: &command.credentials.user.environment(),
        directory: Some(root.path("/")),
        credentials: &command.credentials,
        umask: 0o077,
        nice: None,
        oom_score_adj: None,
        limits: &[],
        number: None,
        privileges: None,
        output: &output,
        errors: &errors,
        input: Some(input),
    })?;
    Ok(Frozen {
        service: command.service.to_owned(),
        pid,
        hold: Some(hold),
        out,
        since: Instant::now(),
    })
}

fn read_line(out: &OwnedFd, until: Instant) -> Result<(), String> {
    let mut seen = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        let ready = rustix::event::poll(&mut [PollFd::new(out, PollFlags::IN)], Some(&timeout));
        match ready {
            Ok(0) => {
                return Err(format!(
                    "did not say within {} s that it is frozen",
                    FREEZE.as_secs()
                ));
            }
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(format!("cannot be read: {error}")),
            Ok(_) => {}
        }
        let mut buffer = [0; LINE];
        match rustix::io::read(out, &mut buffer) {
            Ok(0) => return Err("ended before it was frozen".to_owned()),
            Ok(count) if buffer[..count].contains(&b'\n') => return Ok(()),
            Ok(count) => seen += count,
            Err(error) => return Err(format!("cannot be read: {error}")),
        }
        if seen > LINE {
            return Err("says something else than a line".to_owned());
        }
    }
}

/// Lets all go on; answers how long the first one had been frozen until the last one went on.
///
/// # Errors
///
/// When a command ended by itself, above all at its own time limit: what was copied then is
/// worth nothing. All are let go nonetheless.
pub fn thaw(mut frozen: Vec<Frozen>) -> Result<Duration> {
    let since = frozen.iter().map(|one| one.since).min();
    let early: Vec<Result<()>> = frozen.iter().map(Frozen::holds).collect();
    for one in &mut frozen {
        one.hold = None;
    }
    let until = Instant::now() + THAW;
    let late: Vec<Result<()>> = frozen.iter().map(|one| one.ends(until)).collect();
    early.into_iter().chain(late).collect::<Result<()>>()?;
    Ok(since.map(|since| since.elapsed()).unwrap_or_default())
}

impl Frozen {
    fn holds(&self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => Err(self.failed(&format!("ended too early ({})", sys::told(status)))),
        }
    }

    fn ends(&self, until: Instant) -> Result<()> {
        loop {
            match self.ended() {
                Ok(Some(status)) if status.exit_status() == Some(0) => return Ok(()),
                Ok(Some(status)) => {
                    return Err(self.failed(&format!("did not thaw it ({})", sys::told(status))));
                }
                Ok(None) if Instant::now() > until => {
                    sys::kill(self.pid, 15);
                    let reason = format!("did not end within {} s", THAW.as_secs());
                    return Err(self.failed(&reason));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(failure) => return Err(failure),
            }
        }
    }

    fn failed(&self, reason: &str) -> Failure {
        cannot(&self.service, reason)
    }

    fn ended(&self) -> Result<Option<WaitStatus>> {
        let waited = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG)
            .map_err(|error| self.failed(&format!("is gone: {error}")))?;
        Ok(waited.map(|(_, status)| status))
    }
}
