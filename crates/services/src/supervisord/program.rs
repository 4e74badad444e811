//! [program:x], [eventlistener:x], [fcgi-program:x] and [group:x] as [`Service`]s, one for
//! each process.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ini::{self, Section};
use super::keys::Sort;
use super::{expand, shell};
use crate::text::{boolean, octal};
use crate::{
    Command, Commands, Error, Identity, Kind, Order, Origin, Parsed, Program, Restart, RestartWhen,
    Service, StopScope, Stopping, WorkingDirectory, signal_number,
};

/// One configuration file.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    pub path: &'a str,
    pub text: &'a str,
}

impl File<'_> {
    /// supervisord's `%(here)s`.
    fn here(&self) -> &str {
        match self.path.rsplit_once('/') {
            Some(("", _)) => "/",
            Some((here, _)) => here,
            None => ".",
        }
    }
}

/// The glob patterns of [include], absolute or relative to the file's directory made so.
///
/// # Errors
///
/// A file that is no ini file, or a pattern that needs a variable which is not set.
pub fn includes(
    file: File<'_>,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<String>, Error> {
    let sections = ini::read(file.path, file.text)?;
    let names = base_names(file, environment);
    let mut out = Vec::new();
    for section in sections.iter().filter(|s| s.name == "include") {
        let Some(files) = section.get("files") else {
            continue;
        };
        let files = expand::expand(files, &names)
            .map_err(|reason| Error::new(format!("{}: [include] files", file.path), reason))?;
        for pattern in files.split_ascii_whitespace() {
            out.push(if pattern.starts_with('/') {
                pattern.to_owned()
            } else {
                format!("{}/{pattern}", file.here().trim_end_matches('/'))
            });
        }
    }
    Ok(out)
}

