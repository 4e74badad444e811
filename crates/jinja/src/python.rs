//! What Python does with values: `str`, `repr`, comparison, iteration, `ast.literal_eval`.

use std::cmp::Ordering;

use minijinja::value::{Value, ValueKind};

use crate::budget;
use crate::fault::{self, Result};
use crate::value::{self, View, view};

/// Beyond it a value contains itself, or was made to exhaust the stack.
pub const MAX_DEPTH: usize = 100;

/// `str(value)`.
pub fn text(value: &Value) -> String {
    match view(value) {
        View::Text(text) => text.to_string(),
        _ => repr(value),
    }
}

/// As [`text`], failing on undefined values wherever they hide.
pub fn defined_text(value: &Value) -> Result<String> {
    check_defined(value, 0)?;
    Ok(text(value))
}

/// Fails when the value or one inside is undefined.
pub fn check_defined(value: &Value, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    match view(value) {
        View::Undefined => Err(fault::undefined()),
        View::Other if crate::session::is_everything(value) => {
            fault::fail("all variables at once: the box holds a part of them only")
        }
        View::List(items) => items
            .get()
            .iter()
            .try_for_each(|v| check_defined(v, depth + 1)),
        View::Tuple(items) => items
            .get()
            .iter()
            .try_for_each(|v| check_defined(v, depth + 1)),
        View::Dict(items) => items
            .get()
            .values()
            .try_for_each(|v| check_defined(v, depth + 1)),
        _ => Ok(()),
    }
}

/// Fails on nesting that would exhaust the stack when the value is dropped.
pub fn check_depth(values: &[Value], depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    for value in values {
        match view(value) {
            View::List(items) => check_depth(&items.get(), depth + 1)?,
            View::Tuple(items) => check_depth(items.get(), depth + 1)?,
            View::Dict(items) => {
                check_depth(&items.get().into_values().collect::<Vec<_>>(), depth + 1)?
            }
            _ => {}
        }
    }
    Ok(())
}

pub fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, 0, &mut out);
    out
}

fn write_repr(value: &Value, depth: usize, out: &mut String) {
    if depth > MAX_DEPTH {
        out.push_str("...");
        return;
    }
    if let Some(text) = value.as_str() {
        budget::spend(text.len());
    }
    let sequence = |items: &[Value], out: &mut String| {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            write_repr(item, depth + 1, out);
        }
    };
    match view(value) {
        View::Undefined => out.push_str("AnsibleUndefined"),
        View::None => out.push_str("None"),
        View::Bool(true) => out.push_str("True"),
        View::Bool(false) => out.push_str("False"),
        View::Int(value) => out.push_str(&value.to_string()),
        View::Float(value) => out.push_str(&float(value)),
        View::Text(text) => write_text_repr(&text, out),
        View::List(items) => {
            out.push('[');
            sequence(&items.get(), out);
            out.push(']');
        }
        View::Tuple(items) => {
            out.push('(');
            sequence(items.get(), out);
            if items.get().len() == 1 {
                out.push(',');
            }
            out.push(')');
        }
        View::Dict(items) => {
            out.push('{');
            for (index, (key, value)) in items.get().iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(key, depth + 1, out);
                out.push_str(": ");
                write_repr(value, depth + 1, out);
            }
            out.push('}');
        }
        View::DateTime(at) if depth == 0 => out.push_str(&crate::time::display(at)),
        View::DateTime(at) => out.push_str(&crate::time::repr(at)),
        View::Other => match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => match value.try_iter() {
                Ok(items) => {
                    out.push('[');
                    sequence(&items.collect::<Vec<_>>(), out);
                    out.push(']');
                }
                Err(_) => out.push_str("[]"),
            },
            ValueKind::Map => {
                out.push('{');
                for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    write_repr(&key, depth + 1, out);
                    out.push_str(": ");
                    write_repr(&value.get_item(&key).unwrap_or_default(), depth + 1, out);
                }
                out.push('}');
            }
            // Macros' results and other things of minijinja, which print themselves.
            _ => out.push_str(&value.to_string()),
        },
    }
}

