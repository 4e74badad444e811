//! Typed access to a map of the recipe: what is not known is refused, what is wrong is
//! named with its key and line.

use std::path::Path;
use std::rc::Rc;

use crate::error::{Problem, Result, nearest};
use crate::yaml::{Key, Kind, Node, quote};

/// A map whose keys are all known.
pub(crate) struct Table<'a> {
    /// `settings.REDIS_MAXMEMORY`; empty for the whole recipe.
    place: String,
    line: usize,
    entries: &'a [(Key, Rc<Node>)],
}

impl<'a> Table<'a> {
    /// Checks that `node` is a map with keys of `known` only. A missing value counts as
    /// an empty map.
    pub(crate) fn new(node: &'a Node, place: String, known: &[&str]) -> Result<Table<'a>> {
        let entries = map(node, &place)?;
        for (key, _) in entries {
            if !known.contains(&key.name.as_str()) {
                let within = if place.is_empty() {
                    String::new()
                } else {
                    format!(" in {}", quote(&place))
                };
                let problem = Problem::new(format!(
                    "unknown key {}{within} at line {}",
                    quote(&key.name),
                    key.line
                ));
                let hint = match (key.name.as_str(), nearest(&key.name, known.iter().copied())) {
                    // The one that everybody tries; `variable` is known in settings only.
                    ("default", _) if known.contains(&"variable") => {
                        "the default is the playbook's own value of the variable".to_owned()
                    }
                    (_, Some(name)) => format!("did you mean `{name}`?"),
                    (_, None) => format!("known keys are {}", known.join(", ")),
                };
                return Err(problem.hint(hint));
            }
        }
        Ok(Table {
            place,
            line: node.line,
            entries,
        })
    }

    pub(crate) fn line(&self) -> usize {
        self.line
    }

    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The value of a key; one without a value counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<Field<'a>> {
        let (found, node) = self.entries.iter().find(|(found, _)| found.name == key)?;
        if matches!(node.kind, Kind::Null) {
            return None;
        }
        let place = match self.place.as_str() {
            "" => key.to_owned(),
            place => format!("{place}.{key}"),
        };
        Some(Field {
            place,
            line: found.line,
            node,
        })
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>> {
        self.get(key)
            .map(|field| field.text().map(str::to_owned))
            .transpose()
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        self.get(key).map_or(Ok(false), |field| field.flag())
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<String>> {
        match self.get(key) {
            Some(field) => field
                .list()?
                .iter()
                .map(|item| item.text().map(str::to_owned))
                .collect(),
            None => Ok(Vec::new()),
        }
    }

    /// Seconds, or `90s`, `15m`, `2h`, `1d`.
    pub(crate) fn seconds(&self, key: &str) -> Result<Option<u32>> {
        self.get(key).map(|field| field.seconds()).transpose()
    }
}

/// A value, and how to speak of it.
pub(crate) struct Field<'a> {
    pub(crate) place: String,
    /// Of its key, or of the value itself in a list.
    pub(crate) line: usize,
    pub(crate) node: &'a Node,
}

impl<'a> Field<'a> {
    /// "`ports` at line 3 must be a list, not the number 80"
    pub(crate) fn must(&self, be: &str) -> Problem {
        let problem = Problem::new(format!(
            "{} at line {} must be {be}, not {}",
            quote(&self.place),
            self.line,
            self.node.describe()
        ));
        match &self.node.kind {
            Kind::Bool(_) | Kind::Number(_) if be.starts_with("text") => {
                problem.hint("put the value in quotes to make it text")
            }
            _ => problem,
        }
    }

    /// "`name` at line 1 cannot be `A`: names are lower-case"
    pub(crate) fn cannot(&self, reason: &str) -> Problem {
        let value = match &self.node.kind {
            Kind::Text(text) => quote(text),
            _ => self.node.describe(),
        };
        Problem::new(format!(
            "{} at line {} cannot be {value}: {reason}",
            quote(&self.place),
            self.line
        ))
    }

