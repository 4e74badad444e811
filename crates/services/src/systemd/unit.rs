//! A unit's assignments as a [`Service`].

use std::time::Duration;

use super::keys::{INFORMATION, NOT_APPLIED, is_known, is_missed};
use super::limits::{self, LIMITS};
use super::lines::{self, Assignment};
use super::{capabilities, time, words};
use crate::text::{boolean, octal};
use crate::{
    Command, Commands, Condition, EnvironmentFile, Error, Identity, Kind, ManagedDirectory, Order,
    Origin, Parsed, Privileges, Restart, RestartWhen, Service, Signal, StopScope, Stopping,
    WorkingDirectory, signal_number,
};

/// Reads the unit `name` (`redis-server.service`, `app@1.service`).
///
/// `texts` holds the unit file's text and then those of its drop-ins, in order: a later
/// assignment wins, an empty one resets a list.
///
/// # Errors
///
/// A unit that cannot be run: no command, a command line that cannot be split.
pub fn parse(name: &str, texts: &[&str]) -> Result<Parsed<Service>, Error> {
    parse_on("localhost", name, texts)
}

/// The same, on a machine whose host name is `host`.
///
/// # Errors
///
/// As those of [`parse`].
pub fn parse_on(host: &str, name: &str, texts: &[&str]) -> Result<Parsed<Service>, Error> {
    let mut reader = Reader::new(name, host);
    for text in texts {
        let mut warnings = Vec::new();
        let assignments = lines::read(text, &mut warnings);
        reader.warnings.append(&mut warnings);
        for assignment in assignments {
            reader.assign(&assignment)?;
        }
    }
    reader.finish()
}

struct Reader<'a> {
    name: &'a str,
    host: &'a str,
    service: Service,
    type_: String,
    has_service_section: bool,
    pid_file: Option<String>,
    start_timeout: Option<Option<Duration>>,
    directories: Vec<(DirectoryKind, Vec<String>)>,
    modes: Vec<(DirectoryKind, u32)>,
    warnings: Vec<String>,
    not_applied: Vec<String>,
    /// Keys whose effect a service misses here.
    missed: Vec<String>,
    reload_signal: Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DirectoryKind {
    Runtime,
    State,
    Cache,
    Logs,
}

impl DirectoryKind {
    fn base(self) -> &'static str {
        match self {
            DirectoryKind::Runtime => "/run",
            DirectoryKind::State => "/var/lib",
            DirectoryKind::Cache => "/var/cache",
            DirectoryKind::Logs => "/var/log",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            DirectoryKind::Runtime => "RUNTIME_DIRECTORY",
            DirectoryKind::State => "STATE_DIRECTORY",
            DirectoryKind::Cache => "CACHE_DIRECTORY",
            DirectoryKind::Logs => "LOGS_DIRECTORY",
        }
    }

    fn of(key: &str) -> Option<(Self, bool)> {
        let (key, mode) = match key.strip_suffix("Mode") {
            Some(key) => (key, true),
            None => (key, false),
        };
        let kind = match key {
            "RuntimeDirectory" => DirectoryKind::Runtime,
            "StateDirectory" => DirectoryKind::State,
            "CacheDirectory" => DirectoryKind::Cache,
            "LogsDirectory" => DirectoryKind::Logs,
            _ => return None,
        };
        Some((kind, mode))
    }
}

