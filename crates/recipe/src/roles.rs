//! `roles`: parts of the box that can run as boxes of their own.

use std::collections::BTreeMap;

use contract::Role;

use crate::error::{Problem, Result};
use crate::field::Field;
use crate::yaml::quote;

/// With which every service runs.
const ALL: &str = "all";
/// Names become parts of those that platforms give to services and jobs.
const LONGEST: usize = 20;

pub(crate) fn roles(field: &Field, ports: &[u16]) -> Result<BTreeMap<String, Role>> {
    let mut roles = BTreeMap::new();
    for (key, value) in field.entries()? {
        let named = |reason: &str| {
            Problem::new(format!(
                "the role {} at line {} {reason}",
                quote(&key.name),
                key.line
            ))
        };
        if key.name == ALL {
            return Err(named("stands for all services, and needs no list of them"));
        }
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !key.name.starts_with(|c: char| c.is_ascii_lowercase())
            || key.name.ends_with('-')
            || key.name.len() > LONGEST
            || !key.name.bytes().all(letter)
        {
            return Err(named(
                "has a name that is not made of at most 20 lower-case letters, digits and `-`",
            ));
        }
        let table = value.table(&["services", "ports", "single"])?;
        let services = table.texts("services")?;
        if services.is_empty() {
            return Err(named("has no `services`"));
        }
        let mut own = Vec::new();
        if let Some(list) = table.get("ports") {
            for item in list.list()? {
                let port = item.number(1, 65_535)? as u16;
                if !ports.contains(&port) {
                    return Err(item.cannot("it is none of the box's `ports`"));
                }
                own.push(port);
            }
        }
        roles.insert(
            key.name.clone(),
            Role {
                services,
                ports: own,
                single: table.flag("single")?,
            },
        );
    }
    Ok(roles)
}
