//! Lists: Jinja's filters and Ansible's sets.

use std::cmp::Ordering;

use minijinja::value::Value;

use super::Filter;
use crate::fault::{self, Result};
use crate::runtime::Call;
use crate::value::{self, Items, View, view};
use crate::{budget, methods, python};

pub const FILTERS: &[(&str, Filter)] = &[
    ("batch", batch),
    ("combinations", combinations),
    ("count", length),
    ("difference", |call| {
        let other = other(call)?;
        unique_by(
            call.items()?
                .into_iter()
                .filter(|item| !has(&other, item))
                .collect(),
        )
    }),
    ("first", |call| first(call, call.items()?)),
    ("flatten", |call| {
        let levels = call.integer(1, "levels")?;
        let skip = call.flag(2, "skip_nulls", true)?;
        Ok(value::list(flatten(&call.items()?, levels, skip, 0)?))
    }),
    ("groupby", groupby),
    ("intersect", |call| {
        let other = other(call)?;
        unique_by(
            call.items()?
                .into_iter()
                .filter(|item| has(&other, item))
                .collect(),
        )
    }),
    ("join", join),
    ("last", |call| {
        let mut items = call.items()?;
        items.reverse();
        first(call, items)
    }),
    ("length", length),
    ("list", |call| Ok(value::list(call.items()?))),
    ("map", map),
    ("max", |call| extreme(call, Ordering::Greater)),
    ("min", |call| extreme(call, Ordering::Less)),
    ("permutations", permutations),
    ("product", product),
    ("reject", |call| select(call, false, false)),
    ("rejectattr", |call| select(call, true, false)),
    ("reverse", |call| match view(call.value()) {
        View::Text(text) => Ok(Value::from(text.chars().rev().collect::<String>())),
        _ => {
            let mut items = call.items()?;
            items.reverse();
            Ok(value::list(items))
        }
    }),
    ("select", |call| select(call, false, true)),
    ("selectattr", |call| select(call, true, true)),
    ("slice", slice),
    ("sort", sort),
    ("sum", sum),
    ("symmetric_difference", |call| {
        let (items, other) = (call.items()?, other(call)?);
        let mut out: Vec<Value> = items
            .iter()
            .filter(|item| !has(&other, item))
            .cloned()
            .collect();
        out.extend(other.iter().filter(|item| !has(&items, item)).cloned());
        unique_by(out)
    }),
    ("union", |call| {
        let mut items = call.items()?;
        items.extend(other(call)?);
        unique_by(items)
    }),
    ("unique", unique),
    ("zip", |call| {
        let columns = columns(call)?;
        let rows = columns.iter().map(Vec::len).min().unwrap_or(0);
        Ok(value::list(
            (0..rows)
                .map(|row| value::tuple(columns.iter().map(|column| column[row].clone()).collect()))
                .collect(),
        ))
    }),
    ("zip_longest", |call| {
        let fill = call.keyword("fillvalue").unwrap_or_else(|| Value::from(()));
        let columns = columns(call)?;
        let rows = columns.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |column: &Vec<Value>, row: usize| column.get(row).unwrap_or(&fill).clone();
        Ok(value::list(
            (0..rows)
                .map(|row| value::tuple(columns.iter().map(|column| cell(column, row)).collect()))
                .collect(),
        ))
    }),
];

/// What lists may grow to by combining them.
const MAX_ITEMS: usize = 1_000_000;

fn has(items: &[Value], item: &Value) -> bool {
    !budget::exhausted() && items.iter().any(|other| python::equal(other, item))
}

fn other(call: &Call) -> Result<Vec<Value>> {
    python::iterate(&call.need(1, "b")?)
}

fn unique_by(items: Vec<Value>) -> Result<Value> {
    let mut out: Vec<Value> = Vec::new();
    for item in items {
        if !has(&out, &item) {
            out.push(item);
        }
    }
    Ok(value::list(out))
}

fn columns(call: &Call) -> Result<Vec<Vec<Value>>> {
    call.args.iter().map(python::iterate).collect()
}

fn first(call: &Call, items: Vec<Value>) -> Result<Value> {
    Ok(items.into_iter().next().unwrap_or_else(|| {
        call.session.note_missing("an item of an empty list".into());
        Value::UNDEFINED
    }))
}