/// `repr(float)`: the shortest digits that read back, with an exponent from 1e16 on and below 1e-4.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

fn write_text_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if printable(c) => out.push(c),
            c => match c as u32 {
                code @ 0..=0xff => out.push_str(&format!("\\x{code:02x}")),
                code @ 0x100..=0xffff => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
}

/// `str.isprintable`, for the characters that configuration files hold.
fn printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c as u32, 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff
            | 0xfff9..=0xfffb | 0xe000..=0xf8ff | 0xe0000..=0xe0fff | 0xf0000..=0x10ffff))
}

/// `type(value).__name__`, as `type_debug` shows it.
pub fn type_name(value: &Value) -> &'static str {
    match view(value) {
        View::Undefined => "AnsibleUndefined",
        View::None => "NoneType",
        View::Bool(_) => "bool",
        View::Int(_) => "int",
        View::Float(_) => "float",
        View::Text(_) => "str",
        View::List(_) => "list",
        View::Tuple(_) => "tuple",
        View::Dict(_) => "dict",
        View::DateTime(_) => "datetime",
        View::Other => match value.kind() {
            ValueKind::Seq => "list",
            ValueKind::Iterable => "generator",
            ValueKind::Map => "dict",
            ValueKind::Bytes => "bytes",
            _ => "object",
        },
    }
}

pub fn truth(value: &Value) -> Result<bool> {
    if value.is_undefined() {
        return Err(fault::undefined());
    }
    Ok(value.is_true())
}

/// What a `for` loop sees.
pub fn iterate(value: &Value) -> Result<Vec<Value>> {
    match view(value) {
        View::Undefined => Err(fault::undefined()),
        View::List(items) => Ok(items.get()),
        View::Tuple(items) => Ok(items.get().to_vec()),
        View::Dict(items) => Ok(items.get().into_keys().collect()),
        View::Text(text) => {
            budget::room(text.len().saturating_mul(24))?;
            budget::spend(text.len().saturating_mul(24));
            Ok(text.chars().map(Value::from).collect())
        }
        View::None | View::Bool(_) | View::Int(_) | View::Float(_) | View::DateTime(_) => {
            fault::refuse(format!(
                "a value of type {} is not iterable",
                type_name(value)
            ))
        }
        View::Other if value::is_missing(value) => Ok(Vec::new()),
        View::Other => match value.try_iter() {
            Ok(items) => Ok(items.take(10_000_000).collect()),
            Err(_) => fault::refuse(format!(
                "a value of type {} is not iterable",
                type_name(value)
            )),
        },
    }
}

/// Lists and tuples, but no strings: Ansible's `is_sequence`.
pub fn sequence(value: &Value) -> Option<Vec<Value>> {
    match view(value) {
        View::List(items) => Some(items.get()),
        View::Tuple(items) => Some(items.get().to_vec()),
        View::Other if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) => {
            value.try_iter().ok().map(Iterator::collect)
        }
        _ => None,
    }
}

pub fn number(value: &Value) -> Option<f64> {
    match view(value) {
        View::Bool(value) => Some(f64::from(u8::from(value))),
        View::Int(value) => Some(value as f64),
        View::Float(value) => Some(value),
        _ => None,
    }
}

/// Booleans are integers in Python.
pub fn integer(value: &Value) -> Option<i128> {
    match view(value) {
        View::Bool(value) => Some(i128::from(value)),
        View::Int(value) => Some(value),
        _ => None,
    }
}

pub fn equal(left: &Value, right: &Value) -> bool {
    equal_at(left, right, 0)
}

