//! `'%s' % value` and `'{}'.format(value)`.

use minijinja::value::Value;

use crate::fault::{self, Result};
use crate::python;
use crate::runtime;
use crate::value::{View, view};

/// Longest padding: more is a mistake, and memory.
const MAX_WIDTH: usize = 100_000;

pub fn percent(text: &str, values: &Value) -> Result<String> {
    let arguments = match view(values) {
        View::Tuple(items) => items.get().to_vec(),
        _ => vec![values.clone()],
    };
    let mut next = arguments.iter();
    let mut used_name = false;
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut named = None;
        if chars.next_if_eq(&'(').is_some() {
            let name: String = chars.by_ref().take_while(|c| *c != ')').collect();
            named = Some(
                runtime::item(values, &Value::from(name.as_str())).ok_or_else(fault::undefined)?,
            );
            used_name = true;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            match flag {
                '-' => spec.align = Some('<'),
                '0' if spec.align.is_none() => spec.zero = true,
                '+' | ' ' => spec.sign = flag,
                '#' => spec.alternate = true,
                _ => {}
            }
        }
        let mut counted =
            |chars: &mut std::iter::Peekable<std::str::Chars>| -> Result<Option<usize>> {
                if chars.next_if_eq(&'*').is_some() {
                    let value = next.next().and_then(python::integer).unwrap_or(0);
                    return Ok(usize::try_from(value).ok());
                }
                digits(chars)
            };
        spec.width = counted(&mut chars)?;
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(counted(&mut chars)?.unwrap_or(0));
        }
        while chars.next_if(|c| matches!(c, 'l' | 'h' | 'L')).is_some() {}
        let Some(kind) = chars.next() else {
            return fault::fail("a format that is not complete");
        };
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => next
                .next()
                .cloned()
                .ok_or_else(|| fault::error("a format has more places than values"))?,
        };
        if value.is_undefined() {
            return Err(fault::undefined());
        }
        let number =
            || python::number(&value).ok_or_else(|| fault::error("a format wants a number"));
        match kind {
            's' => out.push_str(&spec.text(&python::defined_text(&value)?, '>')?),
            'r' | 'a' => out.push_str(&spec.text(&python::repr(&value), '>')?),
            'c' => out.push_str(&spec.text(&python::text(&value), '>')?),
            'd' | 'i' | 'u' => {
                let whole = match python::integer(&value) {
                    Some(value) => value,
                    None => number()?.trunc() as i128,
                };
                out.push_str(&spec.integer(whole, 'd')?);
            }
            'x' | 'X' | 'o' => {
                let value = python::integer(&value)
                    .ok_or_else(|| fault::error("a format wants an integer"))?;
                out.push_str(&spec.integer(value, kind)?);
            }
            'f' | 'F' | 'e' | 'E' | 'g' | 'G' => out.push_str(&spec.float(number()?, kind)?),
            _ => return fault::fail("a format with an unknown type"),
        }
    }
    // Python counts the values of tuples only; lists and undefined values pass for mappings.
    let is_mapping = matches!(
        view(values),
        View::Dict(_) | View::List(_) | View::Undefined
    );
    if next.next().is_some() && !used_name && !is_mapping {
        return fault::fail("a format has fewer places than values");
    }
    Ok(out)
}

fn digits(chars: &mut std::iter::Peekable<std::str::Chars>) -> Result<Option<usize>> {
    let mut text = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        text.push(digit);
    }
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .ok()
        .filter(|width| *width <= MAX_WIDTH)
        .map(Some)
        .ok_or_else(|| fault::error("a format that is too wide"))
}

/// `str.format`.
pub fn braces(text: &str, args: &[Value], named: &[(String, Value)]) -> Result<String> {
    braces_at(text, args, named, &mut 0, 0)
}

