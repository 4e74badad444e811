//! Python's containers for templates: mutable lists and dictionaries, tuples, points in time.
//!
//! minijinja's own lists cannot be appended to, which templates do (`{% set _ = x.append(y) %}`).

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, State};
use serde_json::Value as Json;

use crate::{budget, methods};

pub type Items = IndexMap<Value, Value>;

#[derive(Default)]
pub struct List(Mutex<Vec<Value>>);

#[derive(Default)]
pub struct Tuple(Vec<Value>);

#[derive(Default)]
pub struct Dict(Mutex<Items>);

/// A naive `datetime`: seconds since 1970 as if the clock were UTC, and microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    pub seconds: i64,
    pub micros: u32,
}

/// An inline `if` without `else` whose condition is false: Jinja's lenient undefined
/// value, which prints nothing.
#[derive(Debug)]
pub struct Nothing;

impl Object for Nothing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        false
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Whether `default` and `is defined` see nothing here.
pub fn is_missing(value: &Value) -> bool {
    value.is_undefined() || value.downcast_object_ref::<Nothing>().is_some()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an element weighs in [`budget`]'s units.
const ELEMENT: usize = 24;

// Once the budget is spent every container looks empty, so that all recursion over values
// ends at once; the call that it happened in then fails.
impl List {
    pub fn get(&self) -> Vec<Value> {
        let items = lock(&self.0);
        budget::spend(ELEMENT * (items.len() + 1));
        if budget::exhausted() {
            Vec::new()
        } else {
            items.clone()
        }
    }

    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }

    pub fn at(&self, index: usize) -> Option<Value> {
        lock(&self.0).get(index).cloned()
    }

    pub fn edit<R>(&self, edit: impl FnOnce(&mut Vec<Value>) -> R) -> R {
        edit(&mut lock(&self.0))
    }
}

impl Tuple {
    pub fn get(&self) -> &[Value] {
        budget::spend(ELEMENT * (self.0.len() + 1));
        if budget::exhausted() { &[] } else { &self.0 }
    }
}

impl Dict {
    pub fn get(&self) -> Items {
        let items = lock(&self.0);
        budget::spend(3 * ELEMENT * (items.len() + 1));
        if budget::exhausted() {
            Items::new()
        } else {
            items.clone()
        }
    }

    pub fn find(&self, key: &Value) -> Option<Value> {
        lock(&self.0).get(key).cloned()
    }

    pub fn edit<R>(&self, edit: impl FnOnce(&mut Items) -> R) -> R {
        edit(&mut lock(&self.0))
    }
}

// Values stay out of every debug output: they may be secrets.
macro_rules! silent_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
silent_debug!(List, Tuple, Dict);

macro_rules! python_methods {
    () => {
        fn call_method(
            self: &Arc<Self>,
            state: &mut State<'_, '_>,
            method: &str,
            args: &[Value],
        ) -> Result<Value, Error> {
            methods::call(state, &Value::from_dyn_object(self.clone()), method, args)
        }

        fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&crate::python::repr(&Value::from_dyn_object(self.clone())))
        }
    };
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        lock(&self.0).get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.get())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(lock(&self.0).len())
    }

    python_methods!();
}

impl Object for Tuple {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.clone())
    }

    python_methods!();
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.find(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(lock(&self.0).keys().cloned().collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(lock(&self.0).len())
    }

    python_methods!();
}

impl Object for DateTime {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn custom_cmp(self: &Arc<Self>, other: &minijinja::value::DynObject) -> Option<Ordering> {
        Some((**self).cmp(other.downcast_ref::<DateTime>()?))
    }

    python_methods!();
}

pub fn list(items: Vec<Value>) -> Value {
    Value::from_object(List(Mutex::new(items)))
}

pub fn tuple(items: Vec<Value>) -> Value {
    Value::from_object(Tuple(items))
}

