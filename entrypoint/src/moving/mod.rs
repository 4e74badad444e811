//! `move`: the data of databases that new settings leave out of the box is copied to the servers
//! which those settings name, compared there, and only then are the settings kept.
//!
//! No box runs meanwhile, so nobody writes. Before the new `settings.env` is in its place, which
//! is one rename, all that happens to the volume is what a start does to it: whoever is killed
//! leaves the box as it was.

mod command;
mod target;

use std::time::{Instant, SystemTime};

use contract::Contract;

use self::command::Step;
use self::target::Target;
use crate::accounts::Accounts;
use crate::control::{self, Request};
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::{self, say, warn};
use crate::plan::{self, Plan};
use crate::root::{Root, cannot_create};
use crate::runtime::Place;
use crate::settings::Environment;
use crate::support::Redactor;
use crate::upgrade::{self, Decision, Upgrade};
use crate::volume::{self, State};
use crate::{backup, ca_bundle, runtime, start};

/// What `move` was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Settings as in `settings.env`; `-` is standard input.
    pub file: String,
    /// Only whether the targets can be used: nothing is copied, and a box may run.
    pub check: bool,
    /// What the targets hold is replaced.
    pub overwrite: bool,
    /// `settings.env` stays as it is.
    pub copy_only: bool,
}

pub fn run(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    options: &Options,
) -> Result<Code> {
    let Some(volume) = contract.volumes.first() else {
        return Err(cannot("the box has no volume"));
    };
    let target = Target::read(contract, &options.file)?;
    if !options.copy_only {
        target.check_that_it_wins(root, environment)?;
    }
    let proposed = target.environment(environment);
    let state = State::new(contract, root);
    // From here to the end nobody starts a box on the volume.
    let _lock = match options.check {
        true => None,
        false => {
            volume::usable(root, &volume.path)?;
            Some(state.lock(&format!("move: {}", start::holder(contract, environment)))?)
        }
    };
    check_data(contract, root, &state, environment)?;
    let before = start::resolve(contract, &state, environment)?;
    let after = start::resolve(contract, &state, &proposed)?;
    for warning in &after.warnings {
        warn(warning);
    }
    let (old, here) = start::foreseen(contract, root, environment, &before)?;
    let (new, there) = start::foreseen(contract, root, &proposed, &after)?;
    let names = leaving(contract, &here, &there)?;
    if !options.check {
        upgrade::check::data(contract, root, environment, &before)?;
    }
    let (old, new) = (Engine::new(contract, &old), Engine::new(contract, &new));
    let accounts = Accounts::read(root)?;
    let trusted = ca_bundle::variables(contract, &new, root)?;
    let _place = match trusted.is_empty() {
        true => None,
        false => authorities(contract, root, &new)?,
    };
    let mut steps = Vec::new();
    for name in &names {
        let step = Step::new(contract, name, &here, &old, &new, &accounts, &trusted);
        steps.push(step?);
    }
    let redactor = Redactor::new(contract, root, &proposed);
    let all = |word: &str, overwrite: bool| -> Result<()> {
        steps
            .iter()
            .try_for_each(|step| step.run(word, overwrite, &redactor))
    };
    all("check", options.overwrite)?;
    let listed = names.join(", ");
    if options.check {
        return Ok(crate::print(&format!(
            "OK: {listed} can be moved; nothing was copied\n"
        )));
    }
    let begun = Instant::now();
    let copied = all("copy", options.overwrite).and_then(|()| all("verify", false));
    copied.map_err(|failure| Failure {
        hint: Some(
            "the box is as it was and may be started; what was copied so far stays where it is, \
             and `--overwrite` replaces it"
                .to_owned(),
        ),
        ..failure
    })?;
    say(&format!(
        "{listed}: copied and compared in {:.1} s, in which the box did not run and nothing was written",
        begun.elapsed().as_secs_f64()
    ));
    if options.copy_only {
        say(&format!(
            "start the box with the new {}; until then its data is here",
            target.names().join(", ")
        ));
    } else {
        let path = target.keep(contract, root, &log::rfc3339(SystemTime::now()))?;
        say(&format!(
            "{path} has the new {}: start the box now",
            target.names().join(", ")
        ));
    }
    for name in &names {
        for directory in &contract.services[name].data {
            if let Ok(directory) = old.text(directory) {
                say(&format!(
                    "the data of {name} is still in {directory}: remove it when no way back is wanted"
                ));
            }
        }
    }
    Ok(Code::Ok)
}

/// Writes what the new settings say of the operator's authorities to where a box has it. In a box
/// that runs (`docker exec BOX tiffin move --check`) the place is there.
fn authorities(contract: &Contract, root: &Root, new: &Engine<'_>) -> Result<Option<Place>> {
    let place = match control::ask(root, &Request::Status { measure: false }) {
        Ok(_) => None,
        Err(_) => Some(runtime::prepare(root)?),
    };
    ca_bundle::write(contract, new, root)?;
    Ok(place)
}

fn cannot(reason: &str) -> Failure {
    Failure::new(Code::Config, format!("cannot move: {reason}"))
}

/// Only data of this very version, which nothing is half done with, is moved.
fn check_data(
    contract: &Contract,
    root: &Root,
    state: &State<'_>,
    environment: &Environment,
) -> Result<()> {
    if backup::unfinished(contract, root)?.is_some() {
        return Err(cannot("a restore into this volume was cut off")
            .hint("start the box, or restore once more: both finish or undo it first"));
    }
    if upgrade::is_under_way(root, state.directory())? {
        return Err(cannot("an upgrade of the data did not come to its end")
            .hint("start the box until `tiffin health` says that all services are ready"));
    }
    match Upgrade::new(contract, root, state, environment).look()? {
        Decision::Same => Ok(()),
        Decision::New => Err(cannot("no box has run with this volume: there is no data")
            .hint("give the volume of the box: docker run --rm -i -v VOLUME:/data …")),
        _ => Err(cannot("the data is of an earlier version of the box").hint(
            "use the image whose data it is, or start this one first, which upgrades the data",
        )),
    }
}

/// The services with data that run now, and do not with the new settings.
fn leaving(contract: &Contract, here: &Plan, there: &Plan) -> Result<Vec<String>> {
    let runs = |plan: &Plan, name: &str| {
        plan.services
            .iter()
            .any(|one| one.skip.is_none() && plan::is_called(&one.service, name))
    };
    let with_data = contract.services.iter().filter(|(_, s)| !s.data.is_empty());
    let leaving: Vec<(&String, bool)> = with_data
        .filter(|(name, _)| runs(here, name) && !runs(there, name))
        .map(|(name, service)| (name, service.r#move.is_some()))
        .collect();
    if leaving.is_empty() {
        let known: Vec<&str> = contract
            .services
            .iter()
            .filter(|(_, service)| service.r#move.is_some())
            .map(|(name, _)| name.as_str())
            .collect();
        return Err(
            cannot("with these settings no database leaves the box").hint(match known.is_empty() {
                true => "the vendor's recipe says of no service how it is moved".to_owned(),
                false => format!(
                    "give those that name a server of yours for {}; `settings` lists them",
                    known.join(" or ")
                ),
            }),
        );
    }
    if let Some((name, _)) = leaving.iter().find(|(_, can)| !can) {
        return Err(cannot(&format!(
            "with these settings {name} leaves the box too, and the vendor's recipe does not say how its data is moved"
        )));
    }
    Ok(leaving.into_iter().map(|(name, _)| name.clone()).collect())
}
