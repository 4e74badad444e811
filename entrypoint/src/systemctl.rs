//! The names `systemctl` and `service` in a running box: the verbs and exit codes that
//! scripts and health checks of packages use, answered through the control socket.
//!
//! Only services exist. What would change the box for its next start (enable, mask) is
//! refused: the image says which services there are.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::control::{self, Reply, Request, Status};
use crate::root::Root;

/// systemctl(1) and the LSB: not running, no such unit, not installed.
const INACTIVE: u8 = 3;
const UNKNOWN: u8 = 4;
const NOT_FOUND: u8 = 5;

const USAGE: &str = "\
systemctl VERB [NAME…] in a box:
  status, show [-p PROPERTY] [--value], is-active, is-failed, is-enabled
  start, stop, restart, reload, try-restart, reload-or-restart
  list-units, is-system-running, daemon-reload (nothing to do)
service NAME start|stop|restart|reload|force-reload|status, service --status-all
";

pub fn called(name: &OsStr, arguments: &[OsString]) -> Option<ExitCode> {
    let words: Vec<String> = arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let code = match name.to_string_lossy().rsplit('/').next() {
        Some("systemctl") => systemctl(&words),
        Some("service") => service(&words),
        _ => return None,
    };
    Some(ExitCode::from(code.unwrap_or_else(|message| {
        eprintln!("{message}");
        1
    })))
}

#[derive(Default)]
struct Call {
    root: PathBuf,
    verb: String,
    names: Vec<String>,
    quiet: bool,
    value: bool,
    now: bool,
    properties: Vec<String>,
}

fn parse(words: &[String]) -> Result<Call, String> {
    let mut call = Call {
        root: "/".into(),
        ..Call::default()
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, given) = match word.split_once('=').filter(|_| word.starts_with("--")) {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let mut value = || {
            given
                .clone()
                .or_else(|| words.next().cloned())
                .ok_or_else(|| format!("systemctl: option '{name}' requires an argument"))
        };
        match name {
            "-q" | "--quiet" => call.quiet = true,
            "--value" => call.value = true,
            "--now" => call.now = true,
            "-p" | "--property" => {
                let list = value()?;
                call.properties.extend(list.split(',').map(str::to_owned));
            }
            "--root" => call.root = value()?.into(),
            "-t" | "--type" | "--state" | "-n" | "--lines" | "-o" | "--output" | "--job-mode" => {
                drop(value()?);
            }
            "-h" | "--help" => call.verb = "help".to_owned(),
            "--version" => call.verb = "version".to_owned(),
            // How much is shown, whether it waits: the same here.
            option if option.starts_with('-') => {}
            verb if call.verb.is_empty() => call.verb = verb.to_owned(),
            name => call.names.push(name.to_owned()),
        }
    }
    Ok(call)
}

fn services(root: &Root) -> Result<Vec<Status>, String> {
    match control::ask(root, &Request::Status { measure: false }) {
        Ok(Reply::Services(services)) => Ok(services),
        Ok(_) => Err("the box gave an answer that is none".to_owned()),
        Err(_) => Err(
            "System has not been booted with systemd as init system (PID 1). Can't operate.\n\
             The box is not running: this works by `docker exec` in one that was started."
                .to_owned(),
        ),
    }
}

fn base(name: &str) -> &str {
    name.strip_suffix(".service").unwrap_or(name)
}

/// The services that `name` means: its own, or all of a group, or of a supervisor's unit.
fn named<'a>(services: &'a [Status], name: &str) -> Vec<&'a Status> {
    let name = base(name);
    services
        .iter()
        .filter(|service| {
            service.name == name || service.aliases.iter().any(|alias| base(alias) == name)
        })
        .collect()
}

/// systemd's ActiveState and SubState of them together: the least healthy counts.
fn state(services: &[&Status]) -> (&'static str, &'static str) {
    let of = |service: &&Status| match service.state.as_str() {
        "ready" => (0, "active", "running"),
        "finished" if service.remains => (0, "active", "exited"),
        "finished" => (1, "inactive", "dead"),
        "waiting" | "starting" => (2, "activating", "start"),
        "backoff" => (3, "activating", "auto-restart"),
        "stopping" => (4, "deactivating", "stop-sigterm"),
        "failed" => (6, "failed", "failed"),
        _ => (5, "inactive", "dead"),
    };
    services
        .iter()
        .filter(|s| services.len() == 1 || s.enabled)
        .map(of)
        .max()
        .map_or(("inactive", "dead"), |(_, active, sub)| (active, sub))
}

fn act(root: &Root, request: &Request) -> Result<(), String> {
    match control::ask(root, request) {
        Ok(Reply::Refused(reason)) => Err(reason),
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.to_string()),
    }
}