impl<'a> Reader<'a> {
    fn new(name: &'a str, host: &'a str) -> Self {
        Reader {
            name,
            host,
            service: Service {
                name: name.strip_suffix(".service").unwrap_or(name).to_owned(),
                aliases: Vec::new(),
                description: String::new(),
                origin: Origin::Unit,
                kind: Kind::Oneshot,
                autostart: true,
                priority: 0,
                conditions: Vec::new(),
                commands: Commands::default(),
                identity: Identity::default(),
                environment: Vec::new(),
                environment_files: Vec::new(),
                working_directory: None,
                directories: Vec::new(),
                umask: 0o022,
                nice: None,
                oom_score_adj: None,
                limits: Vec::new(),
                privileges: Privileges::default(),
                restart: Restart {
                    when: RestartWhen::Never,
                    success_codes: Vec::new(),
                    // systemd.service(5): clean exit signals.
                    success_signals: vec![1, 2, 13, 15],
                    prevent_codes: Vec::new(),
                    force_codes: Vec::new(),
                    delay: None,
                    limit: Some(5),
                },
                stopping: Stopping {
                    signal: 15,
                    scope: StopScope::All,
                    timeout: Some(Duration::from_secs(90)),
                },
                start_timeout: None,
                watchdog: None,
                reload_signal: None,
                remains: false,
                order: Order::default(),
                program: None,
            },
            type_: String::new(),
            has_service_section: false,
            pid_file: None,
            start_timeout: None,
            directories: Vec::new(),
            modes: Vec::new(),
            warnings: Vec::new(),
            not_applied: Vec::new(),
            missed: Vec::new(),
            // SIGHUP
            reload_signal: 1,
        }
    }

    fn warn(&mut self, message: String) {
        if !self.warnings.contains(&message) {
            self.warnings.push(message);
        }
    }

    fn assign(&mut self, assignment: &Assignment) -> Result<(), Error> {
        let Assignment {
            section,
            key,
            value,
        } = assignment;
        match section.as_str() {
            "Unit" => self.unit(key, value),
            "Service" => {
                self.has_service_section = true;
                return self.service(key, value);
            }
            "Install" => {
                if key == "Alias" {
                    for alias in self.words(key, value) {
                        let alias = alias.strip_suffix(".service").unwrap_or(&alias).to_owned();
                        self.service.aliases.push(alias);
                    }
                }
            }
            other if other.starts_with("X-") => {}
            other => self.warn(format!("unknown section [{other}]")),
        }
        Ok(())
    }

    fn unit(&mut self, key: &str, value: &str) {
        match key {
            "Description" => self.service.description = self.specifiers(value),
            "After" | "Before" | "Requires" | "Wants" | "BindsTo" => {
                let names = self.words(key, value);
                let order = &mut self.service.order;
                let list = match key {
                    "After" => &mut order.after,
                    "Before" => &mut order.before,
                    "Requires" => &mut order.requires,
                    "Wants" => &mut order.wants,
                    _ => &mut order.binds_to,
                };
                extend(list, names, value);
            }
            // Its name stands for its parts too: who restarts `postgresql` means the clusters.
            "PartOf" => {
                let names = self.words(key, value);
                let whole = names
                    .iter()
                    .filter_map(|name| name.strip_suffix(".service"));
                self.service.aliases.extend(whole.map(str::to_owned));
            }
            "ConditionPathExists" | "AssertPathExists" => {
                if value.is_empty() {
                    self.service.conditions.clear();
                    return;
                }
                let value = self.specifiers(value);
                let (exists, path) = match value.strip_prefix('!') {
                    Some(path) => (false, path.trim_start()),
                    None => (true, value.as_str()),
                };
                self.service.conditions.push(Condition {
                    path: path.to_owned(),
                    exists,
                });
            }
            "StartLimitIntervalSec" | "StartLimitInterval" | "StartLimitBurst" => {
                self.start_limit(key, value)
            }
            _ => self.other(key, value),
        }
    }

    fn start_limit(&mut self, key: &str, value: &str) {
        if key == "StartLimitBurst" {
            match value.parse::<u32>() {
                Ok(burst) => self.service.restart.limit = (burst > 0).then_some(burst),
                Err(_) => self.unreadable(key, value, "a number"),
            }
        } else {
            match time::span(value) {
                // 0 switches the limit off.
                Some(Some(Duration::ZERO)) => self.service.restart.limit = None,
                Some(_) => self.warn(format!(
                    "{key}={value} has no effect: quick deaths are counted in a row"
                )),
                None => self.unreadable(key, value, "a time span"),
            }
        }
    }

