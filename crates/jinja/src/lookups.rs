//! Lookups. Ansible runs them on the machine of who runs the playbook.
//!
//! Those that only compute are computed. All others (`file`, `env`, `pipe`, `url`, …) would
//! mean something else in the box: another environment, other files, other commands. They
//! answer what they answered to the same arguments while building ([`frozen`]), or fail. Rejected: reading the box's
//! environment or files, since a template proven identical at the build would then silently
//! change at the start; running commands; making passwords, for which there are settings.

use std::sync::Arc;

use contract::{TemplateOptions, Variables};
use minijinja::value::{Value, ValueKind};

use crate::dialect::Backslashes;
use crate::fault::{self, Result};
use crate::filters::{data, random};
use crate::frozen::{self, Frozen};
use crate::runtime::Call;
use crate::session::Session;
use crate::value::{self, View, view};
use crate::{budget, format, python};

type Lookup = fn(&mut Lookups) -> Result<Vec<Value>>;

pub fn names() -> impl Iterator<Item = &'static str> {
    LOOKUPS.iter().map(|(name, _)| *name)
}

const LOOKUPS: [(&str, Lookup); 14] = [
    ("cartesian", |it| nested(&it.terms)),
    ("dict", |it| {
        let mut out = Vec::new();
        for term in &it.terms {
            let View::Dict(items) = view(term) else {
                return fault::refuse("the lookup `dict` takes dicts");
            };
            let pair = |(key, item)| value::dict_of([("key", key), ("value", item)]);
            out.extend(items.get().into_iter().map(pair));
        }
        Ok(out)
    }),
    ("flattened", |it| flattened(&it.terms, 0)),
    ("indexed_items", |it| {
        let pair = |(at, item)| value::tuple(vec![Value::from(at), item]);
        Ok(one_level(&it.terms)
            .into_iter()
            .enumerate()
            .map(pair)
            .collect())
    }),
    ("items", |it| Ok(one_level(&it.terms))),
    ("list", |it| Ok(it.terms.clone())),
    ("nested", |it| nested(&it.terms)),
    ("password", password),
    ("sequence", |it| {
        let mut out = Vec::new();
        for term in &it.terms {
            sequence(&python::defined_text(term)?, &mut out)?;
        }
        Ok(out)
    }),
    ("subelements", |it| {
        let [list, path, flags @ ..] = it.terms.as_slice() else {
            return fault::fail("the lookup `subelements` takes a list and a key");
        };
        let skip = flags
            .first()
            .and_then(|flags| crate::runtime::item(flags, &Value::from("skip_missing")))
            .is_some_and(|skip| skip.is_true());
        let key = python::defined_text(path)?;
        if key.contains('.') {
            return fault::fail("the lookup `subelements` takes one key here");
        }
        // Unlike the filter, it takes the list out of what it came from.
        let without = |pair: Value| match python::sequence(&pair).as_deref() {
            Some([element, item]) => {
                let element = match view(element) {
                    View::Dict(items) => {
                        let mut items = items.get();
                        items.shift_remove(&Value::from(key.as_str()));
                        value::dict(items)
                    }
                    _ => element.clone(),
                };
                value::tuple(vec![element, item.clone()])
            }
            _ => pair,
        };
        let pairs = data::subelements(list, path, skip)?;
        Ok(pairs.into_iter().map(without).collect())
    }),
    ("template", template),
    ("together", |it| {
        let columns: Vec<Vec<Value>> = it
            .terms
            .iter()
            .map(python::iterate)
            .collect::<Result<_>>()?;
        let rows = columns.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |column: &Vec<Value>, row: usize| {
            column.get(row).cloned().unwrap_or_else(|| Value::from(()))
        };
        Ok((0..rows)
            .map(|row| value::list(columns.iter().map(|column| cell(column, row)).collect()))
            .collect())
    }),
    ("varnames", |it| {
        let mut out = Vec::new();
        for term in &it.terms {
            let pattern = python::defined_text(term)?;
            let regex = crate::filters::regex::compile(&pattern, false, false)?;
            for name in it.session.names() {
                if regex.is_match(&name).unwrap_or(false) {
                    out.push(Value::from(name));
                }
            }
        }
        Ok(out)
    }),
    ("vars", |it| {
        let mut out = Vec::new();
        for term in &it.terms {
            let name = python::defined_text(term)?;
            out.push(match (it.session.resolve(&name)?, it.option("default")) {
                (Some(value), _) => value,
                (None, Some(default)) if !default.is_undefined() => default,
                _ => {
                    it.session.note_missing(name);
                    return Err(fault::undefined());
                }
            });
        }
        Ok(out)
    }),
];

