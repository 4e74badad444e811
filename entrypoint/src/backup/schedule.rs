//! Scheduled backups: a service of the box that its timer starts, and what became of the last
//! one. A file appears under its name when it is whole, is read back, and only then older ones
//! are removed: those that an earlier run made, and no others.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use contract::Contract;
use serde::{Deserialize, Serialize};
use services::systemd::{Calendar, Timer};

use super::output::PARTIAL;
use super::place::{self, INDEX, LAST};
use super::take::{Options, take};
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::root::{Root, cannot_create};
use crate::settings::Environment;
use crate::volume::own;

/// When: a calendar event, as in OnCalendar= of a timer unit; UTC.
pub const SCHEDULE: &str = "TIFFIN_BACKUP_SCHEDULE";
/// How many are kept.
pub const KEEP: &str = "TIFFIN_BACKUP_KEEP";
/// Where; a directory on top of a volume, or one that is mounted elsewhere.
pub const DIRECTORY: &str = "TIFFIN_BACKUP_DIRECTORY";
pub const SERVICE: &str = "scheduled-backup";

const KEPT: usize = 7;

/// What became of the last ones, in a file of the first volume.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When the last good one was whole, in seconds since 1970.
    pub good: Option<u64>,
    /// Its path and size in bytes.
    pub file: String,
    pub bytes: u64,
    /// Why there was none since.
    pub failed: Option<String>,
}

impl Last {
    /// What is remembered; nothing when that cannot be read.
    pub fn of(contract: &Contract, root: &Root) -> Self {
        let text = path_of_last(contract).and_then(|path| root.read(&path).ok().flatten());
        text.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// For people, in a few words.
    pub fn text(&self) -> String {
        let good = match self.good {
            Some(time) => {
                let time = UNIX_EPOCH + std::time::Duration::from_secs(time);
                format!("last good: {} {}", crate::log::rfc3339(time), self.file)
            }
            None => "none so far".to_owned(),
        };
        match &self.failed {
            Some(reason) => format!(
                "{good}; FAILED: {}",
                reason.lines().next().unwrap_or_default()
            ),
            None => good,
        }
    }
}

fn path_of_last(contract: &Contract) -> Option<String> {
    let first = place::volumes(contract).into_iter().next()?;
    Some(format!("{first}/.tiffin/{}", LAST.to_string_lossy()))
}

pub fn is_schedule(text: &str) -> bool {
    Calendar::parse(text).is_some()
}

pub fn is_count(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|count| count > 0)
}

/// Why backups cannot be kept there: what a backup leaves out and a restore lets be is known
/// by its place on top of a volume.
pub fn refuses_directory(contract: &Contract, text: &str) -> Option<String> {
    let path = Path::new(text);
    let plain = path
        .components()
        .all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !plain {
        return Some("it takes an absolute path in the container".to_owned());
    }
    let volumes = place::volumes(contract);
    let volume = volumes
        .iter()
        .filter(|volume| path.starts_with(volume))
        .max_by_key(|volume| volume.len())?;
    let rest: Vec<_> = path.strip_prefix(volume).ok()?.components().collect();
    let on_top = rest.len() == 1 && !path.ends_with(".tiffin") && !path.ends_with(".tiffin-tmp");
    (!on_top).then(|| format!("on the volume {volume} it takes a directory of its own on top of it, such as {volume}/backups"))
}

fn directory(contract: &Contract, environment: &Environment) -> Option<String> {
    match environment.get(DIRECTORY) {
        Some(path) => Some(path.trim_end_matches('/').to_owned()),
        None => Some(format!("{}/backups", place::volumes(contract).first()?)),
    }
}