fn length(call: &mut Call) -> Result<Value> {
    match view(call.value()) {
        View::Text(text) => Ok(Value::from(text.chars().count())),
        _ => Ok(Value::from(call.items()?.len())),
    }
}

fn flatten(items: &[Value], levels: Option<i128>, skip: bool, depth: usize) -> Result<Vec<Value>> {
    if depth > python::MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    let mut out = Vec::new();
    for item in items {
        if skip && (item.is_none() || matches!(item.as_str(), Some("None" | "null"))) {
            continue;
        }
        match python::sequence(item) {
            Some(inner) if levels.is_none_or(|levels| levels >= 1) => {
                out.extend(flatten(
                    &inner,
                    levels.map(|levels| levels - 1),
                    skip,
                    depth + 1,
                )?);
            }
            _ => out.push(item.clone()),
        }
    }
    Ok(out)
}

fn batch(call: &mut Call) -> Result<Value> {
    let size = call.integer(1, "linecount")?.unwrap_or(1).max(1) as usize;
    let fill = call.arg(2, "fill_with").filter(|fill| !fill.is_none());
    let rows = call
        .items()?
        .chunks(size)
        .map(|row| {
            let mut row = row.to_vec();
            if let Some(fill) = &fill {
                row.resize(size.min(MAX_ITEMS), fill.clone());
            }
            value::list(row)
        })
        .collect();
    Ok(value::list(rows))
}

fn slice(call: &mut Call) -> Result<Value> {
    let count = call
        .integer(1, "slices")?
        .unwrap_or(1)
        .clamp(1, MAX_ITEMS as i128) as usize;
    let fill = call.arg(2, "fill_with").filter(|fill| !fill.is_none());
    let items = call.items()?;
    let (size, more) = (items.len() / count, items.len() % count);
    let mut start = 0;
    let mut rows = Vec::new();
    for index in 0..count {
        let end = start + size + usize::from(index < more);
        let mut row = items.get(start..end).unwrap_or_default().to_vec();
        if let Some(fill) = &fill
            && index >= more
        {
            row.push(fill.clone());
        }
        rows.push(value::list(row));
        start = end;
    }
    Ok(value::list(rows))
}

fn attribute(call: &Call, position: usize) -> Option<Value> {
    call.arg(position, "attribute")
        .filter(|attribute| !attribute.is_none())
}

fn folded(value: Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value,
    }
}

fn keyed(item: &Value, attribute: Option<&Value>, case_sensitive: bool) -> Value {
    folded(
        attribute.map_or_else(|| item.clone(), |attribute| methods::path(item, attribute)),
        case_sensitive,
    )
}

/// Several attributes with commas make a key of several parts.
fn sort_keys(
    items: Vec<Value>,
    attribute: Option<&Value>,
    case_sensitive: bool,
) -> Vec<(Vec<Value>, Value)> {
    let attributes: Vec<Option<Value>> = match attribute {
        Some(value) => match value.as_str() {
            Some(text) => text
                .split(',')
                .map(|part| Some(Value::from(part)))
                .collect(),
            None => vec![Some(value.clone())],
        },
        None => vec![None],
    };
    items
        .into_iter()
        .map(|item| {
            let key = attributes
                .iter()
                .map(|attribute| keyed(&item, attribute.as_ref(), case_sensitive))
                .collect();
            (key, item)
        })
        .collect()
}

fn sort_by_key(items: &mut [(Vec<Value>, Value)], reverse: bool) -> Result<()> {
    let mut failure = None;
    items.sort_by(|(a, _), (b, _)| {
        for (a, b) in a.iter().zip(b) {
            match python::compare(a, b) {
                Ok(Ordering::Equal) => {}
                Ok(order) => return if reverse { order.reverse() } else { order },
                Err(error) => {
                    failure.get_or_insert(error);
                    return Ordering::Equal;
                }
            }
        }
        Ordering::Equal
    });
    failure.map_or(Ok(()), Err)
}

