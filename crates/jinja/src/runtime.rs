//! What rewritten templates call: operators, attributes, literals, functions and lookups.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use contract::TemplateOptions;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Object, ObjectRepr, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, State, UndefinedBehavior};

use crate::dialect::{self, Backslashes, Rewritten};
use crate::fault::{self, Result};
use crate::session::{self, Session};
use crate::value::{self, View, view};
use crate::{budget, filters, lookups, methods, operators, python, tests, time};

type Run = fn(&mut Call) -> Result<Value>;

const OPERATORS: [(&str, Run); 16] = [
    ("__macro", |call| {
        let mut parts = std::mem::take(&mut call.args).into_iter();
        Ok(Value::from_object(Collector {
            inner: parts.next().unwrap_or_default(),
            names: parts.map(|name| python::text(&name)).collect(),
        }))
    }),
    ("__get", get),
    ("__slice", slice),
    ("__op", operators::operate),
    ("__cmp", operators::compare),
    ("__cat", concatenate),
    ("__neg", |call| operators::negate(call.value())),
    ("__pos", |call| Ok(call.value().clone())),
    ("__float", |call| {
        Ok(Value::from(
            python::parse_float(&python::text(call.value())).unwrap_or_default(),
        ))
    }),
    ("__list", |call| {
        python::check_depth(&call.args, 0)?;
        Ok(value::list(std::mem::take(&mut call.args)))
    }),
    ("__tuple", |call| {
        python::check_depth(&call.args, 0)?;
        Ok(value::tuple(std::mem::take(&mut call.args)))
    }),
    ("__dict", dictionary),
    ("__iter", |call| {
        Ok(value::list(python::iterate(call.value())?))
    }),
    ("__undef", |_| Ok(Value::from_object(value::Nothing))),
    ("__template", template_name),
    ("__test", |call| {
        let name = call.shift_name();
        let lenient = tests::is_lenient(&name);
        waiting(call, lenient, |call| {
            tests::apply(&name, call).map(Value::from)
        })
    }),
];

const GLOBALS: [(&str, Run); 9] = [
    ("cycler", cycler),
    ("range", |call| waiting(call, false, range)),
    ("dict", |call| waiting(call, false, dict_function)),
    ("lookup", |call| {
        waiting(call, true, |call| lookups::call(call, false))
    }),
    ("query", |call| {
        waiting(call, true, |call| lookups::call(call, true))
    }),
    ("q", |call| {
        waiting(call, true, |call| lookups::call(call, true))
    }),
    ("now", time::now),
    ("joiner", joiner),
    ("undef", |call| {
        call.session.note_missing("a mandatory variable".into());
        Ok(Value::UNDEFINED)
    }),
];

pub fn global_names() -> impl Iterator<Item = &'static str> {
    GLOBALS.iter().map(|(name, _)| *name).chain(["namespace"])
}

/// What only rewritten templates call.
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__filter" | "__do" | "__kwargs")
        || OPERATORS.iter().any(|(other, _)| *other == name)
}

pub fn is_global(name: &str) -> bool {
    global_names().any(|other| other == name)
        || matches!(name, "loop" | "caller" | "self" | "super")
}

