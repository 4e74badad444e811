//! One rendering: resolves variables when they are used, as Ansible's `AnsibleJ2Vars` does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use contract::{TemplateOptions, Variables};
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Value as Json;

use crate::budget;
use crate::dialect::{self, Backslashes, Malformed, Rewritten};
use crate::fault::{self, Cause, Result};
use crate::frozen::FROZEN;
use crate::python;
use crate::runtime;
use crate::value;

/// Variables that refer to variables: more than anybody writes, less than the stack holds.
const MAX_CHAIN: usize = 40;
const MAX_NESTED: usize = 8;

pub struct Session {
    settings: Arc<Variables>,
    raw: Vec<Arc<Variables>>,
    /// Text of included templates, by name.
    includes: Arc<BTreeMap<String, String>>,
    /// Templates that render templates (the lookup `template`), so that they cannot do so for ever.
    depth: usize,
    /// The playbook's Ansible is 2.19 or later, which the variable `ansible_version` tells.
    pub modern: bool,
    /// How many values the template being rendered wrote, and the last one.
    written: Mutex<Option<(usize, Value)>>,
    environment: Environment<'static>,
    /// Jinja looks a name up once per template, so that a list can be appended to.
    cache: Mutex<HashMap<String, Value>>,
    resolving: Mutex<Vec<String>>,
    /// What was last found to be undefined, for the error message.
    missing: Mutex<Missing>,
    this: Weak<Session>,
}

#[derive(Default)]
struct Missing {
    what: String,
    /// It is there, but its making failed: nothing that a `default` stands for.
    failed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub fn new(
        settings: Arc<Variables>,
        raw: Vec<Arc<Variables>>,
        includes: &BTreeMap<String, String>,
        options: &TemplateOptions,
    ) -> Arc<Session> {
        budget::start();
        Session::with(settings, raw, Arc::new(includes.clone()), options, 0)
    }

    fn with(
        settings: Arc<Variables>,
        raw: Vec<Arc<Variables>>,
        includes: Arc<BTreeMap<String, String>>,
        options: &TemplateOptions,
        depth: usize,
    ) -> Arc<Session> {
        let modern = raw
            .iter()
            .find_map(|map| is_modern(map.get("ansible_version")?));
        let modern = modern.unwrap_or(false);
        Arc::new_cyclic(|this| Session {
            settings,
            raw,
            modern,
            written: Mutex::default(),
            environment: runtime::environment(this, includes.clone(), options.clone()),
            includes,
            depth,
            cache: Mutex::default(),
            resolving: Mutex::default(),
            missing: Mutex::default(),
            this: this.clone(),
        })
    }

    /// For a template of its own that sees `variables` before all others.
    pub fn nested(&self, variables: Variables, options: &TemplateOptions) -> Result<Arc<Session>> {
        if self.depth >= MAX_NESTED {
            return fault::fail("templates look each other up too deeply");
        }
        let raw = [Arc::new(variables)]
            .into_iter()
            .chain(self.raw.iter().cloned());
        Ok(Session::with(
            self.settings.clone(),
            raw.collect(),
            self.includes.clone(),
            options,
            self.depth + 1,
        ))
    }

    pub fn included(&self, name: &str) -> Option<&str> {
        included(&self.includes, name)
    }

    /// A nested session's error, with what it knows of the cause.
    pub fn explained(&self, error: Error) -> Error {
        if fault::is_undefined(&error) && fault::cause(&error).is_none() {
            return error;
        }
        fault::with_cause(ErrorKind::InvalidOperation, self.cause(&error))
    }

    fn context(&self) -> Value {
        Value::from_object(Names {
            session: self.this.clone(),
        })
    }

    /// A template's whole text, or a string with expressions.
    pub fn template(
        &self,
        source: &str,
        options: &TemplateOptions,
        backslashes: Backslashes,
    ) -> Result<Value> {
        let rewritten = dialect::rewrite(source, options, backslashes).map_err(malformed)?;
        let value = match rewritten {
            rewritten if self.modern => self.native(rewritten)?,
            Rewritten::Expression(code) => {
                let value = self.expression(code)?;
                if value.is_safe() {
                    value
                } else {
                    Value::from(output(&value)?)
                }
            }
            Rewritten::Template(code) => {
                Value::from(self.environment.render_str(&code, self.context())?)
            }
        };
        // Ansible puts back the newlines at the end that Jinja took away.
        let Some(text) = value.as_str() else {
            return Ok(value);
        };
        let count = |text: &str| text.len() - text.trim_end_matches('\n').len();
        let lost = count(source).saturating_sub(count(text));
        if lost == 0 {
            return Ok(value);
        }
        let text = format!("{text}{}", options.newline_sequence.repeat(lost));
        Ok(if value.is_safe() {
            Value::from_safe_string(text)
        } else {
            Value::from(text)
        })
    }

