//! Units and programs of the box as services with their order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contract::{Contract, ServiceOverride, Unit};
use services::{Kind, Service, supervisord, systemd};

use crate::backup::schedule;
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::jobs;
use crate::ready::{Check, check};
use crate::roles;
use crate::root::Root;
use crate::volume::Watched;

/// A service and what the recipe says about it.
#[derive(Debug, Clone)]
pub struct Planned {
    pub service: Service,
    /// Indices of the services that must be ready first.
    pub needs: Vec<usize>,
    pub ready: Option<Check>,
    /// It keeps a database.
    pub data: bool,
    pub once: bool,
    /// Given up, it ends the box.
    pub required: bool,
    /// With `once`: what makes it run again.
    pub again: Watched,
    /// Why it is not started: `when` is false, a condition does not hold.
    pub skip: Option<String>,
    /// It is started by a timer unit, or is a job.
    pub timer: Option<systemd::Timer>,
    pub log_files: Vec<LogFile>,
}

/// A log file that the service writes itself.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// Where it is from here.
    pub path: String,
    /// A larger one, in bytes, is rotated.
    pub max: u64,
    pub keep: u32,
    /// Makes the service open a new one; without, the file is copied and emptied.
    pub signal: Option<services::Signal>,
    /// As it was when somebody looked last.
    pub size: u64,
}

#[derive(Debug)]
pub struct Plan {
    pub services: Vec<Planned>,
    /// What supervisord's configuration says of its sockets, when there is one.
    pub daemon: Option<supervisord::Daemon>,
    /// Where the control socket is.
    pub socket: String,
    /// There is no box around the programs: they run as under supervisord itself.
    pub alone: bool,
    /// It is no container's first process, and need not be.
    pub quiet: bool,
    pub warnings: Vec<String>,
}

/// `environment` is the container's, for supervisord's `%(ENV_X)s` alone.
pub fn plan(
    contract: &Contract,
    engine: &Engine<'_>,
    root: &Root,
    environment: &BTreeMap<String, String>,
) -> Result<Plan> {
    let mut warnings = Vec::new();
    let mut services = Vec::new();
    let mut daemon = None;
    let mut timers = Vec::new();
    for unit in &contract.units {
        if unit.name.ends_with(".timer") {
            timers.push(read_timer(unit, root, &mut warnings)?);
            continue;
        }
        // Slices and targets are not run.
        if !unit.name.ends_with(".service") {
            warnings.push(format!(
                "{} is not started: only services and timers are",
                unit.name
            ));
            continue;
        }
        services.extend(read_unit(
            unit,
            root,
            environment,
            &mut warnings,
            &mut daemon,
        )?);
    }
    if let Some(text) = crate::page::unit(root, environment) {
        let name = format!("{}.service", crate::page::SERVICE);
        let mut page = systemd::parse(&name, &[&text])
            .map_err(|e| config(&e))?
            .value;
        // It shows where settings are from, as the first process sees them.
        page.environment = environment.clone().into_iter().collect();
        services.push(page);
    }
    let scheduled = schedule::timer(environment);
    if scheduled.is_some() {
        let name = format!("{}.service", schedule::SERVICE);
        let mut job = systemd::parse(&name, &[&schedule::unit(contract, root)])
            .map_err(|e| config(&e))?
            .value;
        // It reads the settings, as the first process does.
        job.environment = environment.clone().into_iter().collect();
        job.autostart = false;
        services.push(job);
    }
    for (name, timer, unit) in &timers {
        // One that is enabled too is there already.
        if !services
            .iter()
            .any(|known: &Service| is_called(known, &timer.unit))
        {
            for mut service in read_unit(unit, root, environment, &mut warnings, &mut daemon)? {
                service.autostart = false;
                services.push(service);
            }
        }
        for service in services
            .iter_mut()
            .filter(|known| is_called(known, &timer.unit))
        {
            service.aliases.push(name.clone());
        }
    }
    let jobs = jobs::planned(contract, engine)?;
    services.extend(jobs.iter().map(|(job, _)| job.clone()));
    let chosen = roles::chosen(environment);
    let mut plan = order(
        contract,
        engine,
        root,
        chosen.as_deref(),
        services,
        warnings,
    )?;
    let timers = timers.into_iter().map(|(_, timer, _)| timer);
    let jobs = jobs.into_iter().map(|(_, timer)| timer);
    for timer in timers.chain(scheduled).chain(jobs) {
        for planned in &mut plan.services {
            if is_called(&planned.service, &timer.unit) {
                planned.timer = Some(timer.clone());
            }
        }
    }
    crate::ca_bundle::point(contract, engine, root, &mut plan.services)?;
    plan.daemon = daemon;
    Ok(plan)
}