fn braces_at(
    text: &str,
    args: &[Value],
    named: &[(String, Value)],
    automatic: &mut usize,
    depth: usize,
) -> Result<String> {
    if depth > 2 {
        return fault::fail("a format nested too deeply");
    }
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' if chars.next_if_eq(&'{').is_some() => out.push('{'),
            '}' if chars.next_if_eq(&'}').is_some() => out.push('}'),
            '}' => return fault::fail("a single `}` in a format"),
            '{' => {
                let mut field = String::new();
                let mut open = 1;
                for c in chars.by_ref() {
                    match c {
                        '{' => open += 1,
                        '}' => open -= 1,
                        _ => {}
                    }
                    if open == 0 {
                        break;
                    }
                    field.push(c);
                }
                if open > 0 {
                    return fault::fail("a single `{` in a format");
                }
                let (name, spec) = field.split_once(':').unwrap_or((&field, ""));
                let (name, conversion) = name.split_once('!').unwrap_or((name, ""));
                let value = lookup(name, args, named, automatic)?;
                if value.is_undefined() {
                    return Err(fault::undefined());
                }
                let spec = if spec.contains('{') {
                    braces_at(spec, args, named, automatic, depth + 1)?
                } else {
                    spec.to_owned()
                };
                let value = match conversion {
                    "r" | "a" => Value::from(python::repr(&value)),
                    "s" => Value::from(python::text(&value)),
                    _ => value,
                };
                out.push_str(&apply(&value, &spec)?);
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn lookup(
    name: &str,
    args: &[Value],
    named: &[(String, Value)],
    automatic: &mut usize,
) -> Result<Value> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(end);
    let missing = || fault::error("a format has more places than values");
    let mut value = if first.is_empty() {
        *automatic += 1;
        args.get(*automatic - 1).cloned().ok_or_else(missing)?
    } else if let Ok(index) = first.parse::<usize>() {
        args.get(index).cloned().ok_or_else(missing)?
    } else {
        named
            .iter()
            .find(|(key, _)| key == first)
            .map(|(_, value)| value.clone())
            .ok_or_else(missing)?
    };
    while !rest.is_empty() {
        let (key, is_item) = if let Some(inner) = rest.strip_prefix('[') {
            let (key, after) = inner
                .split_once(']')
                .ok_or_else(|| fault::error("a format that is not complete"))?;
            rest = after;
            (key, true)
        } else {
            let inner = &rest[1..];
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            rest = &inner[end..];
            (&inner[..end], false)
        };
        value = if is_item {
            let key = key
                .parse::<i64>()
                .map_or_else(|_| Value::from(key), Value::from);
            runtime::item(&value, &key)
        } else {
            runtime::attribute(&value, key)
        }
        .ok_or_else(fault::undefined)?;
    }
    Ok(value)
}

/// Python's format specification.
fn apply(value: &Value, spec: &str) -> Result<String> {
    if spec.is_empty() {
        return python::defined_text(value);
    }
    if let View::DateTime(at) = view(value) {
        return Ok(crate::time::strftime(at, spec));
    }
    let mut parsed = Spec::default();
    let mut chars = spec.chars().peekable();
    let mut lookahead = spec.chars();
    let (first, second) = (lookahead.next(), lookahead.next());
    if second.is_some_and(|c| matches!(c, '<' | '>' | '^' | '=')) {
        parsed.fill = first.unwrap_or(' ');
        parsed.align = second;
        chars.next();
        chars.next();
    } else if first.is_some_and(|c| matches!(c, '<' | '>' | '^' | '=')) {
        parsed.align = first;
        chars.next();
    }
    if let Some(sign) = chars.next_if(|c| matches!(c, '+' | '-' | ' ')) {
        parsed.sign = sign;
    }
    parsed.alternate = chars.next_if_eq(&'#').is_some();
    if chars.next_if_eq(&'0').is_some() {
        parsed.zero = parsed.align.is_none();
    }
    parsed.width = digits(&mut chars)?;
    parsed.group = chars.next_if(|c| matches!(c, ',' | '_'));
    if chars.next_if_eq(&'.').is_some() {
        parsed.precision = digits(&mut chars)?;
    }
    let kind = chars.next();
    if chars.next().is_some() {
        return fault::fail("a format that is not understood");
    }
    match (view(value), kind) {
        (View::Text(text), None | Some('s')) => parsed.text(&text, '<'),
        (View::Int(value), None | Some('d' | 'n')) => parsed.integer(value, 'd'),
        (View::Int(value), Some(kind @ ('x' | 'X' | 'o' | 'b'))) => parsed.integer(value, kind),
        (View::Bool(value), Some(kind @ ('d' | 'x' | 'o' | 'b'))) => {
            parsed.integer(i128::from(value), kind)
        }
        (
            View::Int(_) | View::Float(_) | View::Bool(_),
            Some(kind @ ('f' | 'F' | 'e' | 'E' | 'g' | 'G' | '%')),
        ) => parsed.float(python::number(value).unwrap_or_default(), kind),
        (View::Float(value), None) if parsed.precision.is_some() => parsed.float(value, 'g'),
        (View::Float(value), None) => parsed.number(python::float(value)),
        (_, None | Some('s')) => parsed.text(&python::defined_text(value)?, '<'),
        _ => fault::fail("a format that does not fit its value"),
    }
}

#[derive(Default)]
struct Spec {
    fill: char,
    align: Option<char>,
    sign: char,
    alternate: bool,
    zero: bool,
    width: Option<usize>,
    group: Option<char>,
    precision: Option<usize>,
}

impl Spec {
    fn pad(&self, text: &str, default: char) -> String {
        let fill = if self.fill == '\0' { ' ' } else { self.fill };
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        let blanks = |count| std::iter::repeat_n(fill, count).collect::<String>();
        match self.align.unwrap_or(default) {
            '<' => format!("{text}{}", blanks(missing)),
            '^' => format!(
                "{}{text}{}",
                blanks(missing / 2),
                blanks(missing - missing / 2)
            ),
            _ => format!("{}{text}", blanks(missing)),
        }
    }

    fn text(&self, text: &str, default: char) -> Result<String> {
        let cut: String = match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text.to_owned(),
        };
        Ok(self.pad(&cut, default))
    }

    /// Sign, grouping and padding of a number's digits.
    fn number(&self, digits: String) -> Result<String> {
        let (mut sign, digits) = match digits.strip_prefix('-') {
            Some(rest) => ("-".to_owned(), rest.to_owned()),
            None => (String::new(), digits),
        };
        if sign.is_empty() && matches!(self.sign, '+' | ' ') {
            sign.push(self.sign);
        }
        let digits = match self.group {
            None => digits,
            Some(separator) => {
                let end = digits.find(['.', 'e']).unwrap_or(digits.len());
                let (whole, rest) = digits.split_at(end);
                let mut out = String::new();
                for (index, c) in whole.chars().enumerate() {
                    if index > 0 && (whole.len() - index) % 3 == 0 {
                        out.push(separator);
                    }
                    out.push(c);
                }
                out + rest
            }
        };
        if self.zero || self.align == Some('=') {
            let fill = if self.zero || self.fill == '\0' {
                '0'
            } else {
                self.fill
            };
            let missing = self
                .width
                .unwrap_or(0)
                .saturating_sub(sign.len() + digits.len());
            return Ok(format!(
                "{sign}{}{digits}",
                std::iter::repeat_n(fill, missing).collect::<String>()
            ));
        }
        Ok(self.pad(&format!("{sign}{digits}"), '>'))
    }

    fn integer(&self, value: i128, kind: char) -> Result<String> {
        let magnitude = value.unsigned_abs();
        let (prefix, digits) = match kind {
            'x' => ("0x", format!("{magnitude:x}")),
            'X' => ("0X", format!("{magnitude:X}")),
            'o' => ("0o", format!("{magnitude:o}")),
            'b' => ("0b", format!("{magnitude:b}")),
            _ => ("", magnitude.to_string()),
        };
        let prefix = if self.alternate { prefix } else { "" };
        let sign = if value < 0 { "-" } else { "" };
        self.number(format!("{sign}{prefix}{digits}"))
    }

    fn float(&self, value: f64, kind: char) -> Result<String> {
        if !value.is_finite() {
            return self.number(python::float(value));
        }
        let precision = self.precision.unwrap_or(6).min(300);
        let exponent = |text: String| match text.split_once('e') {
            Some((mantissa, exponent)) => {
                let exponent: i32 = exponent.parse().unwrap_or(0);
                let sign = if exponent < 0 { '-' } else { '+' };
                format!("{mantissa}e{sign}{:02}", exponent.abs())
            }
            None => text,
        };
        let text = match kind {
            'f' | 'F' => format!("{value:.precision$}"),
            '%' => format!("{:.precision$}%", value * 100.0),
            'e' | 'E' => exponent(format!("{value:.precision$e}")),
            _ => {
                let significant = precision.max(1);
                let scientific = format!("{value:.*e}", significant - 1);
                let magnitude: i32 = scientific
                    .split_once('e')
                    .and_then(|(_, e)| e.parse().ok())
                    .unwrap_or(0);
                let trim = |text: String| match text.split_once('e') {
                    Some((mantissa, e)) if mantissa.contains('.') && !self.alternate => {
                        format!(
                            "{}e{e}",
                            mantissa.trim_end_matches('0').trim_end_matches('.')
                        )
                    }
                    None if text.contains('.') && !self.alternate => {
                        text.trim_end_matches('0').trim_end_matches('.').to_owned()
                    }
                    _ => text,
                };
                if value != 0.0 && (magnitude < -4 || magnitude >= significant as i32) {
                    exponent(trim(scientific))
                } else {
                    let decimals = (significant as i32 - 1 - magnitude).max(0) as usize;
                    trim(format!("{value:.decimals$}"))
                }
            }
        };
        self.number(if kind.is_ascii_uppercase() {
            text.to_uppercase()
        } else {
            text
        })
    }
}