    /// Since ansible-core 2.19: what is one value keeps its type, the rest is text for good.
    fn native(&self, rewritten: Rewritten) -> Result<Value> {
        let value = match rewritten {
            Rewritten::Expression(code) => self.expression(code)?,
            Rewritten::Template(code) => {
                let outer = lock(&self.written).take();
                let text = self.environment.render_str(&code, self.context());
                let written = std::mem::replace(&mut *lock(&self.written), outer);
                let text = text?;
                match written {
                    Some((1, value)) if output(&value)? == text => value,
                    None if text.is_empty() => Value::from(()),
                    _ => Value::from(text),
                }
            }
        };
        python::check_defined(&value, 0)?;
        Ok(value)
    }

    /// `{{ value }}` was written.
    pub fn note_written(&self, value: &Value) {
        if self.modern {
            let mut written = lock(&self.written);
            let count = written.as_ref().map_or(0, |(count, _)| *count);
            *written = Some((count + 1, value.clone()));
        }
    }

    pub fn expression(&self, code: String) -> Result<Value> {
        self.environment
            .compile_expression_owned(code)?
            .eval(self.context())
    }

    /// The raw value of a variable, and whether it is literal.
    pub fn raw(&self, name: &str) -> Option<(&Json, bool)> {
        if let Some(value) = self.settings.get(name) {
            return Some((value, true));
        }
        self.raw
            .iter()
            .find_map(|map| map.get(name))
            .map(|value| (value, false))
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for map in self.raw.iter().rev().chain([&self.settings]) {
            for name in map.keys().filter(|name| *name != FROZEN) {
                if seen.insert(name.clone()) {
                    names.push(name.clone());
                }
            }
        }
        names
    }

    /// A variable's value; `None` when it, or something that it needs, is undefined.
    pub fn resolve(&self, name: &str) -> Result<Option<Value>> {
        if let Some(value) = lock(&self.cache).get(name) {
            return Ok(Some(value.clone()));
        }
        let Some((raw, literal)) = self.raw(name) else {
            return Ok(self.magic(name));
        };
        if literal {
            let value = value::from_json(raw);
            lock(&self.cache).insert(name.to_owned(), value.clone());
            return Ok(Some(value));
        }
        if name == "hostvars"
            && let Json::Object(hosts) = raw
        {
            let hosts = hosts.iter().map(|(host, vars)| {
                let value = match vars {
                    Json::Object(map) => Value::from_object(LazyMap {
                        session: self.this.clone(),
                        map: map.clone(),
                    }),
                    other => value::from_json(other),
                };
                (host.clone(), value)
            });
            return Ok(Some(value::dict_of(hosts)));
        }
        if name == "vars" {
            return Ok(Some(value::from_json(raw)));
        }
        {
            let mut resolving = lock(&self.resolving);
            if let Some(start) = resolving.iter().position(|other| other == name) {
                let mut chain = resolving[start..].to_vec();
                chain.push(name.to_owned());
                let why = format!(
                    "the variable {name} refers to itself ({})",
                    chain.join(" -> ")
                );
                return fault::fail(why);
            }
            if resolving.len() >= MAX_CHAIN {
                return fault::fail("variables refer to each other too deeply");
            }
            resolving.push(name.to_owned());
        }
        let value = self.value(raw);
        lock(&self.resolving).pop();
        match value {
            Ok(value) => {
                lock(&self.cache).insert(name.to_owned(), value.clone());
                Ok(Some(value))
            }
            Err(error) if fault::is_undefined(&error) => Ok(None),
            Err(error) if self.modern && fault::waits(&error) => {
                self.note_waiting(&error);
                Ok(None)
            }
            Err(error) => Err(self.in_variable(name, error)),
        }
    }

    /// A part of a raw value. Since ansible-core 2.19 each is rendered when it is used, so
    /// one that fails is no matter until then.
    fn part(&self, raw: &Json) -> Result<Value> {
        match self.value(raw) {
            Err(error) if self.modern && fault::waits(&error) => {
                self.note_waiting(&error);
                Ok(Value::UNDEFINED)
            }
            answer => answer,
        }
    }