fn sort(call: &mut Call) -> Result<Value> {
    let reverse = call.flag(1, "reverse", false)?;
    let case_sensitive = call.flag(2, "case_sensitive", false)?;
    let mut items = sort_keys(call.items()?, attribute(call, 3).as_ref(), case_sensitive);
    sort_by_key(&mut items, reverse)?;
    Ok(value::list(
        items.into_iter().map(|(_, item)| item).collect(),
    ))
}

fn groupby(call: &mut Call) -> Result<Value> {
    let attribute = call.need(1, "attribute")?;
    let default = call.arg(2, "default").filter(|default| !default.is_none());
    let case_sensitive = call.flag(3, "case_sensitive", false)?;
    let mut rows: Vec<(Vec<Value>, Value)> = call
        .items()?
        .into_iter()
        .map(|item| {
            let key = methods::path(&item, &attribute);
            let key = match &default {
                Some(default) if key.is_undefined() => default.clone(),
                _ => key,
            };
            (vec![folded(key, case_sensitive)], item)
        })
        .collect();
    sort_by_key(&mut rows, false)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (mut key, item) in rows {
        let key = key.pop().unwrap_or_default();
        match groups.last_mut() {
            Some((last, items)) if python::equal(last, &key) => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let groups = groups
        .into_iter()
        .map(|(key, items)| {
            let shown = items
                .first()
                .map(|item| methods::path(item, &attribute))
                .filter(|v| !v.is_undefined());
            value::tuple(vec![shown.unwrap_or(key), value::list(items)])
        })
        .collect();
    Ok(value::list(groups))
}

fn unique(call: &mut Call) -> Result<Value> {
    // Ansible's default is case sensitive for what differs in case only: `bool(None)` is False.
    let case_sensitive = call.flag(1, "case_sensitive", false)?;
    let attribute = attribute(call, 2);
    let mut seen: Vec<Value> = Vec::new();
    let mut out = Vec::new();
    for item in call.items()? {
        let key = keyed(&item, attribute.as_ref(), case_sensitive);
        if !has(&seen, &key) {
            seen.push(key);
            out.push(item);
        }
    }
    Ok(value::list(out))
}

fn extreme(call: &mut Call, wanted: Ordering) -> Result<Value> {
    let case_sensitive = call.flag(1, "case_sensitive", false)?;
    let attribute = attribute(call, 2);
    let mut best: Option<(Value, Value)> = None;
    for item in call.items()? {
        let key = keyed(&item, attribute.as_ref(), case_sensitive);
        let better = match &best {
            None => true,
            Some((other, _)) => python::compare(&key, other)? == wanted,
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

fn sum(call: &mut Call) -> Result<Value> {
    let attribute = attribute(call, 1);
    let mut total = call.arg(2, "start").unwrap_or_else(|| Value::from(0));
    for item in call.items()? {
        let item = attribute
            .as_ref()
            .map_or_else(|| item.clone(), |attribute| methods::path(&item, attribute));
        if item.is_undefined() {
            return Err(fault::undefined());
        }
        total = match (view(&total), view(&item)) {
            (View::List(a), View::List(b)) => value::list([a.get(), b.get()].concat()),
            _ => match (python::integer(&total), python::integer(&item)) {
                (Some(a), Some(b)) => value::int(a.saturating_add(b)),
                _ => match (python::number(&total), python::number(&item)) {
                    (Some(a), Some(b)) => Value::from(a + b),
                    _ => return fault::refuse("a sum of what are no numbers"),
                },
            },
        };
    }
    Ok(total)
}

fn join(call: &mut Call) -> Result<Value> {
    let separator = call.text_or(1, "d", "")?;
    let attribute = attribute(call, 2);
    let mut parts = Vec::new();
    for item in call.items()? {
        let item = attribute
            .as_ref()
            .map_or_else(|| item.clone(), |attribute| methods::path(&item, attribute));
        parts.push(python::defined_text(&item)?);
    }
    methods::joined(&parts, &separator).map(Value::from)
}

/// Jinja's `map` and `select` see nothing in whatever is false.
fn items_or_nothing(call: &Call) -> Result<Vec<Value>> {
    match call.value().is_true() {
        true => call.items(),
        false => Ok(Vec::new()),
    }
}

fn map(call: &mut Call) -> Result<Value> {
    let items = items_or_nothing(call)?;
    let mut out = Vec::new();
    if call.args.len() < 2 {
        let attribute = call
            .keyword("attribute")
            .ok_or_else(|| fault::error("map needs a filter or an attribute"))?;
        let default = call.keyword("default");
        for item in items {
            let found = methods::path(&item, &attribute);
            out.push(match &default {
                Some(default) if found.is_undefined() => default.clone(),
                _ => {
                    if found.is_undefined() {
                        call.session
                            .note_missing(format!("the attribute {}", python::text(&attribute)));
                    }
                    found
                }
            });
        }
    } else {
        let name = call.text(1, "filter")?;
        for item in items {
            out.push(call.filter(&name, item, 2)?);
        }
    }
    Ok(value::list(out))
}

fn select(call: &mut Call, by_attribute: bool, wanted: bool) -> Result<Value> {
    let attribute = match by_attribute {
        true => Some(call.need(1, "attribute")?),
        false => None,
    };
    let at = if by_attribute { 2 } else { 1 };
    let test = match call.args.get(at) {
        Some(_) => Some(call.text(at, "test")?),
        None => None,
    };
    let mut out = Vec::new();
    for item in items_or_nothing(call)? {
        let subject = attribute
            .as_ref()
            .map_or_else(|| item.clone(), |attribute| methods::path(&item, attribute));
        let holds = match &test {
            Some(test) => call.test(test, subject, at + 1)?,
            None => python::truth(&subject)?,
        };
        if holds == wanted {
            out.push(item);
        }
    }
    Ok(value::list(out))
}

fn product(call: &mut Call) -> Result<Value> {
    let repeat = call
        .keyword("repeat")
        .and_then(|value| python::integer(&value))
        .unwrap_or(1)
        .clamp(0, 20);
    let columns = columns(call)?;
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for _ in 0..repeat {
        for column in &columns {
            if rows.len().saturating_mul(column.len()) > MAX_ITEMS {
                return fault::fail("a product is too large");
            }
            rows = rows
                .iter()
                .flat_map(|row| {
                    column
                        .iter()
                        .map(move |item| [row.as_slice(), std::slice::from_ref(item)].concat())
                })
                .collect();
        }
    }
    Ok(value::list(rows.into_iter().map(value::tuple).collect()))
}

fn combinations(call: &mut Call) -> Result<Value> {
    let items = call.items()?;
    let size = call.integer(1, "r")?.unwrap_or(0).clamp(0, 1000) as usize;
    let mut rows: Vec<(usize, Vec<Value>)> = vec![(0, Vec::new())];
    for _ in 0..size {
        let mut next = Vec::new();
        for (from, row) in &rows {
            for at in *from..items.len() {
                next.push((at + 1, [row.as_slice(), &items[at..=at]].concat()));
            }
            if next.len() > MAX_ITEMS {
                return fault::fail("there are too many combinations");
            }
        }
        rows = next;
    }
    Ok(value::list(
        rows.into_iter().map(|(_, row)| value::tuple(row)).collect(),
    ))
}

fn permutations(call: &mut Call) -> Result<Value> {
    let items = call.items()?;
    let size = call
        .integer(1, "r")?
        .unwrap_or(items.len() as i128)
        .clamp(0, 1000) as usize;
    let mut rows: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..size {
        let mut next = Vec::new();
        for row in &rows {
            for at in (0..items.len()).filter(|at| !row.contains(at)) {
                next.push([row.as_slice(), &[at]].concat());
            }
            if next.len() > MAX_ITEMS {
                return fault::fail("there are too many permutations");
            }
        }
        rows = next;
    }
    let row = |row: Vec<usize>| value::tuple(row.into_iter().map(|at| items[at].clone()).collect());
    Ok(value::list(rows.into_iter().map(row).collect()))
}

/// `items` is used by [`super::data`], too.
pub fn flat(call: &Call) -> Result<Vec<Value>> {
    flatten(&call.args, Some(1), true, 0)
}

pub fn dictionary(items: Vec<(Value, Value)>) -> Value {
    value::dict(items.into_iter().collect::<Items>())
}
