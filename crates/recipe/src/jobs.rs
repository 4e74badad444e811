//! `jobs`: commands that run again and again. What they share with services becomes an
//! entry of `services` under the job's name.

use std::collections::BTreeMap;

use ::services::systemd::Calendar;
use contract::{Job, ServiceOverride};

use crate::error::{Problem, Result};
use crate::field::{Field, Table};
use crate::needs::needs;
use crate::services::process;
use crate::yaml::{Kind, quote};

const KEYS: &[&str] = &[
    "command",
    "every",
    "at",
    "user",
    "directory",
    "environment",
    "timeout",
    "after",
    "when",
    "needs",
    "capability_bounding_set",
    "ambient_capabilities",
    "no_new_privileges",
    "nice",
    "oom_score_adj",
    "limits",
];
const EXAMPLE: &str = "such as `03:30`, `Sun 04:00` or `*-*-* 00/6:00`";

pub(crate) fn jobs(
    field: &Field,
    services: &mut BTreeMap<String, ServiceOverride>,
) -> Result<BTreeMap<String, Job>> {
    let mut jobs = BTreeMap::new();
    for (key, value) in field.entries()? {
        let named = |reason: &str| {
            Problem::new(format!(
                "the job {} at line {} {reason}",
                quote(&key.name),
                key.line
            ))
        };
        let word = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        if key.name.is_empty() || !key.name.bytes().all(word) {
            return Err(named(
                "has a name that is not made of lower-case letters, digits, `-` and `_`",
            ));
        }
        if services.contains_key(&key.name) {
            return Err(named("is among `services` too")
                .hint("`after`, `when` and `needs` stand beside its `command`"));
        }
        let table = value.table(KEYS)?;
        let command = table
            .text("command")?
            .ok_or_else(|| named("has no `command`"))?;
        let (every, at) = (every(&table)?, at(&table)?);
        match (&every, &at) {
            (None, None) => {
                return Err(named("has neither `every` nor `at`")
                    .hint("write `every: 10m`, or `at: \"03:30\"` for a time of the day in UTC"));
            }
            (Some(_), Some(_)) => {
                return Err(named("has both `every` and `at`").hint("make two jobs of it"));
            }
            _ => {}
        }
        let job = Job {
            command,
            every,
            at,
            user: table.text("user")?,
            directory: plain(&table, "directory").map_or_else(
                || table.text("directory"),
                |field| field.absolute().map(Some),
            )?,
            environment: match table.get("environment") {
                Some(field) => environment(&field)?,
                None => BTreeMap::new(),
            },
            timeout: match (table.get("timeout"), table.seconds("timeout")?) {
                (Some(field), Some(0)) => return Err(field.cannot("it is at least 1")),
                (_, seconds) => seconds,
            },
        };
        let after = table.texts("after")?;
        if after.contains(&key.name) {
            return Err(named("waits for itself"));
        }
        services.insert(
            key.name.clone(),
            ServiceOverride {
                after,
                when: table.text("when")?,
                needs: table
                    .get("needs")
                    .map(needs)
                    .transpose()?
                    .unwrap_or_default(),
                ..process(&table)?
            },
        );
        jobs.insert(key.name.clone(), job);
    }
    Ok(jobs)
}

/// A value without expressions, which can be checked now; others are at each start.
fn plain<'a>(table: &Table<'a>, key: &str) -> Option<Field<'a>> {
    let field = table.get(key)?;
    let is_computed = matches!(&field.node.kind, Kind::Text(text) if text.contains("{{"));
    (!is_computed).then_some(field)
}

fn every(table: &Table) -> Result<Option<String>> {
    match plain(table, "every") {
        None => table.text("every"),
        Some(field) => match field.seconds()? {
            0 => Err(field.cannot("it is at least a second")),
            seconds => Ok(Some(match &field.node.kind {
                Kind::Text(text) => text.clone(),
                _ => format!("{seconds}s"),
            })),
        },
    }
}

fn at(table: &Table) -> Result<Option<String>> {
    let Some(field) = plain(table, "at") else {
        return table.text("at");
    };
    // `430` and `1.30` are numbers.
    let Kind::Text(text) = &field.node.kind else {
        return Err(field
            .must("a calendar event as text")
            .hint(format!("put it in quotes, {EXAMPLE}")));
    };
    match Calendar::parse(text) {
        Some(_) => Ok(Some(text.clone())),
        None => Err(field
            .cannot("it is no calendar event of systemd.time(7) that is understood here")
            .hint(format!("write one {EXAMPLE}; times are UTC"))),
    }
}

fn environment(field: &Field) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (key, value) in field.entries()? {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if key.name.is_empty()
            || key.name.as_bytes()[0].is_ascii_digit()
            || !key.name.bytes().all(word)
        {
            return Err(Problem::new(format!(
                "the environment variable {} at line {} must be named by letters, digits and `_`",
                quote(&key.name),
                key.line
            )));
        }
        variables.insert(key.name.clone(), value.text()?.to_owned());
    }
    Ok(variables)
}
