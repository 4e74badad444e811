//! What there is to run, computed once from the contract, the box's unit files and the
//! settings given; no platform's words yet.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::{Contract, Kind, Parity, Setting, Template};

use super::Wanted;
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::facts;
use crate::plan::{self, Plan, Planned};
use crate::render;
use crate::roles;
use crate::root::Root;
use crate::settings::{self, Environment, Given, MASK, Sources, is_secret};

/// Beyond this no stop or start is waited for, whatever units say (`infinity`). Seconds.
const LONGEST: u64 = 3600;
/// What a one-shot without a limit of its own is given: a migration takes as long as it takes.
const JOB: Duration = Duration::from_secs(600);
/// The same of a daemon: systemd's DefaultTimeoutStartSec=.
const DAEMON: Duration = Duration::from_secs(90);
/// Between the box's own limit for its stop and the platform's SIGKILL. Seconds.
const MARGIN: u64 = 10;
/// For so long a box with ports still serves when it is told to stop: until whoever sends it
/// requests has heard of it. Seconds.
const DRAIN: u64 = 10;

pub struct Description {
    pub title: String,
    pub version: String,
    /// `acme/backend:v1.0.0`
    pub image: String,
    /// A DNS label.
    pub name: String,
    /// The box's own variables and the settings that are no secrets, in that order.
    pub settings: Vec<Line>,
    /// Secrets that the platform must provide.
    pub secrets: Vec<Secret>,
    pub volumes: Vec<Mount>,
    pub ports: Vec<u16>,
    /// What is started: the box, or a box for each role.
    pub parts: Vec<Part>,
    /// Seconds from SIGTERM to SIGKILL: more than `TIFFIN_STOP_TIMEOUT`.
    pub grace: u64,
    /// Seconds that a start may take.
    pub start: u64,
    pub read_only: bool,
    pub capabilities: Vec<&'static str>,
    /// MiB.
    pub memory: Option<u64>,
    pub cpus: Option<String>,
}

/// Boxes that are alike.
pub struct Part {
    /// A DNS label.
    pub name: String,
    /// `None` for the whole box.
    pub role: Option<String>,
    pub replicas: u32,
    pub ports: Vec<u16>,
    /// Never two at a time.
    pub single: bool,
    /// It ends when its jobs are done.
    pub job: bool,
}

impl Part {
    /// What the part says besides the settings of all.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let role = self.role.iter().map(|role| (roles::VARIABLE, role.clone()));
        let drain = (!self.ports.is_empty() && self.role.is_some())
            .then(|| (roles::DRAIN, DRAIN.to_string()));
        role.chain(drain).collect()
    }
}

/// A setting, and what a comment says about it.
pub struct Line {
    pub name: String,
    pub value: Value,
    pub note: String,
}

pub enum Value {
    Given(String),
    /// The box does not start without it.
    Required,
    /// What it is when nobody says anything; to be shown in a comment.
    Default(String),
}

pub struct Secret {
    pub name: String,
    pub note: String,
}

pub struct Mount {
    pub name: String,
    pub path: String,
}

