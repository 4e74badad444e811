//! The filters: one table, and a module for each kind of data.

pub mod data;
mod hash;
pub mod json;
mod net;
mod numbers;
mod paths;
pub mod random;
pub mod regex;
mod sequences;
mod strings;
mod yaml;

use minijinja::value::Value;

use crate::catalogue;
use crate::fault::{self, Result};
use crate::runtime::Call;

pub type Filter = fn(&mut Call) -> Result<Value>;

const TABLES: [&[(&str, Filter)]; 11] = [
    data::FILTERS,
    hash::FILTERS,
    json::FILTERS,
    net::FILTERS,
    numbers::FILTERS,
    paths::FILTERS,
    random::FILTERS,
    regex::FILTERS,
    sequences::FILTERS,
    strings::FILTERS,
    yaml::FILTERS,
];

/// Their result is text for good: Ansible never reads it as a list or map (`STRING_TYPE_FILTERS`).
const TEXT: [&str; 5] = [
    "string",
    "to_json",
    "to_nice_json",
    "to_yaml",
    "to_nice_yaml",
];

/// What looks at undefined values instead of failing on them.
const LENIENT: [&str; 4] = ["default", "d", "mandatory", "type_debug"];

pub fn names() -> impl Iterator<Item = &'static str> {
    TABLES
        .iter()
        .flat_map(|table| table.iter().map(|(name, _)| *name))
}

/// Whether one of its arguments may be undefined since ansible-core 2.19.
pub fn is_lenient(full_name: &str) -> bool {
    let name = plain(full_name);
    LENIENT.contains(&name) || name == "ternary"
}

pub fn apply(full_name: &str, call: &mut Call) -> Result<Value> {
    let name = plain(full_name);
    let Some((_, filter)) = TABLES
        .iter()
        .flat_map(|table| table.iter())
        .find(|(other, _)| *other == name)
    else {
        return match catalogue::reason("filter", full_name) {
            Some(reason) => fault::fail(format!(
                "the filter `{full_name}` is not supported: it {reason}"
            )),
            None => fault::fail(format!("the filter `{full_name}` is not supported")),
        };
    };
    if call.value().is_undefined() && !LENIENT.contains(&name) {
        return Err(fault::undefined());
    }
    let value = filter(call)?;
    match value.to_str() {
        Some(text) if TEXT.contains(&name) => Ok(Value::from_safe_string(text.to_string())),
        _ => Ok(value),
    }
}

/// A name without its collection, for those collections of which something is supported.
pub fn plain(name: &str) -> &str {
    [
        "ansible.builtin.",
        "ansible.legacy.",
        "ansible.utils.",
        "ansible.netcommon.",
        "community.general.",
    ]
    .iter()
    .find_map(|prefix| name.strip_prefix(prefix))
    .unwrap_or(name)
}
