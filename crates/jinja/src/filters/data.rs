//! Dictionaries, defaults and choices.

use minijinja::value::Value;

use super::{Filter, sequences};
use crate::fault::{self, Result};
use crate::runtime::{self, Call};
use crate::value::{self, Items, View, view};
use crate::{methods, python};

pub const FILTERS: &[(&str, Filter)] = &[
    ("attr", |call| {
        let name = call.text(1, "name")?;
        Ok(runtime::attribute(call.value(), &name).unwrap_or_default())
    }),
    ("combine", combine),
    ("d", default),
    ("default", default),
    ("dict2items", |call| {
        let View::Dict(items) = view(call.value()) else {
            return fault::refuse("dict2items takes a dict");
        };
        let (key, item) = (
            call.text_or(1, "key_name", "key")?,
            call.text_or(2, "value_name", "value")?,
        );
        let pair = |(k, v)| value::dict_of([(key.clone(), k), (item.clone(), v)]);
        Ok(value::list(items.get().into_iter().map(pair).collect()))
    }),
    ("dictsort", dictsort),
    ("extract", |call| {
        let mut keys = vec![call.value().clone()];
        if let Some(more) = call.arg(2, "morekeys").filter(|more| !more.is_none()) {
            match view(&more) {
                View::List(items) => keys.extend(items.get()),
                _ => keys.push(more),
            }
        }
        let mut current = call.need(1, "container")?;
        for key in keys {
            current = runtime::item(&current, &key).unwrap_or_default();
        }
        Ok(current)
    }),
    ("items", |call| {
        let pairs = methods::pairs(call.value())?;
        Ok(value::list(
            pairs
                .into_iter()
                .map(|(k, v)| value::tuple(vec![k, v]))
                .collect(),
        ))
    }),
    ("items2dict", |call| {
        let (key, item) = (
            call.text_or(1, "key_name", "key")?,
            call.text_or(2, "value_name", "value")?,
        );
        let mut pairs = Vec::new();
        for entry in call.items()? {
            let part = |name: &str| match view(&entry) {
                View::Dict(items) => items.find(&Value::from(name)),
                _ => None,
            };
            match (part(&key), part(&item)) {
                (Some(key), Some(item)) => pairs.push((key, item)),
                _ => {
                    return fault::refuse("items2dict takes dicts that have the key and the value");
                }
            }
        }
        Ok(sequences::dictionary(pairs))
    }),
    ("mandatory", |call| {
        if !call.value().is_undefined() {
            return Ok(call.value().clone());
        }
        match call.arg(1, "msg").filter(|message| !message.is_none()) {
            Some(message) => fault::fail(python::text(&message)),
            None => Err(fault::undefined()),
        }
    }),
    ("rekey_on_member", |call| {
        let key = call.need(1, "key")?;
        let overwrite = call.text_or(2, "duplicates", "error")? == "overwrite";
        let items = match view(call.value()) {
            View::Dict(items) => items.get().into_values().collect(),
            _ => call.items()?,
        };
        let mut out = Items::new();
        for item in items {
            let View::Dict(map) = view(&item) else {
                return fault::refuse("rekey_on_member takes dicts");
            };
            let member = map
                .find(&key)
                .ok_or_else(|| fault::refused("a dict lacks the member to rekey on"))?;
            if out.insert(member, item).is_some() && !overwrite {
                return fault::refuse("the member to rekey on is not unique");
            }
        }
        Ok(value::dict(out))
    }),
    ("subelements", |call| {
        let (path, skip) = (
            call.need(1, "subelements")?,
            call.flag(2, "skip_missing", false)?,
        );
        Ok(value::list(subelements(call.value(), &path, skip)?))
    }),
    ("ternary", |call| {
        if call.value().is_none()
            && let Some(value) = call.arg(3, "none_val").filter(|value| !value.is_none())
        {
            return Ok(value);
        }
        if call.value().is_true() {
            call.need(1, "true_val")
        } else {
            call.need(2, "false_val")
        }
    }),
    ("type_debug", |call| {
        // Strings of YAML; one that Ansible made of others is a `str` to it.
        Ok(Value::from(match python::type_name(call.value()) {
            "str" => "AnsibleUnicode",
            name => name,
        }))
    }),
];

fn default(call: &mut Call) -> Result<Value> {
    let default = call
        .arg(1, "default_value")
        .unwrap_or_else(|| Value::from(""));
    let boolean = call.flag(2, "boolean", false)?;
    let value = call.value();
    Ok(
        if value::is_missing(value) || (boolean && !value.is_true()) {
            default
        } else {
            value.clone()
        },
    )
}

