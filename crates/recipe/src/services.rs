//! `services`: what unit files and supervisor programs cannot say.

use std::collections::BTreeMap;

use ::services::systemd::{LIMITS, limit};
use contract::{LogFile, Move, Ready, ServiceOverride};

use crate::error::{Problem, Result};
use crate::field::{Field, Table};
use crate::needs::{needs, size};
use crate::setting::known;
use crate::yaml::{Kind, quote};

pub(crate) fn services(
    field: &Field,
    settings: &BTreeMap<String, contract::Setting>,
    volumes: &[String],
) -> Result<BTreeMap<String, ServiceOverride>> {
    let mut services = BTreeMap::new();
    for (key, value) in field.entries()? {
        if let Some(bare) = key.name.strip_suffix(".service") {
            return Err(Problem::new(format!(
                "the service {} at line {} has a suffix",
                quote(&key.name),
                key.line
            ))
            .hint(format!("write `{bare}`")));
        }
        let table = value.table(&[
            "after",
            "ready",
            "once",
            "again",
            "uses",
            "when",
            "stop_timeout",
            "required",
            "data",
            "needs",
            "check_data",
            "freeze",
            "move",
            "done",
            "capability_bounding_set",
            "ambient_capabilities",
            "no_new_privileges",
            "nice",
            "oom_score_adj",
            "limits",
            "log_files",
        ])?;
        if let Some(again) = table.get("again") {
            for item in again.list()? {
                known(&item, item.text()?, settings)?;
            }
            if !table.flag("once")? {
                return Err(Problem::new(format!(
                    "{} at line {} is for a job that runs once",
                    quote(&again.place),
                    again.line
                ))
                .hint("add `once: true`"));
            }
        }
        if let Some(done) = table.get("done")
            && !table.flag("once")?
        {
            return Err(Problem::new(format!(
                "{} at line {} is for a job that runs once",
                quote(&done.place),
                done.line
            ))
            .hint("add `once: true`"));
        }
        let required = match table.get("required") {
            Some(field) => {
                let yes = field.flag()?;
                if !yes && table.flag("once")? {
                    return Err(Problem::new(format!(
                        "{} at line {} cannot be false for a job that runs once",
                        quote(&field.place),
                        field.line
                    ))
                    .hint(
                        "remove it, or let the command itself succeed when its work is not needed",
                    ));
                }
                Some(yes)
            }
            None => None,
        };
        if let Some(freeze) = table.get("freeze") {
            program(&freeze)?;
            if table.get("data").is_none() {
                return Err(Problem::new(format!(
                    "{} at line {} says nothing of which data is frozen",
                    quote(&freeze.place),
                    freeze.line
                ))
                .hint("add `data:` with the directories of the database"));
            }
        }
        let service = ServiceOverride {
            after: table.texts("after")?,
            ready: table.get("ready").map(ready).transpose()?,
            once: table.flag("once")?,
            again: table.texts("again")?,
            uses: table.texts("uses")?,
            when: table.text("when")?,
            stop_timeout: table.seconds("stop_timeout")?,
            required,
            data: match table.get("data") {
                Some(field) => data(&field, volumes)?,
                None => Vec::new(),
            },
            needs: table
                .get("needs")
                .map(needs)
                .transpose()?
                .unwrap_or_default(),
            check_data: table.texts("check_data")?,
            freeze: table.texts("freeze")?,
            r#move: match table.get("move") {
                Some(field) => Some(relocation(field, &table)?),
                None => None,
            },
            done: table.text("done")?,
            log_files: match table.get("log_files") {
                Some(field) => {
                    let files = field.list()?.into_iter();
                    files.map(log_file).collect::<Result<_>>()?
                }
                None => Vec::new(),
            },
            ..process(&table)?
        };
        if service.after.contains(&key.name) {
            return Err(Problem::new(format!(
                "the service {} at line {} waits for itself",
                quote(&key.name),
                key.line
            )));
        }
        services.insert(key.name.clone(), service);
    }
    Ok(services)
}

/// A list of a program, by its path, and its arguments.
fn program(field: &Field) -> Result<()> {
    match field.list()?.first() {
        Some(program) => program.absolute().map(drop),
        None => Err(field.must("a list of the program and its arguments")),
    }
}

/// `move`: it is for data of a service that other settings leave out.
fn relocation(field: Field, service: &Table) -> Result<Move> {
    let (place, line) = (field.place.clone(), field.line);
    let lacks =
        |key: &str| Problem::new(format!("{} at line {line} has no `{key}`", quote(&place)));
    for (key, what) in [
        ("data", "the directories of the database"),
        (
            "when",
            "the condition under which the box has the database itself",
        ),
    ] {
        if service.get(key).is_none() {
            return Err(lacks(key).hint(format!("add `{key}:` to the service: {what}")));
        }
    }
    let table = field.table(&["command", "to"])?;
    let command = table.get("command").ok_or_else(|| {
        lacks("command").hint("name the program that copies the data, with its arguments")
    })?;
    program(&command)?;
    Ok(Move {
        command: table.texts("command")?,
        to: table
            .text("to")?
            .ok_or_else(|| lacks("to").hint("say where to: \"{{ database_url }}\""))?,
    })
}