/// The unit of the service; its timer is [`timer`].
pub fn unit(contract: &Contract, root: &Root) -> String {
    let databases = contract.services.iter();
    let databases: Vec<&str> = databases
        .filter(|(_, said)| !said.data.is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    format!(
        "[Unit]\nDescription=Scheduled backups\nAfter={}\n\
         [Service]\nType=oneshot\nExecStart=/proc/self/exe --root {} backup --scheduled\n",
        databases.join(" "),
        root.path("/").display()
    )
}

pub fn timer(environment: &std::collections::BTreeMap<String, String>) -> Option<Timer> {
    let calendar = Calendar::parse(environment.get(SCHEDULE)?)?;
    Some(Timer {
        unit: format!("{SERVICE}.service"),
        calendar: vec![calendar],
        ..Timer::default()
    })
}

/// Takes one backup, as the timer asks, and remembers how it ended.
pub fn run(contract: &Contract, root: &Root, environment: &Environment) -> Result<Code> {
    let taken = attempt(contract, root, environment);
    let mut last = Last::of(contract, root);
    match &taken {
        Ok((file, bytes)) => {
            last = Last {
                good: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .ok()
                    .map(|time| time.as_secs()),
                file: file.clone(),
                bytes: *bytes,
                failed: None,
            }
        }
        Err(failure) => last.failed = Some(failure.message.clone()),
    }
    if let Some(path) = path_of_last(contract) {
        let text = format!("{:#}\n", serde_json::json!(last));
        root.replace(&path, text.as_bytes(), own(0o600))
            .map_err(|error| cannot_create("the file", &path, &error))?;
    }
    taken.map(|_| Code::Ok)
}

/// The path and the size of a new backup that was read back.
fn attempt(contract: &Contract, root: &Root, environment: &Environment) -> Result<(String, u64)> {
    let Some(directory) = directory(contract, environment) else {
        return Err(Failure::new(
            Code::Config,
            "cannot back up: the box has no volume",
        ));
    };
    if let Some(reason) = refuses_directory(contract, &directory) {
        return Err(Failure::new(
            Code::Config,
            format!("cannot back up to {DIRECTORY} = {directory}: {reason}"),
        ));
    }
    let full = root.path(&directory);
    let fail = |error: io::Error| cannot_create("backups in", &directory, &error);
    let is_ours = place::volumes(contract)
        .iter()
        .any(|volume| Path::new(&directory).starts_with(volume));
    match fs::symlink_metadata(&full) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(fail(io::Error::other("it is a link or no directory"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_ours => {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&full)
                .map_err(fail)?;
        }
        Err(error) => {
            return Err(fail(error).hint(format!("mount it: -v FOLDER:{directory}")));
        }
    }
    // A backup leaves out the whole directory: it must not be one of data.
    let is_known = root.is_file(&index_path(&directory));
    if is_ours && !is_known && !root.names(&directory).is_empty() {
        return Err(fail(io::Error::other("it holds something else"))
            .hint("name a directory of its own for backups"));
    }
    let mut names = index(root, &directory)?;
    // What was killed has left.
    for name in root.names(&directory) {
        if name.starts_with('.') && name.ends_with(PARTIAL) {
            fs::remove_file(full.join(name)).map_err(fail)?;
        }
    }
    let name = name(contract, SystemTime::now());
    // Noted first: no file of ours is ever without a note.
    names.push(name.clone());
    write(root, &directory, &names)?;
    let path = full.join(&name);
    let text = path.to_string_lossy().into_owned();
    let options = Options {
        output: Some(text.clone()),
        progress: false,
    };
    take(contract, root, environment, &options)?;
    if let Err(failure) = super::verify(&text) {
        fs::remove_file(&path).map_err(fail)?;
        return Err(failure);
    }
    let bytes = fs::metadata(&path).map_err(fail)?.len();
    let keep = environment.get(KEEP).and_then(|text| text.parse().ok());
    names.retain(|name| full.join(name).is_file());
    let old = names.len().saturating_sub(keep.unwrap_or(KEPT));
    for name in names.drain(..old) {
        fs::remove_file(full.join(&name)).map_err(fail)?;
        say(&format!("the backup {directory}/{name} is removed"));
    }
    write(root, &directory, &names)?;
    Ok((format!("{directory}/{name}"), bytes))
}

/// Path and size of those that are there, the newest first.
pub fn kept(contract: &Contract, root: &Root, environment: &Environment) -> Vec<String> {
    let Some(directory) = directory(contract, environment) else {
        return Vec::new();
    };
    let names = index(root, &directory).unwrap_or_default();
    let told = names.iter().rev().filter_map(|name| {
        let path = format!("{directory}/{name}");
        let bytes = fs::metadata(root.path(&path)).ok()?.len();
        Some(format!("{path} ({})", crate::control::short_bytes(bytes)))
    });
    told.collect()
}

fn index_path(directory: &str) -> String {
    format!("{directory}/{}", INDEX.to_string_lossy())
}

/// The names of backups that earlier runs made, the oldest first.
fn index(root: &Root, directory: &str) -> Result<Vec<String>> {
    let text = root.read(&index_path(directory))?.unwrap_or_default();
    let plain = |name: &&str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    Ok(text.lines().filter(plain).map(str::to_owned).collect())
}

fn write(root: &Root, directory: &str, names: &[String]) -> Result<()> {
    let path = index_path(directory);
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    root.replace(&path, text.as_bytes(), own(0o600))
        .map_err(|error| cannot_create("the file", &path, &error))
}

/// `backend-v1.0.0-20261121T033000.123Z.tar.gz`
fn name(contract: &Contract, now: SystemTime) -> String {
    let product = contract.product.name.rsplit('/').next().unwrap_or_default();
    let time = crate::log::rfc3339(now).replace(['-', ':'], "");
    let plain = |c: char| match c.is_ascii_alphanumeric() || "._-+".contains(c) {
        true => c,
        false => '_',
    };
    let text = format!("{product}-{}-{time}.tar.gz", contract.product.version);
    text.trim_start_matches('.').chars().map(plain).collect()
}