    fn service(&mut self, key: &str, value: &str) -> Result<(), Error> {
        if let Some(limit) = key.strip_prefix("Limit") {
            self.limit(key, limit, value);
            return Ok(());
        }
        if let Some((kind, is_mode)) = DirectoryKind::of(key) {
            if is_mode {
                match octal(value) {
                    Some(mode) => self.modes.push((kind, mode)),
                    None => self.unreadable(key, value, "an octal mode"),
                }
            } else if value.is_empty() {
                self.directories.retain(|(other, _)| *other != kind);
            } else {
                let names = self.words(key, value);
                self.directories.push((kind, names));
            }
            return Ok(());
        }
        match key {
            "ExecStartPre" | "ExecStart" | "ExecStartPost" | "ExecReload" | "ExecStop"
            | "ExecStopPost" => {
                let commands = self.commands(key, value)?;
                let all = &mut self.service.commands;
                let list = match key {
                    "ExecStartPre" => &mut all.start_pre,
                    "ExecStart" => &mut all.start,
                    "ExecStartPost" => &mut all.start_post,
                    "ExecReload" => &mut all.reload,
                    "ExecStop" => &mut all.stop,
                    _ => &mut all.stop_post,
                };
                extend(list, commands, value);
            }
            // `service_` keys that the [Unit] section took over in 2016.
            "StartLimitInterval" | "StartLimitIntervalSec" | "StartLimitBurst" => {
                self.start_limit(key, value)
            }
            "Type" => self.type_ = value.to_owned(),
            "PIDFile" => {
                self.pid_file = (!value.is_empty()).then(|| absolute_run(&self.specifiers(value)))
            }
            "User" => self.service.identity.user = self.optional(value),
            "Group" => self.service.identity.group = self.optional(value),
            "SupplementaryGroups" => {
                let groups = self.words(key, value);
                extend(
                    &mut self.service.identity.supplementary_groups,
                    groups,
                    value,
                );
            }
            "Environment" => {
                let mut pairs = Vec::new();
                for word in self.words(key, value) {
                    match word.split_once('=') {
                        Some((name, value)) => pairs.push((name.to_owned(), value.to_owned())),
                        None => self.unreadable(key, &word, "NAME=VALUE"),
                    }
                }
                extend(&mut self.service.environment, pairs, value);
            }
            "EnvironmentFile" => {
                if value.is_empty() {
                    self.service.environment_files.clear();
                } else {
                    let (optional, path) = dashed(self.specifiers(value));
                    self.service
                        .environment_files
                        .push(EnvironmentFile { path, optional });
                }
            }
            "WorkingDirectory" => {
                self.service.working_directory = (!value.is_empty()).then(|| {
                    let (optional, path) = dashed(self.specifiers(value));
                    WorkingDirectory { path, optional }
                });
            }
            "UMask" => match octal(value) {
                Some(mask) => self.service.umask = mask & 0o777,
                None => self.unreadable(key, value, "an octal mask"),
            },
            "Nice" => match value.parse() {
                Ok(nice) => self.service.nice = Some(nice),
                Err(_) => self.unreadable(key, value, "a number from -20 to 19"),
            },
            "OOMScoreAdjust" => match value.parse() {
                Ok(score) => self.service.oom_score_adj = Some(score),
                Err(_) => self.unreadable(key, value, "a number from -1000 to 1000"),
            },
            "Restart" => match value {
                "no" => self.service.restart.when = RestartWhen::Never,
                "always" => self.service.restart.when = RestartWhen::Always,
                "on-success" => self.service.restart.when = RestartWhen::OnSuccess,
                "on-failure" => self.service.restart.when = RestartWhen::OnFailure,
                "on-abnormal" | "on-abort" | "on-watchdog" => {
                    self.service.restart.when = RestartWhen::OnAbnormal;
                }
                _ => self.unreadable(
                    key,
                    value,
                    "no, always, on-success, on-failure, on-abnormal",
                ),
            },
            "RestartSec" => match time::span(value) {
                Some(delay) => self.service.restart.delay = delay,
                None => self.unreadable(key, value, "a time span"),
            },
            "SuccessExitStatus" | "RestartPreventExitStatus" | "RestartForceExitStatus" => {
                self.exit_status(key, value);
            }
            "TimeoutSec" => {
                self.stop_timeout(key, value);
                self.start_timeout_(key, value);
            }
            "TimeoutStartSec" => self.start_timeout_(key, value),
            "TimeoutStopSec" => self.stop_timeout(key, value),
            "WatchdogSec" => match time::span(value) {
                Some(span) => self.service.watchdog = span.filter(|s| !s.is_zero()),
                None => self.unreadable(key, value, "a time span"),
            },
            "KillMode" => match value {
                // mixed: the signal to the main process, SIGKILL to all, which is what
                // `Main` means here.
                "control-group" => self.service.stopping.scope = StopScope::All,
                "mixed" => self.service.stopping.scope = StopScope::Main,
                "process" | "none" => self.service.stopping.scope = StopScope::MainKeepRest,
                _ => self.unreadable(key, value, "control-group, mixed, process, none"),
            },
            "KillSignal" => match signal_number(value) {
                Some(signal) => self.service.stopping.signal = signal,
                None => self.unreadable(key, value, "a signal"),
            },
            "ReloadSignal" => match signal_number(value) {
                Some(signal) => self.reload_signal = signal,
                None => self.unreadable(key, value, "a signal"),
            },
            // Every service may write as whom it likes, and a finished one-shot counts as
            // up with or without it.
            "PermissionsStartOnly" => {
                if boolean(value) == Some(true) {
                    let all = &mut self.service.commands;
                    for list in [
                        &mut all.start_pre,
                        &mut all.start_post,
                        &mut all.reload,
                        &mut all.stop,
                        &mut all.stop_post,
                    ] {
                        for command in list.iter_mut() {
                            command.privileged = true;
                        }
                    }
                    self.warn("PermissionsStartOnly= is obsolete; use the prefix `+`".to_owned());
                }
            }
            "NoNewPrivileges" => match boolean(value) {
                Some(yes) => self.service.privileges.no_new = yes,
                None => self.unreadable(key, value, "yes or no"),
            },
            "CapabilityBoundingSet" | "AmbientCapabilities" => self.capabilities(key, value),
            "RemainAfterExit" => match boolean(value) {
                Some(yes) => self.service.remains = yes,
                None => self.unreadable(key, value, "yes or no"),
            },
            "RuntimeDirectoryPreserve" => {}
            _ => self.other(key, value),
        }
        Ok(())
    }

