//! Processes and signals: the only file with `unsafe`, all of it between fork and exec.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid, WaitOptions};
use services::{Limit, Resource as Name};

use crate::accounts::Credentials;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

/// Everything a process needs that is not its command line.
pub struct Setup<'a> {
    pub argv: &'a [String],
    pub argv0: Option<&'a str>,
    pub environment: &'a [(String, String)],
    pub directory: Option<PathBuf>,
    /// `None` keeps what the entrypoint runs as.
    pub credentials: Option<&'a Credentials>,
    pub umask: u32,
    pub nice: Option<i32>,
    pub oom_score_adj: Option<i32>,
    pub limits: &'a [Limit],
    pub output: &'a OwnedFd,
    pub errors: &'a OwnedFd,
    /// `None` is /dev/null.
    pub input: Option<OwnedFd>,
}

/// Starts a process as the leader of a session of its own, so that all it starts can be
/// found again. Errors of exec are reported here, not by the child.
pub fn spawn(setup: &mut Setup<'_>) -> io::Result<Pid> {
    let [program, arguments @ ..] = setup.argv else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the command line is empty",
        ));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(setup.environment.iter().map(|(k, v)| (k, v)))
        .stdin(setup.input.take().map_or_else(Stdio::null, Stdio::from))
        .stdout(setup.output.try_clone()?)
        .stderr(setup.errors.try_clone()?);
    if let Some(name) = setup.argv0 {
        command.arg0(name);
    }
    // All memory the child needs is made here: between fork and exec it must not allocate.
    let directory = setup
        .directory
        .as_ref()
        .map(|path| CString::new(path.as_os_str().as_encoded_bytes()))
        .transpose()?;
    let limits: Vec<(Resource, Rlimit)> = setup.limits.iter().filter_map(limit).collect();
    let identity = setup.credentials.map(|c| {
        let groups: Vec<Gid> = c.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        (Uid::from_raw(c.user.uid), Gid::from_raw(c.gid), groups)
    });
    let umask = rustix::fs::Mode::from_raw_mode(setup.umask);
    let nice = setup.nice;
    let oom = setup
        .oom_score_adj
        .map(|score| format!("{score}\n").into_bytes());
    let child = move || -> io::Result<()> {
        rustix::process::setsid()?;
        SigSet::empty().thread_set_mask()?;
        for (resource, wanted) in &limits {
            set_limit(*resource, *wanted)?;
        }
        if let Some(nice) = nice {
            // A better priority needs a right that containers seldom have.
            let _ = rustix::process::setpriority_process(None, nice);
        }
        if let Some(score) = &oom
            && let Ok(file) = rustix::fs::open(
                c"/proc/self/oom_score_adj",
                rustix::fs::OFlags::WRONLY,
                rustix::fs::Mode::empty(),
            )
        {
            let _ = rustix::io::write(file, score);
        }
        rustix::process::umask(umask);
        if let Some((uid, gid, groups)) = &identity {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
        }
        if let Some(directory) = &directory {
            // As the user, as systemd does: a directory it may not enter is an error now.
            rustix::process::chdir(directory.as_c_str())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only, on memory prepared before the fork; the
    // entrypoint has one thread, so no lock can be held by another one.
    unsafe { command.pre_exec(child) };
    let child = command.spawn()?;
    Pid::from_raw(child.id().cast_signed())
        .ok_or_else(|| io::Error::other("the kernel gave no process id"))
}

/// Becomes another program; returns only when that fails.
pub fn exec(argv: &[String]) -> io::Error {
    // The mask that start-up may have set would be inherited.
    let _ = SigSet::empty().thread_set_mask();
    match argv {
        [program, arguments @ ..] => Command::new(program).args(arguments).exec(),
        [] => io::Error::from(io::ErrorKind::NotFound),
    }
}

fn limit(limit: &Limit) -> Option<(Resource, Rlimit)> {
    let resource = match limit.resource {
        Name::AddressSpace => Resource::As,
        Name::Core => Resource::Core,
        Name::Cpu => Resource::Cpu,
        Name::Data => Resource::Data,
        Name::FileSize => Resource::Fsize,
        Name::Locks => Resource::Locks,
        Name::MemoryLock => Resource::Memlock,
        Name::MessageQueue => Resource::Msgqueue,
        Name::Nice => Resource::Nice,
        Name::OpenFiles => Resource::Nofile,
        Name::Processes => Resource::Nproc,
        Name::RealtimePriority => Resource::Rtprio,
        Name::RealtimeTime => Resource::Rttime,
        Name::ResidentSet => Resource::Rss,
        Name::PendingSignals => Resource::Sigpending,
        Name::Stack => Resource::Stack,
    };
    Some((
        resource,
        Rlimit {
            current: limit.soft,
            maximum: limit.hard,
        },
    ))
}

/// Containers seldom may raise a hard limit; then it is as high as it can be.
fn set_limit(resource: Resource, wanted: Rlimit) -> io::Result<()> {
    match rustix::process::setrlimit(resource, wanted) {
        Err(Errno::PERM) => {
            let hard = rustix::process::getrlimit(resource).maximum;
            let lower = |a: Option<u64>| match (a, hard) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let within = Rlimit {
                current: lower(wanted.current),
                maximum: lower(wanted.maximum),
            };
            rustix::process::setrlimit(resource, within).map_err(Into::into)
        }
        other => other.map_err(Into::into),
    }
}

/// The signals that the loop wants to see, blocked and readable from a descriptor.
pub fn signal_fd() -> nix::Result<SignalFd> {
    use nix::sys::signal::Signal as S;
    let mut set = SigSet::empty();
    for signal in [
        S::SIGCHLD,
        S::SIGTERM,
        S::SIGINT,
        S::SIGQUIT,
        S::SIGHUP,
        S::SIGUSR1,
        S::SIGUSR2,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// One ended child; `None` when there is no other.
pub fn reap() -> Option<(Pid, Ended)> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let ended = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ended::Exit(code),
                    (None, Some(signal)) => Ended::Signal(signal),
                    (None, None) => continue,
                };
                return Some((pid, ended));
            }
            Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// A process that is gone already is no error.
pub fn kill(pid: Pid, signal: i32) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = rustix::process::kill_process(pid, signal);
    } else {
        // SAFETY: kill(2) takes plain numbers and touches no memory; real-time signals
        // have no name in rustix.
        let _ = unsafe { nix::libc::kill(pid.as_raw_nonzero().get(), signal) };
    }
}

/// One line of /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub session: i32,
    pub zombie: bool,
}

/// Every process this one can see.
pub fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

pub fn process(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process {
        pid,
        parent,
        session,
        zombie: matches!(state, "Z" | "X"),
    })
}

/// The environment with which a process was started.
pub fn environment_of(pid: i32) -> Option<Vec<u8>> {
    use std::os::unix::fs::MetadataExt as _;
    let path = format!("/proc/{pid}/environ");
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_root() => {
            // Root in a container may not look into other users' processes (no
            // CAP_SYS_PTRACE), but each user may look into its own.
            let owner = fs::metadata(format!("/proc/{pid}")).ok()?;
            let become_ = |uid: u32, gid: u32| {
                // SAFETY: both take plain numbers, touch no memory and concern this
                // thread alone, which is the only one.
                unsafe {
                    if uid == 0 {
                        nix::libc::setfsuid(uid);
                        nix::libc::setfsgid(gid);
                    } else {
                        nix::libc::setfsgid(gid);
                        nix::libc::setfsuid(uid);
                    }
                }
            };
            become_(owner.uid(), owner.gid());
            let content = fs::read(&path);
            become_(0, rustix::process::getegid().as_raw());
            content.ok()
        }
        other => other.ok(),
    }
}
