//! The verbs that work on the contract. The order in [`start`] is the design's: nothing is
//! touched before everything that can be checked has been.

use contract::{Contract, Value, Variables};

use crate::control::{self, Reply, Request};
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::{say, warn};
use crate::plan::Plan;
use crate::root::Root;
use crate::secrets::{self, Secrets};
use crate::settings::{self, Environment, Given, MASK, Resolved};
use crate::supervise::{Loaded, Open, Supervisor};
use crate::upgrade::{self, Decision, Upgrade};
use crate::volume::{self, Lock, State};
use crate::{
    accounts, backup, ca_bundle, certificates, databases, explain, facts, owners, plan, preflight,
    render as files, roles, runtime, sys, tmpfiles,
};

pub fn contract(root: &Root) -> Result<Contract> {
    let text = root.read(contract::PATH)?.ok_or_else(|| {
        Failure::new(
            Code::Internal,
            format!("cannot read {}: it does not exist", contract::PATH),
        )
        .hint("this binary works in an image that `tiffin build` made")
    })?;
    let contract: Contract = serde_json::from_str(&text).map_err(|error| {
        Failure::new(
            Code::Internal,
            format!("cannot read {}: {error}", contract::PATH),
        )
    })?;
    if contract.format != contract::FORMAT {
        return Err(Failure::new(
            Code::Internal,
            format!(
                "cannot read {}: its format is {}, this entrypoint reads {}",
                contract::PATH,
                contract.format,
                contract::FORMAT
            ),
        )
        .hint("the image was put together by hand; build it with `tiffin build`"));
    }
    crate::sound::check(&contract).map_err(|reason| {
        Failure::new(
            Code::Internal,
            format!("cannot read {}: {reason}", contract::PATH),
        )
    })?;
    Ok(contract)
}

