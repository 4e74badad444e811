//! Methods of Python's strings, lists, dictionaries and times.

use minijinja::value::Value;
use minijinja::{Error, ErrorKind, State};

use crate::fault::{self, Result};
use crate::runtime::{self, split_arguments};
use crate::value::{self, Items, View, view};
use crate::{budget, format, python, time};

const TEXT: &[&str] = &[
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
const LIST: &[&str] = &[
    "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse",
    "sort",
];
const DICT: &[&str] = &[
    "__setitem__",
    "clear",
    "copy",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];
const TUPLE: &[&str] = &["count", "index"];
const TIME: &[&str] = &["isoformat", "strftime", "timestamp", "date"];

pub fn exists(value: &Value, name: &str) -> bool {
    match view(value) {
        View::Text(_) => TEXT.contains(&name),
        View::List(_) => LIST.contains(&name),
        View::Dict(_) => DICT.contains(&name),
        View::Tuple(_) => TUPLE.contains(&name),
        View::DateTime(_) => TIME.contains(&name),
        _ => false,
    }
}

/// All of them, as `type.method`.
pub fn names() -> impl Iterator<Item = String> {
    [
        ("str", TEXT),
        ("list", LIST),
        ("dict", DICT),
        ("tuple", TUPLE),
        ("datetime", TIME),
    ]
    .into_iter()
    .flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind}.{name}")))
}

/// What `dict(value)` and `dict.update(value)` take.
pub fn pairs(value: &Value) -> Result<Items> {
    if let View::Dict(items) = view(value) {
        return Ok(items.get());
    }
    let mut items = Items::new();
    for pair in python::iterate(value)? {
        match <[Value; 2]>::try_from(python::iterate(&pair)?) {
            Ok([key, value]) => items.insert(key, value),
            Err(_) => return fault::refuse("a dict is made of pairs"),
        };
    }
    Ok(items)
}

pub fn call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    let (args, kwargs) = split_arguments(args);
    python::check_depth(&args, 0)?;
    let args = Arguments { args, kwargs };
    budget::spend(50);
    let answer = match runtime::modern_session(state) {
        None => called(value, name, &args)?,
        // As a filter's: what fails is undefined, and an error where it is used.
        Some(_) if args.need_undefined(name) => Value::UNDEFINED,
        Some(session) => match called(value, name, &args) {
            Err(error) if fault::waits(&error) => {
                session.note_waiting(&error);
                Value::UNDEFINED
            }
            answer => answer?,
        },
    };
    budget::spend(answer.as_str().map_or(0, str::len));
    budget::check()?;
    Ok(answer)
}

