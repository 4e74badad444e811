//! The tests after `is`.

use std::cmp::Ordering;
use std::path::Path;

use minijinja::value::{Value, ValueKind};

use crate::fault::{self, Result};
use crate::filters::{self, regex};
use crate::python;
use crate::runtime::Call;
use crate::value::{View, is_missing, view};

type Test = fn(&mut Call) -> Result<bool>;

/// What looks at undefined values instead of failing on them.
const LENIENT: [&str; 17] = [
    "boolean",
    "callable",
    "defined",
    "false",
    "float",
    "integer",
    "mapping",
    "none",
    "number",
    "sameas",
    "sequence",
    "string",
    "true",
    "undefined",
    "uri",
    "url",
    "urn",
];

const TESTS: &[(&str, Test)] = &[
    ("!=", |call| {
        Ok(!python::equal(call.value(), &second(call)?))
    }),
    ("<", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_lt())
    }),
    ("<=", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_le())
    }),
    ("==", |call| Ok(python::equal(call.value(), &second(call)?))),
    (">", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_gt())
    }),
    (">=", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_ge())
    }),
    ("abs", |call| Ok(call.input()?.starts_with('/'))),
    ("all", |call| Ok(call.items()?.iter().all(Value::is_true))),
    ("any", |call| Ok(call.items()?.iter().any(Value::is_true))),
    ("boolean", |call| Ok(call.value().kind() == ValueKind::Bool)),
    ("callable", |call| {
        Ok(call.value().kind() == ValueKind::Plain)
    }),
    ("change", changed),
    ("changed", changed),
    ("contains", |call| {
        python::contains(call.value(), &second(call)?)
    }),
    ("defined", |call| Ok(!is_missing(call.value()))),
    ("directory", |call| Ok(Path::new(&call.input()?).is_dir())),
    ("divisibleby", |call| {
        match (
            python::integer(call.value()),
            python::integer(&second(call)?),
        ) {
            (Some(_), Some(0)) | (None, _) | (_, None) => fault::fail("divisibleby takes integers"),
            (Some(a), Some(b)) => Ok(a.checked_rem(b).unwrap_or(0) == 0),
        }
    }),
    ("eq", |call| Ok(python::equal(call.value(), &second(call)?))),
    ("equalto", |call| {
        Ok(python::equal(call.value(), &second(call)?))
    }),
    ("escaped", |_| Ok(false)),
    ("even", |call| integer(call).map(|value| value % 2 == 0)),
    ("exists", |call| Ok(Path::new(&call.input()?).exists())),
    ("failed", failed),
    ("failure", failed),
    ("false", |call| {
        Ok(matches!(view(call.value()), View::Bool(false)))
    }),
    ("falsy", |call| truthy(call).map(|value| !value)),
    ("file", |call| Ok(Path::new(&call.input()?).is_file())),
    ("filter", |call| {
        let name = call.input()?;
        Ok(filters::names().any(|other| other == filters::plain(&name)))
    }),
    ("finished", |call| {
        Ok(result(call, "finished")?.is_none_or(|value| python::integer(&value) == Some(1)))
    }),
    ("float", |call| {
        Ok(matches!(view(call.value()), View::Float(_)))
    }),
    ("ge", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_ge())
    }),
    ("greaterthan", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_gt())
    }),
    ("gt", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_gt())
    }),
    ("in", |call| python::contains(&second(call)?, call.value())),
    ("integer", |call| {
        Ok(matches!(view(call.value()), View::Int(_)))
    }),
    ("is_abs", |call| Ok(call.input()?.starts_with('/'))),
    ("is_dir", |call| Ok(Path::new(&call.input()?).is_dir())),
    ("is_file", |call| Ok(Path::new(&call.input()?).is_file())),
    ("is_mount", mount),
    ("is_same_file", same_file),
    ("isnan", |call| {
        Ok(python::number(call.value()).is_some_and(f64::is_nan))
    }),
    ("is_link", |call| Ok(Path::new(&call.input()?).is_symlink())),
    ("issubset", |call| subset(call.value(), &second(call)?)),
    ("issuperset", |call| subset(&second(call)?, call.value())),
    ("iterable", |call| Ok(python::iterate(call.value()).is_ok())),
    ("le", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_le())
    }),
    ("lessthan", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_lt())
    }),
    ("link", |call| Ok(Path::new(&call.input()?).is_symlink())),
    ("link_exists", |call| {
        let path = call.input()?;
        Ok(Path::new(&path).is_symlink() || Path::new(&path).exists())
    }),
    ("lower", |call| {
        let text = call.input()?;
        Ok(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase))
    }),
    ("lt", |call| {
        Ok(python::compare(call.value(), &second(call)?)?.is_lt())
    }),
    ("mapping", |call| Ok(call.value().kind() == ValueKind::Map)),
    ("match", |call| matches(call, "match")),
    ("mount", mount),
    ("nan", |call| {
        Ok(python::number(call.value()).is_some_and(f64::is_nan))
    }),
    ("ne", |call| {
        Ok(!python::equal(call.value(), &second(call)?))
    }),
    ("none", |call| Ok(call.value().is_none())),
    ("number", |call| Ok(python::number(call.value()).is_some())),
    ("odd", |call| integer(call).map(|value| value % 2 != 0)),
    ("reachable", |call| Ok(!truth(result(call, "unreachable")?))),
    ("regex", |call| {
        let kind = call.text_or(4, "match_type", "search")?;
        matches(call, &kind)
    }),
    ("same_file", same_file),
    ("sameas", |call| {
        let other = second(call)?;
        Ok(call.value().kind() == other.kind() && python::equal(call.value(), &other))
    }),
    ("search", |call| matches(call, "search")),
    ("sequence", |call| {
        Ok(matches!(
            call.value().kind(),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::String
        ))
    }),
    ("skip", |call| Ok(truth(result(call, "skipped")?))),
    ("skipped", |call| Ok(truth(result(call, "skipped")?))),
    ("started", |call| {
        Ok(result(call, "started")?.is_none_or(|value| python::integer(&value) == Some(1)))
    }),
    (
        "string",
        |call| Ok(call.value().kind() == ValueKind::String),
    ),
    ("subset", |call| subset(call.value(), &second(call)?)),
    ("succeeded", |call| failed(call).map(|failed| !failed)),
    ("success", |call| failed(call).map(|failed| !failed)),
    ("successful", |call| failed(call).map(|failed| !failed)),
    ("superset", |call| subset(&second(call)?, call.value())),
    ("test", |call| {
        let name = call.input()?;
        Ok(names().any(|other| other == filters::plain(&name)))
    }),
    ("timedout", |call| {
        let Some(period) = result(call, "timedout")? else {
            return Ok(false);
        };
        Ok(crate::runtime::item(&period, &Value::from("period")).is_some_and(|p| p.is_true()))
    }),
    ("true", |call| {
        Ok(matches!(view(call.value()), View::Bool(true)))
    }),
    ("truthy", truthy),
    ("undefined", |call| Ok(is_missing(call.value()))),
    ("unreachable", |call| {
        Ok(truth(result(call, "unreachable")?))
    }),
    ("upper", |call| {
        let text = call.input()?;
        Ok(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase))
    }),
    ("uri", |call| uri(call, false)),
    ("url", |call| uri(call, true)),
    ("urn", |call| {
        Ok(scheme(&call.input()?).is_some_and(|(scheme, _)| scheme == "urn"))
    }),
    ("vault_encrypted", |_| Ok(false)),
    ("version", version),
    ("version_compare", version),
];

