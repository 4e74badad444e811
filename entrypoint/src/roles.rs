//! `TIFFIN_ROLE`: where a product runs as several boxes, which of the services this one runs.
//!
//! Databases are in no role: they are elsewhere then, and settings say where. A job that
//! belongs to another role is waited for when the recipe says how to tell that it is done.

use std::collections::BTreeMap;

use contract::{Contract, Template, Value, Variables};
use jinja::reach;
use services::{Command, Commands, Kind, RestartWhen, Service};

use crate::backup::schedule;
use crate::effects;
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::explain;
use crate::page;
use crate::plan::{Plan, is_called};
use crate::root::Root;
use crate::settings::{self, Environment, Problem, Resolved, nearest};
use crate::start;

/// Names of roles with commas between them, or [`ALL`].
pub const VARIABLE: &str = "TIFFIN_ROLE";
/// Seconds for which a box that stops still serves while it says that it is not ready.
pub const DRAIN: &str = "TIFFIN_DRAIN";

const ALL: &str = "all";

/// The roles of this box; `None` when it runs all services.
pub fn chosen(environment: &BTreeMap<String, String>) -> Option<Vec<&str>> {
    let text = environment.get(VARIABLE)?;
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    (!names.contains(&ALL)).then_some(names)
}

/// What is wrong with [`VARIABLE`].
pub fn problem(contract: &Contract, environment: &Environment) -> Option<Problem> {
    let names = chosen(&environment.variables)?;
    let known = || contract.roles.keys().map(String::as_str);
    let wrong = names
        .iter()
        .find(|name| known().all(|role| role != **name))?;
    let problem = Problem::new(VARIABLE, "it takes roles of the box, or `all`").given(wrong);
    let hint = match (contract.roles.is_empty(), nearest(wrong, known())) {
        (true, _) => "this box has no roles: it is meant to run as one".to_owned(),
        (_, Some(name)) => format!("did you mean `{name}`?"),
        (_, None) => format!("roles are {}", known().collect::<Vec<_>>().join(", ")),
    };
    Some(problem.hint(hint))
}

/// Whether a box of these roles runs it.
pub fn run(contract: &Contract, roles: &[&str], service: &Service) -> bool {
    // The box's own are in no recipe.
    [page::SERVICE, schedule::SERVICE].contains(&service.name.as_str())
        || contract.roles.iter().any(|(name, role)| {
            roles.contains(&name.as_str()) && role.services.iter().any(|s| is_called(service, s))
        })
}

/// Why a box that does not run it leaves it out.
pub fn reason(contract: &Contract, service: &Service) -> String {
    let theirs = contract
        .roles
        .iter()
        .filter(|(_, role)| role.services.iter().any(|s| is_called(service, s)))
        .map(|(name, _)| name.as_str());
    match theirs.collect::<Vec<_>>()[..] {
        [] => "it is part of no role".to_owned(),
        ref names => format!("it is part of the role {}", names.join(", ")),
    }
}

/// The job as a service that waits until another box has done it, as `done` says. What it
/// says is logged once.
pub fn waiting(job: &mut Service, done: &str) {
    let name = &job.name;
    let script = format!(
        "(\n{done}\n) && exit\n\
         echo '{name} is another box'\\''s: waiting until it is done'\n\
         until (\n{done}\n) >/dev/null 2>&1; do sleep 2; done"
    );
    job.kind = Kind::Oneshot;
    job.commands = Commands {
        start: vec![Command {
            words: ["/bin/sh", "-c", &script].map(str::to_owned).into(),
            ..Command::default()
        }],
        ..Commands::default()
    };
    job.start_timeout = None;
    job.restart.when = RestartWhen::OnFailure;
    job.restart.limit = None;
}

