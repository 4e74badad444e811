//! From all sources to one value a setting, or to the list of all that is wrong.

use std::collections::BTreeMap;

use contract::{Contract, Kind, Setting, Value, Variables};

use super::report::shown;
use super::sources::{EnvFile, Found};
use super::unknown::Names;
use super::zones::{self, Zone};
use super::{Environment, Given, Problem, Sources, is_secret};
use crate::backup::schedule;
use crate::certificates::{self, InUse, ToMake};
use crate::engine::Engine;
use crate::root::Root;

#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// By setting.
    pub values: BTreeMap<String, (Value, Given)>,
    /// Settings that want a generated value and have none yet, with its length.
    pub to_generate: BTreeMap<String, u16>,
    pub warnings: Vec<String>,
    /// Certificates of the box's servers, found right.
    pub certificates: Vec<InUse>,
    /// Those that nobody gave and no start has made yet.
    pub to_make: Vec<ToMake>,
}

impl Resolved {
    /// By variable, as the templates want it.
    pub fn variables(&self, contract: &Contract) -> Variables {
        let mut out = Variables::new();
        for (name, (value, _)) in &self.values {
            if let Some(setting) = contract.settings.get(name) {
                out.insert(setting.variable.clone(), value.clone());
            }
        }
        out
    }

    /// Settings that somebody gave.
    pub fn given(&self) -> impl Iterator<Item = &String> {
        let given = self
            .values
            .iter()
            .filter(|(_, (_, given))| *given != Given::Kept);
        given.map(|(name, _)| name)
    }
}