fn systemctl(words: &[String]) -> Result<u8, String> {
    let call = parse(words)?;
    let root = Root::new(&call.root);
    match call.verb.as_str() {
        "help" => {
            print!("{USAGE}");
            return Ok(0);
        }
        "version" => {
            println!("systemd 252 (Tiffin's own systemctl)");
            return Ok(0);
        }
        // Files are read when they are needed.
        "daemon-reload" | "daemon-reexec" | "reset-failed" => return Ok(0),
        "enable" | "disable" | "mask" | "unmask" | "preset" | "edit" | "set-property" | "link"
        | "revert" => return change(&call, &root),
        _ => {}
    }
    let all = services(&root)?;
    match call.verb.as_str() {
        "" | "list-units" | "list-unit-files" => Ok(list(&all)),
        "is-system-running" => {
            let said = if all.iter().any(|s| s.state == "failed") {
                "degraded"
            } else if all.iter().all(|s| s.healthy) {
                "running"
            } else {
                "starting"
            };
            println!("{said}");
            Ok(u8::from(said != "running"))
        }
        verb @ ("start"
        | "stop"
        | "restart"
        | "reload"
        | "try-restart"
        | "condrestart"
        | "reload-or-restart"
        | "force-reload"
        | "try-reload-or-restart"
        | "kill") => {
            if call.names.is_empty() {
                return Err("Too few arguments.".to_owned());
            }
            if verb == "kill" {
                return Err(
                    "kill is not offered here; supervisorctl signal is, and kill(1)".into(),
                );
            }
            let mut code = 0;
            for name in &call.names {
                code = code.max(operate(&root, verb, name, &named(&all, name)));
            }
            Ok(code)
        }
        verb @ ("status" | "show" | "is-active" | "is-failed" | "is-enabled" | "cat") => {
            let names: Vec<String> = if call.names.is_empty() {
                all.iter().map(|service| service.name.clone()).collect()
            } else {
                call.names.clone()
            };
            let mut codes = Vec::new();
            for name in &names {
                let found = named(&all, name);
                codes.push(match verb {
                    "status" => status(&root, name, &found),
                    "show" => show(&call, name, &found),
                    "is-enabled" => is_enabled(&call, name, &found),
                    "cat" => cat(&root, name),
                    verb => is(&call, verb, &found),
                });
            }
            Ok(match verb {
                // One that is, is enough; else what the first is.
                "is-active" | "is-failed" | "is-enabled" if codes.contains(&0) => 0,
                "is-active" | "is-failed" | "is-enabled" => codes.first().copied().unwrap_or(1),
                _ => codes.into_iter().max().unwrap_or(0),
            })
        }
        "poweroff" | "halt" | "reboot" | "exit" => {
            Err("a box is stopped from outside: docker stop BOX".to_owned())
        }
        verb => Err(format!("Unknown command verb {verb}.\n{USAGE}")),
    }
}

/// What an image has is decided when it is built.
fn change(call: &Call, root: &Root) -> Result<u8, String> {
    let all = services(root)?;
    for name in &call.names {
        let found = named(&all, name);
        if found.is_empty() {
            return Err(format!(
                "Failed to {} unit: Unit file {}.service does not exist.",
                call.verb,
                base(name)
            ));
        }
        if call.verb != "enable" && call.verb != "unmask" {
            return Err(format!(
                "Failed to {} {}: which services start is part of the image; the recipe's `services:` says it",
                call.verb,
                base(name)
            ));
        }
        if call.now {
            act(
                root,
                &Request::Start {
                    name: base(name).to_owned(),
                },
            )?;
        }
    }
    Ok(0)
}

fn operate(root: &Root, verb: &str, name: &str, found: &[&Status]) -> u8 {
    let unit = base(name);
    if found.is_empty() {
        eprintln!("Failed to {verb} {unit}.service: Unit {unit}.service not found.");
        return NOT_FOUND;
    }
    let name = unit.to_owned();
    let running = !matches!(state(found).0, "inactive" | "failed");
    let request = match verb {
        "start" => Request::Start { name },
        "stop" => Request::Stop { name },
        "restart" => Request::Restart { name },
        "try-restart" | "condrestart" | "try-reload-or-restart" if !running => return 0,
        "try-restart" | "condrestart" => Request::Restart { name },
        "reload" if !running => {
            eprintln!("{unit}.service is not active, cannot reload.");
            return 1;
        }
        "reload" => Request::ReloadService { name },
        _ if !running => Request::Start { name },
        _ => match act(root, &Request::ReloadService { name: name.clone() }) {
            Ok(()) => return 0,
            Err(_) => Request::Restart { name },
        },
    };
    match act(root, &request) {
        Ok(()) => 0,
        Err(reason) => {
            eprintln!("Job for {unit}.service failed: {reason}");
            1
        }
    }
}

fn is(call: &Call, verb: &str, found: &[&Status]) -> u8 {
    let (active, _) = state(found);
    if !call.quiet {
        println!("{active}");
    }
    match (verb, active) {
        ("is-active", "active") | ("is-failed", "failed") => 0,
        ("is-failed", _) => 1,
        _ if found.is_empty() => UNKNOWN,
        _ => INACTIVE,
    }
}