/// Nothing that this box needs is left to each box by itself.
///
/// # Errors
///
/// [`Code::Config`] with all settings that must be given.
pub fn check(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    resolved: &Resolved,
) -> Result<()> {
    if chosen(&environment.variables).is_none() {
        return Ok(());
    }
    let (variables, plan) = start::foreseen(contract, root, environment, resolved)?;
    let engine = Engine::new(contract, &variables);
    let problems = wanting(contract, root, &variables, &engine, &plan, resolved);
    if problems.is_empty() {
        return Ok(());
    }
    Err(
        Failure::new(Code::Config, settings::report(&problems)).hint(format!(
            "{VARIABLE}={} starts a part of the box; without it all is bundled",
            environment.get(VARIABLE).unwrap_or_default()
        )),
    )
}

/// Settings that boxes of roles must be given, and why.
pub fn wanting(
    contract: &Contract,
    root: &Root,
    variables: &Variables,
    engine: &Engine<'_>,
    plan: &Plan,
    resolved: &Resolved,
) -> Vec<Problem> {
    let mut problems = elsewhere(contract, engine, plan);
    let services: Vec<&Service> = plan.services.iter().map(|p| &p.service).collect();
    let runs = |name: &str| {
        let mut all = plan.services.iter();
        all.any(|planned| planned.service.name == name && planned.skip.is_none())
    };
    let made = resolved
        .to_make
        .iter()
        .filter_map(|made| contract.certificates.get(made.name()))
        .flat_map(|one| [&one.certificate, &one.key]);
    for name in resolved.to_generate.keys().chain(made) {
        let variable = &contract.settings[name].variable;
        let mut reached: Vec<&Template> = contract
            .templates
            .iter()
            .filter(|template| reach::template(template, &contract.variables).has(variable))
            .collect();
        // What other settings take the place of, such as a URL with a password of its own, is in no file.
        if !reached.is_empty() {
            let mut other = variables.clone();
            other.insert(variable.clone(), Value::from("another"));
            let other = Engine::new(contract, &other);
            reached.retain(|template| engine.render(template) != other.render(template));
            if reached.is_empty() {
                continue;
            }
        }
        let mut users = reached
            .into_iter()
            .flat_map(|template| effects::of(contract, &services, root, template))
            .peekable();
        // Of what only left out services read, each box may have its own.
        if users.peek().is_some() && users.all(|effect| !runs(&effect.service)) {
            continue;
        }
        problems.push(
            Problem::new(
                name,
                "it is generated where one box runs all services; boxes of roles must be given the same",
            )
            .hint(format!("give -e {name}=…, or -e {name}_FILE=/run/secrets/…")),
        );
    }
    problems
}

/// Services that others wait for, that are in no role, and that settings say are bundled.
fn elsewhere(contract: &Contract, engine: &Engine<'_>, plan: &Plan) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, planned) in plan.services.iter().enumerate() {
        let service = &planned.service;
        let in_a_role = contract
            .roles
            .values()
            .any(|role| role.services.iter().any(|s| is_called(service, s)));
        let is_needed = plan
            .services
            .iter()
            .any(|other| other.skip.is_none() && other.needs.contains(&at));
        if planned.skip.is_none() || in_a_role || !is_needed {
            continue;
        }
        let said = contract
            .services
            .iter()
            .find(|(name, _)| is_called(service, name));
        let Some(when) = said.and_then(|(_, said)| said.when.as_ref()) else {
            continue;
        };
        if !engine.holds(when).unwrap_or(true) {
            continue;
        }
        let reach = reach::closure(reach::expression(when), &[&contract.variables]);
        let settings: Vec<String> = explain::setters(contract, &reach)
            .into_iter()
            .map(|setter| setter.setting)
            .collect();
        let Some(first) = settings.first() else {
            continue;
        };
        problems.push(
            Problem::new(
                first,
                format!(
                    "{} is part of no role, so it must be elsewhere, and `{when}` says that it is bundled",
                    service.name
                ),
            )
            .hint(format!("give {} of a server that all boxes reach", settings.join(" or "))),
        );
    }
    problems
}