struct Lookups {
    session: Arc<Session>,
    terms: Vec<Value>,
    options: Vec<(String, Value)>,
}

impl Lookups {
    fn option(&self, name: &str) -> Option<Value> {
        self.options
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        self.option(name)
            .map_or(default, |value| match value.as_str() {
                Some(text) => matches!(text.to_lowercase().as_str(), "true" | "yes" | "1" | "on"),
                None => value.is_true(),
            })
    }
}

/// `lookup(name, term…, option=…)`, `query(…)`.
pub fn call(call: &mut Call, want_list: bool) -> Result<Value> {
    let full_name = call.text(0, "plugin")?;
    let name = ["ansible.builtin.", "ansible.legacy.", "community.general."]
        .iter()
        .find_map(|prefix| full_name.strip_prefix(prefix))
        .unwrap_or(&full_name)
        .to_owned();
    let terms: Vec<Value> = call.args.drain(..).skip(1).collect();
    // Only `default=` of some lookups may be undefined.
    if terms.iter().any(Value::is_undefined) {
        return Err(fault::undefined());
    }
    let mut options = std::mem::take(&mut call.kwargs);
    let want_list = want_list
        || options
            .iter()
            .any(|(key, value)| key == "wantlist" && value.is_true());
    let lenient = options
        .iter()
        .any(|(key, value)| key == "errors" && matches!(value.as_str(), Some("ignore" | "warn")));
    options.retain(|(key, _)| !matches!(key.as_str(), "wantlist" | "allow_unsafe" | "errors"));
    let mut it = Lookups {
        session: call.session.clone(),
        terms,
        options,
    };
    let mut found = match frozen::answer(&name, &it.terms, &it.options, &it.session)? {
        Frozen::Answer(found) => found,
        Frozen::Failed if lenient && want_list => return Ok(value::list(Vec::new())),
        Frozen::Failed if lenient => return Ok(Value::from(())),
        Frozen::Failed => {
            return fault::fail(format!("the lookup `{full_name}` failed while building"));
        }
        other => match (LOOKUPS.iter().find(|(known, _)| *known == name), other) {
            (Some((_, lookup)), _) => lookup(&mut it)?,
            (None, Frozen::Otherwise) => {
                return fault::fail(format!(
                    "the lookup `{full_name}` was made with other arguments while building, and the box cannot make it with these; leave the settings behind them as they were, or give its result to a variable, and make that a setting"
                ));
            }
            (None, _) => {
                return fault::fail(format!(
                    "the lookup `{full_name}` was not made like this while building, and the box cannot make it; give its result to a variable, and make that a setting"
                ));
            }
        },
    };
    if want_list || found.is_empty() {
        return Ok(value::list(found));
    }
    // Ansible joins strings with commas, and unpacks a single value.
    if found.iter().all(|value| value.kind() == ValueKind::String) {
        let all_text = found.iter().all(Value::is_safe);
        let texts: Vec<String> = found.iter().map(python::text).collect();
        let text = texts.join(",");
        return Ok(match all_text {
            true => Value::from_safe_string(text),
            false => Value::from(text),
        });
    }
    Ok(if found.len() == 1 {
        found.remove(0)
    } else {
        value::list(found)
    })
}

