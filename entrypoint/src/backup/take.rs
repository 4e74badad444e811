//! `backup`: databases are copied while they hold still, then everything is streamed.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use contract::Contract;

use super::archive::Writer;
use super::description::{Database, Description, Elsewhere, FORMAT, Taken};
use super::freeze;
use super::output::Output;
use super::place;
use super::progress::{Progress, bytes};
use super::scope::{Scope, unreadable};
use super::stage::Stage;
use super::stream::Stream;
use super::work::Work;
use crate::accounts::Accounts;
use crate::control::{self, Reply, Request, Status};
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::{say, warn};
use crate::root::Root;
use crate::settings::Environment;
use crate::volume::State;
use crate::{databases, plan, start, upgrade};

/// What `backup` was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Standard output when there is none.
    pub output: Option<String>,
    pub progress: bool,
}

/// Warnings that are told one by one.
const TOLD: usize = 20;
pub fn take(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    options: &Options,
) -> Result<Code> {
    let begun = Instant::now();
    let volumes = place::volumes(contract);
    let Some(first) = volumes.first() else {
        return Err(Failure::new(
            Code::Config,
            "cannot back up: the box has no volume",
        ));
    };
    if options.output.is_none() && io::stdout().is_terminal() {
        return Err(
            Failure::new(Code::Usage, "cannot write a backup to a terminal")
                .hint("docker exec BOX tiffin backup > FILE, or -o FILE for one in the container"),
        );
    }
    let services = match control::ask(root, &Request::Status { measure: false }) {
        Ok(Reply::Services(services)) => Some(services),
        _ => None,
    };
    // Without a box nobody writes, and none may begin to.
    let _lock = match services {
        Some(_) => None,
        None => {
            let lock = State::new(contract, root).lock("a backup")?;
            if super::unfinished(contract, root)?.is_some() {
                return Err(Failure::new(
                    Code::Config,
                    "cannot back up: a restore into this volume was cut off",
                )
                .hint("start the box, or restore once more: both finish or undo it first"));
            }
            Some(lock)
        }
    };
    let work = Work::open(root, first)?;
    let begins = services
        .as_ref()
        .is_some_and(|s| upgrade::before::is_all(s));
    if begins || upgrade::is_under_way(root, State::new(contract, root).directory())? {
        return Err(Failure::new(
            Code::Locked,
            "cannot back up: an upgrade of the data is under way",
        )
        .hint("wait until `tiffin health` says that all services are ready; a start finishes or undoes one that was cut off"));
    }
    let resolved = start::resolve(contract, &State::new(contract, root), environment);
    // Volumes that no box uses are backed up whatever the settings are.
    let resolved = match services {
        Some(_) => resolved?,
        None => resolved.unwrap_or_default(),
    };
    let values = start::values(contract, root, &resolved);
    let engine = Engine::new(contract, &values);
    let mut directories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for found in databases::all(contract, &engine)? {
        directories
            .entry(found.service)
            .or_default()
            .push(found.path);
    }
    let (databases, elsewhere) = match &services {
        Some(services) => running(contract, services, directories)?,
        None => resting(contract, &engine, directories),
    };
    let mut scope = Scope {
        root,
        volumes: &volumes,
        left_out: &contract.backup.exclude,
        staged: BTreeMap::new(),
        output: None,
    };
    let (files, size) = scope.measure()?;
    let mut stages = Vec::new();
    for database in databases.iter().filter(|d| d.taken == Taken::Frozen) {
        for directory in &database.directories {
            stages.extend(scope.stage(&work, directory)?);
        }
    }
    let window = {
        let commands = commands(contract, root, environment, &databases)?;
        copy(root, &mut stages, &commands)?
    };
    drop(stages);
    let description = Description {
        format: FORMAT,
        product: contract.product.name.clone(),
        title: contract.product.title.clone(),
        version: contract.product.version.clone(),
        created: crate::log::rfc3339(SystemTime::now()),
        host: environment.get("HOSTNAME").unwrap_or("unknown").to_owned(),
        volumes: volumes.clone(),
        databases,
        elsewhere,
        left_out: contract.backup.exclude.clone(),
        files,
        bytes: size,
        writes_blocked_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
    };
    let output = Output::open(options.output.as_deref())?;
    scope.output = output.identity()?;
    let mut stream = Stream {
        scope: &scope,
        writer: Writer::new(output.writer()?, work.nameless()?),
        links: HashMap::new(),
        warnings: Vec::new(),
        files: 0,
        bytes: 0,
        progress: Progress::new("written", options.progress),
    };
    stream.progress.expect(size);
    let streamed = stream.everything(&description);
    stream.progress.clear();
    let Stream {
        writer,
        warnings,
        files,
        bytes: size,
        ..
    } = stream;
    match streamed {
        Ok(()) => writer.finish(),
        // What the output says is the cause, if it says something.
        Err(failure) => match writer.ended() {
            Ok(()) => return Err(failure),
            Err(error) => Err(error),
        },
    }
    .map_err(|error| output.cannot(&error))?;
    let written = output.keep()?;
    for warning in warnings.iter().take(TOLD) {
        warn(warning);
    }
    if warnings.len() > TOLD {
        warn(&format!("and {} more like these", warnings.len() - TOLD));
    }
    for other in &description.elsewhere {
        warn(&format!(
            "{} is not in this backup: its data is elsewhere ({})",
            other.service, other.reason
        ));
    }
    let blocked = match description
        .databases
        .iter()
        .any(|d| d.taken == Taken::Frozen)
    {
        true => format!("; writes were blocked for {:.2} s", window.as_secs_f64()),
        false => String::new(),
    };
    let written = match written {
        Some(count) => format!(", {} as an archive", bytes(count)),
        None => String::new(),
    };
    say(&format!(
        "backup: {files} files, {}{written}, in {:.1} s{blocked}",
        bytes(size),
        begun.elapsed().as_secs_f64()
    ));
    Ok(Code::Ok)
}