pub fn environment(
    session: &Weak<Session>,
    includes: Arc<BTreeMap<String, String>>,
    options: TemplateOptions,
) -> Environment<'static> {
    let mut environment = Environment::empty();
    let syntax = SyntaxConfig::builder()
        .block_delimiters(dialect::BLOCK.0, dialect::BLOCK.1)
        .variable_delimiters(dialect::VARIABLE.0, dialect::VARIABLE.1)
        .comment_delimiters(dialect::COMMENT.0, dialect::COMMENT.1)
        .keep_trailing_newline(true)
        .build();
    if let Ok(syntax) = syntax {
        environment.set_syntax(syntax);
    }
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_debug(false);
    environment.set_fuel(Some(budget::FUEL));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let weak = session.clone();
    environment.set_formatter(move |out, _, value| {
        if let Some(session) = weak.upgrade() {
            session.note_written(value);
        }
        let text = session::output(value)?;
        budget::spend(text.len());
        budget::check()?;
        out.write_str(&text).map_err(Error::from)
    });
    environment.set_unknown_method_callback(methods::call);
    environment.set_loader(move |name| {
        let Some(text) = session::included(&includes, name) else {
            return Ok(None);
        };
        let rewritten =
            dialect::rewrite(text, &options, Backslashes::Escapes).map_err(session::malformed)?;
        Ok(Some(match rewritten {
            Rewritten::Template(code) => code,
            Rewritten::Expression(code) => {
                format!("{} {code} {}", dialect::VARIABLE.0, dialect::VARIABLE.1)
            }
        }))
    });
    for (name, run) in OPERATORS.iter().chain(&GLOBALS) {
        let function = Function {
            name,
            run: *run,
            session: session.clone(),
        };
        environment.add_global(*name, Value::from_object(function));
    }
    let filter = Function {
        name: "__filter",
        run: named_filter,
        session: session.clone(),
    };
    environment.add_global("__filter", Value::from_object(filter));
    environment.add_global(
        "__do",
        Value::from_object(Function {
            name: "__do",
            run: |_| Ok(Value::from("")),
            session: session.clone(),
        }),
    );
    environment.add_global(
        "__kwargs",
        Value::from_object(Function {
            name: "__kwargs",
            run: kwargs_of,
            session: session.clone(),
        }),
    );
    environment.add_function("namespace", minijinja::functions::namespace);
    let weak = session.clone();
    // `{% filter %}` blocks hand over (text, name, arguments…).
    environment.add_filter(
        "__filter",
        move |state: &mut State, rest: minijinja::value::Rest<Value>| -> Result<Value> {
            let mut args = rest.0;
            if args.len() >= 2 {
                args.swap(0, 1);
            }
            let function = Arc::new(Function {
                name: "__filter",
                run: named_filter,
                session: weak.clone(),
            });
            function.call(state, &args)
        },
    );
    environment
}

/// One call of a function, filter or test. Of a filter or test, `args[0]` is its input.
pub struct Call<'c, 's, 'e> {
    pub session: Arc<Session>,
    pub state: &'c mut State<'s, 'e>,
    pub args: Vec<Value>,
    pub kwargs: Vec<(String, Value)>,
}

impl<'s, 'e> Call<'_, 's, 'e> {
    pub fn value(&self) -> &Value {
        self.args.first().unwrap_or(&Value::UNDEFINED)
    }

    fn shift_name(&mut self) -> String {
        if self.args.is_empty() {
            String::new()
        } else {
            python::text(&self.args.remove(0))
        }
    }

    /// The argument at a position, which counts the input, or by name.
    pub fn arg(&self, position: usize, name: &str) -> Option<Value> {
        self.args
            .get(position)
            .or_else(|| {
                self.kwargs
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value)
            })
            .cloned()
    }

    pub fn keyword(&self, name: &str) -> Option<Value> {
        self.kwargs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    }

    pub fn need(&self, position: usize, name: &str) -> Result<Value> {
        self.arg(position, name)
            .ok_or_else(|| fault::error(format!("the argument `{name}` is missing")))
    }

    pub fn text(&self, position: usize, name: &str) -> Result<String> {
        python::defined_text(&self.need(position, name)?)
    }

    pub fn text_or(&self, position: usize, name: &str, default: &str) -> Result<String> {
        match self.arg(position, name) {
            Some(value) => python::defined_text(&value),
            None => Ok(default.to_owned()),
        }
    }

    pub fn flag(&self, position: usize, name: &str, default: bool) -> Result<bool> {
        self.arg(position, name)
            .map_or(Ok(default), |value| python::truth(&value))
    }

    /// `None` when absent or Python's None.
    pub fn integer(&self, position: usize, name: &str) -> Result<Option<i128>> {
        match self.arg(position, name) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(value) => match python::integer(&value) {
                Some(value) => Ok(Some(value)),
                None => fault::fail(format!("the argument `{name}` is no integer")),
            },
        }
    }

    /// The input as text, which may not be undefined.
    pub fn input(&self) -> Result<String> {
        python::defined_text(self.value())
    }

    pub fn items(&self) -> Result<Vec<Value>> {
        python::iterate(self.value())
    }

    /// Calls another filter with the arguments from `from` on.
    pub fn filter(&mut self, name: &str, value: Value, from: usize) -> Result<Value> {
        named(name, &mut self.passed_on(value, from))
    }

    /// Calls a test, likewise.
    pub fn test(&mut self, name: &str, value: Value, from: usize) -> Result<bool> {
        tests::apply(name, &mut self.passed_on(value, from))
    }

    /// The same call about another value, with the arguments from `from` on.
    fn passed_on(&mut self, value: Value, from: usize) -> Call<'_, 's, 'e> {
        let mut args = vec![value];
        args.extend(self.args.iter().skip(from).cloned());
        Call {
            session: self.session.clone(),
            state: self.state,
            args,
            kwargs: self.kwargs.clone(),
        }
    }
}