fn equal_at(left: &Value, right: &Value, depth: usize) -> bool {
    budget::spend(2);
    if depth > MAX_DEPTH {
        return false;
    }
    let sequences = |a: &[Value], b: &[Value]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal_at(a, b, depth + 1))
    };
    match (view(left), view(right)) {
        (View::Text(a), View::Text(b)) => a == b,
        (View::None, View::None) => true,
        (View::List(a), View::List(b)) => sequences(&a.get(), &b.get()),
        (View::Tuple(a), View::Tuple(b)) => sequences(a.get(), b.get()),
        (View::Dict(a), View::Dict(b)) => {
            let (a, b) = (a.get(), b.get());
            a.len() == b.len()
                && a.iter()
                    .all(|(k, v)| b.get(k).is_some_and(|w| equal_at(v, w, depth + 1)))
        }
        (View::DateTime(a), View::DateTime(b)) => a == b,
        (View::Other, View::Other) => left == right,
        _ => match (integer(left), integer(right)) {
            (Some(a), Some(b)) => a == b,
            _ => matches!((number(left), number(right)), (Some(a), Some(b)) if a == b),
        },
    }
}

/// Python's `<`; an error for types that have no order.
pub fn compare(left: &Value, right: &Value) -> Result<Ordering> {
    compare_at(left, right, 0)
}

fn compare_at(left: &Value, right: &Value, depth: usize) -> Result<Ordering> {
    if depth > MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    let sequences = |a: &[Value], b: &[Value]| {
        for (a, b) in a.iter().zip(b) {
            if !equal(a, b) {
                return compare_at(a, b, depth + 1);
            }
        }
        Ok(a.len().cmp(&b.len()))
    };
    if left.is_undefined() || right.is_undefined() {
        return Err(fault::undefined());
    }
    match (view(left), view(right)) {
        (View::Text(a), View::Text(b)) => Ok(a.cmp(&b)),
        (View::List(a), View::List(b)) => sequences(&a.get(), &b.get()),
        (View::Tuple(a), View::Tuple(b)) => sequences(a.get(), b.get()),
        (View::DateTime(a), View::DateTime(b)) => Ok(a.cmp(&b)),
        _ => match (integer(left), integer(right)) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => match (number(left), number(right)) {
                (Some(a), Some(b)) => Ok(a.partial_cmp(&b).unwrap_or(Ordering::Equal)),
                _ => fault::refuse(format!(
                    "values of type {} and {} cannot be compared",
                    type_name(left),
                    type_name(right)
                )),
            },
        },
    }
}

/// `left in right`.
pub fn contains(container: &Value, item: &Value) -> Result<bool> {
    if item.is_undefined() && !matches!(view(container), View::Undefined) {
        return Err(fault::undefined());
    }
    match (view(container), view(item)) {
        (View::Text(text), View::Text(part)) => Ok(text.contains(&*part)),
        (View::Text(_), _) => fault::refuse("only a string can be looked for in a string"),
        (View::Dict(items), _) => Ok(items.find(item).is_some()),
        (View::Other, _) if container.kind() == ValueKind::Map => {
            Ok(container.get_item(item).is_ok_and(|v| !v.is_undefined()))
        }
        _ => Ok(iterate(container)?.iter().any(|other| equal(other, item))),
    }
}

/// `int(text)`.
pub fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match (
        base,
        digits.get(..2).map(str::to_ascii_lowercase).as_deref(),
    ) {
        (16 | 0, Some("0x")) => (16, &digits[2..]),
        (8 | 0, Some("0o")) => (8, &digits[2..]),
        (2 | 0, Some("0b")) => (2, &digits[2..]),
        (0, _) => (10, digits),
        _ => (base, digits),
    };
    if !(2..=36).contains(&base)
        || digits.is_empty()
        || digits.starts_with(['_', '+', '-'])
        || digits.ends_with('_')
        || digits.contains("__")
    {
        return None;
    }
    let value = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -value } else { value })
}

/// `float(text)`.
pub fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim();
    if text.starts_with('_') || text.ends_with('_') || text.contains("__") {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// Ansible's `literal_eval` with JSON's `true`, `false` and `null`. `None` when the text is no literal.
pub fn literal_eval(text: &str) -> Option<Value> {
    let mut reader = Literal {
        rest: text,
        depth: 0,
    };
    let value = reader.value()?;
    reader.space();
    reader.rest.is_empty().then_some(value)
}

struct Literal<'t> {
    rest: &'t str,
    depth: usize,
}

