//! Processes and signals: the only module with `unsafe`, most of it between fork and exec.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]
#![allow(unsafe_code)]

mod privileges;
mod spawn;

use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};
use services::{Limit, Privileges, Resource as Name};

use crate::accounts::Credentials;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Who we are, as `docker run -u` takes it.
pub fn who() -> String {
    format!(
        "{}:{}",
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw()
    )
}

/// What the container lets us do to other users; it never changes.
struct Rights {
    /// Give files away, become others, read and stop what is theirs: all of it or none, as
    /// a part is of no use (a service's user must be able to read its files).
    over_users: bool,
    /// First and count of the numbers that exist here (user_namespaces(7)).
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
}

fn rights() -> &'static Rights {
    static RIGHTS: OnceLock<Rights> = OnceLock::new();
    RIGHTS.get_or_init(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0);
        let groups = fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
        let map = |name: &str| {
            fs::read_to_string(format!("/proc/self/{name}"))
                .unwrap_or_default()
                .lines()
                .filter_map(|line| {
                    let mut fields = line.split_whitespace();
                    let first = fields.next()?.parse().ok()?;
                    Some((first, fields.nth(1)?.parse().ok()?))
                })
                .collect()
        };
        Rights {
            over_users: effective & OVER_USERS == OVER_USERS && groups.trim() != "deny",
            uids: map("uid_map"),
            gids: map("gid_map"),
        }
    })
}

/// CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID and SETUID, by number (capabilities(7)); all
/// are among those that engines give by default.
const OVER_USERS: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7;

/// Whether a file can be given to this owner and group.
pub fn may_own(uid: u32, gid: u32) -> bool {
    let has = |map: &[(u32, u32)], id: u32| {
        map.iter()
            .any(|(first, count)| id >= *first && id - first < *count)
    };
    let rights = rights();
    rights.over_users && has(&rights.uids, uid) && has(&rights.gids, gid)
}

/// Whether a process can become this user.
pub fn may_become(who: &Credentials) -> bool {
    may_own(who.user.uid, who.gid) && who.groups.iter().all(|gid| may_own(who.user.uid, *gid))
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

/// How a process ended, for a message.
pub fn told(status: rustix::process::WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "stopped".to_owned(),
    }
}

/// Where programs are looked for by whoever is given no PATH of its own.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything a process needs that is not its command line.
pub struct Setup<'a> {
    pub argv: &'a [String],
    pub argv0: Option<&'a str>,
    pub environment: &'a [(String, String)],
    pub directory: Option<PathBuf>,
    /// Kept as the entrypoint's when they cannot be had, see [`may_become`].
    pub credentials: &'a Credentials,
    pub umask: u32,
    pub nice: Option<i32>,
    pub oom_score_adj: Option<i32>,
    pub limits: &'a [Limit],
    pub privileges: Option<&'a Privileges>,
    /// What the process and all that it starts are known by, see [`number_of`].
    pub number: Option<u64>,
    pub output: &'a OwnedFd,
    pub errors: &'a OwnedFd,
    /// `None` is /dev/null.
    pub input: Option<OwnedFd>,
}