fn called(value: &Value, name: &str, args: &Arguments) -> Result<Value> {
    match view(value) {
        View::Undefined => Err(fault::undefined()),
        View::Text(text) if TEXT.contains(&name) => text_method(value, &text, name, args),
        View::List(list) => match name {
            "append" => {
                let item = args.need(0)?;
                list.edit(|items| items.push(item));
                Ok(Value::from(()))
            }
            "extend" => {
                let more = python::iterate(&args.need(0)?)?;
                list.edit(|items| items.extend(more));
                Ok(Value::from(()))
            }
            "insert" => {
                let (at, item) = (args.int(0)?.unwrap_or(0), args.need(1)?);
                list.edit(|items| {
                    let length = items.len() as i128;
                    let at = if at < 0 { at + length } else { at }.clamp(0, length);
                    items.insert(at as usize, item);
                });
                Ok(Value::from(()))
            }
            "pop" => {
                let at = args.int(0)?.unwrap_or(-1);
                list.edit(|items| {
                    let at = if at < 0 { at + items.len() as i128 } else { at };
                    usize::try_from(at)
                        .ok()
                        .filter(|at| *at < items.len())
                        .map(|at| items.remove(at))
                })
                .ok_or_else(|| fault::refused("nothing to pop from a list"))
            }
            "remove" => {
                let item = args.need(0)?;
                list.edit(|items| {
                    items
                        .iter()
                        .position(|other| python::equal(other, &item))
                        .map(|at| items.remove(at))
                })
                .map(|_| Value::from(()))
                .ok_or_else(|| fault::refused("what is to be removed is not in the list"))
            }
            "clear" => {
                list.edit(Vec::clear);
                Ok(Value::from(()))
            }
            "reverse" => {
                list.edit(|items| items.reverse());
                Ok(Value::from(()))
            }
            "sort" => {
                let mut items = list.get();
                sort(&mut items)?;
                list.edit(|old| *old = items);
                Ok(Value::from(()))
            }
            "copy" => Ok(value::list(list.get())),
            "count" | "index" => counting(&list.get(), name, args),
            _ => unknown(value, name),
        },
        View::Tuple(items) if TUPLE.contains(&name) => counting(items.get(), name, args),
        View::Dict(dict) => match name {
            "items" => Ok(value::list(
                dict.get()
                    .into_iter()
                    .map(|(key, item)| value::tuple(vec![key, item]))
                    .collect(),
            )),
            "keys" => Ok(value::list(dict.get().into_keys().collect())),
            "values" => Ok(value::list(dict.get().into_values().collect())),
            "get" => Ok(dict
                .find(&args.need(0)?)
                .or(args.get(1))
                .unwrap_or_else(|| Value::from(()))),
            "__setitem__" => {
                let (key, item) = (args.need(0)?, args.need(1)?);
                dict.edit(|items| items.insert(key, item));
                Ok(Value::from(()))
            }
            "copy" => Ok(value::dict(dict.get())),
            "clear" => {
                dict.edit(Items::clear);
                Ok(Value::from(()))
            }
            "update" => {
                let mut more = args
                    .get(0)
                    .map_or(Ok(Items::new()), |value| pairs(&value))?;
                more.extend(
                    args.kwargs
                        .iter()
                        .map(|(k, v)| (Value::from(k.as_str()), v.clone())),
                );
                dict.edit(|items| items.extend(more));
                Ok(Value::from(()))
            }
            "pop" => {
                let key = args.need(0)?;
                dict.edit(|items| items.shift_remove(&key))
                    .or(args.get(1))
                    .ok_or_else(|| fault::refused("what is to be popped is not in the dict"))
            }
            "popitem" => dict
                .edit(Items::pop)
                .map(|(key, item)| value::tuple(vec![key, item]))
                .ok_or_else(|| fault::refused("nothing to pop from a dict")),
            "setdefault" => {
                let (key, default) = (
                    args.need(0)?,
                    args.get(1).unwrap_or_else(|| Value::from(())),
                );
                Ok(dict.edit(|items| items.entry(key).or_insert(default).clone()))
            }
            _ => unknown(value, name),
        },
        View::DateTime(at) => match name {
            "strftime" => Ok(Value::from(time::strftime(at, &args.text(0)?))),
            "isoformat" => Ok(Value::from(time::display(at).replacen(' ', "T", 1))),
            "timestamp" => Ok(Value::from(at.seconds as f64 + f64::from(at.micros) / 1e6)),
            "date" => Ok(Value::from(time::strftime(at, "%Y-%m-%d"))),
            _ => unknown(value, name),
        },
        _ => unknown(value, name),
    }
}

/// Methods that Python has and this crate has not.
const MISSING: &[&str] = &[
    "as_integer_ratio",
    "astimezone",
    "bit_count",
    "bit_length",
    "combine",
    "conjugate",
    "ctime",
    "dst",
    "fromhex",
    "fromkeys",
    "hex",
    "is_integer",
    "isidentifier",
    "isocalendar",
    "isoweekday",
    "isprintable",
    "maketrans",
    "replace",
    "time",
    "timetuple",
    "timetz",
    "to_bytes",
    "toordinal",
    "translate",
    "utcoffset",
    "weekday",
];

/// A method that the type does not have is an undefined value being called.
fn unknown(value: &Value, name: &str) -> Result<Value> {
    if matches!(view(value), View::Other) || name.starts_with('_') || MISSING.contains(&name) {
        return Err(Error::from(ErrorKind::UnknownMethod));
    }
    let why = format!("a {} has no method `{name}`", python::type_name(value));
    Err(fault::with_cause(
        ErrorKind::UndefinedError,
        fault::Cause {
            why,
            chain: Vec::new(),
            refused: true,
        },
    ))
}

