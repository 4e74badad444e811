//! The `settings` of a recipe: what an operator may set.

use std::collections::BTreeMap;

use contract::{Kind, Setting};

use crate::error::{Problem, Result, nearest};
use crate::field::{Field, Table};
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

/// Variables that a container has anyway, or that mean something to every program.
const TAKEN: &[&str] = &[
    "PATH", "HOME", "HOSTNAME", "TERM", "LANG", "USER", "SHELL", "PWD", "LOGNAME", "TZ",
];

pub(crate) fn settings(field: &Field) -> Result<BTreeMap<String, Setting>> {
    let mut settings = BTreeMap::new();
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in field.entries()? {
        let name = key.name.as_str();
        if !is_name(name) {
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
        if TAKEN.contains(&name) || name.starts_with("TIFFIN_") {
            return Err(Problem::new(format!(
                "the setting {} at line {} has a name that means something else already",
                quote(name),
                key.line
            ))
            .hint(format!(
                "give it another one, and `variable: {}`",
                name.to_lowercase()
            )));
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
    for (key, value) in field.entries()? {
        others(&key.name, &value.table(KEYS)?, &settings)?;
    }
    Ok(settings)
}

fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|byte| byte.is_ascii_uppercase())
        && letters.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Checks what a setting says about other names.
fn others(name: &str, table: &Table, settings: &BTreeMap<String, Setting>) -> Result<()> {
    let items = |key| table.get(key).map_or(Ok(Vec::new()), |field| field.list());
    for item in items("conflicts")? {
        let other = item.text()?;
        if other == name {
            return Err(item.cannot("it is the setting itself"));
        }
        known(&item, other, settings)?;
    }
    for item in items("deprecated")? {
        let old = item.text()?;
        if !is_name(old) {
            return Err(item.cannot("settings are named by capital letters, digits and `_`"));
        }
        if settings.contains_key(old) || TAKEN.contains(&old) || old.starts_with("TIFFIN_") {
            return Err(item.cannot("it is a name in use"));
        }
        let mut claims = settings
            .iter()
            .flat_map(|(name, s)| s.deprecated.iter().map(move |old| (name, old)));
        if let Some((other, _)) = claims
            .clone()
            .find(|(other, claimed)| *claimed == old && *other != name)
        {
            return Err(item.cannot(&format!("it is an earlier name of `{other}` too")));
        }
        if claims
            .by_ref()
            .filter(|(_, claimed)| *claimed == old)
            .count()
            > 1
        {
            return Err(item.cannot("it is given twice"));
        }
    }
    Ok(())
}

/// That `name`, given by `field`, is a setting.
pub(crate) fn known(field: &Field, name: &str, settings: &BTreeMap<String, Setting>) -> Result<()> {
    if settings.contains_key(name) {
        return Ok(());
    }
    let problem = field.cannot("there is no setting of that name");
    Err(match nearest(name, settings.keys().map(String::as_str)) {
        Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
        None => problem,
    })
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
        Some(field) if kind != Kind::Secret => {
            return Err(field
                .cannot("what is generated is letters and digits, which suits `type: secret` alone")
                .hint("remove one of the two"));
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
            if let Err(error) = values::pattern(text) {
                return Err(field.cannot(&format!("it is not a regular expression ({error})")));
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
    let required_if = required_if(&table, required || generate.is_some())?;
    let setting = Setting {
        variable,
        kind,
        required,
        secret,
        required_if,
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
        section: table.text("section")?.map(|text| text.trim().to_owned()),
        files: Vec::new(),
    };
    agrees_with_itself(&table, &setting)?;
    Ok(setting)
}

fn required_if(table: &Table, has_a_value: bool) -> Result<Option<String>> {
    let Some(field) = table.get("required_if") else {
        return Ok(None);
    };
    let text = field.text()?;
    if has_a_value {
        return Err(field
            .cannot("the setting is required or generated anyway")
            .hint("remove one of the two"));
    }
    if text.contains("{{") || text.contains("{%") {
        return Err(field
            .cannot("it is an expression already")
            .hint("write it as Ansible's `when:`, without braces"));
    }
    Ok(Some(text.to_owned()))
}

/// What the recipe shows and makes must be what the box takes.
fn agrees_with_itself(table: &Table, setting: &Setting) -> Result<()> {
    if let Some(field) = table.get("example") {
        if matches!(setting.kind, Kind::Secret | Kind::Key) {
            return Err(field
                .cannot("somebody would use it")
                .hint("describe the secret in `help`"));
        }
        let example = setting.example.as_deref().unwrap_or_default();
        values::convert(setting, example)
            .map_err(|allowed| field.cannot(&format!("the setting takes {allowed}")))?;
    }
    if let (Some(length), Some(field)) = (setting.generate, table.get("pattern")) {
        for letter in ["a", "Z", "5"] {
            let text = letter.repeat(length.into());
            if values::convert(setting, &text).is_err() {
                return Err(field
                    .cannot(&format!(
                        "it refuses {length} letters and digits, which are what is generated"
                    ))
                    .hint("`[A-Za-z0-9]*` takes all of them"));
            }
        }
    }
    for choice in &setting.choices {
        if let (Err(allowed), Some(field)) =
            (values::convert(setting, choice), table.get("pattern"))
        {
            return Err(field.cannot(&format!("it refuses the choice `{choice}`: {allowed}")));
        }
    }
    Ok(())
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
    let convert = match kind {
        Kind::Int => return field.number(i64::MIN, i64::MAX).map(Some),
        Kind::Port => return field.number(1, 65535).map(Some),
        Kind::Percent => return field.number(0, 100).map(Some),
        Kind::Size => values::bytes,
        Kind::Duration => values::seconds,
        _ => {
            return Err(Problem::new(format!(
                "{} at line {} is for the types int, port, percent, size and duration only",
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
        yaml::Kind::Text(text) => convert(text).map(Some).ok_or_else(|| {
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