/// Of a program or unit without a box around it. Through text, as [`contract`]: what reads
/// contracts is in the binary once.
pub fn bare(contract: &serde_json::Value) -> Result<Contract> {
    serde_json::from_str(&contract.to_string())
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

/// The exit code of the container.
pub fn start(contract: &Contract, root: &Root, environment: &Environment) -> Result<u8> {
    let state = State::new(contract, root);
    finish_restore(contract, root, &state)?;
    let upgrade = Upgrade::new(contract, root, &state, environment);
    // Data that is not this version's is refused first, and nothing is touched.
    upgrade.look()?;
    let who = holder(contract, environment);
    let mut lock: Option<Lock> = None;
    if upgrade.is_under_way()? {
        // What was put aside is put back: generated values are among it.
        lock = Some(state.lock(&who)?);
        upgrade.recover()?;
    }
    // Settings: all problems at once, and nothing touched when there are any.
    let resolved = resolve(contract, &state, environment)?;
    for warning in &resolved.warnings {
        warn(warning);
    }
    roles::check(contract, root, environment, &resolved)?;
    preflight::warn_at_start(contract, root, &resolved);
    // The volume is ours from here on.
    let _lock = match lock {
        Some(lock) => lock,
        None => {
            let lock = state.lock(&who)?;
            if upgrade.is_under_way()? {
                // Another box was faster, and is gone again.
                return Err(Failure::new(
                    Code::Locked,
                    "cannot start: another box has just begun an upgrade of the volume",
                )
                .hint("start this one again"));
            }
            upgrade.recover()?;
            lock
        }
    };
    let is_new = upgrade.look()? == Decision::New;
    upgrade::check::data(contract, root, environment, &resolved)?;
    let literal = values(contract, root, &resolved);
    let databases = databases::all(contract, &Engine::new(contract, &literal))?;
    let _place = runtime::prepare(root)?;
    let open = match upgrade.takes_long()? {
        Some(what) => upgrade.before(environment, &what),
        None => upgrade.begin(&databases).map(|()| Some(Open::default())),
    };
    let ended = match open {
        Ok(Some(open)) => run(
            contract,
            root,
            environment,
            &state,
            resolved,
            &upgrade,
            (is_new, open),
        ),
        Ok(None) => return Ok(Code::Ok as u8),
        Err(failure) => Err(failure),
    };
    if !matches!(ended, Ok((Code::Ok, _))) {
        // What was said so far is why; the failure itself is said last.
        upgrade.give_up()?;
    }
    ended.map(|(_, code)| code)
}

/// What another box is told about the one that has the volume.
pub fn holder(contract: &Contract, environment: &Environment) -> String {
    let host = environment.get("HOSTNAME").unwrap_or("unknown");
    format!(
        "{} {} on {host}",
        contract.product.name, contract.product.version
    )
}

/// From the settings to the end of the box.
fn run(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    state: &State<'_>,
    mut resolved: Resolved,
    upgrade: &Upgrade<'_>,
    (is_new, open): (bool, Open),
) -> Result<(Code, u8)> {
    // Generated values are kept before anything uses them.
    generate(contract, state, &mut resolved)?;
    if is_new {
        state.record_version(&contract.product.version)?;
    }
    volume::directories(contract, root)?;
    owners::remember(contract, root, state)?;
    tmpfiles::make(contract, root)?;
    let mut environment = environment.clone();
    if let Some(path) = runtime::temporary(contract, root)? {
        environment.variables.insert("TMPDIR".to_owned(), path);
    }
    let environment = &environment;
    let variables = values(contract, root, &resolved);
    let secrets = files::secrets(contract, &variables, &state.kept()?.values);
    let engine = Engine::new(contract, &variables);
    let count = files::write(contract, &engine, root, &secrets)?;
    ca_bundle::write(contract, &engine, root)?;
    certificates::announce(&resolved.certificates);
    let given = resolved.given().count();
    say(&format!(
        "{} {}: {given} {} given, {} of {} files changed",
        contract.product.title,
        contract.product.version,
        if given == 1 { "setting" } else { "settings" },
        count.changed.len(),
        count.total
    ));
    // After rendering: programs of supervisord are templates too.
    let plan = plan::plan(contract, &engine, root, &environment.variables)?;
    for warning in plan.warnings.iter().chain(&accounts::note()) {
        warn(&format!("note: {warning}"));
    }
    if plan.services.is_empty() {
        return Err(
            Failure::new(Code::Config, "cannot start: the box has no services")
                .hint("the playbooks enabled no unit; see `units` in the contract"),
        );
    }
    crate::page::prepare(contract, root, environment)?;
    let version = &contract.product.version;
    let supervisor = Supervisor::taking_over(open, plan, root, environment, state, version)?;
    let loaded = Loaded {
        contract,
        variables: variables.clone(),
        secrets,
        certificates: resolved.certificates,
    };
    Ok(supervisor.reloadable(loaded).upgrading(upgrade).run())
}

/// A restore that was cut off is finished or undone before anything reads the volume.
fn finish_restore(contract: &Contract, root: &Root, state: &State<'_>) -> Result<()> {
    if backup::unfinished(contract, root)?.is_some() {
        let _lock = state.lock("a start that finishes a restore")?;
        if let Some(done) = backup::recover(contract, root)? {
            say(&done);
        }
    }
    Ok(())
}

/// What the templates are rendered with: settings, then facts about this container.
pub fn values(contract: &Contract, root: &Root, resolved: &Resolved) -> Variables {
    let mut values = facts::now(contract, root);
    values.extend(resolved.variables(contract));
    values
}

/// What will run, before anything is written: users and conditions stand in files that are
/// rendered later.
pub fn foreseen(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    resolved: &Resolved,
) -> Result<(Variables, Plan)> {
    let mut variables = values(contract, root, resolved);
    stand_in(contract, resolved.to_generate.keys(), &mut variables);
    let rendered = chosen(contract, &variables, &[])?;
    let seen = root.with(
        rendered
            .iter()
            .map(|(template, text)| (template.dest.as_str(), text.as_str())),
    );
    let engine = Engine::new(contract, &variables);
    let plan = plan::plan(contract, &engine, &seen, &environment.variables)?;
    Ok((variables, plan))
}

/// `docker run IMAGE bash`: nothing is printed, and a running box on the same volume is
/// no obstacle unless a value must be generated. Inside a box that runs (`docker exec BOX
/// tiffin COMMAND`) the files belong to that start and stay as they are.
pub fn command(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    words: &[String],
) -> Result<Code> {
    if control::ask(root, &Request::Status { measure: false }).is_err() {
        let state = State::new(contract, root);
        finish_restore(contract, root, &state)?;
        let mut resolved = resolve(contract, &state, environment)?;
        if !resolved.to_generate.is_empty() || !resolved.to_make.is_empty() {
            let _lock = state.lock(&words.join(" "))?;
            generate(contract, &state, &mut resolved)?;
        }
        let variables = values(contract, root, &resolved);
        let secrets = files::secrets(contract, &variables, &state.kept()?.values);
        let _place = runtime::prepare(root)?;
        files::write(contract, &Engine::new(contract, &variables), root, &secrets)?;
    }
    let error = sys::exec(words);
    let name = words.first().map_or("", String::as_str);
    Err(if error.kind() == std::io::ErrorKind::NotFound {
        Failure::new(
            Code::NotFound,
            format!("cannot execute {name}: it does not exist in the box"),
        )
        .hint("`help` lists what can be asked for")
    } else {
        Failure::new(
            Code::NotExecutable,
            format!("cannot execute {name}: {error}"),
        )
    })
}

pub fn check(contract: &Contract, root: &Root, environment: &Environment) -> Result<Code> {
    let resolved = resolve(contract, &State::new(contract, root), environment)?;
    for warning in &resolved.warnings {
        say(warning);
    }
    Ok(crate::print("OK\n"))
}

/// What `render` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// All files when empty.
    pub paths: Vec<String>,
    pub secrets: bool,
    /// Only what differs from the files there.
    pub diff: bool,
}