/// A URL's scheme in lower case, and the rest.
fn scheme(text: &str) -> Option<(String, &str)> {
    let (head, tail) = text.split_once(':')?;
    let valid = head.starts_with(|c: char| c.is_ascii_alphabetic())
        && head
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    valid.then(|| (head.to_ascii_lowercase(), tail))
}

fn uri(call: &mut Call, is_url: bool) -> Result<bool> {
    if call.value().is_undefined() {
        return Ok(false);
    }
    let text = call.input()?;
    let (scheme, rest) = scheme(&text).unwrap_or((String::new(), &text));
    if let Some(schemes) = call.arg(1, "schemes").filter(|schemes| schemes.is_true())
        && !python::contains(&schemes, &Value::from(scheme.as_str()))?
    {
        return Ok(false);
    }
    let host = rest
        .strip_prefix("//")
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
    Ok(!is_url || host || scheme == "file")
}

#[allow(clippy::disallowed_methods)] // A path that is not there is no error.
fn mount(call: &mut Call) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let path = call.input()?;
    let here = std::fs::symlink_metadata(&path);
    let above = std::fs::symlink_metadata(Path::new(&path).join(".."));
    Ok(match (here, above) {
        (Ok(here), Ok(above)) => {
            !here.is_symlink() && (here.dev() != above.dev() || here.ino() == above.ino())
        }
        _ => false,
    })
}