    fn other(&mut self, key: &str, value: &str) {
        // A drop-in may take back what the file says.
        self.missed.retain(|known| known != key);
        if is_missed(key, value) {
            self.missed.push(key.to_owned());
        } else if INFORMATION.contains(&key) || is_known(key) {
        } else if NOT_APPLIED.iter().any(|prefix| key.starts_with(prefix)) {
            if !self.not_applied.iter().any(|k| k == key) {
                self.not_applied.push(key.to_owned());
            }
        } else {
            self.warn(format!("unknown key {key}="));
        }
    }

    fn unreadable(&mut self, key: &str, value: &str, wanted: &str) {
        self.warn(format!("{key}={value} is ignored: it is not {wanted}"));
    }

    fn limit(&mut self, key: &str, limit: &str, value: &str) {
        let Some((name, resource)) = LIMITS
            .iter()
            .find(|(name, _)| name.to_ascii_uppercase() == limit)
        else {
            return self.other(key, value);
        };
        match limits::limit(name, value) {
            Some(limit) => {
                self.service.limits.retain(|l| l.resource != *resource);
                self.service.limits.push(limit);
            }
            None => self.unreadable(key, value, "a number, a size or infinity"),
        }
    }

    fn capabilities(&mut self, key: &str, value: &str) {
        let privileges = &mut self.service.privileges;
        let before = match key {
            "AmbientCapabilities" => Some(privileges.ambient),
            _ => privileges.bounding,
        };
        match capabilities::assign(before, value) {
            Ok(set) if key == "AmbientCapabilities" => privileges.ambient = set,
            Ok(set) => privileges.bounding = Some(set),
            Err(name) => self.unreadable(key, value, &format!("all known: {name}")),
        }
    }