    /// A variable that `hostvars` answers: before 2.19 text that needs something undefined
    /// stays as it was written.
    fn left_where_undefined(&self, raw: &Json) -> Result<Value> {
        match raw {
            Json::Array(items) => items
                .iter()
                .map(|item| self.left_where_undefined(item))
                .collect::<Result<_>>()
                .map(value::list),
            Json::Object(map) if value::unsafe_text(map).is_none() => map
                .iter()
                .map(|(key, item)| Ok((key.as_str(), self.left_where_undefined(item)?)))
                .collect::<Result<Vec<_>>>()
                .map(value::dict_of),
            _ => match self.value(raw) {
                Err(error) if fault::is_undefined(&error) => Ok(value::from_json(raw)),
                answer => answer,
            },
        }
    }

    /// A raw value, with every string in it rendered.
    pub fn value(&self, raw: &Json) -> Result<Value> {
        match raw {
            Json::String(text) => self.text(text),
            Json::Array(items) => Ok(value::list(
                items
                    .iter()
                    .map(|item| self.part(item))
                    .collect::<Result<_>>()?,
            )),
            Json::Object(map) => match value::unsafe_text(map) {
                Some(text) => Ok(Value::from(text)),
                None => {
                    let mut items = value::Items::new();
                    for (key, item) in map {
                        items.insert(Value::from(key.as_str()), self.part(item)?);
                    }
                    Ok(value::dict(items))
                }
            },
            other => Ok(value::from_json(other)),
        }
    }

    /// `Templar.template` on a string: rendered, and turned into the list, map or boolean that it looks like.
    fn text(&self, text: &str) -> Result<Value> {
        if !["{{", "{%", "{#"].iter().any(|mark| text.contains(mark)) {
            return Ok(Value::from(text));
        }
        if let Some(name) = single_name(text)
            && let Some((raw @ (Json::Null | Json::Bool(_) | Json::Number(_)), _)) = self.raw(name)
        {
            return Ok(value::from_json(raw));
        }
        let value = self.template(text, &TemplateOptions::default(), Backslashes::Literal)?;
        if self.modern {
            return Ok(value);
        }
        Ok(converted(value))
    }

    fn magic(&self, name: &str) -> Option<Value> {
        match name {
            "vars" => Some(Value::from_object(AllVariables {
                session: self.this.clone(),
                rendered: false,
            })),
            "hostvars" => {
                let host = match self.resolve("inventory_hostname") {
                    Ok(Some(host)) => host,
                    _ => Value::from("localhost"),
                };
                let vars = Value::from_object(AllVariables {
                    session: self.this.clone(),
                    rendered: true,
                });
                Some(value::dict([(host, vars)].into_iter().collect()))
            }
            _ => None,
        }
    }

    fn in_variable(&self, name: &str, error: Error) -> Error {
        let mut cause = self.cause(&error);
        cause.chain.insert(0, name.to_owned());
        fault::with_cause(ErrorKind::InvalidOperation, cause)
    }

    /// What failed and may stay so until it is used.
    pub fn note_waiting(&self, error: &Error) {
        if let Some(cause) = fault::cause(error) {
            *lock(&self.missing) = Missing {
                what: format!("the result of what failed ({})", cause.why),
                failed: true,
            };
        }
    }

    pub fn note_missing(&self, name: String) {
        *lock(&self.missing) = Missing {
            what: name,
            failed: false,
        };
    }

    /// A variable that is there, but needs what is not.
    fn note_needed_by(&self, name: &str) {
        let mut missing = lock(&self.missing);
        if !missing.what.contains(", which ") {
            missing.what = format!("{}, which {name} needs,", missing.what);
        }
    }

    /// Whether the last undefined value is one whose making failed.
    pub fn is_failure(&self) -> bool {
        lock(&self.missing).failed
    }

    /// Why something failed, without any value.
    pub fn cause(&self, error: &Error) -> Cause {
        if let Some(cause) = fault::cause(error) {
            return cause.clone();
        }
        let why = match error.kind() {
            _ if fault::is_undefined(error) => {
                let missing = lock(&self.missing).what.clone();
                if missing.is_empty() {
                    "something is undefined".into()
                } else {
                    format!("{missing} is undefined")
                }
            }
            ErrorKind::SyntaxError => "the statements do not fit together".to_owned(),
            ErrorKind::TemplateNotFound => "an included template was not captured".to_owned(),
            ErrorKind::UnknownFunction => "a function that is not known".to_owned(),
            ErrorKind::UnknownMethod => "a method that is not supported".to_owned(),
            ErrorKind::CannotUnpack => "a value cannot be unpacked into these names".to_owned(),
            ErrorKind::MissingArgument => "an argument is missing".to_owned(),
            ErrorKind::TooManyArguments => "there are too many arguments".to_owned(),
            _ => "an operation that its values do not allow".to_owned(),
        };
        Cause {
            why,
            chain: Vec::new(),
            refused: false,
        }
    }
}