/// The box's services, in no order, as far as their files can be read.
pub fn services(
    contract: &Contract,
    root: &Root,
    environment: &BTreeMap<String, String>,
) -> Vec<Service> {
    let units = contract.units.iter();
    units
        .filter(|unit| unit.name.ends_with(".service"))
        .filter_map(|unit| read_unit(unit, root, environment, &mut Vec::new(), &mut None).ok())
        .flatten()
        .chain(
            contract
                .jobs
                .iter()
                .filter_map(|(name, job)| jobs::service(name, job).ok()),
        )
        .collect()
}

/// The programs of a supervisord that is started by hand.
pub fn programs(
    path: &str,
    contract: &Contract,
    engine: &Engine<'_>,
    root: &Root,
    environment: &BTreeMap<String, String>,
) -> Result<Plan> {
    let mut warnings = Vec::new();
    let (mut programs, daemon) =
        read_programs(path, "supervisord", None, root, environment, &mut warnings)?;
    for program in &mut programs {
        // As with supervisord: all that it was given itself, then what is written.
        let mut inherited: Vec<(String, String)> = environment
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        inherited.append(&mut program.environment);
        program.environment = inherited;
        if let (None, Ok(here)) = (&program.working_directory, std::env::current_dir()) {
            program.working_directory = Some(services::WorkingDirectory {
                path: here.to_string_lossy().into_owned(),
                optional: true,
            });
        }
    }
    let mut plan = order(contract, engine, root, None, programs, warnings)?;
    plan.daemon = Some(daemon);
    plan.alone = true;
    Ok(plan)
}

fn config(error: &services::Error) -> Failure {
    Failure::new(Code::Config, format!("cannot run {error}"))
}

/// The timer with its name, and the unit that it starts.
fn read_timer(
    unit: &Unit,
    root: &Root,
    warnings: &mut Vec<String>,
) -> Result<(String, systemd::Timer, Unit)> {
    let texts = unit_texts(unit, root)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let parsed = systemd::timer(&unit.name, &texts).map_err(|e| config(&e))?;
    let not_applied = parsed
        .not_applied
        .iter()
        .map(|key| format!("{key}= has no effect"));
    let told = parsed.warnings.into_iter().chain(not_applied);
    warnings.extend(told.map(|w| format!("{}: {w}", unit.name)));
    let name = parsed.value.unit.clone();
    let beside = unit.path.rsplit_once('/').map_or("", |(path, _)| path);
    let path = [beside, "/lib/systemd/system", "/usr/lib/systemd/system"]
        .into_iter()
        .map(|directory| format!("{directory}/{name}"))
        .find(|path| root.is_file(path))
        .unwrap_or_else(|| format!("{beside}/{name}"));
    Ok((unit.name.clone(), parsed.value, Unit { name, path }))
}

/// Its file's text, then those of its drop-ins.
fn unit_texts(unit: &Unit, root: &Root) -> Result<Vec<String>> {
    // /etc overrides /lib, as a whole.
    let own = format!("/etc/systemd/system/{}", unit.name);
    let text = match root.read(&own)? {
        Some(text) if !text.trim().is_empty() => text,
        _ => root.read(&unit.path)?.ok_or_else(|| {
            Failure::new(
                Code::Config,
                format!(
                    "cannot read the unit {}: {} does not exist in the box",
                    unit.name, unit.path
                ),
            )
        })?,
    };
    let mut texts = vec![text];
    // By file name over all directories; one in /etc hides one of the same name in /lib.
    let mut drop_ins: BTreeMap<String, String> = BTreeMap::new();
    for base in [
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
        "/run/systemd/system",
        "/etc/systemd/system",
    ] {
        let directory = format!("{base}/{}.d", unit.name);
        for name in root
            .names(&directory)
            .into_iter()
            .filter(|name| name.ends_with(".conf"))
        {
            let path = format!("{directory}/{name}");
            drop_ins.insert(name, path);
        }
    }
    for path in drop_ins.values() {
        texts.push(root.read(path)?.unwrap_or_default());
    }
    Ok(texts)
}