/// Python's sort: stable, and an error where values have no order.
pub fn sort(items: &mut [Value]) -> Result<()> {
    let mut failure = None;
    items.sort_by(|a, b| {
        python::compare(a, b).unwrap_or_else(|error| {
            failure.get_or_insert(error);
            std::cmp::Ordering::Equal
        })
    });
    failure.map_or(Ok(()), Err)
}

fn counting(items: &[Value], name: &str, args: &Arguments) -> Result<Value> {
    let item = args.need(0)?;
    if name == "count" {
        return Ok(Value::from(
            items
                .iter()
                .filter(|other| python::equal(other, &item))
                .count(),
        ));
    }
    match items.iter().position(|other| python::equal(other, &item)) {
        Some(at) => Ok(Value::from(at)),
        None => fault::refuse("what is looked for is not in the list"),
    }
}

struct Arguments {
    args: Vec<Value>,
    kwargs: Vec<(String, Value)>,
}

impl Arguments {
    fn get(&self, position: usize) -> Option<Value> {
        self.args.get(position).cloned()
    }

    fn named(&self, position: usize, name: &str) -> Option<Value> {
        self.get(position).or_else(|| {
            self.kwargs
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        })
    }

    /// Whether the method would look at something undefined.
    fn need_undefined(&self, method: &str) -> bool {
        let mut all = self
            .args
            .iter()
            .chain(self.kwargs.iter().map(|(_, value)| value));
        let inside = |value: &Value| match view(value) {
            View::Dict(items) => items.get().values().any(Value::is_undefined),
            _ => false,
        };
        all.any(|value| value.is_undefined() || method == "update" && inside(value))
    }

    fn need(&self, position: usize) -> Result<Value> {
        self.get(position)
            .ok_or_else(|| fault::error("a method lacks an argument"))
    }

    fn text(&self, position: usize) -> Result<String> {
        match view(&self.need(position)?) {
            View::Text(text) => Ok(text.to_string()),
            View::Undefined => Err(fault::undefined()),
            _ => fault::fail("a method's argument is no string"),
        }
    }

    fn int(&self, position: usize) -> Result<Option<i128>> {
        match self.get(position) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(value) => python::integer(&value)
                .map(Some)
                .ok_or_else(|| fault::error("a method's argument is no integer")),
        }
    }
}

/// `str.replace`.
pub fn replace(text: &str, old: &str, new: &str, count: Option<i128>) -> Result<String> {
    budget::room(
        text.matches(old)
            .count()
            .saturating_mul(new.len())
            .saturating_add(text.len()),
    )?;
    Ok(match count {
        Some(count) if count >= 0 => {
            text.replacen(old, new, usize::try_from(count).unwrap_or(usize::MAX))
        }
        _ => text.replace(old, new),
    })
}

/// `separator.join(parts)`.
pub fn joined(parts: &[String], separator: &str) -> Result<String> {
    let length: usize = parts.iter().map(String::len).sum();
    budget::room(length.saturating_add(parts.len().saturating_mul(separator.len())))?;
    Ok(parts.join(separator))
}

/// `str.splitlines`.
pub fn lines(text: &str, keep: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        ) {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.peek().is_some_and(|(_, next)| *next == '\n') {
            chars.next();
            end += 1;
        }
        lines.push(text[start..if keep { end } else { at }].to_owned());
        start = end;
    }
    if start < text.len() {
        lines.push(text[start..].to_owned());
    }
    lines
}

/// `str.title`.
pub fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    out
}

pub fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first
            .to_uppercase()
            .chain(chars.flat_map(char::to_lowercase))
            .collect(),
        None => String::new(),
    }
}