/// Terms with the lists among them opened, as `LookupBase._flatten` does.
fn one_level(terms: &[Value]) -> Vec<Value> {
    let mut out = Vec::new();
    for term in terms {
        match python::sequence(term) {
            Some(items) => out.extend(items),
            None => out.push(term.clone()),
        }
    }
    out
}

/// Lists within lists, up to the first that is the text `None` or `null`.
fn flattened(terms: &[Value], depth: usize) -> Result<Vec<Value>> {
    if depth > python::MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    let mut out = Vec::new();
    for term in terms {
        match view(term) {
            View::Text(text) if matches!(&*text, "None" | "null") => break,
            View::List(items) => out.extend(flattened(&items.get(), depth + 1)?),
            View::Undefined => return Err(fault::undefined()),
            _ => out.push(term.clone()),
        }
    }
    Ok(out)
}

fn nested(terms: &[Value]) -> Result<Vec<Value>> {
    if terms.is_empty() {
        return fault::fail("the lookup takes at least one list");
    }
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for term in terms {
        let column = match python::sequence(term) {
            Some(items) => items,
            None => vec![term.clone()],
        };
        budget::room(rows.len().saturating_mul(column.len()).saturating_mul(100))?;
        rows = rows
            .iter()
            .flat_map(|row| {
                column
                    .iter()
                    .map(move |item| [row.as_slice(), std::slice::from_ref(item)].concat())
            })
            .collect();
    }
    Ok(rows.into_iter().map(value::list).collect())
}

/// `key=value` words with quotes, as Ansible's `parse_kv` takes them.
fn words(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars().chain([' ']) {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => {
                if let Some((key, value)) = std::mem::take(&mut word).split_once('=') {
                    out.push((key.to_owned(), value.to_owned()));
                }
            }
            (c, _) => word.push(c),
        }
    }
    out
}

/// `start=1 end=5 stride=2 format=x%02d` or `1-5/2:x%02d`.
fn sequence(term: &str, out: &mut Vec<Value>) -> Result<()> {
    let wrong = || fault::error("the lookup `sequence` does not understand its term");
    let number = |text: &str| python::parse_int(text, 0).ok_or_else(wrong);
    let (mut start, mut end, mut count, mut stride) = (1, None, None, 1);
    let mut pattern = "%d".to_owned();
    if term.contains('=') {
        for (key, given) in words(term) {
            match key.as_str() {
                "start" => start = number(&given)?,
                "end" => end = Some(number(&given)?),
                "count" => count = Some(number(&given)?),
                "stride" => stride = number(&given)?,
                "format" => pattern = given,
                _ => return Err(wrong()),
            }
        }
    } else {
        let (range, given) = term.split_once(':').unwrap_or((term, ""));
        if !given.is_empty() {
            pattern = given.to_owned();
        }
        let (range, step) = range.split_once('/').unwrap_or((range, "1"));
        stride = number(step)?;
        match range.split_once('-') {
            Some((from, to)) => {
                start = number(from)?;
                end = Some(number(to)?);
            }
            None => end = Some(number(range)?),
        }
    }
    let end = match (end, count) {
        (Some(end), None) => end,
        (None, Some(0)) => return Ok(()),
        (None, Some(count)) => start.saturating_add(count.saturating_mul(stride)) - 1,
        _ => return Err(wrong()),
    };
    if stride == 0 || (stride > 0 && end < start) || (stride < 0 && end > start) {
        return Err(wrong());
    }
    let mut at = start;
    while (stride > 0 && at <= end) || (stride < 0 && at >= end) {
        let text = format::percent(&pattern, &value::int(at))?;
        budget::spend(100 + text.len());
        budget::check()?;
        out.push(Value::from(text));
        at = at.saturating_add(stride);
    }
    Ok(())
}