/// The files as `start` would write them; nothing is written.
pub fn render(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    shown: &Shown,
) -> Result<Code> {
    // In a box that runs, the environment of its first process counts, and that one knows
    // which secrets the files held so far.
    if shown.diff && !shown.secrets {
        let paths = shown.paths.clone();
        match control::ask(root, &Request::Diff { paths }) {
            Ok(Reply::Lines(lines)) => return Ok(difference(&lines)),
            Ok(Reply::Refused(reason)) => return Err(Failure::new(Code::Config, reason)),
            _ => {}
        }
    }
    let state = State::new(contract, root);
    let resolved = resolve(contract, &state, environment)?;
    let mut variables = values(contract, root, &resolved);
    stand_in(contract, resolved.to_generate.keys(), &mut variables);
    if shown.diff {
        let secrets = if shown.secrets {
            Secrets::default()
        } else {
            files::secrets(contract, &variables, &state.kept()?.values)
        };
        let rendered = chosen(contract, &variables, &shown.paths)?;
        let mut built = facts::now(contract, root);
        stand_in(contract, contract.settings.keys(), &mut built);
        let built = Engine::new(contract, &built);
        let (text, _) = files::difference(root, &rendered, &secrets, Some(&built));
        return Ok(difference(
            &text.lines().map(str::to_owned).collect::<Vec<_>>(),
        ));
    }
    if !shown.secrets {
        variables = secrets::masked(contract, &variables);
    }
    let rendered = chosen(contract, &variables, &shown.paths)?;
    let mut out = String::new();
    for (template, text) in &rendered {
        if shown.paths.len() != 1 {
            out.push_str(&format!("==> {}\n", template.dest));
        }
        out.push_str(text);
        if shown.paths.len() != 1 && !text.ends_with('\n') {
            out.push('\n');
        }
    }
    Ok(crate::print(&out))
}

/// Something in the place of secrets, and of what is generated later, that have no value.
pub fn stand_in<'n>(
    contract: &Contract,
    names: impl Iterator<Item = &'n String>,
    variables: &mut Variables,
) {
    for name in names {
        let setting = &contract.settings[name];
        let text = match (settings::is_secret(setting), setting.generate) {
            (true, Some(length)) => MASK.repeat(usize::from(length).div_ceil(MASK.len())),
            // One that nobody gives and nothing generates is empty, as at the start.
            (true, None) => continue,
            (false, Some(_)) => "(generated at first start)".to_owned(),
            (false, None) => continue,
        };
        variables
            .entry(setting.variable.clone())
            .or_insert(Value::from(text));
    }
}