/// How the processes of a service or a job run, and what they may not do, alone.
pub(crate) fn process(table: &Table) -> Result<ServiceOverride> {
    let set = |key: &str| -> Result<Option<Vec<String>>> {
        let Some(field) = table.get(key) else {
            return Ok(None);
        };
        for item in field.list()? {
            let name = item.text()?.to_owned();
            ::services::systemd::capabilities(&[name]).map_err(|_| {
                item.cannot("it is no capability of capabilities(7), such as NET_BIND_SERVICE")
            })?;
        }
        table.texts(key).map(Some)
    };
    let number = |key: &str, min, max| -> Result<Option<i32>> {
        let number = table.get(key).map(|field| field.number(min, max));
        Ok(number
            .transpose()?
            .and_then(|number| number.try_into().ok()))
    };
    Ok(ServiceOverride {
        capability_bounding_set: set("capability_bounding_set")?,
        ambient_capabilities: set("ambient_capabilities")?,
        no_new_privileges: match table.get("no_new_privileges") {
            Some(field) => Some(field.flag()?),
            None => None,
        },
        nice: number("nice", -20, 19)?,
        oom_score_adj: number("oom_score_adj", -1000, 1000)?,
        limits: match table.get("limits") {
            Some(field) => limits(field)?,
            None => BTreeMap::new(),
        },
        ..ServiceOverride::default()
    })
}

/// As much as supervisord lets a log grow.
const LOG_FILE: u64 = 50 << 20;

fn log_file(field: Field) -> Result<LogFile> {
    let (place, line) = (field.place.clone(), field.line);
    let table = field.table(&["path", "max", "keep", "signal"])?;
    let path = table.get("path").ok_or_else(|| {
        Problem::new(format!("{} at line {line} has no `path`", quote(&place)))
            .hint("name the file, such as `path: /var/log/app/app.log`")
    })?;
    let signal = table.get("signal");
    if let Some(field) = &signal
        && ::services::signal_number(field.text()?).is_none()
    {
        return Err(field.cannot("it is no signal, such as USR1"));
    }
    let keep = table.get("keep").map(|field| field.number(0, 1000));
    Ok(LogFile {
        path: path.absolute()?,
        max: size(&table, "max")?.unwrap_or(LOG_FILE),
        keep: keep.transpose()?.unwrap_or(5) as u32,
        signal: table.text("signal")?,
    })
}

fn limits(field: Field) -> Result<BTreeMap<String, String>> {
    let names: Vec<&str> = LIMITS.iter().map(|(name, _)| *name).collect();
    let table = field.table(&names)?;
    let mut limits = BTreeMap::new();
    for (name, field) in names
        .iter()
        .filter_map(|name| Some((name, table.get(name)?)))
    {
        let value = match &field.node.kind {
            Kind::Number(number) => number.to_string(),
            Kind::Text(text) => text.clone(),
            _ => String::new(),
        };
        if limit(name, &value).is_none() {
            return Err(field
                .must("a limit")
                .hint("write a number, a size such as 64M, `infinity`, or `SOFT:HARD`"));
        }
        limits.insert((*name).to_owned(), value);
    }
    Ok(limits)
}

/// Directories of databases; what an expression makes is checked once its variables are known.
fn data(field: &Field, volumes: &[String]) -> Result<Vec<String>> {
    let mut directories = Vec::new();
    for item in field.list()? {
        let text = item.text()?;
        let path = match text.contains("{{") {
            true => text.to_owned(),
            false => values::data_directory(text, volumes).map_err(|why| item.cannot(&why))?,
        };
        if directories.contains(&path) {
            return Err(item.cannot("it is given twice"));
        }
        directories.push(path);
    }
    Ok(directories)
}

fn ready(field: Field) -> Result<Ready> {
    const CHECKS: [&str; 6] = ["tcp", "unix", "http", "command", "file", "log"];
    let (place, line) = (field.place.clone(), field.line);
    let table = field.table(&["tcp", "unix", "http", "command", "file", "log", "timeout"])?;
    if CHECKS.iter().filter(|key| table.get(key).is_some()).count() != 1 {
        return Err(Problem::new(format!(
            "{} at line {line} must have exactly one of tcp, unix, http, command, file and log",
            quote(&place)
        )));
    }
    // With expressions it is checked at each start.
    let plain = |key: &str| {
        let field = table.get(key)?;
        (!field.text().is_ok_and(|text| text.contains("{{"))).then_some(field)
    };
    if let Some(file) = plain("file") {
        file.absolute()?;
    }
    if let Some(log) = plain("log") {
        values::search(log.text()?).map_err(|reason| {
            log.cannot(&format!("it is no regular expression: {reason}"))
                .hint("put `\\` before a character that is meant as it stands")
        })?;
    }
    // A port alone is what people write first; it is read as a number, so say it here.
    if let Some(tcp) = table.get("tcp")
        && !tcp
            .text()
            .is_ok_and(|text| text.contains(':') || text.contains("{{"))
    {
        let problem = tcp.must("`address:port`");
        return Err(match &tcp.node.kind {
            Kind::Number(port) => problem.hint(format!("write `127.0.0.1:{port}`")),
            _ => problem,
        });
    }
    Ok(Ready {
        tcp: table.text("tcp")?,
        unix: table.text("unix")?,
        http: table.text("http")?,
        command: table.text("command")?,
        file: table.text("file")?,
        log: table.text("log")?,
        timeout: table.seconds("timeout")?,
    })
}
