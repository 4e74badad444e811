//! minijinja with the semantics that Ansible gives Jinja's templates.
//!
//! The builder compares its output with what Ansible wrote, byte for byte; the entrypoint
//! renders the same templates again with an operator's settings. The reference is
//! ansible-core 2.14 (`lib/ansible/template`): variables are rendered when they are used,
//! undefined values are errors where they are used and not before, and text that looks
//! like a list, a map or a boolean becomes one between variables.
//!
//! No error quotes a variable's value: values may be secrets.

mod budget;
mod catalogue;
mod dialect;
mod fault;
mod filters;
mod format;
mod frozen;
mod lookups;
mod methods;
mod operators;
mod python;
pub mod reach;
mod runtime;
mod session;
mod tests;
mod time;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use contract::{Template, TemplateOptions, Value, Variables};

use dialect::Backslashes;
use session::Session;

/// Variables; the first map that has a name wins.
pub struct Scope<'a> {
    settings: Arc<Variables>,
    raw: Vec<Arc<Variables>>,
    origin: PhantomData<&'a Variables>,
}

impl<'a> Scope<'a> {
    /// `settings` are literal: an operator's `{{` is never rendered. `raw` maps, highest
    /// precedence first, hold values that may be templates themselves.
    pub fn new(settings: &'a Variables, raw: &[&'a Variables]) -> Self {
        Scope {
            settings: Arc::new(settings.clone()),
            raw: raw.iter().map(|map| Arc::new((*map).clone())).collect(),
            origin: PhantomData,
        }
    }

    fn session(&self) -> Arc<Session> {
        let options = TemplateOptions::default();
        Session::new(
            self.settings.clone(),
            self.raw.clone(),
            &BTreeMap::new(),
            &options,
        )
    }
}

/// What could not be rendered, where, and why. Never holds the value of a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The template's source, or "expression".
    pub what: String,
    /// Line of the template, counted from 1.
    pub line: Option<usize>,
    pub why: String,
    /// Variables on the way to the failure, outermost first.
    pub chain: Vec<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot render {}", self.what)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.why)?;
        if !self.chain.is_empty() {
            write!(f, " (in the variable {})", self.chain.join(" -> "))?;
        }
        Ok(())
    }
}

impl Error {
    fn new(what: &str, session: &Session, error: &minijinja::Error) -> Self {
        let cause = session.cause(error);
        let line = error.line().filter(|_| what != EXPRESSION);
        Error {
            what: what.to_owned(),
            line,
            why: cause.why,
            chain: cause.chain,
        }
    }
}

const EXPRESSION: &str = "the expression";
const TEXT: &str = "the text";

/// Renders one captured template. Its own variables come before `raw` of the scope and
/// after the settings.
pub fn render(template: &Template, scope: &Scope) -> Result<String, Error> {
    let mut raw = vec![Arc::new(template.variables.clone())];
    raw.extend(scope.raw.iter().cloned());
    let session = Session::new(
        scope.settings.clone(),
        raw,
        &template.includes,
        &template.options,
    );
    let value = session
        .template(&template.body, &template.options, Backslashes::Escapes)
        .map_err(|error| Error::new(&template.source, &session, &error))?;
    Ok(match value.is_none() {
        true => String::new(),
        false => python::text(&value),
    })
}

/// Evaluates an expression without braces, such as `mongodb_host in ['127.0.0.1']`.
pub fn evaluate(expression: &str, scope: &Scope) -> Result<Value, Error> {
    let session = scope.session();
    dialect::rewrite_expression(expression)
        .map_err(session::malformed)
        .and_then(|code| session.expression(code))
        .and_then(|value| {
            python::check_defined(&value, 0)?;
            value::to_json(&value).ok_or_else(|| fault::error("the result is no plain value"))
        })
        .map_err(|error| Error::new(EXPRESSION, &session, &error))
}

/// Renders text such as `127.0.0.1:{{ redis_port }}`.
pub fn render_text(text: &str, scope: &Scope) -> Result<String, Error> {
    let session = scope.session();
    let value = session
        .template(text, &TemplateOptions::default(), Backslashes::Literal)
        .map_err(|error| Error::new(TEXT, &session, &error))?;
    Ok(python::text(&value))
}

pub use catalogue::{supported, table};
pub use frozen::FROZEN;