/// Positional and named arguments.
pub fn split_arguments(args: &[Value]) -> (Vec<Value>, Vec<(String, Value)>) {
    let mut args = args.to_vec();
    let mut named = Vec::new();
    if args.last().is_some_and(Value::is_kwargs)
        && let Some(last) = args.pop()
        && let Ok(kwargs) = Kwargs::try_from(last)
    {
        for name in kwargs.args() {
            named.push((
                name.to_owned(),
                kwargs.peek::<Value>(name).unwrap_or_default(),
            ));
        }
    }
    (args, named)
}

struct Function {
    name: &'static str,
    run: Run,
    session: Weak<Session>,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Object for Function {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        let Some(session) = self.session.upgrade() else {
            return fault::fail("the rendering has ended");
        };
        let (args, kwargs) = split_arguments(args);
        budget::spend(CALL);
        let value = (self.run)(&mut Call {
            session,
            state,
            args,
            kwargs,
        })?;
        budget::spend(value.as_str().map_or(0, str::len));
        budget::check()?;
        Ok(value)
    }
}

/// The rendering that goes on, where it follows ansible-core 2.19 or later.
pub fn modern_session(state: &State) -> Option<Arc<Session>> {
    let function = state.lookup("__get")?;
    let session = function
        .downcast_object_ref::<Function>()?
        .session
        .upgrade();
    session.filter(|session| session.modern)
}

/// What a call costs whatever it does, in [`budget`]'s units.
const CALL: usize = 50;

fn named_filter(call: &mut Call) -> Result<Value> {
    let name = call.shift_name();
    named(&name, call)
}

fn named(name: &str, call: &mut Call) -> Result<Value> {
    waiting(call, filters::is_lenient(name), |call| {
        filters::apply(name, call)
    })
}

/// Since ansible-core 2.19 a call that fails, or is given something undefined, is itself
/// undefined, and an error only where it is used.
fn waiting(
    call: &mut Call,
    lenient: bool,
    run: impl FnOnce(&mut Call) -> Result<Value>,
) -> Result<Value> {
    if !call.session.modern {
        return run(call);
    }
    let mut given = call
        .args
        .iter()
        .chain(call.kwargs.iter().map(|(_, value)| value));
    let refuses = match lenient {
        true => call.value().is_undefined() && call.session.is_failure(),
        false => given.any(Value::is_undefined),
    };
    if refuses {
        return Ok(Value::UNDEFINED);
    }
    match run(call) {
        Err(error) if fault::waits(&error) => {
            call.session.note_waiting(&error);
            Ok(Value::UNDEFINED)
        }
        answer => answer,
    }
}

fn kwargs_of(call: &mut Call) -> Result<Value> {
    let View::Dict(items) = view(call.value()) else {
        return Ok(call.value().clone());
    };
    Ok(items
        .get()
        .into_iter()
        .map(|(k, v)| (python::text(&k), v))
        .collect::<Kwargs>()
        .into())
}

fn template_name(call: &mut Call) -> Result<Value> {
    match python::sequence(call.value()) {
        Some(names) => {
            for name in &names {
                if call.state.get_template(&python::text(name)).is_ok() {
                    return Ok(name.clone());
                }
            }
            fault::fail("none of the included templates was captured")
        }
        None => Ok(Value::from(call.input()?)),
    }
}

fn get(call: &mut Call) -> Result<Value> {
    let mut steps = std::mem::take(&mut call.args).into_iter();
    let mut current = steps.next().unwrap_or_default();
    while let (Some(kind), Some(key)) = (steps.next(), steps.next()) {
        if current.is_undefined() {
            return Ok(current);
        }
        let found = if kind.as_str() == Some(".") {
            attribute(&current, key.as_str().unwrap_or_default())
        } else {
            if key.is_undefined() {
                return Err(fault::undefined());
            }
            item(&current, &key)
        };
        match found {
            Some(value) if value.kind() == ValueKind::Invalid => {
                return Err(value
                    .try_iter()
                    .err()
                    .unwrap_or_else(|| fault::error("a variable cannot be rendered")));
            }
            Some(value) if !value.is_undefined() => current = value,
            _ => {
                let owner = python::type_name(&current);
                call.session.note_missing(if kind.as_str() == Some(".") {
                    format!(
                        "the attribute {} of a {owner}",
                        key.as_str().unwrap_or_default()
                    )
                } else {
                    format!("an item of a {owner}")
                });
                return Ok(Value::UNDEFINED);
            }
        }
    }
    Ok(current)
}