#[allow(clippy::disallowed_methods)] // The error tells no path.
fn same_file(call: &mut Call) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let other = call.text(1, "other")?;
    match (std::fs::metadata(call.input()?), std::fs::metadata(other)) {
        (Ok(a), Ok(b)) => Ok(a.dev() == b.dev() && a.ino() == b.ino()),
        _ => fault::fail("a file that is not there"),
    }
}

pub fn names() -> impl Iterator<Item = &'static str> {
    TESTS.iter().map(|(name, _)| *name)
}

/// Whether it looks at undefined values since ansible-core 2.19.
pub fn is_lenient(full_name: &str) -> bool {
    matches!(filters::plain(full_name), "defined" | "undefined")
}

pub fn apply(full_name: &str, call: &mut Call) -> Result<bool> {
    // Jinja lets `None`, `True` and `False` stand for their tests.
    let name = match filters::plain(full_name) {
        "None" => "none",
        "True" => "true",
        "False" => "false",
        name => name,
    };
    let Some((_, test)) = TESTS.iter().find(|(other, _)| *other == name) else {
        return fault::fail(format!("the test `{full_name}` is not supported"));
    };
    if call.value().is_undefined() && !LENIENT.contains(&name) {
        return Err(fault::undefined());
    }
    test(call)
}

fn second(call: &Call) -> Result<Value> {
    match call.args.get(1) {
        Some(value) if value.is_undefined() => Err(fault::undefined()),
        Some(value) => Ok(value.clone()),
        None => call
            .kwargs
            .first()
            .map(|(_, value)| value.clone())
            .ok_or_else(|| fault::error("a test lacks its argument")),
    }
}

fn integer(call: &Call) -> Result<i128> {
    python::integer(call.value()).ok_or_else(|| fault::error("a test wants an integer"))
}

fn truth(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.is_true())
}

fn result(call: &Call, key: &str) -> Result<Option<Value>> {
    match view(call.value()) {
        View::Dict(items) => Ok(items.find(&Value::from(key))),
        _ => fault::refuse("a test wants a task's result"),
    }
}

fn failed(call: &mut Call) -> Result<bool> {
    Ok(truth(result(call, "failed")?))
}

fn changed(call: &mut Call) -> Result<bool> {
    match result(call, "changed")? {
        Some(value) => Ok(value.is_true()),
        None => Ok(match result(call, "results")? {
            Some(results) => python::iterate(&results)?
                .iter()
                .any(|result| match view(result) {
                    View::Dict(items) => truth(items.find(&Value::from("changed"))),
                    _ => false,
                }),
            None => false,
        }),
    }
}

fn truthy(call: &mut Call) -> Result<bool> {
    if call.flag(1, "convert_bool", false)? {
        match python::text(call.value()).to_lowercase().as_str() {
            "y" | "yes" | "on" | "1" | "true" | "t" | "1.0" => return Ok(true),
            "n" | "no" | "off" | "0" | "false" | "f" | "0.0" => return Ok(false),
            _ => {}
        }
    }
    python::truth(call.value())
}

fn subset(part: &Value, whole: &Value) -> Result<bool> {
    let whole = python::iterate(whole)?;
    Ok(python::iterate(part)?
        .iter()
        .all(|item| whole.iter().any(|other| python::equal(other, item))))
}

