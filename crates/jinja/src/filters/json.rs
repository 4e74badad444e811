//! JSON as Python's `json` writes and reads it.

use minijinja::value::Value;

use super::Filter;
use crate::fault::{self, Result};
use crate::runtime::Call;
use crate::value::{self, View, view};
use crate::{budget, python};

pub const FILTERS: &[(&str, Filter)] = &[
    ("from_json", |call| {
        let text = call.input()?;
        serde_json::from_str(&text)
            .map(|json| value::from_json(&json))
            .map_err(|error| {
                let why = format!("no JSON (line {}, column {})", error.line(), error.column());
                // Python reads some numbers and escapes that are none by the standard.
                match ["NaN", "Infinity", "\\u"]
                    .iter()
                    .any(|part| text.contains(part))
                {
                    true => fault::error(why),
                    false => fault::refused(why),
                }
            })
    }),
    ("to_json", |call| dump(call, None, false)),
    ("to_nice_json", |call| {
        let indent = call.arg(1, "indent").unwrap_or_else(|| Value::from(4));
        let sort = call.flag(2, "sort_keys", true)?;
        dump(call, Some(indent), sort)
    }),
    ("tojson", |call| {
        // Jinja's own, safe in HTML.
        let text = python::text(&dump(call, None, true)?);
        Ok(Value::from(
            text.replace('<', "\\u003c")
                .replace('>', "\\u003e")
                .replace('&', "\\u0026")
                .replace('\'', "\\u0027"),
        ))
    }),
];

struct Writer {
    out: String,
    indent: Option<String>,
    separators: (String, String),
    sort: bool,
    ascii: bool,
}

fn dump(call: &mut Call, indent: Option<Value>, sort: bool) -> Result<Value> {
    let nice = indent.is_some();
    let indent = indent
        .or_else(|| call.keyword("indent"))
        .filter(|indent| !indent.is_none());
    let indent = indent.map(|indent| match view(&indent) {
        View::Text(text) => text.to_string(),
        _ => " ".repeat(python::integer(&indent).unwrap_or(0).clamp(0, 100) as usize),
    });
    let mut separators = match (nice, &indent) {
        (true, _) | (_, Some(_)) => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    if let Some(given) = call.keyword("separators")
        && let Some([item, key]) = python::sequence(&given).as_deref()
    {
        separators = (python::text(item), python::text(key));
    }
    let sort = call
        .keyword("sort_keys")
        .map_or(sort, |value| value.is_true());
    let ascii = call
        .keyword("ensure_ascii")
        .is_none_or(|value| value.is_true());
    let mut writer = Writer {
        out: String::new(),
        indent,
        separators,
        sort,
        ascii,
    };
    python::check_defined(call.value(), 0)?;
    writer.value(call.value(), 0)?;
    Ok(Value::from(writer.out))
}

pub fn quoted(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c if ascii && (c as u32) > 0x7e => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Writer {
    fn newline(&mut self, level: usize) {
        if let Some(indent) = &self.indent {
            budget::spend(indent.len() * level);
            self.out.push('\n');
            self.out.push_str(&indent.repeat(level));
        }
    }

    fn value(&mut self, value: &Value, level: usize) -> Result<()> {
        if level > python::MAX_DEPTH {
            return fault::fail("a value is nested too deeply");
        }
        budget::check()?;
        match view(value) {
            View::Undefined => return Err(fault::undefined()),
            View::None => self.out.push_str("null"),
            View::Bool(value) => self.out.push_str(if value { "true" } else { "false" }),
            View::Int(value) => self.out.push_str(&value.to_string()),
            View::Float(value) => self.out.push_str(&number(value)),
            View::Text(text) => {
                budget::spend(text.len());
                quoted(&text, self.ascii, &mut self.out);
            }
            View::DateTime(_) => {
                let text = python::text(value).replacen(' ', "T", 1);
                quoted(&text, self.ascii, &mut self.out);
            }
            View::Dict(items) => {
                let mut items: Vec<(Value, Value)> = items.get().into_iter().collect();
                if items.is_empty() {
                    self.out.push_str("{}");
                    return Ok(());
                }
                if self.sort {
                    let mut keys: Vec<Value> = items.iter().map(|(key, _)| key.clone()).collect();
                    crate::methods::sort(&mut keys)?;
                    items.sort_by_key(|(key, _)| keys.iter().position(|other| other == key));
                }
                self.out.push('{');
                for (index, (key, item)) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(&self.separators.0.clone());
                    }
                    self.newline(level + 1);
                    let key = match view(key) {
                        View::None => "null".to_owned(),
                        View::Bool(key) => key.to_string(),
                        View::Float(key) => number(key),
                        _ => python::text(key),
                    };
                    quoted(&key, self.ascii, &mut self.out);
                    self.out.push_str(&self.separators.1.clone());
                    self.value(item, level + 1)?;
                }
                self.newline(level);
                self.out.push('}');
            }
            _ => {
                let items = python::iterate(value)?;
                if items.is_empty() {
                    self.out.push_str("[]");
                    return Ok(());
                }
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.out.push_str(&self.separators.0.clone());
                    }
                    self.newline(level + 1);
                    self.value(item, level + 1)?;
                }
                self.newline(level);
                self.out.push(']');
            }
        }
        Ok(())
    }
}

fn number(value: f64) -> String {
    match python::float(value).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        text => text.to_owned(),
    }
}
