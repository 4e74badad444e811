//! The unit files behind the names that a playbook enabled, and what those bring along.
//!
//! systemd starts with a unit what lies in its `.wants` and `.requires` directories, and
//! packages have generators that fill them when it starts: `postgresql.service` is an empty
//! shell until postgresql-common's generator has put each cluster into it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use contract::Unit;

use crate::error::{Error, Result};
use crate::finish::{link_target, stat};
use crate::sandbox::Sandbox;

/// Where systemd looks for unit files, first found wins (systemd.unit(5)).
const UNIT_PATHS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// Kinds of units, systemd.unit(5).
const KINDS: [&str; 11] = [
    ".service",
    ".socket",
    ".timer",
    ".target",
    ".mount",
    ".path",
    ".slice",
    ".device",
    ".automount",
    ".swap",
    ".scope",
];

/// A unit's name as tasks give it, with its kind: a service's when they name none.
pub fn full(name: &str) -> String {
    if KINDS.iter().any(|kind| name.ends_with(kind)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

const BROUGHT_ALONG: &str = include_str!("../assets/bin/brought-along");

/// Those that a box supervises.
///
/// # Errors
///
/// A name behind which there is no unit file, or a masked one.
pub fn supervised(
    view: &Sandbox,
    wanted: BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Unit>> {
    let mut units: Vec<Unit> = Vec::new();
    for name in wanted {
        match resolve(view, &name)? {
            Some(unit) if units.contains(&unit) => {}
            Some(unit) => units.push(unit),
            None => warnings.push(format!(
                "unit {name} is enabled, but only services and timers run in a box: it is left out"
            )),
        }
    }
    if units.is_empty() {
        return Ok(units);
    }
    let others = brought_along(view, warnings);
    let mut at = 0;
    while at < units.len() {
        let name = units[at].name.clone();
        at += 1;
        for other in others.get(&name).into_iter().flatten() {
            match resolve(view, other) {
                Ok(Some(unit)) if units.contains(&unit) => {}
                Ok(Some(unit)) => units.push(unit),
                Ok(None) => {}
                // As systemd: what is wanted and cannot be had is no reason not to start.
                Err(error) => warnings.push(format!("{name} wants {other}: {error}")),
            }
        }
    }
    Ok(units)
}

/// By unit, what starts with it.
fn brought_along(view: &Sandbox, warnings: &mut Vec<String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let environment = BTreeMap::from([("PATH".to_owned(), path)]);
    let run = view
        .command(&environment, &["/bin/sh", "-c", BROUGHT_ALONG])
        .output();
    let said = match run {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            warnings.push(format!(
                "cannot see which units start with others: {reason}"
            ));
            return found;
        }
        Err(error) => {
            warnings.push(format!("cannot see which units start with others: {error}"));
            return found;
        }
    };
    for line in String::from_utf8_lossy(&said).lines() {
        if let Some(generator) = line.strip_prefix("generator ") {
            warnings.push(format!(
                "{generator} failed: units that it makes may be missing"
            ));
        }
        if let Some((directory, other)) = line.split_once('/')
            && let Some((unit, "wants" | "requires")) = directory.rsplit_once('.')
        {
            found
                .entry(unit.to_owned())
                .or_default()
                .insert(other.to_owned());
        }
    }
    found
}

/// The unit behind a name, an alias followed; `None` when it is no service or timer.
pub fn resolve(view: &Sandbox, wanted: &str) -> Result<Option<Unit>> {
    let mut name = wanted.to_owned();
    for _ in 0..8 {
        let is_timer = name.ends_with(".timer") && !name.contains('@');
        if !name.ends_with(".service") && !is_timer {
            return Ok(None);
        }
        let template = name
            .split_once('@')
            .map(|(prefix, _)| format!("{prefix}@.service"));
        let candidates = [Some(name.clone()), template].into_iter().flatten();
        let found = candidates
            .flat_map(|file| UNIT_PATHS.iter().map(move |dir| format!("{dir}/{file}")))
            .find_map(|path| view.handle(&path).ok().map(|file| (path, file)));
        let Some((path, file)) = found else {
            let script = format!("/etc/init.d/{}", name.trim_end_matches(".service"));
            let reason = if stat(view, &script).is_some() {
                format!(
                    "it has only an init script ({script}), and a box supervises systemd units: add a unit file to the role"
                )
            } else {
                "the box has no unit file of that name".to_owned()
            };
            return Err(Error::Unit {
                unit: wanted.to_owned(),
                reason,
            });
        };
        match link_target(&file) {
            Some(target) if target == "/dev/null" => {
                return Err(Error::Unit {
                    unit: wanted.to_owned(),
                    reason: "it is masked".into(),
                });
            }
            // Linked in from elsewhere under its own name is no alias.
            Some(target)
                if !name.contains('@') && Path::new(&target).file_name() != Some(name.as_ref()) =>
            {
                name = Path::new(&target)
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
            }
            _ => return Ok(Some(Unit { name, path })),
        }
    }
    Err(Error::Unit {
        unit: wanted.to_owned(),
        reason: "its aliases go in a circle".into(),
    })
}