/// Starts a process as the leader of a session of its own, so that all it starts can be
/// found again. Errors of exec are reported here, not by the child.
pub fn spawn(setup: &mut Setup<'_>) -> io::Result<Pid> {
    let [program, ..] = setup.argv else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the command line is empty",
        ));
    };
    let argv0 = setup.argv0.unwrap_or(program);
    let rest = setup.argv.iter().skip(1).map(String::as_str);
    let argv = strings(std::iter::once(argv0).chain(rest))?;
    let assignments: Vec<String> = setup
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let environment = strings(assignments.iter().map(String::as_str))?;
    let path = setup.environment.iter().rev().find(|(k, _)| k == "PATH");
    let path = path.map_or("", |(_, path)| path.as_str());
    // All memory the child needs is made here: until exec it must not allocate.
    let directory = setup
        .directory
        .as_ref()
        .map(|path| CString::new(path.as_os_str().as_encoded_bytes()))
        .transpose()?;
    let limits: Vec<(Resource, Rlimit)> = setup.limits.iter().filter_map(limit).collect();
    let becomes = may_become(setup.credentials);
    let pretence = (!becomes && is_root()).then(pretence);
    let identity = becomes.then(|| {
        let c = setup.credentials;
        let groups: Vec<Gid> = c.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        (Uid::from_raw(c.user.uid), Gid::from_raw(c.gid), groups)
    });
    let narrowed = setup.privileges.filter(|p| **p != Privileges::default());
    let umask = rustix::fs::Mode::from_raw_mode(setup.umask);
    let nice = setup.nice;
    let number = setup.number;
    let oom = setup
        .oom_score_adj
        .map(|score| format!("{score}\n").into_bytes());
    let input = match &setup.input {
        Some(input) => input.as_fd(),
        None => nothing()?.as_fd(),
    };
    let streams = [input, setup.output.as_fd(), setup.errors.as_fd()];
    let mut child = || -> io::Result<()> {
        rustix::process::setsid()?;
        for (stream, number) in streams.iter().zip(0..) {
            // SAFETY: plain numbers; the descriptor is ours and is not one of these three,
            // which are open from the start.
            if unsafe { nix::libc::dup2(stream.as_raw_fd(), number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (resource, wanted) in &limits {
            set_limit(*resource, *wanted)?;
        }
        // The soft limit alone: nobody needs a right to have the same again. A hard limit that
        // is lower is the container's, and this one cannot be had.
        if number.is_some() {
            let maximum = rustix::process::getrlimit(NUMBER).maximum;
            let current = number;
            let _ = rustix::process::setrlimit(NUMBER, Rlimit { current, maximum });
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
        if let Some(privileges) = narrowed {
            privileges::before(privileges)?;
        }
        if let Some((uid, gid, groups)) = &identity {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
        }
        if let Some(privileges) = narrowed {
            privileges::after(privileges)?;
        }
        if let Some(filter) = &pretence {
            // Without it, programs that change users end; whether it is there or not, none can.
            let _ = filtered(filter);
        }
        if let Some(directory) = &directory {
            // As the user, as systemd does: a directory it may not enter is an error now.
            rustix::process::chdir(directory.as_c_str())?;
        }
        Ok(())
    };
    spawn::program(program, path, &argv, &environment, &mut child)
}

fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> io::Result<Vec<CString>> {
    texts.map(|text| Ok(CString::new(text)?)).collect()
}

/// /dev/null, opened once.
fn nothing() -> io::Result<&'static OwnedFd> {
    static NOTHING: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(fd) = NOTHING.get() {
        return Ok(fd);
    }
    let fd = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    Ok(NOTHING.get_or_init(|| fd.into()))
}

type Filter = Vec<nix::libc::sock_filter>;

/// As linux/audit.h counts them.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// A system call filter that answers "done" to whoever changes users or owners, without
/// doing it.
///
/// nginx, Apache, PHP and their like end when root cannot become their user. Where the
/// container took that right from root (`--cap-drop ALL`, a user namespace of one user), it
/// took all others too: the process is as weak as it would be under its user's number, and
/// all services are one user whatever they do.
fn pretence() -> Filter {
    use nix::libc as c;
    let statement = |code: u32, k: u32| c::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let calls = [
        c::SYS_setuid,
        c::SYS_setgid,
        c::SYS_setreuid,
        c::SYS_setregid,
        c::SYS_setresuid,
        c::SYS_setresgid,
        c::SYS_setgroups,
        #[cfg(target_arch = "x86_64")]
        c::SYS_chown,
        #[cfg(target_arch = "x86_64")]
        c::SYS_lchown,
        c::SYS_fchown,
        c::SYS_fchownat,
    ];
    // Of struct seccomp_data, the call's number is the first word and the architecture that
    // it is meant for the second. A jump says how many instructions it passes over.
    let word = |at| statement(c::BPF_LD | c::BPF_W | c::BPF_ABS, at);
    let jump_if = |wanted, yes: usize, no: usize| c::sock_filter {
        jt: yes as u8,
        jf: no as u8,
        ..statement(c::BPF_JMP | c::BPF_JEQ | c::BPF_K, wanted)
    };
    let mut filter = vec![word(4), jump_if(ARCHITECTURE, 0, calls.len() + 1), word(0)];
    for (at, call) in calls.iter().enumerate() {
        filter.push(jump_if(*call as u32, calls.len() - at, 0));
    }
    filter.push(statement(c::BPF_RET | c::BPF_K, c::SECCOMP_RET_ALLOW));
    // Fails with the error 0: success.
    filter.push(statement(c::BPF_RET | c::BPF_K, c::SECCOMP_RET_ERRNO));
    filter
}

/// Makes system calls only: it runs between fork and exec.
fn filtered(filter: &Filter) -> io::Result<()> {
    use nix::libc as c;
    let program = c::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: prctl(2) reads the program, which lives until the end of this function, and
    // its instructions, which the kernel does not write to.
    let done = unsafe {
        c::prctl(c::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && c::prctl(
                c::PR_SET_SECCOMP,
                c::SECCOMP_MODE_FILTER,
                &raw const program,
            ) == 0
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What the command of an init is kept apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    None,
    /// A process group of its own, in the foreground of the terminal if there is one.
    Group,
    /// A session of its own, to which the terminal belongs if there is one.
    Session {
        debug: bool,
    },
}

/// Starts the one command of an init with our environment and files. It begins with the
/// signal mask `mask`, in `directory` or else where we are; what was ignored before stays
/// ignored.
pub fn spawn_foreground(
    argv: &[std::ffi::OsString],
    isolation: Isolation,
    mask: SigSet,
    directory: Option<&OwnedFd>,
) -> io::Result<Pid> {
    use nix::libc;
    let [program, arguments @ ..] = argv else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    // A background process that takes the terminal would be stopped by these.
    // SAFETY: SIG_IGN is no function that could be called at a wrong moment.
    let before = unsafe {
        [
            (libc::SIGTTIN, libc::signal(libc::SIGTTIN, libc::SIG_IGN)),
            (libc::SIGTTOU, libc::signal(libc::SIGTTOU, libc::SIG_IGN)),
        ]
    };
    let directory = directory.map(|fd| fd.try_clone()).transpose()?;
    let child = move || -> io::Result<()> {
        if let Some(directory) = &directory {
            rustix::process::fchdir(directory)?;
        }
        match isolation {
            Isolation::None => {}
            Isolation::Group => {
                rustix::process::setpgid(None, None)?;
                // SAFETY: takes plain numbers; without a terminal it fails, which is right.
                unsafe { libc::tcsetpgrp(0, libc::getpgrp()) };
            }
            Isolation::Session { debug } => {
                rustix::process::setsid()?;
                // SAFETY: as above.
                unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
                if debug {
                    let text = b"[dumb-init] setsid complete.\n";
                    // SAFETY: descriptor 2 is open or the call fails; the text is static.
                    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
                }
            }
        }
        for (signal, handler) in before {
            // SAFETY: the handler is what the kernel gave for this signal before.
            unsafe { libc::signal(signal, handler) };
        }
        mask.thread_set_mask()?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only, on memory prepared before the fork.
    unsafe { command.pre_exec(child) };
    let child = command.spawn()?;
    Pid::from_raw(child.id().cast_signed())
        .ok_or_else(|| io::Error::other("the kernel gave no process id"))
}

/// `address:port`. Names are not resolved, but for `localhost`: the binary has no resolver.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text
        .strip_prefix("localhost:")
        .map(|port| format!("127.0.0.1:{port}"));
    numeric
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("`{text}` is not an IP address with a port, such as 127.0.0.1:6379"))
}

/// What `TcpListener::bind` makes of text would bring a resolver of names with it, and with that
/// a loader of libraries: a tenth of the binary, for names that nobody listens on.
pub fn listen(text: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address(text).map_err(io::Error::other)?)
}

/// The next client of a listening socket, not blocking and not passed on to services. One for
/// whom no descriptor is left is turned away: in line, it would wake us for ever.
pub fn accept(listener: BorrowedFd<'_>) -> Option<OwnedFd> {
    use rustix::net::{SocketFlags, accept_with};
    let accept = || accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    loop {
        match accept() {
            Ok(client) => return Some(client),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(Errno::MFILE | Errno::NFILE) => {
                // The one that is kept for this serves to take it and let it go.
                drop(spare().take());
                let turned_away = accept().is_ok();
                keep_spare();
                if !turned_away {
                    std::thread::sleep(Duration::from_millis(10));
                    return None;
                }
            }
            Err(_) => return None,
        }
    }
}

fn spare() -> MutexGuard<'static, Option<OwnedFd>> {
    static SPARE: Mutex<Option<OwnedFd>> = Mutex::new(None);
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a descriptor aside for [`accept`].
pub fn keep_spare() {
    *spare() = fs::File::open("/dev/null").ok().map(OwnedFd::from);
}

/// Large buffers go back to the kernel as soon as they are free. By itself, glibc keeps them
/// once it has seen some come and go.
pub fn keep_no_buffers() {
    const LARGE: i32 = 128 << 10;
    // SAFETY: takes plain numbers.
    unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, LARGE);
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, LARGE);
    }
}