fn read_unit(
    unit: &Unit,
    root: &Root,
    environment: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
    daemon: &mut Option<supervisord::Daemon>,
) -> Result<Vec<Service>> {
    let texts = unit_texts(unit, root)?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let parsed = systemd::parse_on(&host, &unit.name, &texts).map_err(|e| config(&e))?;
    warnings.extend(
        parsed
            .warnings
            .iter()
            .map(|w| format!("{}: {w}", unit.name)),
    );
    match supervisord::config(&parsed.value) {
        Some(path) => {
            let (programs, found) = read_programs(
                &path,
                &unit.name,
                Some(&parsed.value),
                root,
                environment,
                warnings,
            )?;
            daemon.get_or_insert(found);
            Ok(programs)
        }
        None => Ok(vec![parsed.value]),
    }
}

fn read_programs(
    path: &str,
    whose: &str,
    unit: Option<&Service>,
    root: &Root,
    environment: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<(Vec<Service>, supervisord::Daemon)> {
    let text = root.read(path)?.ok_or_else(|| {
        Failure::new(
            Code::Config,
            format!("cannot read {path}, the configuration of {whose}: it does not exist",),
        )
    })?;
    let main = supervisord::File { path, text: &text };
    let mut included = Vec::new();
    for pattern in supervisord::includes(main, environment).map_err(|e| config(&e))? {
        for path in glob(root, &pattern) {
            let text = root.read(&path)?.unwrap_or_default();
            included.push((path, text));
        }
    }
    let mut files = vec![main];
    files.extend(
        included
            .iter()
            .map(|(path, text)| supervisord::File { path, text }),
    );
    let parsed = supervisord::parse(&files, environment).map_err(|e| config(&e))?;
    warnings.extend(parsed.warnings);
    // Under supervisord's own name log files are written.
    if unit.is_some() {
        warnings.extend(parsed.not_applied);
    }
    let mut programs = parsed.value;
    for (program, unit) in programs.iter_mut().zip(std::iter::repeat(unit)) {
        let Some(unit) = unit else { continue };
        program.order = unit.order.clone();
        program.aliases.push(unit.name.clone());
        program.limits = unit.limits.clone();
        program.nice = unit.nice;
        program.oom_score_adj = unit.oom_score_adj;
        let mut environment = unit.environment.clone();
        environment.append(&mut program.environment);
        program.environment = environment;
    }
    let daemon = supervisord::daemon(&files, environment).map_err(|e| config(&e))?;
    Ok((programs, daemon))
}

/// Paths that match; `*` and `?` stand for what is within one name.
fn glob(root: &Root, pattern: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        found = found
            .into_iter()
            .flat_map(|base| {
                let names = if part.contains(['*', '?']) {
                    let directory = if base.is_empty() { "/" } else { &base };
                    root.names(directory)
                        .into_iter()
                        .filter(|name| {
                            matches(part, name) && (!name.starts_with('.') || part.starts_with('.'))
                        })
                        .collect()
                } else {
                    vec![part.to_owned()]
                };
                names.into_iter().map(move |name| format!("{base}/{name}"))
            })
            .collect();
    }
    found.retain(|path| root.is_file(path));
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return name.is_empty();
    };
    let rest = &pattern[first.len_utf8()..];
    match first {
        '*' => name
            .char_indices()
            .map(|(at, _)| at)
            .chain([name.len()])
            .any(|at| matches(rest, &name[at..])),
        _ => name
            .chars()
            .next()
            .is_some_and(|c| (first == '?' || first == c) && matches(rest, &name[c.len_utf8()..])),
    }
}

/// Whether `service` is meant by `name`, a unit name with or without its suffix.
pub fn is_called(service: &Service, name: &str) -> bool {
    let name = name.strip_suffix(".service").unwrap_or(name);
    service.name == name || service.aliases.iter().any(|alias| alias == name)
}

