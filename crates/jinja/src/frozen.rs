//! What lookups answered while building, for those that mean something else in the box.

use minijinja::value::Value;
use serde_json::Value as Json;

use crate::fault::{self, Result};
use crate::session::Session;
use crate::value;

/// The raw variable in which the builder keeps what lookups returned: a list of
/// `{"name", "terms", "options"}` with one of
///
/// - `"result"`: the plugin's list, or null where it failed, which `errors='ignore'` allows;
/// - `"variables"`: for each answer, the variable that holds it now, since it is a secret;
/// - `"secret": true`: it may be a secret, and is not kept.
///
/// No expression can name it.
pub const FROZEN: &str = "(lookups)";

/// What the builder kept of a lookup with these arguments.
pub enum Frozen {
    Answer(Vec<Value>),
    Failed,
    /// Of this lookup, but with other arguments.
    Otherwise,
    Nothing,
}

pub fn answer(
    name: &str,
    terms: &[Value],
    options: &[(String, Value)],
    session: &Session,
) -> Result<Frozen> {
    let Some((Json::Array(all), _)) = session.raw(FROZEN) else {
        return Ok(Frozen::Nothing);
    };
    let own: Vec<&Json> = all
        .iter()
        .filter(|entry| entry.get("name").and_then(Json::as_str) == Some(name))
        .collect();
    if own.is_empty() {
        return Ok(Frozen::Nothing);
    }
    let terms: Option<Vec<Json>> = terms.iter().map(value::to_json).collect();
    let options: Option<serde_json::Map<String, Json>> = options
        .iter()
        .map(|(key, value)| Some((key.clone(), value::to_json(value)?)))
        .collect();
    let (Some(terms), Some(options)) = (terms, options) else {
        return Ok(Frozen::Otherwise);
    };
    let entry = own.into_iter().find(|entry| {
        let given = entry.get("options").and_then(Json::as_object);
        entry.get("terms").and_then(Json::as_array) == Some(&terms)
            && given.map_or(options.is_empty(), |given| *given == options)
    });
    let Some(entry) = entry else {
        return Ok(Frozen::Otherwise);
    };
    if let Some(Json::Array(names)) = entry.get("variables") {
        let mut answers = Vec::new();
        for name in names.iter().filter_map(Json::as_str) {
            match session.resolve(name)? {
                Some(value) => answers.push(value),
                None => {
                    session.note_missing(name.to_owned());
                    return Err(fault::undefined());
                }
            }
        }
        return Ok(Frozen::Answer(answers));
    }
    match entry.get("result") {
        Some(Json::Array(items)) => {
            Ok(Frozen::Answer(items.iter().map(value::from_json).collect()))
        }
        Some(Json::Null) => Ok(Frozen::Failed),
        _ => fault::fail(format!(
            "what the lookup `{name}` answered while building may be a secret, which no box holds; give it to a variable, and make that a setting"
        )),
    }
}