/// Gives back what only the start needed: free memory, the stack below us, and the pages of our
/// code and constants, of which the few that the loop uses come back from the page cache.
pub fn settle() {
    // SAFETY: free memory is nobody's.
    unsafe { nix::libc::malloc_trim(0) };
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (from, to) in program(&maps) {
        // SAFETY: these were never writable, so that every page of them is in the file.
        unsafe { advise(from, to, nix::libc::MADV_DONTNEED) };
        // Since Linux 6.18 a page fault maps as much around it as the page cache holds in one
        // piece, of a file that was just written all of it, but nothing beyond its mapping. So
        // it is made one of pieces, by a flag that tells them apart and that means nothing to
        // a process that is not dumped.
        for piece in (from & !(PIECE - 1)..to).step_by(2 * PIECE) {
            // SAFETY: changes no page.
            unsafe {
                advise(
                    piece.max(from),
                    to.min(piece + PIECE),
                    nix::libc::MADV_DONTDUMP,
                )
            };
        }
    }
    let here = (&raw const maps).addr();
    let stack = maps.lines().find(|line| line.ends_with("[stack]"));
    if let Some((from, _)) = stack.and_then(range) {
        let below = (here & !0xfff).saturating_sub(4 << 12);
        // SAFETY: what lies four pages below `maps` are frames of deeper calls that have ended;
        // the one that is made now needs less.
        unsafe { advise(from, below, nix::libc::MADV_DONTNEED) };
    }
}