    fn exit_status(&mut self, key: &str, value: &str) {
        let success = key == "SuccessExitStatus";
        for word in self.words(key, value) {
            let restart = &mut self.service.restart;
            if let Ok(code) = word.parse::<i32>() {
                match key {
                    "SuccessExitStatus" => restart.success_codes.push(code),
                    "RestartForceExitStatus" => restart.force_codes.push(code),
                    _ => restart.prevent_codes.push(code),
                }
            } else if let Some(signal) = signal_number(&word).filter(|_| success) {
                restart.success_signals.push(signal);
            } else {
                self.unreadable(key, &word, "an exit code or a signal");
            }
        }
    }

    fn start_timeout_(&mut self, key: &str, value: &str) {
        match time::span(value) {
            // 0 is without limit, for both.
            Some(span) => self.start_timeout = Some(span.filter(|s| !s.is_zero())),
            None => self.unreadable(key, value, "a time span"),
        }
    }

    fn stop_timeout(&mut self, key: &str, value: &str) {
        match time::span(value) {
            Some(span) => self.service.stopping.timeout = span.filter(|s| !s.is_zero()),
            None => self.unreadable(key, value, "a time span"),
        }
    }

    fn optional(&mut self, value: &str) -> Option<String> {
        (!value.is_empty()).then(|| self.specifiers(value))
    }

    /// Words of a list that is not a command; a broken one is left out with a warning.
    fn words(&mut self, key: &str, value: &str) -> Vec<String> {
        match words::split(value) {
            Ok(words) => words.iter().map(|w| self.specifiers(w)).collect(),
            Err(reason) => {
                self.warn(format!("{key}= is ignored: {reason}"));
                Vec::new()
            }
        }
    }

    /// Several commands may stand on one line, separated by a lone `;`.
    fn commands(&mut self, key: &str, value: &str) -> Result<Vec<Command>, Error> {
        let split = words::split(value)
            .map_err(|reason| Error::new(self.name, format!("{key}=: {reason}")))?;
        let mut out = Vec::new();
        for words in split.split(|word| word == ";") {
            let Some((first, rest)) = words.split_first() else {
                continue;
            };
            let mut command = Command {
                expand: true,
                ..Command::default()
            };
            let program = first.trim_start_matches(['@', '-', ':', '+', '!', '|']);
            for prefix in first[..first.len() - program.len()].chars() {
                match prefix {
                    '@' => command.argv0 = Some(String::new()),
                    '-' => command.ignore_failure = true,
                    ':' => command.expand = false,
                    '+' | '!' => command.privileged = true,
                    _ => {}
                }
            }
            if program.is_empty() {
                return Err(Error::new(
                    self.name,
                    format!("{key}= names no program: {value}"),
                ));
            }
            command.words.push(self.specifiers(program));
            let mut rest = rest.iter();
            if command.argv0.is_some() {
                command.argv0 = rest.next().map(|word| self.specifiers(word));
            }
            for word in rest {
                let word = if word == r"\;" { ";" } else { word };
                command.words.push(self.specifiers(word));
            }
            out.push(command);
        }
        Ok(out)
    }

