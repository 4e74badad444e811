//! Python's operators, for the calls that [`crate::dialect`] makes of them.

use minijinja::Error;
use minijinja::value::Value;

use crate::fault::{self, Result};
use crate::runtime::Call;
use crate::value::{self, View, view};
use crate::{budget, format, python, time};

pub fn operate(call: &mut Call) -> Result<Value> {
    let mut parts = std::mem::take(&mut call.args).into_iter();
    let mut left = parts.next().unwrap_or_default();
    while let (Some(operator), Some(right)) = (parts.next(), parts.next()) {
        left = binary(operator.as_str().unwrap_or_default(), &left, &right)?;
    }
    Ok(left)
}

fn unsupported(operator: &str, left: &Value, right: &Value) -> Error {
    fault::refused(format!(
        "`{operator}` is not possible between values of type {} and {}",
        python::type_name(left),
        python::type_name(right)
    ))
}

fn binary(operator: &str, left: &Value, right: &Value) -> Result<Value> {
    if left.is_undefined() || (right.is_undefined() && operator != "%") {
        return Err(fault::undefined());
    }
    match (operator, view(left), view(right)) {
        ("+", View::Text(a), View::Text(b)) => return Ok(Value::from(format!("{a}{b}"))),
        ("+", View::List(a), View::List(b)) => {
            let mut items = a.get();
            items.extend(b.get());
            return Ok(value::list(items));
        }
        ("+", View::Tuple(a), View::Tuple(b)) => {
            return Ok(value::tuple([a.get(), b.get()].concat()));
        }
        ("+", View::Other | View::List(_), View::Other | View::List(_))
            if python::sequence(left).is_some() && python::sequence(right).is_some() =>
        {
            let mut items = python::iterate(left)?;
            items.extend(python::iterate(right)?);
            return Ok(value::list(items));
        }
        ("%", View::Text(text), _) => return format::percent(&text, right).map(Value::from),
        ("-", View::DateTime(a), View::DateTime(b)) => return Ok(time::difference(a, b)),
        _ => {}
    }
    if operator == "*" {
        for (value, count) in [(left, right), (right, left)] {
            let Some(count) = python::integer(count) else {
                continue;
            };
            let count = usize::try_from(count).unwrap_or(0);
            let repeated = |items: &[Value]| -> Result<Vec<Value>> {
                budget::room(items.len().saturating_mul(count).saturating_mul(24))?;
                Ok(items
                    .iter()
                    .cloned()
                    .cycle()
                    .take(items.len() * count)
                    .collect())
            };
            match view(value) {
                View::Text(text) => {
                    budget::room(text.len().saturating_mul(count))?;
                    return Ok(Value::from(text.repeat(count)));
                }
                View::List(items) => return Ok(value::list(repeated(&items.get())?)),
                View::Tuple(items) => return Ok(value::tuple(repeated(items.get())?)),
                _ => {}
            }
        }
    }
    if let (Some(a), Some(b)) = (python::integer(left), python::integer(right)) {
        if matches!(operator, "/" | "//" | "%") && b == 0 {
            return fault::refuse("division by zero");
        }
        let exact = match operator {
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            "*" => a.checked_mul(b),
            "/" => return Ok(Value::from(a as f64 / b as f64)),
            "//" => a.checked_div_euclid(b).map(|q| {
                if b < 0 && a.rem_euclid(b) != 0 {
                    q - 1
                } else {
                    q
                }
            }),
            "%" => a
                .checked_rem_euclid(b)
                .map(|r| if b < 0 && r != 0 { r + b } else { r }),
            "**" if b >= 0 => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            "**" if a == 0 => return fault::refuse("division by zero"),
            "**" => return Ok(Value::from((a as f64).powf(b as f64))),
            _ => None,
        };
        return exact
            .map(value::int)
            .ok_or_else(|| fault::error("a number grows too large"));
    }
    let (Some(a), Some(b)) = (python::number(left), python::number(right)) else {
        return Err(unsupported(operator, left, right));
    };
    if matches!(operator, "/" | "//" | "%") && b == 0.0 {
        return fault::refuse("division by zero");
    }
    let floor_mod = |a: f64, b: f64| {
        let r = a % b;
        if r != 0.0 && (r < 0.0) != (b < 0.0) {
            r + b
        } else {
            r
        }
    };
    Ok(Value::from(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => ((a - floor_mod(a, b)) / b).round(),
        "%" => floor_mod(a, b),
        "**" => a.powf(b),
        _ => return Err(unsupported(operator, left, right)),
    }))
}

pub fn negate(value: &Value) -> Result<Value> {
    match view(value) {
        View::Undefined => Err(fault::undefined()),
        View::Float(value) => Ok(Value::from(-value)),
        _ => match python::integer(value).and_then(i128::checked_neg) {
            Some(value) => Ok(value::int(value)),
            None => fault::refuse(format!(
                "a value of type {} has no negative",
                python::type_name(value)
            )),
        },
    }
}

pub fn compare(call: &mut Call) -> Result<Value> {
    let mut parts = std::mem::take(&mut call.args).into_iter();
    let mut left = parts.next().unwrap_or_default();
    while let (Some(operator), Some(right)) = (parts.next(), parts.next()) {
        let holds = match operator.as_str().unwrap_or_default() {
            "in" => python::contains(&right, &left)?,
            "not in" => !python::contains(&right, &left)?,
            operator => {
                if left.is_undefined() || right.is_undefined() {
                    return Err(fault::undefined());
                }
                match operator {
                    "==" => python::equal(&left, &right),
                    "!=" => !python::equal(&left, &right),
                    "<" => python::compare(&left, &right)?.is_lt(),
                    "<=" => python::compare(&left, &right)?.is_le(),
                    ">" => python::compare(&left, &right)?.is_gt(),
                    _ => python::compare(&left, &right)?.is_ge(),
                }
            }
        };
        if !holds {
            return Ok(Value::from(false));
        }
        left = right;
    }
    Ok(Value::from(true))
}
