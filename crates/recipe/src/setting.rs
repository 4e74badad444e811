//! The `settings` of a recipe: what an operator may set.

use std::collections::BTreeMap;

use contract::{Kind, Setting};

use crate::error::{Problem, Result, nearest};
use crate::field::{Field, Table, duration, size};
use crate::yaml::{self, quote};

const KEYS: &[&str] = &[
    "variable",
    "type",
    "required",
    "secret",
    "generate",
    "values",
    "choices",
    "min",
    "max",
    "pattern",
    "help",
    "section",
    "required_if",
    "conflicts",
    "deprecated",
    "example",
];

const KINDS: &[(&str, Kind)] = &[
    ("string", Kind::String),
    ("int", Kind::Int),
    ("bool", Kind::Bool),
    ("port", Kind::Port),
    ("host", Kind::Host),
    ("url", Kind::Url),
    ("email", Kind::Email),
    ("enum", Kind::Enum),
    ("list", Kind::List),
    ("map", Kind::Map),
    ("duration", Kind::Duration),
    ("size", Kind::Size),
    ("path", Kind::Path),
    ("percent", Kind::Percent),
    ("cron", Kind::Cron),
    ("timezone", Kind::Timezone),
    ("certificate", Kind::Certificate),
    ("key", Kind::Key),
    ("secret", Kind::Secret),
];

pub(crate) fn settings(field: &Field) -> Result<BTreeMap<String, Setting>> {
    let mut settings = BTreeMap::new();
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in field.entries()? {
        let name = key.name.as_str();
        let mut letters = name.bytes();
        if !letters.next().is_some_and(|byte| byte.is_ascii_uppercase())
            || !letters
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        {
            let problem = Problem::new(format!(
                "the setting {} at line {} must be named by capital letters, digits and `_`",
                quote(name),
                key.line
            ));
            let better: String = name
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() {
                        c.to_ascii_uppercase()
                    } else {
                        '_'
                    }
                })
                .collect();
            return Err(match better.starts_with(|c: char| c.is_ascii_uppercase()) {
                true => problem.hint(format!("write `{better}`")),
                false => problem,
            });
        }
        let setting = setting(name, value.table(KEYS)?)?;
        if let Some(other) = variables.insert(setting.variable.clone(), name.to_owned()) {
            return Err(Problem::new(format!(
                "the settings `{other}` and `{name}` (line {}) both set the variable `{}`",
                key.line, setting.variable
            )));
        }
        settings.insert(name.to_owned(), setting);
    }
    for name in settings.keys() {
        if let Some(plain) = name
            .strip_suffix("_FILE")
            .filter(|plain| settings.contains_key(*plain))
        {
            return Err(Problem::new(format!("there cannot be settings `{plain}` and `{name}` at once"))
                .hint(format!("`{name}` already names a file that holds the value of `{plain}`; rename one of them")));
        }
    }
    Ok(settings)
}

fn setting(name: &str, table: Table) -> Result<Setting> {
    let mut kind = match table.get("type") {
        Some(field) => kind(&field)?,
        None => Kind::String,
    };
    let mut secret = table.flag("secret")?;
    if secret && kind == Kind::String {
        kind = Kind::Secret;
    }
    secret |= matches!(kind, Kind::Secret | Kind::Key);

    let variable = match table.get("variable") {
        Some(field) => {
            let text = field.text()?;
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if !text.bytes().all(word) || text.as_bytes()[0].is_ascii_digit() {
                return Err(field.cannot("a variable's name is made of letters, digits and `_`"));
            }
            text.to_owned()
        }
        None => name.to_lowercase(),
    };
    let required = table.flag("required")?;
    let generate = match table.get("generate") {
        None => None,
        Some(field) if !secret => {
            return Err(Problem::new(format!(
                "{} at line {} is for secrets only",
                quote(&field.place),
                field.line
            ))
            .hint("add `type: secret`"));
        }
        Some(field) if required => {
            return Err(field
                .cannot("a required setting is never generated")
                .hint("remove one of the two"));
        }
        Some(field) => match &field.node.kind {
            yaml::Kind::Bool(true) => Some(32),
            yaml::Kind::Bool(false) => None,
            _ => Some(field.number(8, 1024)? as u16),
        },
    };
    let pattern = match table.get("pattern") {
        None => None,
        Some(field) => {
            let text = field.text()?;
            if let Err(error) = fancy_regex::Regex::new(text) {
                return Err(field.cannot(&format!(
                    "it is not a regular expression ({})",
                    one_line(&error)
                )));
            }
            Some(text.to_owned())
        }
    };
    let (min, max) = (bound(&table, "min", kind)?, bound(&table, "max", kind)?);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(Problem::new(format!(
            "{} at line {}: `min` is greater than `max`",
            quote(table.place()),
            table.line()
        )));
    }
    Ok(Setting {
        variable,
        kind,
        required,
        secret,
        required_if: table.text("required_if")?,
        conflicts: table.texts("conflicts")?,
        deprecated: table.texts("deprecated")?,
        generate,
        choices: choices(&table, kind)?,
        min,
        max,
        pattern,
        default: None,
        help: table
            .text("help")?
            .map(|text| text.trim().to_owned())
            .unwrap_or_default(),
        example: table.text("example")?,
        section: table.text("section")?,
        files: Vec::new(),
    })
}