/// All programs of `files`: the main file first, then the included ones in order.
/// `environment` is what `%(ENV_X)s` may read.
///
/// # Errors
///
/// The first program that cannot be run, named with its file and key.
pub fn parse(
    files: &[File<'_>],
    environment: &BTreeMap<String, String>,
) -> Result<Parsed<Vec<Service>>, Error> {
    let mut warnings = Vec::new();
    let mut not_applied = Vec::new();
    let mut sections = Vec::new();
    for file in files {
        for section in ini::read(file.path, file.text)? {
            sections.push((*file, section));
        }
    }
    let defaults = Defaults::read(&sections, environment, &mut warnings)?;
    let groups = groups(&sections)?;
    // As supervisord does: programs may read what [supervisord] adds to the environment.
    let mut environment = environment.clone();
    environment.extend(defaults.environment.iter().cloned());
    let environment = &environment;
    let mut services: Vec<Service> = Vec::new();
    for (file, section) in &sections {
        let Some((sort, program)) = Sort::of(&section.name) else {
            report_section(file, section, &mut warnings, &mut not_applied);
            continue;
        };
        let group = groups
            .iter()
            .find(|g| g.programs.iter().any(|p| p == program));
        let reader = Reader {
            sort,
            place: format!("{}: [{}]", file.path, section.name),
            file: *file,
            section,
            program,
            group,
            defaults: &defaults,
        };
        for service in reader.services(environment, &mut warnings, &mut not_applied)? {
            if services.iter().any(|other| other.name == service.name) {
                return Err(Error::new(
                    reader.place,
                    format!("the process `{}` is defined twice", service.name),
                ));
            }
            services.push(service);
        }
    }
    for group in &groups {
        for program in &group.programs {
            if !services.iter().any(|s| s.aliases.contains(program)) {
                warnings.push(format!(
                    "[group:{}] names the program `{program}`, which does not exist",
                    group.name
                ));
            }
        }
    }
    Ok(Parsed {
        value: services,
        warnings,
        not_applied,
    })
}

fn report_section(
    file: &File<'_>,
    section: &Section,
    warnings: &mut Vec<String>,
    not_applied: &mut Vec<String>,
) {
    let (kind, name) = section.name.split_once(':').unwrap_or((&section.name, ""));
    let place = || format!("{}: [{}]", file.path, section.name);
    let Some((_, known, limits)) = SECTIONS.iter().find(|(known, ..)| *known == kind) else {
        warnings.push(format!("{}: unknown section [{}]", file.path, section.name));
        return;
    };
    if kind == "rpcinterface" && name != "supervisor" {
        not_applied.push(format!("{} is Python code, and is not called", place()));
    }
    for (key, _) in &section.options {
        if limits.contains(&key.as_str()) {
            not_applied.push(format!("{}: without effect in a box: {key}", place()));
        } else if !known.is_empty() && !known.contains(&key.as_str()) {
            warnings.push(format!("{}: unknown key `{key}`", place()));
        }
    }
}

/// Other sections: the keys that are known, all when there are none, and those whose effect
/// programs miss here. The box's own supervisor takes the daemon's place, and its log the log's.
const SECTIONS: &[(&str, &[&str], &[&str])] = &[
    (
        "supervisord",
        &[
            "childlogdir",
            "directory",
            "environment",
            "identifier",
            "logfile",
            "logfile_backups",
            "logfile_maxbytes",
            "loglevel",
            "nocleanup",
            "nodaemon",
            "pidfile",
            "silent",
            "strip_ansi",
            "umask",
            "user",
        ],
        &["minfds", "minprocs"],
    ),
    (
        "unix_http_server",
        &["file", "chmod", "chown", "username", "password"],
        &[],
    ),
    ("inet_http_server", &["port", "username", "password"], &[]),
    ("group", &["programs", "priority"], &[]),
    ("include", &["files"], &[]),
    ("rpcinterface", &[], &[]),
    ("supervisorctl", &[], &[]),
    ("ctlplugin", &[], &[]),
];

/// What [supervisord] gives to every program.
#[derive(Default)]
struct Defaults {
    environment: Vec<(String, String)>,
    umask: Option<u32>,
    user: Option<String>,
}

impl Defaults {
    fn read(
        sections: &[(File<'_>, Section)],
        environment: &BTreeMap<String, String>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let mut defaults = Defaults::default();
        for (file, section) in sections.iter().filter(|(_, s)| s.name == "supervisord") {
            let place = |key: &str| format!("{}: [supervisord] {key}", file.path);
            let names = base_names(*file, environment);
            if let Some(value) = section.get("environment") {
                let value = expand::expand(value, &names)
                    .map_err(|r| Error::new(place("environment"), r))?;
                defaults.environment =
                    shell::pairs(&value).map_err(|r| Error::new(place("environment"), r))?;
            }
            if let Some(value) = section.get("umask") {
                match octal(value) {
                    Some(mask) => defaults.umask = Some(mask & 0o777),
                    None => warnings.push(format!(
                        "{}: `{value}` is not an octal mask",
                        place("umask")
                    )),
                }
            }
            // `user=root` says that supervisord itself stays root, which it does anyway.
            defaults.user = section
                .get("user")
                .filter(|user| *user != "root")
                .map(str::to_owned);
        }
        Ok(defaults)
    }
}

struct Group {
    name: String,
    programs: Vec<String>,
    priority: Option<i32>,
}

/// supervisord's own rule, and what a terminal would act on: names are shown, and stand in URLs
/// and in the protocol of listeners.
fn name(place: &str, name: &str) -> Result<(), Error> {
    let wrong = |c: &char| [' ', ':', '/'].contains(c) || c.is_control();
    let reason = match (name, name.chars().find(wrong)) {
        ("", _) => "a name is missing".to_owned(),
        (_, None) => return Ok(()),
        (_, Some(letter)) => format!("the name {name:?} cannot have {letter:?} in it"),
    };
    Err(Error::new(place.to_owned(), reason))
}

fn groups(sections: &[(File<'_>, Section)]) -> Result<Vec<Group>, Error> {
    let mut out = Vec::new();
    for (file, section) in sections {
        let Some(name) = section.name.strip_prefix("group:") else {
            continue;
        };
        let place = format!("{}: [{}]", file.path, section.name);
        self::name(&place, name.trim())?;
        let programs = section
            .get("programs")
            .ok_or_else(|| Error::new(place, "it has no `programs`"))?;
        out.push(Group {
            name: name.trim().to_owned(),
            programs: programs
                .split(',')
                .map(|p| p.trim().to_owned())
                .filter(|p| !p.is_empty())
                .collect(),
            priority: section.get("priority").and_then(|p| p.parse().ok()),
        });
    }
    Ok(out)
}

pub(super) fn base_names(
    file: File<'_>,
    environment: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> = environment
        .iter()
        .map(|(k, v)| (format!("ENV_{k}"), v.clone()))
        .collect();
    names.insert("here".to_owned(), file.here().to_owned());
    if let Some(host) = environment.get("HOSTNAME") {
        names.insert("host_node_name".to_owned(), host.clone());
    }
    names
}

pub(super) struct Reader<'a> {
    pub(super) place: String,
    pub(super) sort: Sort,
    file: File<'a>,
    pub(super) section: &'a Section,
    program: &'a str,
    group: Option<&'a Group>,
    defaults: &'a Defaults,
}

impl Reader<'_> {
    pub(super) fn error(&self, key: &str, reason: impl std::fmt::Display) -> Error {
        Error::new(format!("{} {key}", self.place), reason.to_string())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> Result<T, Error> {
        match self.section.get(key) {
            None => Ok(default),
            Some(value) => value
                .trim()
                .parse()
                .map_err(|_| self.error(key, format!("`{value}` is not a number that fits"))),
        }
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.section.get(key) {
            None => Ok(default),
            Some(value) => boolean(value)
                .ok_or_else(|| self.error(key, format!("`{value}` is neither true nor false"))),
        }
    }

    fn services(
        &self,
        environment: &BTreeMap<String, String>,
        warnings: &mut Vec<String>,
        not_applied: &mut Vec<String>,
    ) -> Result<Vec<Service>, Error> {
        name(&self.place, self.program)?;
        self.report_keys(warnings, not_applied);
        let numprocs: u32 = self.number("numprocs", 1)?;
        if numprocs > 1000 {
            return Err(self.error(
                "numprocs",
                format!("{numprocs} processes are more than the 1000 that are allowed"),
            ));
        }
        let first: u32 = self.number("numprocs_start", 0)?;
        let group = self.group.map_or(self.program, |g| g.name.as_str());
        let mut names = base_names(self.file, environment);
        for (name, value) in [("program_name", self.program), ("group_name", group)] {
            names.insert(name.to_owned(), value.to_owned());
        }
        names.insert("numprocs".to_owned(), numprocs.to_string());
        let template = self
            .section
            .get("process_name")
            .unwrap_or("%(program_name)s");
        if numprocs > 1 && !template.contains("process_num") {
            return Err(self.error(
                "process_name",
                "with numprocs above 1 it must hold %(process_num)",
            ));
        }
        let mut out = Vec::new();
        for number in 0..numprocs {
            names.insert(
                "process_num".to_owned(),
                first.saturating_add(number).to_string(),
            );
            let process = self.expand("process_name", template, &names)?;
            name(&format!("{} process_name", self.place), &process)?;
            out.push(self.service(&process, group, &names)?);
        }
        Ok(out)
    }

    fn expand(
        &self,
        key: &str,
        value: &str,
        names: &BTreeMap<String, String>,
    ) -> Result<String, Error> {
        expand::expand(value, names).map_err(|reason| self.error(key, reason))
    }

    pub(super) fn optional(
        &self,
        key: &str,
        names: &BTreeMap<String, String>,
    ) -> Result<Option<String>, Error> {
        self.section
            .get(key)
            .filter(|value| !value.is_empty())
            .map(|value| self.expand(key, value, names))
            .transpose()
    }

    fn service(
        &self,
        process: &str,
        group: &str,
        names: &BTreeMap<String, String>,
    ) -> Result<Service, Error> {
        // What the program's own environment says may be used in its other keys.
        let own_environment = match self.optional("environment", names)? {
            Some(text) => {
                shell::pairs(&text).map_err(|reason| self.error("environment", reason))?
            }
            None => Vec::new(),
        };
        let mut names = names.clone();
        for (name, value) in &own_environment {
            names.insert(format!("ENV_{name}"), value.clone());
        }
        let names = &names;
        let line = self
            .optional("command", names)?
            .ok_or_else(|| self.error("command", "it is missing, so there is nothing to run"))?;
        let words = shell::split(&line).map_err(|reason| self.error("command", reason))?;
        if words.is_empty() {
            return Err(self.error("command", "it is empty, so there is nothing to run"));
        }
        let name = if process == group {
            process.to_owned()
        } else {
            format!("{group}:{process}")
        };
        let mut aliases = Vec::new();
        for alias in [process, self.program, group] {
            if alias != name && !aliases.iter().any(|a| a == alias) {
                aliases.push(alias.to_owned());
            }
        }
        // The programs of a group find each other by their own name even when it is the
        // service's name.
        if !aliases.iter().any(|a| a == self.program) {
            aliases.push(self.program.to_owned());
        }
        let mut environment = self.defaults.environment.clone();
        environment.push(("SUPERVISOR_ENABLED".to_owned(), "1".to_owned()));
        environment.push(("SUPERVISOR_PROCESS_NAME".to_owned(), process.to_owned()));
        environment.push(("SUPERVISOR_GROUP_NAME".to_owned(), group.to_owned()));
        environment.extend(own_environment);
        let umask = match self.section.get("umask") {
            None => self.defaults.umask.unwrap_or(0o022),
            Some(mask) => {
                octal(mask)
                    .ok_or_else(|| self.error("umask", format!("`{mask}` is not an octal mask")))?
                    & 0o777
            }
        };
        let own: i32 = self.number(
            "priority",
            if self.sort == Sort::Listener { -1 } else { 999 },
        )?;
        let group_priority = self.group.and_then(|g| g.priority).unwrap_or(own);
        let startsecs: u32 = self.number("startsecs", 1)?;
        let as_group = self.flag("stopasgroup", false)?;
        let program = Program {
            process: process.to_owned(),
            group: group.to_owned(),
            group_priority,
            priority: own,
            command: line,
            startsecs,
            startretries: self.number("startretries", 3)?,
            // What is left is killed in any case; the key is only checked and shown.
            killasgroup: self.flag("killasgroup", as_group)?,
            redirect_stderr: self.flag("redirect_stderr", false)?,
            stdout: self.log("stdout", names)?,
            stderr: self.log("stderr", names)?,
            server_url: self
                .optional("serverurl", names)?
                .filter(|url| !url.eq_ignore_ascii_case("auto")),
            listener: self.listener(names)?,
            socket: self.socket(names)?,
        };
        Ok(Service {
            name,
            aliases,
            description: String::new(),
            origin: Origin::Program,
            kind: Kind::Simple {
                settle: Duration::from_secs(startsecs.into()),
            },
            autostart: self.flag("autostart", true)?,
            // Groups are ordered first, programs within them second.
            priority: group_priority.saturating_mul(1000).saturating_add(own),
            conditions: Vec::new(),
            commands: Commands {
                start: vec![Command {
                    words,
                    ..Command::default()
                }],
                ..Commands::default()
            },
            identity: Identity {
                user: self
                    .optional("user", names)?
                    .or_else(|| self.defaults.user.clone()),
                ..Identity::default()
            },
            environment,
            environment_files: Vec::new(),
            working_directory: self
                .optional("directory", names)?
                .map(|path| WorkingDirectory {
                    path,
                    optional: false,
                }),
            directories: Vec::new(),
            umask,
            nice: None,
            oom_score_adj: None,
            limits: Vec::new(),
            restart: self.restart()?,
            stopping: self.stopping()?,
            start_timeout: Some(Duration::from_secs(90)),
            privileges: crate::Privileges::default(),
            watchdog: None,
            reload_signal: None,
            remains: false,
            order: Order::default(),
            program: Some(Box::new(program)),
        })
    }

    fn restart(&self) -> Result<Restart, Error> {
        let value = self.section.get("autorestart").unwrap_or("unexpected");
        let when = match (value.to_ascii_lowercase().as_str(), boolean(value)) {
            ("unexpected", _) => RestartWhen::OnFailure,
            (_, Some(true)) => RestartWhen::Always,
            (_, Some(false)) => RestartWhen::Never,
            _ => {
                return Err(self.error(
                    "autorestart",
                    format!("`{value}` is none of true, false, unexpected"),
                ));
            }
        };
        let mut success_codes = Vec::new();
        for code in self
            .section
            .get("exitcodes")
            .unwrap_or("0")
            .split(',')
            .map(str::trim)
            .filter(|c| !c.is_empty())
        {
            success_codes.push(
                code.parse().map_err(|_| {
                    self.error("exitcodes", format!("`{code}` is not an exit code"))
                })?,
            );
        }
        Ok(Restart {
            when,
            success_codes,
            success_signals: Vec::new(),
            prevent_codes: Vec::new(),
            force_codes: Vec::new(),
            delay: None,
            // startretries counts what comes after the first attempt.
            limit: Some(self.number::<u32>("startretries", 3)?.saturating_add(1)),
        })
    }

    fn stopping(&self) -> Result<Stopping, Error> {
        let signal = self.section.get("stopsignal").unwrap_or("TERM");
        let signal = signal_number(signal)
            .ok_or_else(|| self.error("stopsignal", format!("`{signal}` is not a signal")))?;
        let as_group = self.flag("stopasgroup", false)?;
        Ok(Stopping {
            signal,
            scope: if as_group {
                StopScope::All
            } else {
                StopScope::Main
            },
            timeout: Some(Duration::from_secs(
                self.number::<u32>("stopwaitsecs", 10)?.into(),
            )),
        })
    }
}
