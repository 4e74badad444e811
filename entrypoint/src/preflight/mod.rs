//! `preflight`: whether the machine has what the box needs, before anything relies on it.
//!
//! What the start looks at too reads a few files and asks no network; the verb also tries
//! to reach what settings name. Each finding says what to do.

mod machine;
mod network;
pub mod volumes;

use contract::{Contract, Needs};
use serde::Serialize;

use crate::certificates::{DAY, InUse};
use crate::engine::Engine;
use crate::exit::Code;
use crate::log::warn;
use crate::root::Root;
use crate::settings::{Environment, Resolved};
use crate::start;
use crate::volume::State;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, but not well, or not for long.
    Warning,
    /// It will not work.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub level: Level,
    /// With units.
    pub found: String,
    /// What to do next; of what is well, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &str, found: impl Into<String>) -> Self {
        Check {
            name: name.to_owned(),
            level: Level::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn warning(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Check {
            level: Level::Warning,
            advice: Some(advice.into()),
            ..Check::ok(name, found)
        }
    }

    fn error(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Check {
            level: Level::Error,
            ..Check::warning(name, found, advice)
        }
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// Everything, the network too.
pub fn all(contract: &Contract, root: &Root, environment: &Environment) -> Vec<Check> {
    let mut checks = Vec::new();
    let resolved = match start::resolve(contract, &State::new(contract, root), environment) {
        Ok(resolved) => {
            let given = resolved.given().count();
            checks.push(Check::ok(
                "settings",
                format!("{given} given, all are right"),
            ));
            resolved
        }
        Err(failure) => {
            let advice = failure.hint.unwrap_or_default();
            checks.push(Check::error("settings", failure.message, advice));
            Resolved::default()
        }
    };
    checks.extend(local(contract, root, &resolved));
    let variables = start::values(contract, root, &resolved);
    let engine = Engine::new(contract, &variables);
    checks.extend(network::checks(contract, root, &resolved, &engine));
    checks
}

/// As at the start, with the settings as they are now.
pub fn quick(contract: &Contract, root: &Root, environment: &Environment) -> Vec<Check> {
    let state = State::new(contract, root);
    let resolved = start::resolve(contract, &state, environment).unwrap_or_default();
    local(contract, root, &resolved)
}

/// What takes no longer than reading a few files.
fn local(contract: &Contract, root: &Root, resolved: &Resolved) -> Vec<Check> {
    let needs = needs(contract, root, resolved);
    let mut checks = machine::checks(root, &needs);
    checks.extend(volumes::checks(contract, root, &needs));
    checks.extend(resolved.certificates.iter().map(certificate));
    checks
}

/// That it is right at all, the settings' check has said.
fn certificate(one: &InUse) -> Check {
    let told = one.told();
    let (name, found) = (format!("certificate {}", one.name), told.line());
    match told.left {
        // What the box made, it makes again.
        left if left > 30 * DAY || one.is_made => Check::ok(&name, found),
        _ => Check::warning(
            &name,
            found,
            "renew it in time; files that it was given by are read as soon as they change",
        ),
    }
}

/// A start is not refused for any of it: what is too little today was enough yesterday.
pub fn warn_at_start(contract: &Contract, root: &Root, resolved: &Resolved) {
    for check in local(contract, root, resolved) {
        if check.level > Level::Ok {
            let advice = check.advice.unwrap_or_default();
            warn(&format!(
                "preflight: {}: {}\nhint: {advice}",
                check.name, check.found
            ));
        }
    }
}

/// The box's needs with those of the services that run.
fn needs(contract: &Contract, root: &Root, resolved: &Resolved) -> Needs {
    let variables = start::values(contract, root, resolved);
    let engine = Engine::new(contract, &variables);
    let services = contract.services.values().filter(|service| {
        let when = service.when.as_ref();
        // One whose condition cannot be evaluated yet may run.
        !service.needs.is_nothing() && when.is_none_or(|when| engine.holds(when).unwrap_or(true))
    });
    services.fold(contract.needs.clone(), |all, service| {
        add(all, &service.needs)
    })
}

fn add(all: Needs, more: &Needs) -> Needs {
    let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    };
    let mut cpu = all.cpu;
    cpu.extend(more.cpu.iter().cloned());
    cpu.sort();
    cpu.dedup();
    Needs {
        memory: sum(all.memory, more.memory),
        disk: sum(all.disk, more.disk),
        cores: all.cores.max(more.cores),
        files: all.files.max(more.files),
        cpu,
        huge_pages: all.huge_pages.or(more.huge_pages),
    }
}

pub fn verb(contract: &Contract, root: &Root, environment: &Environment, json: bool) -> Code {
    let checks = all(contract, root, environment);
    let worst = worst(&checks);
    crate::print(&match json {
        true => format!(
            "{:#}\n",
            serde_json::json!({"level": worst, "checks": checks})
        ),
        false => text(&checks),
    });
    match worst {
        Level::Error => Code::Failed,
        _ => Code::Ok,
    }
}

fn worst(checks: &[Check]) -> Level {
    checks
        .iter()
        .map(|check| check.level)
        .max()
        .unwrap_or(Level::Ok)
}

/// A table; what to do stands below what it is about.
pub fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count());
    let width = width.max().unwrap_or(0).max(5);
    let mut out = format!("{:7}  {:width$}  FOUND\n", "LEVEL", "CHECK");
    for check in checks {
        let level = check.level.name();
        let indent = " ".repeat(width + 11);
        let found = check.found.replace('\n', &format!("\n{indent}"));
        out.push_str(&format!("{level:7}  {:width$}  {found}\n", check.name));
        for line in check.advice.iter().flat_map(|advice| advice.lines()) {
            out.push_str(&format!("{indent}-> {line}\n"));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    out.push_str(&match (count(Level::Error), count(Level::Warning)) {
        (0, 0) => "\nall is well\n".to_owned(),
        (errors, warnings) => format!(
            "\n{}, {}\n",
            plural(errors, "error"),
            plural(warnings, "warning")
        ),
    });
    out
}

/// `7.8 GiB`
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} bytes"),
        _ if value < 10.0 && value.fract() >= 0.05 => format!("{value:.1} {}", UNITS[unit]),
        // Rounded down: nobody has 16 GiB who is a little short of them.
        _ => format!("{} {}", value.floor(), UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_disk_add_up_and_of_the_rest_the_highest_counts() {
        let one = Needs {
            memory: Some(1 << 30),
            cores: Some(2),
            cpu: vec!["avx".to_owned()],
            ..Needs::default()
        };
        let other = Needs {
            memory: Some(1 << 29),
            disk: Some(1 << 30),
            cores: Some(1),
            files: Some(64_000),
            cpu: vec!["aes".to_owned(), "avx".to_owned()],
            ..Needs::default()
        };
        let all = add(one, &other);
        assert_eq!(all.memory, Some(3 << 29));
        assert_eq!(all.disk, Some(1 << 30));
        assert_eq!((all.cores, all.files), (Some(2), Some(64_000)));
        assert_eq!(all.cpu, ["aes", "avx"]);
    }

    #[test]
    fn sizes_are_read_by_people() {
        let shown = [0, 1023, 1 << 20, 1_610_612_736, 17_000_000_000, 1 << 41].map(size);
        let wanted = [
            "0 bytes",
            "1023 bytes",
            "1 MiB",
            "1.5 GiB",
            "15 GiB",
            "2 TiB",
        ];
        assert_eq!(shown, wanted);
    }
}