fn kind(field: &Field) -> Result<Kind> {
    let text = field.text()?;
    if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == text) {
        return Ok(*kind);
    }
    let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let meant = match text {
        "str" | "text" => Some("string"),
        "integer" | "number" => Some("int"),
        "boolean" => Some("bool"),
        "password" => Some("secret"),
        "dict" | "object" => Some("map"),
        "uri" => Some("url"),
        "hostname" => Some("host"),
        text => nearest(text, names.iter().copied()),
    };
    let problem = field.cannot(&format!("it must be one of {}", names.join(", ")));
    Err(match meant {
        Some(name) => problem.hint(format!("did you mean `{name}`?")),
        None => problem,
    })
}

/// `min` or `max`: a number, or with sizes and durations a text such as `64mb` or `15m`.
fn bound(table: &Table, key: &str, kind: Kind) -> Result<Option<i64>> {
    let Some(field) = table.get(key) else {
        return Ok(None);
    };
    let convert: fn(&str) -> Option<u64> = match kind {
        Kind::Int | Kind::Port => return field.number(i64::MIN, i64::MAX).map(Some),
        Kind::Size => size,
        Kind::Duration => duration,
        _ => {
            return Err(Problem::new(format!(
                "{} at line {} is for the types int, port, size and duration only",
                quote(&field.place),
                field.line
            ))
            .hint(match key {
                "min" => "use `pattern` for the length of text: `.{8,}`",
                _ => "use `pattern` for the length of text: `.{0,64}`",
            }));
        }
    };
    match &field.node.kind {
        yaml::Kind::Text(text) => convert(text)
            .and_then(|number| i64::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| {
                field.must(if kind == Kind::Size {
                    "a size such as 64mb"
                } else {
                    "a time such as 15m"
                })
            }),
        _ => field.number(0, i64::MAX).map(Some),
    }
}

fn choices(table: &Table, kind: Kind) -> Result<Vec<String>> {
    let field = match (table.get("values"), table.get("choices")) {
        (Some(_), Some(field)) => {
            return Err(Problem::new(format!(
                "{} at line {} means the same as `values`",
                quote(&field.place),
                field.line
            ))
            .hint("remove one of the two"));
        }
        (first, second) => first.or(second),
    };
    match field {
        None if kind == Kind::Enum => Err(Problem::new(format!(
            "{} at line {} has no `values`",
            quote(table.place()),
            table.line()
        ))
        .hint("add `values: [one, other]`")),
        None => Ok(Vec::new()),
        Some(field) if kind != Kind::Enum => Err(Problem::new(format!(
            "{} at line {} is for the type enum only",
            quote(&field.place),
            field.line
        ))
        .hint("add `type: enum`")),
        Some(field) => {
            let mut choices: Vec<String> = Vec::new();
            for item in field.list()? {
                // `[1, 2]` is clear enough; `[on, off]` is not, nobody knows its spelling any more.
                let text = match &item.node.kind {
                    yaml::Kind::Number(number) => number.to_string(),
                    _ => item.text()?.to_owned(),
                };
                if choices.contains(&text) {
                    return Err(item.cannot("it is given twice"));
                }
                choices.push(text);
            }
            if choices.is_empty() {
                return Err(field.cannot("it is empty"));
            }
            Ok(choices)
        }
    }
}

fn one_line(error: &fancy_regex::Error) -> String {
    error
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