pub fn describe(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    wanted: &Wanted,
) -> Result<Description> {
    let mut environment = environment.clone();
    if let Some(scale) = &wanted.scale {
        let names = scaled(contract, scale)?;
        environment
            .variables
            .insert(roles::VARIABLE.to_owned(), names.join(","));
    }
    let environment = &environment;
    let given = given(contract, root, environment)?;
    let variables = {
        let mut variables = facts::now(contract, root);
        variables.extend(given.resolved.variables(contract));
        crate::start::stand_in(contract, contract.settings.keys(), &mut variables);
        // Of what the platform has, nobody here knows more than that it is given.
        for setting in given.files.iter().map(|name| &contract.settings[name]) {
            if is_secret(setting) {
                let variable = setting.variable.clone();
                variables.entry(variable).or_insert(MASK.into());
            }
        }
        variables
    };
    let engine = Engine::new(contract, &variables);
    let texts = render::all(contract, &engine)?;
    let there = root.with(
        texts
            .iter()
            .map(|(template, text)| (template.dest.as_str(), text.as_str())),
    );
    let plan = plan::plan(contract, &engine, &there, &environment.variables)?;
    let stop = given.stop.unwrap_or_else(|| {
        let last = plan::last(plan.services.iter());
        longest(&plan, stop_time, &last).clamp(10, LONGEST)
    });
    let needed: Vec<String> = match wanted.scale {
        Some(_) => roles::wanting(
            contract,
            &there,
            &variables,
            &engine,
            &plan,
            &given.resolved,
        ),
        None => Vec::new(),
    }
    .into_iter()
    .map(|problem| problem.name)
    .collect();
    let mut settings = own(environment, stop);
    let (lines, secrets) = lines(contract, &given, &needed);
    settings.extend(lines);
    let name = wanted
        .name
        .clone()
        .unwrap_or_else(|| label(product_name(contract), "box"));
    let parts = match &wanted.scale {
        Some(scale) => parts(contract, scale, &plan, &name),
        None => vec![Part {
            name: name.clone(),
            role: None,
            replicas: 1,
            ports: contract.ports.clone(),
            single: true,
            job: false,
        }],
    };
    let drain = match wanted.scale {
        Some(_) => DRAIN,
        None => 0,
    };
    let product = &contract.product;
    Ok(Description {
        title: product.title.clone(),
        version: product.version.clone(),
        image: format!("{}:{}", product.name, product.version),
        name,
        settings,
        secrets,
        volumes: mounts(contract),
        ports: contract.ports.clone(),
        parts,
        grace: drain + stop + MARGIN,
        start: (longest(&plan, start_time, &[]) + 60).min(LONGEST),
        read_only: may_be_read_only(contract),
        capabilities: capabilities(contract),
        memory: wanted.memory,
        cpus: wanted.cpus.clone(),
    })
}

fn product_name(contract: &Contract) -> &str {
    let name = &contract.product.name;
    name.rsplit('/').next().unwrap_or_default()
}

/// The roles that boxes are written for.
fn scaled<'c>(contract: &'c Contract, scale: &BTreeMap<String, u32>) -> Result<Vec<&'c str>> {
    let wrong = |reason: String| {
        let known: Vec<&str> = contract.roles.keys().map(String::as_str).collect();
        let hint = match known[..] {
            [] => "the box has no roles: it is meant to run as one".to_owned(),
            _ => format!("roles are {}", known.join(", ")),
        };
        let message = format!("cannot write a manifest: {reason}");
        Err(Failure::new(Code::Usage, message).hint(hint))
    };
    for (name, number) in scale {
        match contract.roles.get(name) {
            None => {
                return wrong(format!(
                    "--scale speaks of a role `{name}`, which the box has not"
                ));
            }
            Some(role) if role.single && *number > 1 => {
                return wrong(format!(
                    "of the role `{name}` there may be one box, not {number}"
                ));
            }
            Some(_) => {}
        }
    }
    let names = contract.roles.keys().map(String::as_str);
    Ok(names.filter(|name| scale.get(*name) != Some(&0)).collect())
}

fn parts(contract: &Contract, scale: &BTreeMap<String, u32>, plan: &Plan, name: &str) -> Vec<Part> {
    let roles = contract.roles.iter();
    roles
        .filter_map(|(role, said)| {
            let replicas = scale.get(role).copied().unwrap_or(1);
            let of_role = |planned: &&Planned| {
                let mut names = said.services.iter();
                names.any(|name| plan::is_called(&planned.service, name))
            };
            (replicas > 0).then(|| Part {
                name: format!("{name}-{role}"),
                role: Some(role.clone()),
                replicas,
                ports: said.ports.clone(),
                single: said.single,
                job: plan.services.iter().filter(of_role).all(|planned| {
                    planned.service.kind == services::Kind::Oneshot && planned.timer.is_none()
                }),
            })
        })
        .collect()
}