fn dictsort(call: &mut Call) -> Result<Value> {
    let View::Dict(items) = view(call.value()) else {
        return fault::refuse("dictsort takes a dict");
    };
    let case_sensitive = call.flag(1, "case_sensitive", false)?;
    let by = match call.text_or(2, "by", "key")?.as_str() {
        "key" => 0,
        "value" => 1,
        _ => return fault::fail("dictsort sorts by key or value"),
    };
    let reverse = call.flag(3, "reverse", false)?;
    let pairs = items
        .get()
        .into_iter()
        .map(|(k, v)| value::tuple(vec![k, v]))
        .collect();
    let mut arguments = Call {
        session: call.session.clone(),
        state: call.state,
        args: vec![
            value::list(pairs),
            Value::from(reverse),
            Value::from(case_sensitive),
            Value::from(by),
        ],
        kwargs: Vec::new(),
    };
    super::apply("sort", &mut arguments)
}

fn combine(call: &mut Call) -> Result<Value> {
    let recursive = call
        .keyword("recursive")
        .is_some_and(|value| value.is_true());
    let lists = call
        .keyword("list_merge")
        .map_or_else(|| "replace".to_owned(), |value| python::text(&value));
    if ![
        "replace",
        "keep",
        "append",
        "prepend",
        "append_rp",
        "prepend_rp",
    ]
    .contains(&lists.as_str())
    {
        return fault::fail("combine does not know this way to merge lists");
    }
    let mut result: Option<Items> = None;
    for part in sequences::flat(call)? {
        python::check_defined(&part, 0)?;
        let View::Dict(items) = view(&part) else {
            return fault::refuse("combine takes dicts");
        };
        result = Some(match result {
            None => items.get(),
            Some(base) => merge(&base, &items.get(), recursive, &lists, 0)?,
        });
    }
    Ok(value::dict(result.unwrap_or_default()))
}

/// Ansible's `merge_hash`.
fn merge(low: &Items, high: &Items, recursive: bool, lists: &str, depth: usize) -> Result<Items> {
    if depth > python::MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    if low.is_empty() || low == high {
        return Ok(high.clone());
    }
    let mut out = low.clone();
    for (key, new) in high {
        let merged = match out.get(key) {
            None => new.clone(),
            Some(old) => match (view(old), view(new)) {
                (View::Dict(old), View::Dict(new)) if recursive => {
                    value::dict(merge(&old.get(), &new.get(), recursive, lists, depth + 1)?)
                }
                (View::List(old), View::List(new)) => {
                    let (old, new) = (old.get(), new.get());
                    let without = |from: &[Value], others: &[Value]| -> Vec<Value> {
                        from.iter()
                            .filter(|item| !others.iter().any(|o| python::equal(o, item)))
                            .cloned()
                            .collect()
                    };
                    value::list(match lists {
                        "keep" => old,
                        "append" => [old, new].concat(),
                        "prepend" => [new, old].concat(),
                        "append_rp" => [without(&old, &new), new].concat(),
                        "prepend_rp" => {
                            let rest = without(&old, &new);
                            [new, rest].concat()
                        }
                        _ => new,
                    })
                }
                _ => new.clone(),
            },
        };
        out.insert(key.clone(), merged);
    }
    Ok(out)
}

/// Pairs of an element and each of the items in the list at `path` in it.
pub fn subelements(list: &Value, path: &Value, skip: bool) -> Result<Vec<Value>> {
    let elements = match view(list) {
        View::Dict(items) => items.get().into_values().collect(),
        _ => python::iterate(list)?,
    };
    let path: Vec<Value> = match view(path) {
        View::Text(text) => text.split('.').map(Value::from).collect(),
        _ => python::iterate(path)?,
    };
    let mut out = Vec::new();
    for element in elements {
        let mut current = Some(element.clone());
        for part in &path {
            current = current.and_then(|value| runtime::item(&value, part));
        }
        let inner = match current.map(|value| view(&value)) {
            Some(View::List(items)) => items.get(),
            None if skip => Vec::new(),
            _ => return fault::refuse("an item lacks the list of subelements"),
        };
        out.extend(
            inner
                .into_iter()
                .map(|item| value::tuple(vec![element.clone(), item])),
        );
    }
    Ok(out)
}
