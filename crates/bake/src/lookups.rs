//! What lookups answered while building: records of `bake/assets/tiffin_lookups.py`, which
//! `jinja` answers from at a start. [`jinja::FROZEN`] says what is in them.

use contract::{Value, Variables};
use jinja::FROZEN;

/// The records among variables.
pub fn of(variables: &Variables) -> &[Value] {
    let kept = variables.get(FROZEN).and_then(Value::as_array);
    kept.map_or(&[], Vec::as_slice)
}

/// Whether a record has an answer in clear.
pub fn is_told(kept: &Value) -> bool {
    kept.get("result").is_some_and(|result| !result.is_null())
}

fn is_same_question(a: &Value, b: &Value) -> bool {
    ["name", "terms", "options"]
        .iter()
        .all(|key| a.get(key) == b.get(key))
}

/// The lookup that two sets of records answer differently.
fn clash<'a>(known: &[Value], fresh: &'a [Value]) -> Option<&'a Value> {
    fresh.iter().find(|kept| {
        known
            .iter()
            .any(|other| is_same_question(other, kept) && other != *kept)
    })
}

/// Adds records to those among variables; the name of a lookup that is answered differently
/// there stops it.
pub fn add(variables: &mut Variables, fresh: &[Value]) -> Result<(), String> {
    if let Some(kept) = clash(of(variables), fresh) {
        return Err(kept["name"].as_str().unwrap_or_default().to_owned());
    }
    let fresh: Vec<Value> = fresh
        .iter()
        .filter(|kept| !of(variables).contains(kept))
        .cloned()
        .collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let all = variables
        .entry(FROZEN)
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(all) = all {
        all.extend(fresh);
    }
    Ok(())
}

/// Puts a template's records where they belong: among those that all share, or, where
/// another answer is known or a setting stands for one, which must be seen to be this
/// template's, among its own.
pub fn share(records: &Value, shared: &mut Variables, own: &mut Variables) {
    let Value::Array(kept) = records else { return };
    let is_own = kept.iter().any(|kept| kept.get("variables").is_some());
    if is_own || add(shared, kept).is_err() {
        own.insert(FROZEN.to_owned(), records.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kept(term: &str, result: &str) -> Value {
        json!([{"name": "file", "terms": [term], "options": {}, "result": [result]}])
    }

    #[test]
    fn templates_share_what_lookups_answered_but_where_they_disagree() {
        let mut shared = Variables::new();
        let mut share = |records| {
            let mut own = Variables::new();
            super::share(&records, &mut shared, &mut own);
            own
        };
        assert!(share(kept("a", "1")).is_empty());
        assert!(share(kept("a", "1")).is_empty());
        assert!(share(kept("b", "1")).is_empty());
        assert_eq!(of(&share(kept("a", "2"))).len(), 1);
        let secret =
            json!([{"name": "password", "terms": ["p"], "options": {}, "variables": ["p"]}]);
        assert_eq!(of(&share(secret)).len(), 1);
        assert_eq!(of(&shared).len(), 2);
    }
}