    /// Text with something in it.
    pub(crate) fn text(&self) -> Result<&'a str> {
        match &self.node.kind {
            Kind::Text(text) if text.trim().is_empty() => Err(self.cannot("it is empty")),
            Kind::Text(text) if text.contains('\0') => Err(self.cannot("it has a zero byte in it")),
            Kind::Text(text) => Ok(text),
            _ => Err(self.must("text")),
        }
    }

    pub(crate) fn flag(&self) -> Result<bool> {
        match &self.node.kind {
            Kind::Bool(value) => Ok(*value),
            _ => Err(self.must("true or false")),
        }
    }

    pub(crate) fn number(&self, min: i64, max: i64) -> Result<i64> {
        let be = match (min, max) {
            (i64::MIN, i64::MAX) => "a whole number".to_owned(),
            _ => format!("a whole number from {min} to {max}"),
        };
        match &self.node.kind {
            Kind::Number(number) => number
                .as_i64()
                .filter(|number| (min..=max).contains(number)),
            _ => None,
        }
        .ok_or_else(|| self.must(&be))
    }

    pub(crate) fn seconds(&self) -> Result<u32> {
        let be = "a number of seconds, or a time such as 90s, 15m, 2h or 1d";
        let seconds = match &self.node.kind {
            Kind::Number(number) => number.as_u64(),
            Kind::Text(text) => {
                values::seconds(text).and_then(|seconds| u64::try_from(seconds).ok())
            }
            _ => None,
        };
        // A 32-bit number of milliseconds is what some engines keep: 24 days are plenty.
        seconds
            .filter(|seconds| *seconds <= 24 * 86_400)
            .map(|seconds| seconds as u32)
            .ok_or_else(|| self.must(be))
    }

    pub(crate) fn list(&self) -> Result<Vec<Field<'a>>> {
        let Kind::List(items) = &self.node.kind else {
            let problem = self.must("a list");
            return Err(match &self.node.kind {
                Kind::Text(text) => problem.hint(format!("write `[{text}]`")),
                Kind::Number(number) => problem.hint(format!("write `[{number}]`")),
                _ => problem,
            });
        };
        Ok(items
            .iter()
            .enumerate()
            .map(|(index, node)| Field {
                place: format!("{}[{index}]", self.place),
                line: node.line,
                node,
            })
            .collect())
    }

    /// The entries of a map with free keys.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a Key, Field<'a>)>> {
        let entries = map(self.node, &self.place)?;
        let field = |(key, node): &'a (Key, Rc<Node>)| {
            let place = format!("{}.{}", self.place, key.name);
            (
                key,
                Field {
                    place,
                    line: key.line,
                    node,
                },
            )
        };
        Ok(entries.iter().map(field).collect())
    }

    pub(crate) fn table(self, known: &[&str]) -> Result<Table<'a>> {
        let line = self.line;
        let table = Table::new(self.node, self.place, known)?;
        Ok(Table { line, ..table })
    }

    /// A path in the box: absolute, without `.`, `..` and doubled slashes.
    pub(crate) fn absolute(&self) -> Result<String> {
        let text = self.text()?;
        let path = Path::new(text);
        if !path.is_absolute() {
            return Err(self.cannot("it is not an absolute path"));
        }
        if text.split('/').any(|part| part == ".." || part == ".") {
            return Err(self.cannot("it has `.` or `..` in it"));
        }
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return Err(self.cannot("it is the root"));
        }
        Ok(format!("/{}", parts.join("/")))
    }
}

fn map<'a>(node: &'a Node, place: &str) -> Result<&'a [(Key, Rc<Node>)]> {
    match &node.kind {
        Kind::Map(entries) => Ok(entries),
        Kind::Null => Ok(&[]),
        _ if place.is_empty() => Err(Problem::new(format!(
            "it must be a map of keys, not {}",
            node.describe()
        ))),
        _ => Err(Problem::new(format!(
            "{} at line {} must be a map, not {}",
            quote(place),
            node.line,
            node.describe()
        ))),
    }
}