fn is_modern(version: &Json) -> Option<bool> {
    let number = |name: &str| version.get(name).and_then(Json::as_u64);
    Some((number("major")?, number("minor")?) >= (2, 19))
}

pub fn included<'i>(includes: &'i BTreeMap<String, String>, name: &str) -> Option<&'i str> {
    includes
        .get(name)
        .or_else(|| includes.get(name.trim_start_matches("./")))
        .map(String::as_str)
}

/// Rendered text as the list, map or boolean that it looks like.
pub fn converted(value: Value) -> Value {
    if value.is_safe() {
        return value;
    }
    let text = value.as_str().unwrap_or_default();
    // The newline is put back after the conversion, and only to a string.
    let trimmed = text.trim_end_matches('\n');
    if text.starts_with(['{', '[']) || matches!(trimmed, "True" | "False") {
        return python::literal_eval(trimmed).unwrap_or(value);
    }
    value
}

pub fn malformed(error: Malformed) -> Error {
    let why = match error.line {
        0 | 1 => error.message,
        line => format!("{} (line {line})", error.message),
    };
    fault::with_cause(
        ErrorKind::SyntaxError,
        Cause {
            why,
            chain: Vec::new(),
            refused: false,
        },
    )
}

/// What `{{ value }}` writes.
pub fn output(value: &Value) -> Result<String> {
    if value.is_none() {
        return Ok(String::new());
    }
    python::defined_text(value)
}

/// `name` of `{{ name }}`.
fn single_name(text: &str) -> Option<&str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let name = text.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    (!name.is_empty() && name.chars().all(|c| c == '_' || c.is_alphanumeric())).then_some(name)
}

/// The root of a template's names.
struct Names {
    session: Weak<Session>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("variables")
    }
}

impl Object for Names {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        // Roles call their own variables so, too.
        if name.starts_with("__") && runtime::is_internal(name) {
            return None;
        }
        let session = self.session.upgrade()?;
        match session.resolve(name) {
            Ok(Some(value)) => Some(value),
            Ok(None) => {
                // A variable that is there but needs something undefined has noted that already.
                if session.raw(name).is_none() && !runtime::is_global(name) {
                    session.note_missing(name.to_owned());
                } else if session.raw(name).is_some() {
                    session.note_needed_by(name);
                }
                None
            }
            Err(error) => Some(Value::from(error)),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// `vars`, whose strings Ansible does not render, and a host's entry in `hostvars`, which it does.
struct AllVariables {
    session: Weak<Session>,
    rendered: bool,
}

impl std::fmt::Debug for AllVariables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("variables")
    }
}

impl Object for AllVariables {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let session = self.session.upgrade()?;
        if !self.rendered {
            return session.raw(name).map(|(raw, _)| value::from_json(raw));
        }
        let found = match session.resolve(name) {
            Ok(None) if !session.modern => session
                .raw(name)
                .map(|(raw, _)| session.left_where_undefined(raw))
                .transpose(),
            found => found,
        };
        found.unwrap_or_else(|error| Some(Value::from(error)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self
            .session
            .upgrade()
            .map(|session| session.names())
            .unwrap_or_default();
        Enumerator::Values(names.into_iter().map(Value::from).collect())
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("variables")
    }
}

/// Whether a value is all variables at once, of which the box has a part only.
pub fn is_everything(value: &Value) -> bool {
    value.downcast_object_ref::<AllVariables>().is_some()
        || value.downcast_object_ref::<LazyMap>().is_some()
}

/// Another host's captured variables.
struct LazyMap {
    session: Weak<Session>,
    map: Variables,
}

impl std::fmt::Debug for LazyMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("variables")
    }
}

impl Object for LazyMap {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let raw = self.map.get(key.as_str()?)?;
        match self.session.upgrade()?.value(raw) {
            Ok(value) => Some(value),
            Err(error) if fault::is_undefined(&error) => None,
            Err(error) => Some(Value::from(error)),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(
            self.map
                .keys()
                .map(|key| Value::from(key.as_str()))
                .collect(),
        )
    }
}