/// Bytes that a page fault maps at most. Smaller pieces cost more of the kernel's memory, some 200
/// bytes each, than they save.
const PIECE: usize = 32 << 10;

/// Where /proc/PID/maps says that a program's constants and code are. The linker puts constants
/// that need no relocation before the code. What lies behind it has been written to, and would be
/// lost.
fn program(maps: &str) -> Vec<(usize, usize)> {
    let files = || maps.lines().filter(|line| line.contains('/'));
    // The kernel's own code, [vdso], may lie before ours.
    let code = files().position(|line| line.contains(" r-xp "));
    files()
        .take(code.map_or(0, |at| at + 1))
        .filter(|line| !line.contains(" rw"))
        .filter_map(range)
        .collect()
}

/// The addresses of a line of /proc/PID/maps.
fn range(line: &str) -> Option<(usize, usize)> {
    let (from, to) = line.split(' ').next()?.split_once('-')?;
    let address = |text: &str| usize::from_str_radix(text, 16).ok();
    Some((address(from)?, address(to)?))
}

/// # Safety
/// Nothing that the advice takes away may be used again.
unsafe fn advise(from: usize, to: usize, advice: i32) {
    if from < to {
        let place = std::ptr::without_provenance_mut(from);
        // SAFETY: as our caller says.
        unsafe { nix::libc::madvise(place, to - from, advice) };
    }
}