pub fn split(text: &str, separator: Option<&str>, limit: Option<usize>) -> Vec<String> {
    let Some(separator) = separator else {
        let mut parts = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if limit.is_some_and(|limit| parts.len() >= limit) {
                parts.push(rest.trim_end().to_owned());
                return parts;
            }
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            parts.push(rest[..end].to_owned());
            rest = rest[end..].trim_start();
        }
        return parts;
    };
    match limit {
        Some(limit) => text
            .splitn(limit.saturating_add(1), separator)
            .map(str::to_owned)
            .collect(),
        None => text.split(separator).map(str::to_owned).collect(),
    }
}

fn text_method(value: &Value, text: &str, name: &str, args: &Arguments) -> Result<Value> {
    let is = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    let stripped = || -> Result<Option<Vec<char>>> {
        match args.get(0) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(_) => Ok(Some(args.text(0)?.chars().collect())),
        }
    };
    let texts = |items: Vec<String>| value::list(items.into_iter().map(Value::from).collect());
    Ok(match name {
        "upper" => Value::from(text.to_uppercase()),
        "lower" | "casefold" => Value::from(text.to_lowercase()),
        "title" => Value::from(title(text)),
        "capitalize" => Value::from(capitalize(text)),
        "swapcase" => Value::from(
            text.chars()
                .flat_map(|c| -> Vec<char> {
                    if c.is_uppercase() {
                        c.to_lowercase().collect()
                    } else {
                        c.to_uppercase().collect()
                    }
                })
                .collect::<String>(),
        ),
        "strip" | "lstrip" | "rstrip" => {
            let set = stripped()?;
            let matches = |c: char| {
                set.as_ref()
                    .map_or(c.is_whitespace(), |set| set.contains(&c))
            };
            Value::from(match name {
                "strip" => text.trim_matches(matches),
                "lstrip" => text.trim_start_matches(matches),
                _ => text.trim_end_matches(matches),
            })
        }
        "split" | "rsplit" => {
            let separator = match args.named(0, "sep") {
                Some(value) if !value.is_none() => Some(python::defined_text(&value)?),
                _ => None,
            };
            budget::room(text.len().saturating_mul(16))?;
            if separator.as_deref() == Some("") {
                return fault::fail("an empty separator");
            }
            let limit = match args.named(1, "maxsplit") {
                Some(value) => {
                    python::integer(&value).and_then(|limit| usize::try_from(limit).ok())
                }
                None => None,
            };
            if name == "rsplit"
                && let Some(limit) = limit
            {
                let mut parts: Vec<String> = match &separator {
                    Some(separator) => text
                        .rsplitn(limit.saturating_add(1), separator.as_str())
                        .map(str::to_owned)
                        .collect(),
                    None => {
                        let reversed: String = text.chars().rev().collect();
                        split(&reversed, None, Some(limit))
                            .into_iter()
                            .map(|part| part.chars().rev().collect())
                            .collect()
                    }
                };
                parts.reverse();
                return Ok(texts(parts));
            }
            texts(split(text, separator.as_deref(), limit))
        }
        "splitlines" => texts(lines(
            text,
            args.named(0, "keepends")
                .is_some_and(|value| value.is_true()),
        )),
        "join" => {
            let mut parts = Vec::new();
            for part in python::iterate(&args.need(0)?)? {
                match view(&part) {
                    View::Text(part) => parts.push(part.to_string()),
                    View::Undefined => return Err(fault::undefined()),
                    _ => return fault::fail("only strings can be joined by a method"),
                }
            }
            Value::from(joined(&parts, text)?)
        }
        "startswith" | "endswith" => {
            let options = match python::sequence(&args.need(0)?) {
                Some(items) => items.iter().map(python::text).collect(),
                None => vec![args.text(0)?],
            };
            Value::from(options.iter().any(|part| match name {
                "startswith" => text.starts_with(part.as_str()),
                _ => text.ends_with(part.as_str()),
            }))
        }
        "replace" => Value::from(replace(text, &args.text(0)?, &args.text(1)?, args.int(2)?)?),
        "find" | "index" | "rfind" | "rindex" => {
            let part = args.text(0)?;
            let at = if name.starts_with('r') {
                text.rfind(&part)
            } else {
                text.find(&part)
            };
            match at {
                Some(at) => Value::from(text[..at].chars().count()),
                None if name.ends_with("find") => Value::from(-1),
                None => return fault::refuse("what is looked for is not in the string"),
            }
        }
        "count" => {
            let part = args.text(0)?;
            Value::from(match part.is_empty() {
                true => text.chars().count() + 1,
                false => text.matches(part.as_str()).count(),
            })
        }
        "zfill" | "ljust" | "rjust" | "center" => {
            let width = args.int(0)?.unwrap_or(0).clamp(0, 1_000_000) as usize;
            let fill = match args.get(1) {
                Some(_) if name != "zfill" => args.text(1)?.chars().next().unwrap_or(' '),
                _ => ' ',
            };
            let missing = width.saturating_sub(text.chars().count());
            let pad = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
            Value::from(match name {
                "ljust" => format!("{text}{}", pad(missing)),
                "rjust" => format!("{}{text}", pad(missing)),
                "center" => {
                    // CPython gives the odd blank to the left when the width is odd.
                    let left = missing / 2 + (missing & width & 1);
                    format!("{}{text}{}", pad(left), pad(missing - left))
                }
                _ => {
                    let (sign, digits) = match text.strip_prefix(['-', '+']) {
                        Some(digits) => (&text[..1], digits),
                        None => ("", text),
                    };
                    format!("{sign}{}{digits}", "0".repeat(missing))
                }
            })
        }
        "removeprefix" => Value::from(text.strip_prefix(args.text(0)?.as_str()).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(args.text(0)?.as_str()).unwrap_or(text)),
        "partition" | "rpartition" => {
            let separator = args.text(0)?;
            let found = match name {
                "partition" => text.split_once(separator.as_str()),
                _ => text.rsplit_once(separator.as_str()),
            };
            let parts = match (found, name) {
                (Some((before, after)), _) => [before, &separator, after],
                (None, "partition") => [text, "", ""],
                (None, _) => ["", "", text],
            };
            value::tuple(parts.into_iter().map(Value::from).collect())
        }
        "expandtabs" => {
            let size = args.int(0)?.unwrap_or(8).clamp(0, 100) as usize;
            let mut out = String::new();
            let mut column = 0;
            for c in text.chars() {
                match c {
                    '\t' => {
                        let blanks = if size == 0 { 0 } else { size - column % size };
                        out.extend(std::iter::repeat_n(' ', blanks));
                        column += blanks;
                    }
                    c => {
                        column = if c == '\n' { 0 } else { column + 1 };
                        out.push(c);
                    }
                }
            }
            Value::from(out)
        }
        "encode" => Value::from(text),
        "format" => Value::from(format::braces(text, &args.args, &args.kwargs)?),
        "format_map" => {
            let View::Dict(items) = view(&args.need(0)?) else {
                return fault::fail("format_map takes a dict");
            };
            let named: Vec<_> = items
                .get()
                .into_iter()
                .map(|(k, v)| (python::text(&k), v))
                .collect();
            Value::from(format::braces(text, &[], &named)?)
        }
        "isdigit" | "isdecimal" | "isnumeric" => is(|c| c.is_ascii_digit()),
        "isalpha" => is(char::is_alphabetic),
        "isalnum" => is(char::is_alphanumeric),
        "isspace" => is(char::is_whitespace),
        "isascii" => Value::from(text.is_ascii()),
        "islower" => Value::from(
            text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase),
        ),
        "isupper" => Value::from(
            text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase),
        ),
        "istitle" => Value::from(text.chars().any(char::is_alphabetic) && title(text) == text),
        _ => return unknown(value, name),
    })
}

/// `value.path` with the dots and numbers of `map(attribute=…)`.
pub fn path(value: &Value, path: &Value) -> Value {
    let parts: Vec<Value> = match view(path) {
        View::Text(text) => text
            .split('.')
            .map(|part| {
                part.parse::<i64>()
                    .map_or_else(|_| Value::from(part), Value::from)
            })
            .collect(),
        _ => vec![path.clone()],
    };
    let mut current = value.clone();
    for part in parts {
        current = runtime::item(&current, &part).unwrap_or_default();
    }
    current
}