    /// systemd.unit(5), "Specifiers". One that needs a running systemd is kept as written.
    fn specifiers(&mut self, text: &str) -> String {
        if !text.contains('%') {
            return text.to_owned();
        }
        let stem = self
            .name
            .rsplit_once('.')
            .map_or(self.name, |(stem, _)| stem);
        let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('n') => out.push_str(self.name),
                Some('N') => out.push_str(stem),
                Some('p') => out.push_str(prefix),
                Some('P') => out.push_str(&unescape(prefix)),
                Some('i') => out.push_str(instance),
                Some('I') => out.push_str(&unescape(instance)),
                Some('E') => out.push_str("/etc"),
                Some('H') => out.push_str(self.host),
                Some('l') => out.push_str(self.host.split('.').next().unwrap_or_default()),
                Some('u') => out.push_str("root"),
                Some('U') => out.push('0'),
                Some(other) => match words::specifier(other) {
                    Some(text) => out.push_str(text),
                    None => {
                        self.warn(format!(
                            "the specifier %{other} is not known and stays as it is"
                        ));
                        out.extend(['%', other]);
                    }
                },
                None => out.push('%'),
            }
        }
        out
    }

    fn finish(mut self) -> Result<Parsed<Service>, Error> {
        if !self.has_service_section {
            return Err(Error::new(
                self.name,
                "it has no [Service] section, so there is nothing to run",
            ));
        }
        let commands = &self.service.commands;
        let type_ = match self.type_.as_str() {
            "" if commands.start.is_empty() => "oneshot",
            "" => "simple",
            other => other,
        };
        let oneshot = type_ == "oneshot";
        let settle = Duration::ZERO;
        let pid_file = self.pid_file.take();
        let (kind, odd) = match type_ {
            "simple" | "exec" | "idle" => (Kind::Simple { settle }, None),
            "forking" => (Kind::Forking { pid_file }, None),
            "notify" | "notify-reload" => (Kind::Notify, None),
            "oneshot" => (Kind::Oneshot, None),
            "dbus" => (
                Kind::Simple { settle },
                Some("Type=dbus is treated as simple: a box has no message bus"),
            ),
            _ => (
                Kind::Simple { settle },
                Some("Type= is not known and treated as simple"),
            ),
        };
        if !oneshot && self.service.commands.start.len() != 1 {
            let count = self.service.commands.start.len();
            return Err(Error::new(
                self.name,
                format!(
                    "it has {count} ExecStart= commands; a service of Type={type_} has exactly one"
                ),
            ));
        }
        self.service.kind = kind;
        self.service.reload_signal = (type_ == "notify-reload").then_some(self.reload_signal);
        if let Some(odd) = odd {
            self.warn(odd.to_owned());
        }
        self.service.start_timeout = self.start_timeout.unwrap_or(if oneshot {
            None
        } else {
            Some(Duration::from_secs(90))
        });
        for (kind, names) in std::mem::take(&mut self.directories) {
            let mode = self
                .modes
                .iter()
                .rev()
                .find(|(k, _)| *k == kind)
                .map_or(0o755, |(_, m)| *m);
            for name in names {
                // `name:link`, since systemd 250.
                let name = name.split(':').next().unwrap_or_default().to_owned();
                if name.is_empty()
                    || name.starts_with('/')
                    || name.split('/').any(|part| part == "..")
                {
                    self.warn(format!(
                        "the directory `{name}` is ignored: it must be relative and stay below {}",
                        kind.base()
                    ));
                    continue;
                }
                self.service.directories.push(ManagedDirectory {
                    path: format!("{}/{name}", kind.base()),
                    mode,
                    variable: kind.variable(),
                });
            }
        }
        if !self.missed.is_empty() {
            let keys = self.missed.join("=, ");
            self.warn(format!("without effect in a box: {keys}="));
        }
        Ok(Parsed {
            value: self.service,
            warnings: self.warnings,
            not_applied: self.not_applied,
        })
    }
}

/// An empty assignment resets the list, any other extends it.
fn extend<T>(list: &mut Vec<T>, more: Vec<T>, value: &str) {
    if value.is_empty() {
        list.clear();
    } else {
        list.extend(more);
    }
}

fn dashed(value: String) -> (bool, String) {
    match value.strip_prefix('-') {
        Some(path) => (true, path.to_owned()),
        None => (false, value),
    }
}

/// A relative PIDFile= lies below /run.
fn absolute_run(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/run/{path}")
    }
}

/// systemd-escape(1), backwards: `-` is `/`, `\x2d` is `-`.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'\\' && bytes.get(at + 1) == Some(&b'x'))
            .then(|| text.get(at + 2..at + 4))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(if bytes[at] == b'-' { b'/' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
