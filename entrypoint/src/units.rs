//! The name `tiffin-units`: units that really run while a box is baked.
//!
//! The stand-in `systemctl` of a build calls it for the units that the recipe's `start`
//! names. Each has a supervisor of its own, which reads the unit's files when it starts:
//! between two starts a playbook may have rewritten them. Rejected: one supervisor for all,
//! which would have to take units in and read them again while it runs, as no box needs.
//!
//! A unit is not restarted when it dies: a build says so instead of going on beside it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use contract::{Unit, Variables};
use rustix::fs::FlockOperation;
use rustix::process::Pid;
use serde_json::json;
use services::{Kind, RestartWhen};

use crate::control::{self, Reply, Request};
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::root::Root;
use crate::settings::Environment;
use crate::supervise::Supervisor;
use crate::{plan, sys, tmpfiles, volume};

/// A directory for each unit that was started: `lock`, `log`, `control.sock`, `ended`.
const PLACE: &str = "/run/tiffin/units";
/// What systemd gives a unit that says nothing.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// So long a unit that does not tell when it is ready must live to count as started.
const SETTLE: Duration = Duration::from_secs(1);
/// Sandboxes share the machine's ports: the same unit of another build ends first.
const PATIENCE: Duration = Duration::from_secs(600);
/// Of a unit that failed.
const LINES: usize = 20;
const TICK: Duration = Duration::from_millis(10);

const USAGE: &str =
    "usage: tiffin-units start NAME PATH | stop NAME | reload NAME | is-active NAME | stop-all";

pub fn called(name: &OsStr, arguments: &[OsString]) -> Option<ExitCode> {
    if name.to_string_lossy().rsplit('/').next() != Some("tiffin-units") {
        return None;
    }
    let words: Vec<String> = arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let code = match words[..] {
        ["supervise", name, path] => supervise(name, path).unwrap_or_else(|failure| {
            crate::log::fail(&failure.to_string());
            failure.code
        }),
        ["start", name, path] => told(start(&Started::new(name), path)),
        ["stop", name] => told(stop(&Started::new(name))),
        ["stop-all"] => told(stop_all()),
        ["reload", name] => told(ask(
            &Started::new(name),
            &Request::ReloadService {
                name: base(name).to_owned(),
            },
        )),
        ["is-active", name] if Started::new(name).runs() => Code::Ok,
        ["is-active", _] => Code::Failed,
        _ => {
            eprintln!("{USAGE}");
            Code::Usage
        }
    };
    Some(ExitCode::from(code as u8))
}

fn told(done: Result<(), String>) -> Code {
    match done {
        Ok(()) => Code::Ok,
        Err(reason) => {
            eprintln!("{reason}");
            Code::Failed
        }
    }
}

fn base(name: &str) -> &str {
    name.strip_suffix(".service").unwrap_or(name)
}

/// One unit's place, which outlives it.
struct Started {
    name: String,
    directory: PathBuf,
}

impl Started {
    fn new(name: &str) -> Self {
        let name = name.replace('/', "_");
        Started {
            directory: PathBuf::from(PLACE).join(&name),
            name,
        }
    }

    fn socket(&self) -> String {
        format!("{PLACE}/{}/control.sock", self.name)
    }

    /// The file that the supervisor holds locked as long as it lives, with its process ID.
    fn lock(&self) -> io::Result<File> {
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.directory.join("lock"))
    }

    fn runs(&self) -> bool {
        self.directory.is_dir()
            && self.lock().is_ok_and(|lock| {
                rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
            })
    }

    /// Why it was given up, in the supervisor's words; else the last lines.
    fn why(&self) -> String {
        let text = fs::read(self.directory.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.ends_with(": stopped"))
            .collect();
        let given_up = format!("{} is given up:", base(&self.name));
        let from = lines
            .iter()
            .rposition(|line| line.contains(&given_up))
            .unwrap_or(lines.len().saturating_sub(LINES));
        let until = (from + LINES + 2).min(lines.len());
        lines[from..until].join("\n")
    }
}

fn start(unit: &Started, path: &str) -> Result<(), String> {
    if unit.runs() {
        return Ok(());
    }
    let cannot = |error: io::Error| format!("cannot start {}: {error}", unit.name);
    let _ = fs::remove_dir_all(&unit.directory);
    fs::create_dir_all(&unit.directory).map_err(cannot)?;
    let log = File::create(unit.directory.join("log")).map_err(cannot)?;
    let mut child = sys::supervise_unit(&["supervise", &unit.name, path], &log).map_err(cannot)?;
    let up = until_up(unit, &mut child);
    if up.is_err() {
        // Nothing of a failed start stays.
        if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = child.wait();
        let _ = fs::remove_dir_all(&unit.directory);
    }
    up
}

fn until_up(unit: &Started, child: &mut Child) -> Result<(), String> {
    let failed = |why: &str| format!("{} did not start\n{why}", unit.name);
    loop {
        let ended = child
            .try_wait()
            .map_err(|error| failed(&error.to_string()))?;
        if let Some(status) = ended {
            // A one-shot has done what it was for.
            return match status.success() {
                true => Ok(()),
                false => Err(failed(&unit.why())),
            };
        }
        if unit.directory.join("control.sock").exists() {
            let request = Request::Start {
                name: base(&unit.name).to_owned(),
            };
            let root = Root::new("/");
            match control::ask_at(&root, &unit.socket(), &request) {
                Ok(Reply::Done) => return Ok(()),
                // The supervisor ends now, and its log says why.
                Ok(_) | Err(_) => {
                    let until = Instant::now() + Duration::from_secs(10);
                    while child.try_wait().is_ok_and(|end| end.is_none()) && Instant::now() < until
                    {
                        std::thread::sleep(TICK);
                    }
                    if child.try_wait().is_ok_and(|end| end.is_none()) {
                        return Err(failed(&unit.why()));
                    }
                    continue;
                }
            }
        }
        std::thread::sleep(TICK);
    }
}