pub fn dict(items: Items) -> Value {
    Value::from_object(Dict(Mutex::new(items)))
}

pub fn dict_of<K: Into<String>>(items: impl IntoIterator<Item = (K, Value)>) -> Value {
    dict(
        items
            .into_iter()
            .map(|(key, value)| (Value::from(key.into()), value))
            .collect(),
    )
}

/// A value by its Python type.
pub enum View {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Arc<str>),
    List(Arc<List>),
    Tuple(Arc<Tuple>),
    Dict(Arc<Dict>),
    DateTime(DateTime),
    Other,
}

pub fn view(value: &Value) -> View {
    match value.kind() {
        ValueKind::Undefined => View::Undefined,
        ValueKind::None => View::None,
        ValueKind::Bool => View::Bool(value.is_true()),
        ValueKind::Number => match value.is_integer() {
            true => i128::try_from(value.clone()).map_or(View::Other, View::Int),
            false => f64::try_from(value.clone()).map_or(View::Other, View::Float),
        },
        ValueKind::String => value.to_str().map_or(View::Other, View::Text),
        _ => {
            if let Some(list) = value.downcast_object::<List>() {
                View::List(list)
            } else if let Some(dict) = value.downcast_object::<Dict>() {
                View::Dict(dict)
            } else if let Some(tuple) = value.downcast_object::<Tuple>() {
                View::Tuple(tuple)
            } else if let Some(at) = value.downcast_object_ref::<DateTime>() {
                View::DateTime(*at)
            } else {
                View::Other
            }
        }
    }
}

pub fn int(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => {
            if let Some(value) = number.as_i64() {
                Value::from(value)
            } else if let Some(value) = number.as_u64() {
                Value::from(value)
            } else {
                Value::from(number.as_f64().unwrap_or(f64::NAN))
            }
        }
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => list(items.iter().map(from_json).collect()),
        Json::Object(map) => match unsafe_text(map) {
            Some(text) => Value::from(text),
            None => dict(
                map.iter()
                    .map(|(k, v)| (Value::from(k.as_str()), from_json(v)))
                    .collect(),
            ),
        },
    }
}

/// The text of `{"__ansible_unsafe": "text"}`.
pub fn unsafe_text(map: &serde_json::Map<String, Json>) -> Option<&str> {
    match map.get("__ansible_unsafe") {
        Some(Json::String(text)) if map.len() == 1 => Some(text),
        _ => None,
    }
}

/// `None` for what JSON cannot hold: undefined values, functions, nesting beyond reason.
pub fn to_json(value: &Value) -> Option<Json> {
    fn convert(value: &Value, depth: usize) -> Option<Json> {
        if depth > crate::python::MAX_DEPTH {
            return None;
        }
        let array = |items: &[Value]| {
            items
                .iter()
                .map(|item| convert(item, depth + 1))
                .collect::<Option<Vec<_>>>()
                .map(Json::Array)
        };
        Some(match view(value) {
            View::Undefined => return None,
            View::None => Json::Null,
            View::Bool(value) => Json::Bool(value),
            View::Int(value) => match i64::try_from(value) {
                Ok(value) => Json::from(value),
                Err(_) => {
                    u64::try_from(value).map_or_else(|_| Json::from(value as f64), Json::from)
                }
            },
            View::Float(value) => {
                serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number)
            }
            View::Text(text) => Json::String(text.to_string()),
            View::List(items) => array(&items.get())?,
            View::Tuple(items) => array(items.get())?,
            View::Dict(items) => {
                let mut map = serde_json::Map::new();
                for (key, value) in items.get() {
                    map.insert(crate::python::text(&key), convert(&value, depth + 1)?);
                }
                Json::Object(map)
            }
            View::DateTime(_) => Json::String(crate::python::text(value)),
            View::Other => array(&value.try_iter().ok()?.collect::<Vec<_>>())?,
        })
    }
    convert(value, 0)
}