/// What the environment gives, checked.
struct GivenSettings {
    resolved: settings::Resolved,
    texts: BTreeMap<String, String>,
    /// Given as a file: the platform has it.
    files: Vec<String>,
    stop: Option<u64>,
}

fn given(contract: &Contract, root: &Root, environment: &Environment) -> Result<GivenSettings> {
    // Nothing is required of somebody who wants to see what is.
    let mut lenient = contract.clone();
    for setting in lenient.settings.values_mut() {
        setting.required = false;
        setting.required_if = None;
    }
    // Files of the machine that it will run on need not be here.
    let mut environment = environment.clone();
    let mut files = Vec::new();
    for name in contract.settings.keys() {
        let by_file = format!("{name}_FILE");
        if !contract.settings.contains_key(&by_file)
            && environment.variables.remove(&by_file).is_some()
        {
            files.push(name.clone());
        }
    }
    let sources = Sources {
        directory: None,
        environment: &environment,
        root,
        kept: &BTreeMap::new(),
        lost: None,
        given: &Default::default(),
    };
    let resolved = settings::resolve(&lenient, &sources).map_err(|problems| {
        Failure::new(Code::Config, settings::report(&problems))
            .hint("`settings` lists all settings")
    })?;
    let texts = resolved
        .values
        .iter()
        .filter_map(|(name, (_, given))| match given {
            Given::Environment { variable } => {
                Some((name.clone(), environment.get(variable)?.to_owned()))
            }
            _ => None,
        })
        .collect();
    let stop = environment
        .get("TIFFIN_STOP_TIMEOUT")
        .and_then(|text| text.parse().ok());
    Ok(GivenSettings {
        resolved,
        texts,
        files,
        stop,
    })
}

/// The box's own variables.
fn own(environment: &Environment, stop: u64) -> Vec<Line> {
    let line = |name: &str, value: String, note: &str| Line {
        name: name.to_owned(),
        value: Value::Given(value),
        note: note.to_owned(),
    };
    let mut lines = vec![line(
        "TIFFIN_STOP_TIMEOUT",
        stop.to_string(),
        "seconds for stopping all services in order",
    )];
    for (name, note) in [
        ("TIFFIN_LOG", ""),
        ("TIFFIN_HTTP", "health and metrics"),
        ("TIFFIN_UNKNOWN", ""),
    ] {
        lines.extend(
            environment
                .get(name)
                .map(|value| line(name, value.to_owned(), note)),
        );
    }
    lines
}

/// `needed` are required besides those that the contract says.
fn lines(
    contract: &Contract,
    given: &GivenSettings,
    needed: &[String],
) -> (Vec<Line>, Vec<Secret>) {
    let (mut lines, mut secrets) = (Vec::new(), Vec::new());
    for (name, setting) in &contract.settings {
        let is_given = given.texts.contains_key(name) || given.files.contains(name);
        let file =
            is_secret(setting) || setting.kind == Kind::Certificate || given.files.contains(name);
        let note = note(setting);
        if file {
            // One that nobody gives is generated and kept, or is not needed.
            let required = setting.required && setting.generate.is_none() || needed.contains(name);
            if is_given || required {
                secrets.push(Secret {
                    name: name.clone(),
                    note,
                });
            }
            continue;
        }
        let required = setting.required || needed.contains(name);
        let value = match (given.texts.get(name), required) {
            (Some(text), _) => Value::Given(text.clone()),
            (None, true) => Value::Required,
            (None, false) => Value::Default(values::literal_default(setting).unwrap_or_default()),
        };
        lines.push(Line {
            name: name.clone(),
            value,
            note,
        });
    }
    (lines, secrets)
}