/// Jinja's `getattr`: Python's attributes, which are methods, then items.
pub fn attribute(value: &Value, name: &str) -> Option<Value> {
    if methods::exists(value, name) {
        return Some(Value::from_object(Bound {
            value: value.clone(),
            name: name.to_owned(),
        }));
    }
    match view(value) {
        View::Dict(items) => items.find(&Value::from(name)),
        View::DateTime(at) => time::attribute(at, name),
        View::Other => value.get_attr(name).ok(),
        _ => None,
    }
}

/// Jinja's `getitem`.
pub fn item(value: &Value, key: &Value) -> Option<Value> {
    let index = |length: usize| {
        let index = python::integer(key)?;
        let index = if index < 0 {
            index + length as i128
        } else {
            index
        };
        usize::try_from(index).ok().filter(|index| *index < length)
    };
    match view(value) {
        View::Undefined => None,
        View::Dict(items) => items.find(key),
        View::List(items) => index(items.len()).and_then(|at| items.at(at)),
        View::Tuple(items) => {
            let items = items.get();
            index(items.len()).and_then(|at| items.get(at).cloned())
        }
        View::Text(text) => index(text.chars().count())
            .and_then(|at| text.chars().nth(at))
            .map(Value::from),
        View::Other => value.get_item(key).ok(),
        _ => None,
    }
    .or_else(|| {
        key.as_str()
            .filter(|name| methods::exists(value, name))
            .and_then(|name| attribute(value, name))
    })
}

/// A method that is passed around before it is called.
struct Bound {
    value: Value,
    name: String,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<method>")
    }
}

impl Object for Bound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        methods::call(state, &self.value, &self.name, args)
    }
}

/// A macro that collects the arguments that it does not name.
struct Collector {
    inner: Value,
    names: Vec<String>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<macro>")
    }
}

impl Object for Collector {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value> {
        let (mut positional, named) = split_arguments(args);
        let more = positional.split_off(self.names.len().min(positional.len()));
        // `caller` is how a `call` block hands over its body.
        let (named, unknown): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|(name, _)| self.names.contains(name) || name == "caller");
        let mut named: Vec<(String, Value)> = named;
        named.push(("varargs".into(), value::tuple(more)));
        named.push(("kwargs".into(), value::dict_of(unknown)));
        positional.push(named.into_iter().collect::<Kwargs>().into());
        self.inner.call(state, &positional)
    }
}

fn slice(call: &mut Call) -> Result<Value> {
    let value = call.value().clone();
    if value.is_undefined() {
        return Err(fault::undefined());
    }
    let bound = |position| call.integer(position, "slice");
    let (start, stop, step) = (bound(1)?, bound(2)?, bound(3)?.unwrap_or(1));
    if step == 0 {
        return fault::fail("a slice cannot have the step 0");
    }
    let pick = |length: usize| -> Vec<usize> {
        let length = length as i128;
        let (low, high) = if step > 0 {
            (0, length)
        } else {
            (-1, length - 1)
        };
        let clamp = |bound: Option<i128>, default: i128| match bound {
            None => default,
            Some(at) if at < 0 => at.saturating_add(length).clamp(low, high),
            Some(at) => at.clamp(low, high),
        };
        let (mut at, stop) = if step > 0 {
            (clamp(start, low), clamp(stop, high))
        } else {
            (clamp(start, high), clamp(stop, low))
        };
        let mut picked = Vec::new();
        while (step > 0 && at < stop) || (step < 0 && at > stop) {
            picked.push(at as usize);
            at = at.saturating_add(step);
        }
        picked
    };
    let take = |items: &[Value]| -> Vec<Value> {
        pick(items.len())
            .into_iter()
            .filter_map(|at| items.get(at).cloned())
            .collect()
    };
    match view(&value) {
        View::Text(text) => {
            let chars: Vec<char> = text.chars().collect();
            Ok(Value::from(
                pick(chars.len())
                    .into_iter()
                    .filter_map(|at| chars.get(at))
                    .collect::<String>(),
            ))
        }
        View::Tuple(items) => Ok(value::tuple(take(items.get()))),
        View::Dict(_)
        | View::None
        | View::Bool(_)
        | View::Int(_)
        | View::Float(_)
        | View::DateTime(_) => {
            call.session
                .note_missing(format!("a slice of a {}", python::type_name(&value)));
            Ok(Value::UNDEFINED)
        }
        _ => Ok(value::list(take(&python::iterate(&value)?))),
    }
}