/// Only with a seed, and kept nowhere: everything else makes a secret that must not be the
/// same in every box.
fn password(it: &mut Lookups) -> Result<Vec<Value>> {
    let mut out = Vec::new();
    for term in &it.terms {
        let term = python::defined_text(term)?;
        let (path, rest) = term.split_once(' ').unwrap_or((&term, ""));
        let given = words(rest);
        let option = |name: &str| {
            given
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| Value::from(value.as_str()))
                .or_else(|| it.option(name))
                .filter(|value| !value.is_none())
        };
        let Some(seed) =
            option("seed").filter(|_| path == "/dev/null" && option("encrypt").is_none())
        else {
            return fault::fail(
                "the lookup `password` makes a secret while building; make its variable a generated setting",
            );
        };
        let length = match option("length") {
            None => 20,
            Some(length) => python::parse_int(&python::text(&length), 10)
                .and_then(|length| usize::try_from(length).ok())
                .filter(|length| *length <= 100_000)
                .ok_or_else(|| fault::error("the length of a password is a small number"))?,
        };
        let specs: Vec<String> = match option("chars") {
            None => vec!["ascii_letters".into(), "digits".into(), ".,:-_".into()],
            Some(chars) => match python::sequence(&chars) {
                Some(items) => items.iter().map(python::text).collect(),
                None => {
                    let text = python::text(&chars);
                    let mut specs = Vec::new();
                    if text.contains(",,") {
                        specs.push(",".to_owned());
                    }
                    let text = text.replace(",,", ",");
                    specs.extend(text.split(',').filter(|s| !s.is_empty()).map(str::to_owned));
                    specs
                }
            },
        };
        let chars: Vec<char> = specs
            .iter()
            .flat_map(|spec| characters(spec).chars().collect::<Vec<_>>())
            .filter(|c| !matches!(c, '"' | '\''))
            .collect();
        if chars.is_empty() {
            return fault::fail("a password needs characters to choose from");
        }
        // An option of Ansible's is a string, whatever was given.
        let mut random = random::Random::new(&Value::from(python::text(&seed)))?;
        let text: String = (0..length)
            .map(|_| chars[random.below(chars.len() as u64) as usize])
            .collect();
        out.push(Value::from(text));
    }
    Ok(out)
}

/// Names of Python's `string` module.
fn characters(spec: &str) -> &str {
    match spec {
        "ascii_letters" => "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "ascii_lowercase" => "abcdefghijklmnopqrstuvwxyz",
        "ascii_uppercase" => "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "digits" => "0123456789",
        "hexdigits" => "0123456789abcdefABCDEF",
        "octdigits" => "01234567",
        "punctuation" => "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
        other => other,
    }
}

/// Another captured template, with this one's variables.
fn template(it: &mut Lookups) -> Result<Vec<Value>> {
    let mut given = Variables::new();
    if let Some(View::Dict(items)) = it.option("template_vars").as_ref().map(view) {
        for (key, item) in items.get() {
            let json = value::to_json(&item)
                .ok_or_else(|| fault::error("`template_vars` must be plain values"))?;
            given.insert(python::text(&key), json);
        }
    }
    let mut options = TemplateOptions::default();
    for (name, slot) in [
        ("variable_start_string", &mut options.variable_start_string),
        ("variable_end_string", &mut options.variable_end_string),
        ("comment_start_string", &mut options.comment_start_string),
        ("comment_end_string", &mut options.comment_end_string),
    ] {
        if let Some(text) = it.option(name) {
            *slot = python::defined_text(&text)?;
        }
    }
    let convert = it.flag("convert_data", true);
    let mut out = Vec::new();
    for term in &it.terms {
        let name = python::defined_text(term)?;
        let Some(text) = it.session.included(&name).map(str::to_owned) else {
            return fault::fail("the template of a lookup was not captured");
        };
        let inner = it.session.nested(given.clone(), &options)?;
        let value = inner
            .template(&text, &options, Backslashes::Escapes)
            .map_err(|error| inner.explained(error))?;
        out.push(match convert {
            true => crate::session::converted(value),
            // An empty template is no value since 2.19.
            false if value.is_none() => Value::from_safe_string(String::new()),
            false => Value::from_safe_string(python::text(&value)),
        });
    }
    Ok(out)
}