/// What it is for, else what it takes.
fn note(setting: &Setting) -> String {
    match setting.help.trim_end_matches('.') {
        "" => values::allowed(setting),
        help => help.to_owned(),
    }
}

fn mounts(contract: &Contract) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for volume in &contract.volumes {
        let mut name = label(&volume.path, "data");
        if mounts.iter().any(|other| other.name == name) {
            name = format!("{name}-{}", mounts.len());
        }
        mounts.push(Mount {
            name,
            path: volume.path.clone(),
        });
    }
    mounts
}

/// A DNS label of at most 40 letters that resembles `text`.
fn label(text: &str, otherwise: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let letters: String = words
        .join("-")
        .to_ascii_lowercase()
        .chars()
        .take(40)
        .collect();
    let letters = letters.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    match letters.trim_end_matches('-') {
        "" => otherwise.to_owned(),
        letters => letters.to_owned(),
    }
}

/// The longest way through what waits for each other. Plans have no cycles, and what is `last`
/// needs nothing else.
fn longest(plan: &Plan, time: fn(&Planned) -> u64, last: &[bool]) -> u64 {
    fn visit(
        plan: &Plan,
        at: usize,
        time: fn(&Planned) -> u64,
        last: &[bool],
        known: &mut [Option<u64>],
    ) -> u64 {
        if let Some(known) = known[at] {
            return known;
        }
        let planned = &plan.services[at];
        let others = (0..last.len()).filter(|other| last[*other] && !last[at]);
        let needs: Vec<usize> = planned.needs.iter().copied().chain(others).collect();
        let below = needs
            .into_iter()
            .map(|need| visit(plan, need, time, last, known))
            .max();
        let own = match planned.skip {
            None => time(planned),
            Some(_) => 0,
        };
        let all = own.saturating_add(below.unwrap_or(0));
        known[at] = Some(all);
        all
    }
    let mut known = vec![None; plan.services.len()];
    let ways = (0..plan.services.len()).map(|at| visit(plan, at, time, last, &mut known));
    ways.max().unwrap_or(0)
}

fn stop_time(planned: &Planned) -> u64 {
    match planned.service.kind {
        // It is over long before.
        services::Kind::Oneshot => 0,
        _ => planned
            .service
            .stopping
            .timeout
            .map_or(LONGEST, |t| t.as_secs().max(1)),
    }
}

fn start_time(planned: &Planned) -> u64 {
    let service = &planned.service;
    // Nothing waits for what is started later.
    if !service.autostart {
        return 0;
    }
    let own = match service.kind {
        services::Kind::Simple { settle } => settle,
        services::Kind::Oneshot => service.start_timeout.unwrap_or(JOB),
        _ => service.start_timeout.unwrap_or(DAEMON),
    };
    let ready = planned.ready.as_ref().map(|check| check.timeout);
    own.max(ready.unwrap_or_default()).as_secs()
}

/// Every file that a start may have to change is in memory or on a volume.
fn may_be_read_only(contract: &Contract) -> bool {
    let on_volume = |path: &str| {
        contract.volumes.iter().any(|volume| {
            let folder = volume.path.trim_end_matches('/');
            path.strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
        })
    };
    let changes = |template: &Template| {
        let settings = contract
            .settings
            .values()
            .any(|setting| setting.files.contains(&template.dest));
        settings
            || contract
                .facts
                .iter()
                .any(|fact| template.body.contains(fact.as_str()))
    };
    let real = |template: &&Template| {
        template.parity == Parity::Identical && !template.link && !on_volume(&template.dest)
    };
    !contract.templates.iter().filter(real).any(changes)
}

/// With these root keeps services apart; Docker's default has eight more.
fn capabilities(contract: &Contract) -> Vec<&'static str> {
    let mut all = vec![
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "KILL",
        "SETGID",
        "SETUID",
    ];
    if contract.ports.iter().any(|port| *port < 1024) {
        all.insert(4, "NET_BIND_SERVICE");
    }
    all
}