/// Stops it and waits until nothing of it runs.
fn stop(unit: &Started) -> Result<(), String> {
    if unit.runs() {
        let cannot = |error: io::Error| format!("cannot stop {}: {error}", unit.name);
        let mut lock = unit.lock().map_err(cannot)?;
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(cannot)?;
        if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        // Its supervisor has a time limit of its own.
        rustix::fs::flock(&lock, FlockOperation::LockShared).map_err(|e| cannot(e.into()))?;
    }
    match fs::read_to_string(unit.directory.join("ended")) {
        Ok(text) if !text.is_empty() => Err(format!("{text}\n{}", unit.why())),
        _ => Ok(()),
    }
}

/// What was started last is stopped first.
fn stop_all() -> Result<(), String> {
    let entries = fs::read_dir(PLACE).into_iter().flatten().flatten();
    let mut started: Vec<_> = entries
        .filter_map(|entry| {
            let since = fs::metadata(entry.path().join("log")).ok()?.created().ok();
            Some((since, entry.file_name().to_string_lossy().into_owned()))
        })
        .collect();
    started.sort();
    let problems: Vec<String> = started
        .iter()
        .rev()
        .filter_map(|(_, name)| stop(&Started::new(name)).err())
        .collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems.join("\n")),
    }
}

fn ask(unit: &Started, request: &Request) -> Result<(), String> {
    match control::ask_at(&Root::new("/"), &unit.socket(), request) {
        Ok(Reply::Refused(reason)) => Err(reason),
        Ok(_) => Ok(()),
        Err(failure) => Err(format!("{}: {}", unit.name, failure.message)),
    }
}

/// Runs the unit until SIGTERM, or until it ends by itself.
fn supervise(name: &str, path: &str) -> Result<Code> {
    let unit = Started::new(name);
    let cannot =
        |error: io::Error| Failure::new(Code::Internal, format!("cannot run {name}: {error}"));
    let mut lock = unit.lock().map_err(cannot)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| cannot(error.into()))?;
    write!(lock, "{}", std::process::id()).map_err(cannot)?;
    let _turn = turn(name)?;
    let contract = crate::start::bare(&json!({
        "format": contract::FORMAT,
        "product": {"name": name, "title": name, "version": "build"},
        "units": [Unit { name: name.to_owned(), path: path.to_owned() }],
    }))?;
    let root = Root::new("/");
    tmpfiles::make(&contract, &root)?;
    let variables = Variables::default();
    let engine = Engine::new(&contract, &variables);
    let mut environment = Environment::default();
    let mut plan = plan::plan(&contract, &engine, &root, &environment.variables)?;
    plan.socket = unit.socket();
    plan.quiet = true;
    let mut stop_timeout = Duration::ZERO;
    for planned in &mut plan.services {
        let service = &mut planned.service;
        service.restart.when = RestartWhen::Never;
        if let Kind::Simple { settle } = &mut service.kind {
            *settle = (*settle).max(SETTLE);
        }
        let own = service.stopping.timeout.unwrap_or(STOP_TIMEOUT);
        stop_timeout = stop_timeout.max(own);
    }
    for warning in &plan.warnings {
        say(&format!("note: {warning}"));
    }
    if plan.services.iter().all(|planned| planned.skip.is_some()) {
        let reasons = plan
            .services
            .iter()
            .filter_map(|planned| planned.skip.clone());
        let reasons: Vec<String> = reasons.collect();
        say(&format!("{name} is left out: {}", reasons.join(", ")));
        return Ok(Code::Ok);
    }
    let seconds = stop_timeout.as_secs().max(1).to_string();
    environment
        .variables
        .insert("TIFFIN_STOP_TIMEOUT".to_owned(), seconds);
    environment
        .variables
        .insert("LANG".to_owned(), "C.UTF-8".to_owned());
    let memory = volume::State::new(&contract, &root);
    let supervisor = Supervisor::new(plan, &root, &environment, &memory, "build")?;
    let (code, killed) = supervisor.run_and_tell();
    let problem = match (code, killed.is_empty()) {
        (Code::Ok, true) => String::new(),
        (Code::Ok, false) => format!(
            "{} did not stop within {} s and was killed: its files may not be whole",
            killed.join(", "),
            stop_timeout.as_secs()
        ),
        _ => format!("{name} ended by itself"),
    };
    fs::write(unit.directory.join("ended"), problem).map_err(cannot)?;
    Ok(code)
}

/// Held as long as the unit runs; a name that goes with the machine's ports.
fn turn(name: &str) -> Result<std::os::unix::net::UnixListener> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let cannot =
        |error: io::Error| Failure::new(Code::Internal, format!("cannot run {name}: {error}"));
    let address = SocketAddr::from_abstract_name(format!("tiffin-unit-{name}")).map_err(cannot)?;
    let begun = Instant::now();
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(cannot(error)),
            Err(_) if begun.elapsed() > PATIENCE => {
                return Err(Failure::new(
                    Code::Locked,
                    format!(
                        "cannot run {name}: another build on this machine has run it for {} s, and they would share its ports",
                        PATIENCE.as_secs()
                    ),
                ));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
