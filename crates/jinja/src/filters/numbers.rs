//! Numbers and their spellings.

use minijinja::value::Value;

use super::Filter;
use crate::fault::{self, Result};
use crate::python;
use crate::runtime::Call;
use crate::value::{self, View, view};

pub const FILTERS: &[(&str, Filter)] = &[
    ("abs", |call| {
        match (python::integer(call.value()), python::number(call.value())) {
            (Some(value), _) => Ok(value::int(value.saturating_abs())),
            (_, Some(value)) => Ok(Value::from(value.abs())),
            _ => fault::refuse("abs of what is no number"),
        }
    }),
    ("bool", |call| {
        Ok(match view(call.value()) {
            View::None if call.session.modern => Value::from(false),
            View::None => Value::from(()),
            View::Bool(value) => Value::from(value),
            View::Text(text) => Value::from(matches!(
                text.to_lowercase().as_str(),
                "yes" | "on" | "1" | "true"
            )),
            _ => Value::from(python::number(call.value()) == Some(1.0)),
        })
    }),
    ("filesizeformat", |call| {
        let bytes = number(call)?;
        let binary = call.flag(1, "binary", false)?;
        let base: f64 = if binary { 1024.0 } else { 1000.0 };
        if bytes == 1.0 {
            return Ok(Value::from("1 Byte"));
        }
        if bytes < base {
            return Ok(Value::from(format!("{} Bytes", bytes.trunc())));
        }
        let units = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
        let mut power = 1;
        while power < units.len() && bytes >= base.powi(power as i32 + 1) {
            power += 1;
        }
        let unit = units[power - 1];
        let unit = if binary {
            format!("{}iB", unit.to_uppercase())
        } else {
            format!("{unit}B")
        };
        Ok(Value::from(format!(
            "{:.1} {unit}",
            bytes / base.powi(power as i32)
        )))
    }),
    ("float", |call| {
        let default = call.arg(1, "default").unwrap_or_else(|| Value::from(0.0));
        Ok(match view(call.value()) {
            View::Text(text) => python::parse_float(&text).map_or(default, Value::from),
            _ => python::number(call.value()).map_or(default, Value::from),
        })
    }),
    ("human_readable", human_readable),
    ("human_to_bytes", human_to_bytes),
    ("int", int),
    ("log", |call| {
        let value = number(call)?;
        let base = call.arg(1, "base").and_then(|value| python::number(&value));
        if value <= 0.0 {
            return fault::fail("log of a number that is not positive");
        }
        Ok(Value::from(match base {
            None => value.ln(),
            Some(10.0) => value.log10(),
            Some(base) => value.ln() / base.ln(),
        }))
    }),
    ("pow", |call| {
        Ok(Value::from(number(call)?.powf(argument(call, 1, "y")?)))
    }),
    ("root", |call| {
        let base = call
            .arg(1, "base")
            .and_then(|value| python::number(&value))
            .unwrap_or(2.0);
        let value = number(call)?;
        if value < 0.0 {
            return fault::fail("root of a negative number");
        }
        Ok(Value::from(if base == 2.0 {
            value.sqrt()
        } else {
            value.powf(1.0 / base)
        }))
    }),
    ("round", round),
];

fn number(call: &Call) -> Result<f64> {
    python::number(call.value()).ok_or_else(|| fault::error("a filter wants a number"))
}

fn argument(call: &Call, position: usize, name: &str) -> Result<f64> {
    python::number(&call.need(position, name)?)
        .ok_or_else(|| fault::error("a filter wants a number"))
}

fn int(call: &mut Call) -> Result<Value> {
    let default = call.arg(1, "default").unwrap_or_else(|| Value::from(0));
    let base = call
        .integer(2, "base")?
        .and_then(|base| u32::try_from(base).ok())
        .unwrap_or(10);
    Ok(match view(call.value()) {
        View::Text(text) => match python::parse_int(&text, base) {
            Some(value) => value::int(value),
            // Jinja tries int(float(value)) next.
            None => match python::parse_float(&text) {
                Some(value) if value.is_finite() => value::int(value.trunc() as i128),
                _ => default,
            },
        },
        View::Float(value) if value.is_finite() => value::int(value.trunc() as i128),
        _ => python::integer(call.value()).map_or(default, value::int),
    })
}

fn round(call: &mut Call) -> Result<Value> {
    let value = number(call)?;
    let precision = call.integer(1, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
    let method = call.text_or(2, "method", "common")?;
    let factor = 10f64.powi(precision);
    Ok(match method.as_str() {
        "common" => {
            let rounded = if precision >= 0 {
                // Rust, like Python, rounds the exact binary value; ties go to even.
                format!("{value:.*}", precision as usize)
                    .parse()
                    .unwrap_or(value)
            } else {
                (value * factor).round_ties_even() / factor
            };
            // Python's round() of an int stays an int.
            match python::integer(call.value()) {
                Some(_) => value::int(rounded as i128),
                None => Value::from(rounded),
            }
        }
        "ceil" => Value::from((value * factor).ceil() / factor),
        "floor" => Value::from((value * factor).floor() / factor),
        _ => return fault::fail("round knows common, ceil and floor"),
    })
}

const SIZES: [(&str, i128); 9] = [
    ("Y", 1 << 80),
    ("Z", 1 << 70),
    ("E", 1 << 60),
    ("P", 1 << 50),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("B", 1),
];

fn human_readable(call: &mut Call) -> Result<Value> {
    let size = match view(call.value()) {
        View::Text(text) => python::parse_float(&text).ok_or_else(|| fault::error("no size"))?,
        _ => number(call)?,
    };
    let base = if call.flag(1, "isbits", false)? {
        "bits"
    } else {
        "Bytes"
    };
    let unit = call
        .arg(2, "unit")
        .filter(|unit| !unit.is_none())
        .map(|unit| python::text(&unit));
    let (suffix, limit) = SIZES
        .iter()
        .find(|(suffix, limit)| match &unit {
            None => size >= *limit as f64,
            Some(unit) => unit.to_uppercase().starts_with(suffix),
        })
        .copied()
        .unwrap_or(("B", 1));
    let suffix = if limit == 1 {
        base.to_owned()
    } else {
        format!("{suffix}{}", &base[..1])
    };
    Ok(Value::from(format!("{:.2} {suffix}", size / limit as f64)))
}

fn human_to_bytes(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number = python::parse_float(&text[..end]).ok_or_else(|| fault::error("no size"))?;
    let unit = text[end..].trim();
    let unit = match call.arg(1, "default_unit") {
        Some(default) if unit.is_empty() && !default.is_none() => python::text(&default),
        _ => unit.to_owned(),
    };
    let first = unit.to_uppercase().chars().next();
    let factor = match first {
        None => 1,
        Some(first) => {
            let known = SIZES.iter().find(|(suffix, _)| suffix.starts_with(first));
            known
                .ok_or_else(|| fault::error("an unknown unit of size"))?
                .1
        }
    };
    Ok(value::int(
        (number * factor as f64).round_ties_even() as i128
    ))
}