pub fn current_directory() -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c".", flags, Mode::empty()).ok()
}

/// Starts this program again in the background: a session of its own, no terminal, no
/// standard streams. `words` are its arguments.
pub fn detach(words: &[String]) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("supervisord")
        .args(words)
        .arg("-n")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = || -> io::Result<()> {
        rustix::process::setsid()?;
        Ok(())
    };
    // SAFETY: the closure makes one system call.
    unsafe { command.pre_exec(child) };
    command.spawn().map(drop)
}

/// This program as `tiffin-units`, with a session of its own and this log.
pub fn supervise_unit(words: &[&str], log: &std::fs::File) -> io::Result<std::process::Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("tiffin-units")
        .args(words)
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    let child = || -> io::Result<()> {
        rustix::process::setsid()?;
        Ok(())
    };
    // SAFETY: the closure makes one system call.
    unsafe { command.pre_exec(child) };
    command.spawn()
}

/// Lets go of the terminal; whether there was one.
pub fn leave_terminal() -> bool {
    // SAFETY: takes plain numbers and touches no memory.
    unsafe { nix::libc::ioctl(0, nix::libc::TIOCNOTTY) == 0 }
}

pub fn default_signal(signal: nix::sys::signal::Signal) {
    // SAFETY: SIG_DFL is no function that could be called at a wrong moment.
    unsafe { nix::libc::signal(signal as i32, nix::libc::SIG_DFL) };
}

/// Gets `signal` when the parent dies.
pub fn die_with_parent(signal: i32) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = rustix::process::set_parent_process_death_signal(Some(signal));
    }
}