fn matches(call: &mut Call, kind: &str) -> Result<bool> {
    let text = call.input()?;
    let pattern = call.text_or(1, "pattern", "")?;
    let pattern = match kind {
        "match" => format!("\\A(?:{pattern})"),
        "fullmatch" => format!("\\A(?:{pattern})\\Z"),
        _ => pattern,
    };
    let regex = regex::compile(
        &pattern,
        call.flag(2, "ignorecase", false)?,
        call.flag(3, "multiline", false)?,
    )?;
    regex
        .is_match(&text)
        .map_err(|_| fault::error("a regular expression that takes too long"))
}

/// A part of a LooseVersion: numbers and words do not compare in Python.
#[derive(PartialEq)]
enum Part {
    Number(u128),
    Word(String),
}

fn loose(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let kind = |c: char| {
            if c.is_ascii_digit() {
                0
            } else if c.is_ascii_lowercase() {
                1
            } else if c == '.' {
                2
            } else {
                3
            }
        };
        let end = rest
            .find(|other: char| kind(other) != kind(c))
            .unwrap_or(rest.len());
        let end = if c == '.' { 1 } else { end };
        let (part, tail) = rest.split_at(end);
        match kind(c) {
            0 => parts.push(
                part.parse()
                    .map_or_else(|_| Part::Word(part.to_owned()), Part::Number),
            ),
            2 => {}
            _ => parts.push(Part::Word(part.to_owned())),
        }
        rest = tail;
    }
    parts
}

fn compare_loose(a: &str, b: &str) -> Result<Ordering> {
    let (a, b) = (loose(a), loose(b));
    for (a, b) in a.iter().zip(&b) {
        let order = match (a, b) {
            (Part::Number(a), Part::Number(b)) => a.cmp(b),
            (Part::Word(a), Part::Word(b)) => a.cmp(b),
            _ => return fault::refuse("versions that cannot be compared"),
        };
        if order != Ordering::Equal {
            return Ok(order);
        }
    }
    Ok(a.len().cmp(&b.len()))
}

/// Semantic versions and, near enough, PEP 440's: a pre-release comes before its release.
fn compare_semantic(a: &str, b: &str) -> Result<Ordering> {
    let split = |text: &str| {
        let text = text
            .split('+')
            .next()
            .unwrap_or_default()
            .trim_start_matches('v')
            .to_owned();
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let numbers: Vec<u128> = text[..end]
            .split('.')
            .filter_map(|part| part.parse().ok())
            .collect();
        (
            numbers,
            text[end..].trim_start_matches(['-', '.', '_']).to_owned(),
        )
    };
    let ((a, a_pre), (b, b_pre)) = (split(a), split(b));
    for at in 0..a.len().max(b.len()) {
        let order = a.get(at).unwrap_or(&0).cmp(b.get(at).unwrap_or(&0));
        if order != Ordering::Equal {
            return Ok(order);
        }
    }
    match (a_pre.is_empty(), b_pre.is_empty()) {
        (true, true) => Ok(Ordering::Equal),
        (true, false) => Ok(Ordering::Greater),
        (false, true) => Ok(Ordering::Less),
        _ => compare_loose(&a_pre, &b_pre),
    }
}

fn version(call: &mut Call) -> Result<bool> {
    let (a, b) = (call.input()?, call.text(1, "version")?);
    if a.is_empty() || b.is_empty() {
        return fault::fail("an empty version");
    }
    let operator = call.text_or(2, "operator", "eq")?;
    let strict = call.flag(3, "strict", false)?;
    let kind = match call.arg(4, "version_type") {
        Some(kind) if !kind.is_none() => python::text(&kind),
        _ => "loose".to_owned(),
    };
    let order = match kind.as_str() {
        "loose" if !strict => compare_loose(&a, &b)?,
        _ => compare_semantic(&a, &b)?,
    };
    Ok(match operator.as_str() {
        "==" | "=" | "eq" => order.is_eq(),
        "<" | "lt" => order.is_lt(),
        "<=" | "le" => order.is_le(),
        ">" | "gt" => order.is_gt(),
        ">=" | "ge" => order.is_ge(),
        "!=" | "<>" | "ne" => order.is_ne(),
        _ => return fault::fail("an unknown operator for versions"),
    })
}