impl Literal<'_> {
    fn space(&mut self) {
        loop {
            self.rest = self
                .rest
                .trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            match self.rest.strip_prefix('#') {
                Some(comment) if self.depth > 0 => {
                    self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
                }
                _ => return,
            }
        }
    }

    fn skip(&mut self, prefix: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.space();
        let value = match self.rest.chars().next()? {
            '[' => {
                self.skip("[");
                Some(value::list(self.items("]")?.0))
            }
            '(' => {
                self.skip("(");
                let (mut items, comma) = self.items(")")?;
                match items.len() {
                    1 if !comma => items.pop(),
                    _ => Some(value::tuple(items)),
                }
            }
            '{' => self.dict(),
            '\'' | '"' => self.text(),
            '+' | '-' | '0'..='9' | '.' => self.number(),
            _ => {
                let end = self
                    .rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .unwrap_or(self.rest.len());
                let (name, rest) = self.rest.split_at(end);
                let value = match name {
                    "True" | "true" => Value::from(true),
                    "False" | "false" => Value::from(false),
                    "None" | "null" => Value::from(()),
                    _ => return None,
                };
                self.rest = rest;
                Some(value)
            }
        };
        self.depth -= 1;
        value
    }

    fn items(&mut self, end: &str) -> Option<(Vec<Value>, bool)> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            if self.skip(end) {
                return Some((items, comma));
            }
            if !items.is_empty() && !comma {
                return None;
            }
            items.push(self.value()?);
            comma = self.skip(",");
        }
    }

    fn dict(&mut self) -> Option<Value> {
        self.skip("{");
        let mut items = value::Items::new();
        loop {
            if self.skip("}") {
                return Some(value::dict(items));
            }
            let key = self.value()?;
            if matches!(view(&key), View::List(_) | View::Dict(_)) || !self.skip(":") {
                return None;
            }
            let item = self.value()?;
            items.insert(key, item);
            if !self.skip(",")
                && !{
                    self.space();
                    self.rest.starts_with('}')
                }
            {
                return None;
            }
        }
    }

    fn text(&mut self) -> Option<Value> {
        let mut out = String::new();
        loop {
            self.space();
            let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
                return Some(Value::from(out));
            };
            let triple: String = std::iter::repeat_n(quote, 3).collect();
            let end = if self.rest.starts_with(&triple) {
                triple
            } else {
                quote.to_string()
            };
            let body = &self.rest[end.len()..];
            let mut escaped = false;
            let close = body.char_indices().find_map(|(at, c)| {
                if escaped {
                    escaped = false;
                    None
                } else if c == '\\' {
                    escaped = true;
                    None
                } else {
                    body[at..].starts_with(end.as_str()).then_some(at)
                }
            })?;
            let inner = &body[..close];
            if end.len() == 1 && inner.contains('\n') {
                return None;
            }
            out.push_str(&crate::dialect::unescape(inner)?);
            self.rest = &body[close + end.len()..];
        }
    }

    fn number(&mut self) -> Option<Value> {
        if self.skip("-") {
            return match view(&self.number()?) {
                View::Int(value) => Some(value::int(value.checked_neg()?)),
                View::Float(value) => Some(Value::from(-value)),
                _ => None,
            };
        }
        if self.skip("+") {
            return self.number();
        }
        self.space();
        let mut end = 0;
        let bytes = self.rest.as_bytes();
        while let Some(&byte) = bytes.get(end) {
            let exponent_sign = matches!(byte, b'+' | b'-')
                && end > 0
                && matches!(bytes[end - 1], b'e' | b'E')
                && !self.rest.starts_with("0x");
            if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || exponent_sign {
                end += 1;
            } else {
                break;
            }
        }
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Some(value) = parse_int(digits, 0) {
            // Python refuses `007`.
            let padded = digits.len() > 1
                && digits.starts_with('0')
                && digits.as_bytes()[1].is_ascii_digit();
            return if padded && value != 0 {
                None
            } else {
                Some(value::int(value))
            };
        }
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        parse_float(digits)
            .filter(|value| value.is_finite())
            .map(Value::from)
    }
}