/// As diff(1): 1 when there is a difference.
fn difference(lines: &[String]) -> Code {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    crate::print(&text);
    match lines.is_empty() {
        true => Code::Ok,
        false => Code::Failed,
    }
}

/// The rendered files that are asked for.
pub fn chosen<'a>(
    contract: &'a Contract,
    variables: &Variables,
    paths: &[String],
) -> Result<Vec<(&'a contract::Template, String)>> {
    let engine = Engine::new(contract, variables);
    let mut rendered = files::all(contract, &engine)?;
    let known = |path: &String| rendered.iter().any(|(template, _)| template.dest == *path);
    if let Some(path) = paths.iter().find(|path| !known(path)) {
        let known: Vec<&str> = rendered
            .iter()
            .map(|(template, _)| template.dest.as_str())
            .collect();
        return Err(Failure::new(
            Code::Usage,
            format!("cannot render {path}: it is none of the rendered files"),
        )
        .hint(known.join(", ")));
    }
    rendered.retain(|(template, _)| paths.is_empty() || paths.contains(&template.dest));
    Ok(rendered)
}

pub fn explain(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    name: &str,
    json: bool,
) -> Result<Code> {
    let state = State::new(contract, root);
    let resolved = resolve(contract, &state, environment).unwrap_or_default();
    let mut variables = values(contract, root, &resolved);
    stand_in(contract, contract.settings.keys(), &mut variables);
    let engine = Engine::new(contract, &variables);
    let texts: Vec<(&str, String)> = contract
        .templates
        .iter()
        .filter(|template| !root.is_file(&template.dest))
        .map(|template| {
            // What a required value is missing for still says which services it is about.
            let text = engine.render(template);
            let text = text.unwrap_or_else(|_| template.body.clone());
            (template.dest.as_str(), text)
        })
        .collect();
    let root = root.with(texts.iter().map(|(path, text)| (*path, text.as_str())));
    let answer = explain::explain(contract, &root, &environment.variables, name)?;
    Ok(crate::print(&if json {
        format!("{:#}\n", serde_json::json!(answer))
    } else {
        explain::text(&answer)
    }))
}

/// A kept copy of the data takes its place; without a running box.
pub fn rollback(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    wanted: &upgrade::rollback::Wanted,
) -> Result<Code> {
    let state = State::new(contract, root);
    let upgrade = Upgrade::new(contract, root, &state, environment);
    let _lock = match wanted.list {
        true => None,
        false => Some(state.lock(&holder(contract, environment))?),
    };
    upgrade.rollback(wanted)
}

pub fn help(contract: &Contract) -> String {
    let product = &contract.product;
    format!(
        "{} {}\n\n{}",
        product.title,
        product.version,
        crate::cli::HELP
    )
}

/// Where each setting's value is from.
pub fn origin(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    json: bool,
) -> Result<Code> {
    let resolved = resolve(contract, &State::new(contract, root), environment)?;
    Ok(crate::print(&settings::origin::origin(
        contract, &resolved, json,
    )))
}

pub fn resolve(
    contract: &Contract,
    state: &State<'_>,
    environment: &Environment,
) -> Result<Resolved> {
    let kept = state.kept()?;
    let sources = settings::Sources {
        environment,
        root: state.root(),
        kept: &kept.values,
        lost: kept.lost.as_deref(),
        given: &kept.given,
        directory: Some(state.directory()),
    };
    settings::resolve(contract, &sources).map_err(|problems| {
        Failure::new(Code::Config, settings::report(&problems))
            .hint("`settings` lists all settings, `check` only checks them")
    })
}

/// Makes and keeps what is to be generated, and remembers what was given instead.
pub fn generate(contract: &Contract, state: &State<'_>, resolved: &mut Resolved) -> Result<()> {
    if !resolved.to_generate.is_empty() {
        for (name, value) in state.generate(&resolved.to_generate)? {
            resolved
                .values
                .insert(name, (Value::from(value), Given::Kept));
        }
        resolved.to_generate.clear();
    }
    certificates::generate(contract, state, resolved)?;
    let could_be = |name: &&String| {
        contract
            .settings
            .get(*name)
            .is_some_and(|s| s.generate.is_some())
    };
    state.remember(resolved.given().filter(could_be))
}
