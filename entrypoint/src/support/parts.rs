//! What is in a bundle. Never: the environment, rendered files, data.

use std::fmt::Write as _;
use std::sync::Arc;

use contract::Contract;
use serde_json::{Value, json};
use sha2::Digest as _;

use super::{Made, command};
use crate::control::{self, Reply, Request};
use crate::engine::Engine;
use crate::root::Root;
use crate::settings::{self, Environment};
use crate::volume::State;
use crate::{ca_bundle, preflight, start};

pub struct Part {
    /// Its path in the archive.
    pub name: String,
    pub make: Box<dyn FnOnce() -> Made + Send>,
}

/// What every part may look at.
struct About {
    contract: Contract,
    root: Root,
    environment: Environment,
}

type Maker = fn(&About) -> Result<String, String>;

/// Kernel and container, as they count for the services.
const RESOURCES: &[&str] = &[
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
    "/proc/1/limits",
    "/proc/net/sockstat",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count",
    "/proc/sys/vm/swappiness",
    "/proc/sys/net/core/somaxconn",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/cpu.stat",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.current",
    "/sys/fs/cgroup/memory.peak",
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory.stat",
    "/sys/fs/cgroup/pids.max",
    "/sys/fs/cgroup/pids.current",
    "/sys/fs/cgroup/io.stat",
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    "/sys/fs/cgroup/cpu/cpu.stat",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    "/sys/fs/cgroup/memory/memory.failcnt",
    "/sys/fs/cgroup/pids/pids.max",
];

pub fn all(contract: &Contract, root: &Root, environment: &Environment) -> Vec<Part> {
    let about = Arc::new(About {
        contract: contract.clone(),
        root: root.clone(),
        environment: environment.clone(),
    });
    let makers: [(&str, Maker); 9] = [
        ("versions.json", versions),
        ("settings.json", settings_origin),
        ("status.json", status),
        ("preflight.txt", |it| {
            let checks = preflight::all(&it.contract, &it.root, &it.environment);
            Ok(preflight::text(&checks))
        }),
        ("resources.txt", |it| Ok(texts(&it.root, RESOURCES))),
        ("mounts.txt", |it| {
            Ok(texts(&it.root, &["/proc/self/mountinfo"]))
        }),
        ("processes.txt", |it| Ok(processes(&it.root))),
        ("logs/services.txt", |it| logs(it, None)),
        ("logs/tiffin.txt", |it| logs(it, Some("tiffin"))),
    ];
    let mut parts: Vec<Part> = makers
        .into_iter()
        .map(|(name, maker)| {
            let about = Arc::clone(&about);
            let make = move || match maker(&about) {
                Ok(text) => Made {
                    text: text.into_bytes(),
                    problem: None,
                },
                Err(problem) => Made {
                    text: Vec::new(),
                    problem: Some(problem),
                },
            };
            Part {
                name: name.to_owned(),
                make: Box::new(make),
            }
        })
        .collect();
    parts.extend(commands(&about));
    parts
}

/// The recipe's own, with their expressions rendered.
fn commands(about: &About) -> Vec<Part> {
    let contract = &about.contract;
    let state = State::new(contract, &about.root);
    let resolved = start::resolve(contract, &state, &about.environment).unwrap_or_default();
    let variables = start::values(contract, &about.root, &resolved);
    let engine = Engine::new(contract, &variables);
    // Servers of the operator's may be known by his own authorities alone.
    let trusted = ca_bundle::variables(contract, &engine, &about.root).unwrap_or_default();
    let part = |(name, words): (&String, &Vec<String>)| {
        let trusted = trusted.clone();
        let words: Result<Vec<String>, String> =
            words.iter().map(|word| engine.text(word)).collect();
        let make = move || match words {
            Ok(words) => command::run(&words, &trusted),
            Err(problem) => Made {
                text: Vec::new(),
                problem: Some(problem),
            },
        };
        Part {
            name: format!("support/{name}.txt"),
            make: Box::new(make),
        }
    };
    contract.support.iter().map(part).collect()
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn versions(it: &About) -> Result<String, String> {
    let kernel = rustix::system::uname();
    let release = it
        .root
        .read("/etc/os-release")
        .ok()
        .flatten()
        .unwrap_or_default();
    let base = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let bytes = std::fs::read(it.root.path(contract::PATH))
        .map_err(|error| format!("{}: {error}", contract::PATH))?;
    let fingerprint: String = sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let engine = match () {
        () if it.root.path("/.dockerenv").exists() => "docker",
        () if it.root.path("/run/.containerenv").exists() => "podman",
        () if it.environment.get("KUBERNETES_SERVICE_HOST").is_some() => "kubernetes",
        () => "unknown",
    };
    Ok(pretty(&json!({
        "product": it.contract.product.name,
        "version": it.contract.product.version,
        "entrypoint": env!("CARGO_PKG_VERSION"),
        "contract_sha256": fingerprint,
        "base": base.map(|name| name.trim_matches('"')),
        "kernel": kernel.release().to_string_lossy(),
        "machine": kernel.machine().to_string_lossy(),
        "engine": engine,
        "user": crate::sys::who(),
    })))
}

fn settings_origin(it: &About) -> Result<String, String> {
    let state = State::new(&it.contract, &it.root);
    let resolved =
        start::resolve(&it.contract, &state, &it.environment).map_err(|failure| failure.message)?;
    Ok(settings::origin::origin(&it.contract, &resolved, true))
}

fn ask(it: &About, request: &Request) -> Result<Reply, String> {
    match control::ask(&it.root, request) {
        Ok(Reply::Refused(reason)) => Err(reason),
        Ok(reply) => Ok(reply),
        Err(failure) => Err(failure.message),
    }
}

fn status(it: &About) -> Result<String, String> {
    match ask(it, &Request::Status { measure: true })? {
        Reply::Services(services) => control::report(&it.root, &services)
            .map(|report| pretty(&report))
            .map_err(|failure| failure.message),
        _ => Err("the box gave another answer".to_owned()),
    }
}

fn logs(it: &About, name: Option<&str>) -> Result<String, String> {
    let request = Request::Logs {
        name: name.map(str::to_owned),
        follow: false,
    };
    match ask(it, &request)? {
        Reply::Lines(lines) => Ok(lines.iter().map(|line| format!("{line}\n")).collect()),
        _ => Err("the box gave another answer".to_owned()),
    }
}

/// Those of the files that there are.
fn texts(root: &Root, paths: &[&str]) -> String {
    let mut out = String::new();
    for path in paths {
        if let Ok(Some(text)) = root.read(path) {
            let _ = write!(out, "==> {path}\n{text}\n");
        }
    }
    out
}

fn processes(root: &Root) -> String {
    let mut out = format!(
        "{:>7} {:>7} S {:>10} {:>4}  COMMAND\n",
        "PID", "PARENT", "RESIDENT", "THR"
    );
    let mut pids: Vec<u32> = root
        .names("/proc")
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        let Ok(Some(status)) = root.read(&format!("/proc/{pid}/status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let words = root
            .read(&format!("/proc/{pid}/cmdline"))
            .ok()
            .flatten()
            .unwrap_or_default();
        let words = match words.trim_end_matches('\0') {
            "" => format!("[{}]", field("Name")),
            words => words.replace('\0', " "),
        };
        let state = field("State");
        let _ = writeln!(
            out,
            "{pid:>7} {:>7} {} {:>10} {:>4}  {}",
            field("PPid"),
            state.chars().next().unwrap_or('?'),
            field("VmRSS"),
            field("Threads"),
            words.escape_debug()
        );
    }
    out
}