/// The words of strerror(3), without the number that Rust adds.
pub fn text_of(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
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
        // Linux ignores it, and we do not: see `NUMBER`.
        Name::Locks => return None,
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

/// The signals that the loop wants to see, blocked and readable from a descriptor: all but
/// those of a defect, of limits and of job control.
pub fn signal_fd() -> nix::Result<SignalFd> {
    use nix::sys::signal::Signal as S;
    let mut set = SigSet::all();
    for signal in [
        S::SIGABRT,
        S::SIGBUS,
        S::SIGCONT,
        S::SIGFPE,
        S::SIGILL,
        S::SIGPIPE,
        S::SIGSEGV,
        S::SIGSYS,
        S::SIGTRAP,
        S::SIGTSTP,
        S::SIGTTIN,
        S::SIGTTOU,
        S::SIGXCPU,
        S::SIGXFSZ,
    ] {
        set.remove(signal);
    }
    descriptor_of(&set)
}

/// Those that end a program which has a terminal, and the one that tells its size.
pub fn ending_signals() -> nix::Result<SignalFd> {
    use nix::sys::signal::Signal as S;
    let mut set = SigSet::empty();
    for signal in [S::SIGTERM, S::SIGINT, S::SIGQUIT, S::SIGHUP, S::SIGWINCH] {
        set.add(signal);
    }
    descriptor_of(&set)
}

fn descriptor_of(set: &SigSet) -> nix::Result<SignalFd> {
    set.thread_block()?;
    SignalFd::with_flags(set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// One ended child; `None` when there is no other.
pub fn reap() -> Option<(Pid, Ended)> {
    reap_with_usage().map(|(pid, ended, _)| (pid, ended))
}

/// Also the CPU time of the process and of the children that it waited for.
pub fn reap_with_usage() -> Option<(Pid, Ended, Duration)> {
    use nix::libc::{WEXITSTATUS, WIFEXITED, WIFSIGNALED, WNOHANG, WTERMSIG};
    loop {
        let mut status = 0;
        let mut usage = std::mem::MaybeUninit::<nix::libc::rusage>::zeroed();
        // SAFETY: both places are ours, live as long as the call, and are large enough.
        let pid = unsafe { nix::libc::wait4(-1, &raw mut status, WNOHANG, usage.as_mut_ptr()) };
        if pid < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        let pid = Pid::from_raw(pid.max(0))?;
        let ended = if WIFEXITED(status) {
            Ended::Exit(WEXITSTATUS(status))
        } else if WIFSIGNALED(status) {
            Ended::Signal(WTERMSIG(status))
        } else {
            continue;
        };
        // SAFETY: numbers alone, of which all zeros are valid ones.
        let usage = unsafe { usage.assume_init() };
        let cpu = [usage.ru_utime, usage.ru_stime]
            .into_iter()
            .map(|time| {
                Duration::from_secs(time.tv_sec.unsigned_abs())
                    + Duration::from_micros(time.tv_usec.unsigned_abs())
            })
            .sum();
        return Some((pid, ended, cpu));
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

/// As [`kill`], for every process of the group that `pid` leads.
pub fn kill_group(pid: Pid, signal: i32) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// One line of /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub session: i32,
    pub zombie: bool,
    /// With the children that it has waited for.
    pub cpu: Duration,
    /// Resident, in bytes.
    pub memory: u64,
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
    // utime, stime, cutime, cstime, and far behind them rss: proc_pid_stat(5).
    let mut ticks: u64 = fields.nth(7)?.parse().ok()?;
    for _ in 0..3 {
        ticks += fields.next()?.parse::<u64>().ok()?;
    }
    let pages: u64 = fields.nth(6)?.parse().ok()?;
    let hertz = rustix::param::clock_ticks_per_second().max(1);
    Some(Process {
        pid,
        parent,
        session,
        zombie: matches!(state, "Z" | "X"),
        cpu: Duration::from_millis(ticks.saturating_mul(1000) / hertz),
        memory: pages.saturating_mul(rustix::param::page_size() as u64),
    })
}

/// Whether a process handles SIGHUP; it would end others.
pub fn catches_hangup(pid: Pid) -> bool {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap_or_default();
    let caught = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
    caught.is_some_and(|caught| caught & 1 == 1)
}

/// A limit that no kernel since 2.4.25 looks at (getrlimit(2)), and that a process has from who
/// started it, through exec, setsid, another user and an emptied environment: the place of a
/// number that tells whose it is.
const NUMBER: Resource = Resource::Locks;

/// The number of [`Setup::number`], which every process may read.
pub fn number_of(pid: i32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
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

#[cfg(test)]
mod tests {
    /// It stood first in one start of fifty, and all that a start had needed stayed mapped.
    #[test]
    fn the_programs_code_is_known_where_the_kernels_own_comes_before_it() {
        let vdso = "7f00000f0000-7f00000f2000 r-xp 00000000 00:00 0 [vdso]\n";
        let file = "7f0000200000-7f0000286000 r--p 00000000 fe:00 60 /usr/lib/tiffin/entrypoint\n\
                    7f0000286000-7f0000678000 r-xp 00085000 fe:00 60 /usr/lib/tiffin/entrypoint\n\
                    7f0000678000-7f00006bb000 r--p 00476000 fe:00 60 /usr/lib/tiffin/entrypoint\n\
                    7f00006bb000-7f00006bf000 rw-p 004b8000 fe:00 60 /usr/lib/tiffin/entrypoint\n";
        let heap = "555500000000-555500021000 rw-p 00000000 00:00 0 [heap]\n";
        let program = [
            (0x7f00_0020_0000, 0x7f00_0028_6000),
            (0x7f00_0028_6000, 0x7f00_0067_8000),
        ];
        for maps in [format!("{heap}{vdso}{file}"), format!("{heap}{file}{vdso}")] {
            assert_eq!(super::program(&maps), program);
        }
        assert_eq!(super::program(vdso), []);
    }
}