fn is_enabled(call: &Call, name: &str, found: &[&Status]) -> u8 {
    if found.is_empty() {
        eprintln!(
            "Failed to get unit file state for {}.service: No such file or directory",
            base(name)
        );
        return 1;
    }
    let enabled = found.iter().any(|service| service.enabled);
    if !call.quiet {
        println!("{}", if enabled { "enabled" } else { "disabled" });
    }
    u8::from(!enabled)
}

fn status(root: &Root, name: &str, found: &[&Status]) -> u8 {
    if found.is_empty() {
        eprintln!("Unit {}.service could not be found.", base(name));
        return UNKNOWN;
    }
    for service in found {
        let (active, sub) = state(&[service]);
        let mark = match active {
            "active" => "\u{25cf}",
            "failed" => "\u{d7}",
            _ => "\u{25cb}",
        };
        let enabled = if service.enabled {
            "enabled"
        } else {
            "disabled"
        };
        let description = match service.description.as_str() {
            "" => &service.name,
            text => text,
        };
        println!("{mark} {}.service - {description}", service.name);
        println!("     Loaded: loaded ({enabled})");
        println!("     Active: {active} ({sub}); {} s ago", service.seconds);
        if let Some(pid) = service.pid {
            println!("   Main PID: {pid}");
        }
        if !service.note.is_empty() {
            println!("     Status: \"{}\"", service.note);
        }
        let logs = Request::Logs {
            follow: false,
            name: Some(service.name.clone()),
        };
        if let Ok(Reply::Lines(lines)) = control::ask(root, &logs)
            && !lines.is_empty()
        {
            println!();
            for line in &lines[lines.len().saturating_sub(10)..] {
                println!("{line}");
            }
        }
    }
    if state(found).0 == "active" {
        0
    } else {
        INACTIVE
    }
}

fn show(call: &Call, name: &str, found: &[&Status]) -> u8 {
    let (active, sub) = state(found);
    let one = found.first();
    let loaded = if found.is_empty() {
        "not-found"
    } else {
        "loaded"
    };
    let enabled = match one {
        Some(_) if found.iter().any(|s| s.enabled) => "enabled",
        Some(_) => "disabled",
        None => "",
    };
    let result = if active == "failed" {
        "exit-code"
    } else {
        "success"
    };
    let pid = one.and_then(|service| service.pid).unwrap_or(0);
    let restarts = one.map_or(0, |service| service.restarts);
    let description = one.map_or("", |service| &service.description);
    let properties = [
        ("Id", format!("{}.service", base(name))),
        ("Names", format!("{}.service", base(name))),
        ("Description", description.to_owned()),
        ("LoadState", loaded.to_owned()),
        ("ActiveState", active.to_owned()),
        ("SubState", sub.to_owned()),
        ("UnitFileState", enabled.to_owned()),
        ("Result", result.to_owned()),
        ("MainPID", pid.to_string()),
        ("NRestarts", restarts.to_string()),
        ("StatusText", one.map_or(String::new(), |s| s.note.clone())),
    ];
    for (key, value) in properties {
        if !call.properties.is_empty() && !call.properties.iter().any(|wanted| wanted == key) {
            continue;
        }
        if call.value {
            println!("{value}");
        } else {
            println!("{key}={value}");
        }
    }
    0
}

fn cat(root: &Root, name: &str) -> u8 {
    let places = [
        "/etc/systemd/system",
        "/lib/systemd/system",
        "/usr/lib/systemd/system",
    ];
    for place in places {
        let path = format!("{place}/{}.service", base(name));
        if let Ok(Some(text)) = root.read(&path) {
            print!("# {path}\n{text}");
            return 0;
        }
    }
    eprintln!("No files found for {}.service.", base(name));
    1
}

fn list(all: &[Status]) -> u8 {
    let unit = |service: &Status| format!("{}.service", service.name);
    let width = all.iter().map(|s| unit(s).len()).max().unwrap_or(0);
    for service in all {
        let (active, sub) = state(&[service]);
        println!(
            "{:width$} loaded {active} {sub} {}",
            unit(service),
            service.description
        );
    }
    0
}

fn service(words: &[String]) -> Result<u8, String> {
    let (root, words) = match words {
        [option, root, rest @ ..] if option == "--root" => (PathBuf::from(root), rest),
        _ => (PathBuf::from("/"), words),
    };
    let root = Root::new(root);
    match words {
        [option] if option == "--status-all" => {
            for service in services(&root)? {
                let mark = if service.state == "ready" { '+' } else { '-' };
                println!(" [ {mark} ]  {}", service.name);
            }
            Ok(0)
        }
        [name, verb, ..] => {
            let all = services(&root)?;
            let found = named(&all, name);
            match verb.as_str() {
                "status" => Ok(status(&root, name, &found)),
                "start" | "stop" | "restart" | "reload" | "force-reload" | "try-restart" => {
                    if found.is_empty() {
                        eprintln!("{name}: unrecognized service");
                        return Ok(1);
                    }
                    Ok(operate(&root, verb, name, &found))
                }
                _ => Err(format!("service: {verb} is not offered here\n{USAGE}")),
            }
        }
        _ => Err(USAGE.to_owned()),
    }
}