type Found = (Vec<Database>, Vec<Elsewhere>);

/// Services that have data, as they are in the running box.
fn running(
    contract: &Contract,
    services: &[Status],
    data: BTreeMap<String, Vec<String>>,
) -> Result<Found> {
    let (mut databases, mut elsewhere) = (Vec::new(), Vec::new());
    for (name, directories) in data {
        let Some(status) = services
            .iter()
            .find(|s| s.name == name || s.aliases.contains(&name))
        else {
            continue;
        };
        let taken = match status.state.as_str() {
            "skipped" => {
                elsewhere.push(Elsewhere {
                    service: name,
                    reason: status.note.clone(),
                });
                continue;
            }
            "ready" if contract.services[&name].freeze.is_empty() => Taken::Running,
            "ready" => Taken::Frozen,
            "stopped" | "failed" | "finished" => Taken::Stopped,
            other => {
                return Err(Failure::new(
                    Code::Failed,
                    format!("cannot back up: {name} is {other}"),
                )
                .hint("try again when `tiffin health` says that all services are ready"));
            }
        };
        databases.push(Database {
            service: name,
            directories,
            taken,
        });
    }
    Ok((databases, elsewhere))
}

/// The same where no box runs.
fn resting(contract: &Contract, engine: &Engine<'_>, data: BTreeMap<String, Vec<String>>) -> Found {
    let (mut databases, mut elsewhere) = (Vec::new(), Vec::new());
    for (name, directories) in data {
        match &contract.services[&name].when {
            Some(when) if engine.holds(when) == Ok(false) => elsewhere.push(Elsewhere {
                service: name,
                reason: format!("`{when}` does not hold"),
            }),
            _ => databases.push(Database {
                service: name,
                directories,
                taken: Taken::Stopped,
            }),
        }
    }
    (databases, elsewhere)
}

fn commands<'c>(
    contract: &'c Contract,
    root: &Root,
    environment: &Environment,
    databases: &'c [Database],
) -> Result<Vec<freeze::Command<'c>>> {
    let frozen: Vec<&Database> = databases
        .iter()
        .filter(|d| d.taken == Taken::Frozen)
        .collect();
    if frozen.is_empty() {
        return Ok(Vec::new());
    }
    let accounts = Accounts::read(root)?;
    let services = plan::services(contract, root, &environment.variables);
    let mut commands = Vec::new();
    for database in frozen {
        let service = services
            .iter()
            .find(|service| plan::is_called(service, &database.service))
            .ok_or_else(|| {
                Failure::new(
                    Code::Failed,
                    format!(
                        "cannot back up {}: its unit cannot be read",
                        database.service
                    ),
                )
            })?;
        commands.push(freeze::Command {
            service: &database.service,
            words: &contract.services[&database.service].freeze,
            credentials: accounts.credentials(&service.name, &service.identity)?,
        });
    }
    Ok(commands)
}

/// Copies what must not change while it is copied; answers how long writes were blocked.
fn copy(
    root: &Root,
    stages: &mut [(PathBuf, Stage)],
    commands: &[freeze::Command<'_>],
) -> Result<Duration> {
    let fail = |directory: &Path, (path, error): (PathBuf, io::Error)| {
        let path = directory.join(path);
        let failure = unreadable(&path, &error);
        match error.kind() {
            io::ErrorKind::StorageFull => failure.hint("the volume is full: make room on it"),
            _ => failure,
        }
    };
    for (directory, stage) in &mut *stages {
        stage.ahead().map_err(|broken| fail(directory, broken))?;
    }
    if commands.is_empty() {
        return Ok(Duration::ZERO);
    }
    let frozen = freeze::freeze(root, commands)?;
    let mut copied = Ok(());
    for (directory, stage) in &mut *stages {
        copied = copied.and_then(|()| match stage.pass() {
            Ok(_) => Ok(()),
            Err(broken) => Err(fail(directory, broken)),
        });
    }
    let window = freeze::thaw(frozen)?;
    copied?;
    Ok(window)
}