/// # Errors
///
/// All problems: the env file's, then the settings' in their order, then those of variables
/// that nobody knows.
pub fn resolve(contract: &Contract, sources: &Sources<'_>) -> Result<Resolved, Vec<Problem>> {
    let mut resolved = Resolved::default();
    let mut problems = Vec::new();
    let file = EnvFile::read(contract, sources.root, &mut problems);
    for (name, setting) in &contract.settings {
        match one(contract, sources, &file, name, setting, &mut resolved) {
            Ok(Some((value, given))) => {
                resolved.values.insert(name.clone(), (value, given));
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    required_if(contract, &resolved, &mut problems);
    conflicts(contract, &resolved, &mut problems);
    certificates::settle(
        contract,
        sources.root,
        sources.directory,
        &mut resolved,
        &mut problems,
    );
    own(contract, sources.environment, &mut problems);
    problems.extend(crate::roles::problem(contract, sources.environment));
    unknown(
        contract,
        sources.environment,
        &file,
        &mut problems,
        &mut resolved.warnings,
    );
    if problems.is_empty() {
        Ok(resolved)
    } else {
        Err(problems)
    }
}

fn one(
    contract: &Contract,
    sources: &Sources<'_>,
    file: &EnvFile,
    name: &String,
    setting: &Setting,
    resolved: &mut Resolved,
) -> Result<Option<(Value, Given)>, Problem> {
    if let Some((found, used)) = under_any_name(contract, sources, file, name, setting)? {
        if used != name {
            resolved.warnings.push(format!(
                "{used} is a former name of {name}: give {name} instead"
            ));
        }
        let value = check(
            sources.root,
            name,
            setting,
            &found.text,
            &mut resolved.warnings,
        )?;
        return Ok(Some((value, found.given)));
    }
    let mut names = std::iter::once(name).chain(&setting.deprecated);
    if let Some(text) = names.find_map(|name| sources.kept.get(name)) {
        return Ok(Some((Value::from(text.as_str()), Given::Kept)));
    }
    if let Some(length) = setting.generate {
        if let Some(lost) = sources.lost {
            return Err(Problem::new(name, lost).hint(format!(
                "restore the file from a backup of the volume, or give -e {name}=… as it was before"
            )));
        }
        if sources.given.contains(name) {
            return Err(Problem::new(
                name,
                "an earlier start was given it, and the data may need it: nothing is generated over that",
            )
            .hint(format!("give {name} again; another value than before changes it")));
        }
        resolved.to_generate.insert(name.clone(), length);
        return Ok(None);
    }
    if setting.required {
        let reason = format!(
            "it is required and not set; it takes {}",
            values::allowed(setting)
        );
        return Err(Problem::new(name, reason).hint(how_to_give(name, setting)));
    }
    Ok(None)
}

fn how_to_give(name: &str, setting: &Setting) -> String {
    let what = match setting.help.trim_end_matches('.') {
        "" => String::new(),
        help => format!(" ({help})"),
    };
    if is_secret(setting) {
        format!("give -e {name}=…, or -e {name}_FILE=/run/secrets/…{what}")
    } else {
        let example = setting
            .example
            .as_deref()
            .filter(|example| !example.contains('\n'));
        format!("give -e {name}={}{what}", example.unwrap_or("…"))
    }
}

/// What is given under the setting's name or a former one, with the name used.
fn under_any_name<'a>(
    contract: &Contract,
    sources: &Sources<'_>,
    file: &EnvFile,
    name: &'a String,
    setting: &'a Setting,
) -> Result<Option<(Found, &'a String)>, Problem> {
    let mut all = Vec::new();
    for name in std::iter::once(name).chain(&setting.deprecated) {
        if let Some(found) = sources.find(contract, file, name)? {
            all.push((found, name));
        }
    }
    if let [(_, first), (_, second), ..] = &all[..] {
        let reason =
            format!("both {first} and {second} are set, and {second} is a former name of {name}");
        return Err(Problem::new(name, reason).hint(format!("remove {second}")));
    }
    Ok(all.pop())
}

fn check(
    root: &Root,
    name: &str,
    setting: &Setting,
    text: &str,
    warnings: &mut Vec<String>,
) -> Result<Value, Problem> {
    if text.contains('\0') {
        return Err(Problem::new(name, "it holds a NUL byte"));
    }
    // A secret of no letters is a mistake that every type of text would take.
    if text.is_empty() && (setting.required || is_secret(setting))
        || text.trim().is_empty() && !values::may_be_empty(setting)
    {
        let hint = if setting.required {
            "give it a value"
        } else {
            "remove the variable to use the default"
        };
        return Err(Problem::new(
            name,
            format!("it is empty; it takes {}", values::allowed(setting)),
        )
        .hint(hint));
    }
    let value = values::convert(setting, text)
        .map_err(|allowed| Problem::refused(name, setting, text, &format!("it takes {allowed}")))?;
    if let (Kind::Timezone, Some(zone)) =
        (setting.kind, value.as_str().filter(|zone| !zone.is_empty()))
    {
        match zones::look_up(root, zone) {
            Zone::Known => {}
            Zone::Unknown(meant) => {
                let mut problem =
                    Problem::refused(name, setting, text, "the box has no time zone of that name");
                if let Some(meant) = meant {
                    problem = problem.hint(format!("did you mean `{meant}`?"));
                }
                return Err(problem);
            }
            Zone::Unchecked => warnings.push(format!(
                "{name} could not be checked: the box has no zone files (Debian's tzdata)"
            )),
        }
    }
    Ok(value)
}

/// Settings that others make required, once all values are known.
fn required_if(contract: &Contract, resolved: &Resolved, problems: &mut Vec<Problem>) {
    let mut variables = resolved.variables(contract);
    for name in resolved.to_generate.keys() {
        // It will have a value, which is all that a condition may ask.
        variables.insert(
            contract.settings[name].variable.clone(),
            Value::from(values::MASK),
        );
    }
    let engine = Engine::new(contract, &variables);
    for (name, setting) in &contract.settings {
        let Some(condition) = &setting.required_if else {
            continue;
        };
        let has_one = resolved
            .values
            .get(name)
            .is_some_and(|(value, _)| value != "");
        if has_one || problems.iter().any(|problem| problem.name == *name) {
            continue;
        }
        match engine.holds(condition) {
            Ok(false) => {}
            Ok(true) => problems.push(
                Problem::new(
                    name,
                    format!(
                        "it is required because `{condition}` holds; it takes {}",
                        values::allowed(setting)
                    ),
                )
                .hint(how_to_give(name, setting)),
            ),
            Err(reason) => problems.push(
                Problem::new(
                    name,
                    format!("whether it is required cannot be told: {reason}"),
                )
                .hint("that is a mistake in the box: tell the vendor"),
            ),
        }
    }
}

fn conflicts(contract: &Contract, resolved: &Resolved, problems: &mut Vec<Problem>) {
    let given: Vec<&String> = resolved.given().collect();
    for (at, name) in given.iter().enumerate() {
        for other in &given[at + 1..] {
            let excludes = |a: &str, b: &String| {
                contract
                    .settings
                    .get(a)
                    .is_some_and(|s| s.conflicts.contains(b))
            };
            if excludes(name, other) || excludes(other, name) {
                let (from, and) = (&resolved.values[*name].1, &resolved.values[*other].1);
                problems.push(
                    Problem::new(*name, format!("it cannot be given together with {other}"))
                        .hint(format!("remove one of the two ({from}; {and})")),
                );
            }
        }
    }
}

/// The entrypoint's own variables, which are in no contract.
fn own(contract: &Contract, environment: &Environment, problems: &mut Vec<Problem>) {
    let mut check = |name: &str, good: fn(&str) -> bool, reason: &str| {
        if let Some(text) = environment.get(name).filter(|text| !good(text)) {
            problems.push(Problem::new(name, reason).given(text));
        }
    };
    check(
        "TIFFIN_STOP_TIMEOUT",
        |text| text.parse::<u32>().is_ok(),
        "it takes a number of seconds",
    );
    check(
        crate::supervise::HTTP,
        |text| text.parse::<std::net::SocketAddr>().is_ok(),
        "it takes an IP address and a port, such as 0.0.0.0:9000 or [::]:9000",
    );
    check(
        crate::page::VARIABLE,
        |text| text.parse::<std::net::SocketAddr>().is_ok(),
        "it takes an IP address and a port, such as 0.0.0.0:9001 or [::]:9001",
    );
    check(
        "TIFFIN_LOG",
        |text| matches!(text, "text" | "json"),
        "it takes `text` or `json`",
    );
    check(
        crate::upgrade::COPY,
        |text| matches!(text, "on" | "off"),
        "it takes `on` or `off`",
    );
    check(
        crate::upgrade::KEEP,
        |text| text.parse::<u16>().is_ok(),
        "it takes a number of copies",
    );
    check(
        schedule::SCHEDULE,
        schedule::is_schedule,
        "it takes a time of day such as 03:30, or another calendar event of systemd.time(7); UTC",
    );
    check(
        schedule::KEEP,
        schedule::is_count,
        "it takes a number of backups, at least 1",
    );
    check(
        crate::roles::DRAIN,
        |text| text.parse::<u16>().is_ok(),
        "it takes a number of seconds",
    );
    check("TIFFIN_UNKNOWN", |text| text == "warn", "it takes `warn`");
    let directory = environment.get(schedule::DIRECTORY);
    if let Some(text) = directory
        && let Some(reason) = schedule::refuses_directory(contract, text)
    {
        problems.push(Problem::new(schedule::DIRECTORY, reason).given(text));
    }
}

/// Variables that look like a mistyped setting; in the env file, all that are none.
fn unknown(
    contract: &Contract,
    environment: &Environment,
    file: &EnvFile,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    let names = Names::of(contract);
    let in_environment = environment
        .variables
        .keys()
        .chain(&environment.unreadable)
        .filter_map(|name| {
            let (reason, meant) = names.suspect(name, environment)?;
            Some((name.clone(), reason, meant))
        });
    let in_file = file
        .entries
        .iter()
        .filter(|entry| !names.know(&entry.name))
        .map(|entry| {
            let reason = match entry.name.starts_with("TIFFIN_") {
                true => "it is read from the environment alone",
                false => "it is no setting of this box",
            };
            (
                format!("{} ({}, line {})", entry.name, file.path, entry.line),
                reason,
                names.meant(&entry.name),
            )
        });
    for (name, reason, meant) in in_environment.chain(in_file) {
        if environment.get("TIFFIN_UNKNOWN") == Some("warn") {
            let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
            warnings.push(format!("{name}: {reason}{meant}"));
        } else {
            let meant = meant.map_or_else(String::new, |meant| format!("did you mean {meant}? "));
            // No value: a mistyped name may hold a secret.
            problems.push(
                Problem::new(name, reason)
                    .hint(format!("{meant}TIFFIN_UNKNOWN=warn starts nonetheless")),
            );
        }
    }
}

/// A value fit to be shown: on one line, short, no secret.
pub fn showable(setting: &Setting, value: &Value) -> String {
    if is_secret(setting) {
        return values::MASK.to_owned();
    }
    let text = values::text_of(value);
    if setting.kind == Kind::Certificate {
        return format!("({} certificates)", text.matches("-----BEGIN").count());
    }
    let quoted = shown(&text);
    quoted.trim_matches('`').to_owned()
}

#[cfg(test)]
mod tests;