fn order(
    contract: &Contract,
    engine: &Engine<'_>,
    root: &Root,
    roles: Option<&[&str]>,
    mut services: Vec<Service>,
    mut warnings: Vec<String>,
) -> Result<Plan> {
    services.sort_by_key(|s| s.priority);
    for (at, service) in services.iter().enumerate() {
        if services[..at]
            .iter()
            .any(|other| other.name == service.name)
        {
            return Err(Failure::new(
                Code::Config,
                format!("cannot start: two services are called {}", service.name),
            ));
        }
    }
    let called = |name: &str| -> Vec<usize> {
        (0..services.len())
            .filter(|at| is_called(&services[*at], name))
            .collect()
    };
    let mut needs: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); services.len()];
    for (at, service) in services.iter().enumerate() {
        let order = &service.order;
        for name in order
            .after
            .iter()
            .chain(&order.requires)
            .chain(&order.binds_to)
        {
            needs[at].extend(called(name));
        }
        for name in order
            .requires
            .iter()
            .chain(&order.binds_to)
            .filter(|name| name.ends_with(".service"))
        {
            if called(name).is_empty() {
                warnings.push(format!(
                    "{} requires {name}, which is not part of the box",
                    service.name
                ));
            }
        }
        for name in &order.before {
            for other in called(name) {
                needs[other].insert(at);
            }
        }
    }
    let none = ServiceOverride::default();
    let mut overrides: Vec<&ServiceOverride> = vec![&none; services.len()];
    for (name, wanted) in &contract.services {
        let targets = called(name);
        if targets.is_empty() {
            return Err(Failure::new(Code::Config, format!("cannot start: the recipe speaks of a service `{name}`, and no unit or program has that name"))
                .hint(format!("services of this box: {}", services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "))));
        }
        for at in targets {
            // A program's own name says more than its group's or its unit's.
            let more_exact =
                services[at].name == *name || std::ptr::eq(overrides[at], &raw const none);
            if more_exact {
                overrides[at] = wanted;
            }
            for after in &wanted.after {
                let found = called(after);
                if found.is_empty() {
                    return Err(Failure::new(
                        Code::Config,
                        format!(
                            "cannot start {name}: it waits for `{after}`, and no unit or program has that name"
                        ),
                    ));
                }
                needs[at].extend(found);
            }
        }
    }
    for (role, name) in contract
        .roles
        .iter()
        .flat_map(|(role, said)| said.services.iter().map(move |name| (role, name)))
    {
        if roles.is_some() && called(name).is_empty() {
            return Err(Failure::new(
                Code::Config,
                format!(
                    "cannot start: the role {role} has a service `{name}`, and no unit or program has that name"
                ),
            ));
        }
    }
    // A box of roles runs these.
    let runs: Vec<bool> = services
        .iter()
        .map(|service| roles.is_none_or(|roles| roles::run(contract, roles, service)))
        .collect();
    let waited_for: BTreeSet<usize> = (0..services.len())
        .filter(|at| runs[*at])
        .flat_map(|at| needs[at].iter().copied())
        .collect();
    let mut planned = Vec::with_capacity(services.len());
    let names: Vec<String> = services.iter().map(|s| s.name.clone()).collect();
    for ((at, mut service), wanted) in services.into_iter().enumerate().zip(overrides) {
        let wrong = |what: &str, reason: String| {
            Failure::new(
                Code::Config,
                format!("cannot start {}: {what}: {reason}", names[at]),
            )
        };
        let mut skip = None;
        if let Some(when) = &wanted.when
            && !engine
                .holds(when)
                .map_err(|reason| wrong("its `when`", reason))?
        {
            skip = Some(format!("`{when}` does not hold"));
        }
        for condition in &service.conditions {
            if root.path(&condition.path).exists() != condition.exists {
                let what = if condition.exists {
                    "does not exist"
                } else {
                    "exists"
                };
                skip = Some(format!("{} {what}", condition.path));
            }
        }
        let mut once = wanted.once;
        if !runs[at] && skip.is_none() {
            match &wanted.done {
                Some(line) if waited_for.contains(&at) => {
                    let line = engine
                        .text(line)
                        .map_err(|reason| wrong("its `done`", reason))?;
                    roles::waiting(&mut service, &line);
                    once = false;
                }
                _ => skip = Some(roles::reason(contract, &service)),
            }
        }
        let ready = wanted
            .ready
            .as_ref()
            .map(|ready| check(ready, engine))
            .transpose()
            .map_err(|reason| wrong("its `ready`", reason))?;
        if ready.is_some() && service.kind == Kind::Oneshot {
            warnings.push(format!(
                "{}: its `ready` has no effect: a one-shot is ready when it is done",
                names[at]
            ));
        }
        if let Some(seconds) = wanted.stop_timeout {
            service.stopping.timeout = Some(Duration::from_secs(seconds.into()));
        }
        narrow(&mut service, wanted)
            .map_err(|name| wrong("its capabilities", format!("there is no {name}")))?;
        run_as_said(&mut service, wanted)
            .map_err(|value| wrong("its limits", format!("`{value}` is none")))?;
        needs[at].remove(&at);
        planned.push(Planned {
            // One that somebody starts by hand, or a timer, is not what the box is for.
            required: wanted.required.unwrap_or(true) && service.autostart,
            service,
            needs: needs[at].iter().copied().collect(),
            ready,
            data: !wanted.data.is_empty(),
            once,
            again: watched(contract, engine, &wanted.again),
            skip,
            timer: None,
            log_files: wanted
                .log_files
                .iter()
                .map(|file| log_file(file, root))
                .collect::<Result<_, _>>()
                .map_err(|reason| wrong("its log files", reason))?,
        });
    }
    if let Some(cycle) = cycle(&planned) {
        let path: Vec<&str> = cycle.iter().map(|at| names[*at].as_str()).collect();
        return Err(Failure::new(
            Code::Config,
            format!(
                "cannot start: services wait for each other: {}",
                path.join(" -> ")
            ),
        )
        .hint("remove one of these from After=, Requires=, Before= or the recipe's `after`"));
    }
    Ok(Plan {
        services: planned,
        daemon: None,
        socket: crate::control::SOCKET.to_owned(),
        alone: false,
        quiet: false,
        warnings,
    })
}

/// What the recipe says of privileges is in the place of what the file says.
fn narrow(service: &mut Service, wanted: &ServiceOverride) -> Result<(), String> {
    let privileges = &mut service.privileges;
    if let Some(names) = &wanted.capability_bounding_set {
        privileges.bounding = Some(systemd::capabilities(names)?);
    }
    if let Some(names) = &wanted.ambient_capabilities {
        privileges.ambient = systemd::capabilities(names)?;
    }
    if let Some(yes) = wanted.no_new_privileges {
        privileges.no_new = yes;
    }
    Ok(())
}

fn log_file(said: &contract::LogFile, root: &Root) -> Result<LogFile, String> {
    let number = |name: &String| {
        services::signal_number(name).ok_or_else(|| format!("there is no signal {name}"))
    };
    Ok(LogFile {
        path: root.path(&said.path).to_string_lossy().into_owned(),
        max: said.max,
        keep: said.keep,
        signal: said.signal.as_ref().map(number).transpose()?,
        size: 0,
    })
}

/// The same of how its processes run. The error is a limit that is none.
fn run_as_said(service: &mut Service, wanted: &ServiceOverride) -> Result<(), String> {
    service.nice = wanted.nice.or(service.nice);
    service.oom_score_adj = wanted.oom_score_adj.or(service.oom_score_adj);
    for (name, value) in &wanted.limits {
        let limit = systemd::limit(name, value).ok_or_else(|| format!("{name}: {value}"))?;
        service.limits.retain(|l| l.resource != limit.resource);
        service.limits.push(limit);
    }
    Ok(())
}

/// Which services stop last: those that keep a database, and what these need. They need none
/// of the others, so that nobody waits in a circle.
pub fn last<'a>(services: impl Iterator<Item = &'a Planned>) -> Vec<bool> {
    let services: Vec<&Planned> = services.collect();
    let mut last = vec![false; services.len()];
    let keepers = (0..services.len()).filter(|at| services[*at].data);
    let mut queue: Vec<usize> = keepers.collect();
    while let Some(at) = queue.pop() {
        if !std::mem::replace(&mut last[at], true) {
            queue.extend(&services[at].needs);
        }
    }
    last
}

/// The values of settings as they are in force, given or default.
fn watched(contract: &Contract, engine: &Engine<'_>, settings: &[String]) -> Watched {
    let known = settings
        .iter()
        .filter_map(|name| Some((name, contract.settings.get(name)?)));
    Watched::new(known.map(|(name, setting)| {
        // Undefined is a value too.
        let value = engine
            .text(&format!("{{{{ {} }}}}", setting.variable))
            .unwrap_or_default();
        (name.clone(), value)
    }))
}

/// Services that wait for each other, the first one again at the end.
fn cycle(services: &[Planned]) -> Option<Vec<usize>> {
    fn visit(
        services: &[Planned],
        at: usize,
        marks: &mut [u8],
        path: &mut Vec<usize>,
    ) -> Option<Vec<usize>> {
        match marks[at] {
            2 => return None,
            1 => {
                let from = path.iter().position(|p| *p == at).unwrap_or(0);
                let mut cycle = path[from..].to_vec();
                cycle.push(at);
                return Some(cycle);
            }
            _ => {}
        }
        marks[at] = 1;
        path.push(at);
        let found = services[at]
            .needs
            .iter()
            .find_map(|need| visit(services, *need, marks, path));
        path.pop();
        marks[at] = 2;
        found
    }
    let mut marks = vec![0; services.len()];
    (0..services.len()).find_map(|at| visit(services, at, &mut marks, &mut Vec::new()))
}