fn concatenate(call: &mut Call) -> Result<Value> {
    let mut out = String::new();
    for part in &call.args {
        out.push_str(&python::defined_text(part)?);
    }
    Ok(Value::from(out))
}

fn dictionary(call: &mut Call) -> Result<Value> {
    python::check_depth(&call.args, 0)?;
    let mut items = value::Items::new();
    let mut parts = std::mem::take(&mut call.args).into_iter();
    while let (Some(key), Some(item)) = (parts.next(), parts.next()) {
        if key.is_undefined() {
            return Err(fault::undefined());
        }
        if matches!(view(&key), View::List(_) | View::Dict(_)) {
            return fault::refuse("a list or dict cannot be the key of a dict");
        }
        items.insert(key, item);
    }
    Ok(value::dict(items))
}

fn dict_function(call: &mut Call) -> Result<Value> {
    let mut items = match call.args.first() {
        None => value::Items::new(),
        Some(value) => methods::pairs(value)?,
    };
    items.extend(
        call.kwargs
            .iter()
            .map(|(key, value)| (Value::from(key.as_str()), value.clone())),
    );
    Ok(value::dict(items))
}

fn range(call: &mut Call) -> Result<Value> {
    let bound = |position: usize| match call.args.get(position) {
        None => Ok(None),
        Some(value) if value.is_undefined() => Err(fault::undefined()),
        Some(value) => python::integer(value)
            .map(Some)
            .ok_or_else(|| fault::refused("range() takes integers only")),
    };
    let (start, stop) = match (bound(0)?, bound(1)?) {
        (Some(stop), None) => (0, stop),
        (Some(start), Some(stop)) => (start, stop),
        (None, _) => return fault::fail("range() needs an argument"),
    };
    let step = bound(2)?.unwrap_or(1);
    if step == 0 {
        return fault::fail("range() cannot have the step 0");
    }
    let mut items = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        if items.len() >= 1_000_000 {
            return fault::fail("range() is too large");
        }
        budget::spend(24);
        items.push(value::int(at));
        at = at.saturating_add(step);
    }
    Ok(value::list(items))
}

#[derive(Debug)]
struct Joiner {
    separator: Value,
    used: std::sync::atomic::AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value> {
        let used = self.used.swap(true, std::sync::atomic::Ordering::Relaxed);
        Ok(if used {
            self.separator.clone()
        } else {
            Value::from("")
        })
    }
}

#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: std::sync::atomic::AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = self.at.load(std::sync::atomic::Ordering::Relaxed);
        match key.as_str()? {
            "current" => self.items.get(at).cloned(),
            _ => None,
        }
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        _: &[Value],
    ) -> Result<Value> {
        let at = self.at.load(std::sync::atomic::Ordering::Relaxed);
        let (next, answer) = match method {
            "next" => ((at + 1) % self.items.len(), self.items[at].clone()),
            "reset" => (0, Value::from(())),
            _ => return Err(Error::from(minijinja::ErrorKind::UnknownMethod)),
        };
        self.at.store(next, std::sync::atomic::Ordering::Relaxed);
        Ok(answer)
    }
}

fn cycler(call: &mut Call) -> Result<Value> {
    if call.args.is_empty() {
        return fault::fail("cycler() takes at least one item");
    }
    Ok(Value::from_object(Cycler {
        items: std::mem::take(&mut call.args),
        at: 0.into(),
    }))
}

fn joiner(call: &mut Call) -> Result<Value> {
    let separator = Value::from(call.text_or(0, "sep", ", ")?);
    Ok(Value::from_object(Joiner {
        separator,
        used: false.into(),
    }))
}
