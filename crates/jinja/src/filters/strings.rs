//! Text.

use minijinja::value::Value;

use super::Filter;
use crate::fault::{self, Result};
use crate::runtime::Call;
use crate::value::{self, View, view};
use crate::{budget, methods, python};
use crate::{format, time};

pub const FILTERS: &[(&str, Filter)] = &[
    ("capitalize", |call| {
        Ok(Value::from(methods::capitalize(&call.input()?)))
    }),
    ("center", |call| {
        let width = call.integer(1, "width")?.unwrap_or(80);
        method(call, "center", &[value::int(width)])
    }),
    ("comment", comment),
    ("e", escape),
    ("escape", escape),
    ("forceescape", escape),
    ("format", |call| {
        let text = call.input()?;
        let values = if call.kwargs.is_empty() {
            value::tuple(call.args.split_off(1))
        } else {
            value::dict_of(call.kwargs.clone())
        };
        format::percent(&text, &values).map(Value::from)
    }),
    ("indent", indent),
    ("lower", |call| {
        Ok(Value::from(call.input()?.to_lowercase()))
    }),
    ("pprint", |call| {
        let sorted = sorted(call.value(), 0)?;
        let text = python::repr(&sorted);
        // What does not fit a line is broken by rules of its own.
        match text.chars().count() <= 80 {
            true => Ok(Value::from(text)),
            false => fault::fail("pprint of more than one line is not supported"),
        }
    }),
    ("quote", quote),
    ("replace", |call| {
        let (text, old, new) = (call.input()?, call.text(1, "old")?, call.text(2, "new")?);
        methods::replace(&text, &old, &new, call.integer(3, "count")?).map(Value::from)
    }),
    ("safe", |call| Ok(Value::from(call.input()?))),
    ("split", |call| {
        let args: Vec<Value> = call.args.iter().skip(1).cloned().collect();
        method(call, "split", &args)
    }),
    ("strftime", |call| {
        let at = match call.arg(1, "second") {
            Some(second) if !second.is_none() => {
                let second =
                    python::number(&second).or_else(|| python::parse_float(&python::text(&second)));
                let second = second.ok_or_else(|| fault::error("seconds are a number"))?;
                value::DateTime {
                    seconds: second.floor() as i64,
                    micros: 0,
                }
            }
            _ => time::current(),
        };
        Ok(Value::from(time::strftime(at, &call.input()?)))
    }),
    ("string", |call| Ok(Value::from(call.input()?))),
    ("striptags", |call| {
        let mut out = String::new();
        let mut inside = false;
        for c in call.input()?.chars() {
            match c {
                '<' => inside = true,
                '>' if inside => inside = false,
                c if !inside => out.push(c),
                _ => {}
            }
        }
        Ok(Value::from(
            out.split_whitespace().collect::<Vec<_>>().join(" "),
        ))
    }),
    ("title", title),
    ("to_datetime", |call| {
        let format = call.text_or(1, "format", "%Y-%m-%d %H:%M:%S")?;
        match time::strptime(&call.input()?, &format) {
            Some(at) => Ok(Value::from_object(at)),
            None => fault::fail("a time that does not follow its format"),
        }
    }),
    ("trim", |call| {
        let text = call.input()?;
        Ok(Value::from(match call.arg(1, "chars") {
            Some(chars) if !chars.is_none() => {
                let chars: Vec<char> = python::text(&chars).chars().collect();
                text.trim_matches(|c| chars.contains(&c)).to_owned()
            }
            _ => text.trim().to_owned(),
        }))
    }),
    ("truncate", truncate),
    ("upper", |call| {
        Ok(Value::from(call.input()?.to_uppercase()))
    }),
    ("urlencode", urlencode),
    ("urldecode", urldecode),
    ("wordcount", |call| {
        Ok(Value::from(
            call.input()?
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|w| !w.is_empty())
                .count(),
        ))
    }),
    ("wordwrap", wordwrap),
    ("xmlattr", |call| {
        let View::Dict(items) = view(call.value()) else {
            return fault::refuse("xmlattr takes a dict");
        };
        let mut parts = Vec::new();
        for (key, item) in items.get() {
            if item.is_none() || value::is_missing(&item) {
                continue;
            }
            let key = python::text(&key);
            if key.contains(|c: char| c.is_whitespace() || "/>=".contains(c)) {
                return fault::fail("a name of an attribute holds a character that it cannot");
            }
            let item = python::defined_text(&item)?;
            parts.push(format!("{}=\"{}\"", escaped(&key), escaped(&item)));
        }
        let text = parts.join(" ");
        let space = call.flag(1, "autospace", true)? && !text.is_empty();
        Ok(Value::from(if space { format!(" {text}") } else { text }))
    }),
];

/// With the keys of dicts in order.
fn sorted(value: &Value, depth: usize) -> Result<Value> {
    if depth > python::MAX_DEPTH {
        return fault::fail("a value is nested too deeply");
    }
    let all = |items: &[Value]| -> Result<Vec<Value>> {
        items.iter().map(|item| sorted(item, depth + 1)).collect()
    };
    Ok(match view(value) {
        View::List(items) => value::list(all(&items.get())?),
        View::Tuple(items) => value::tuple(all(items.get())?),
        View::Dict(items) => {
            let items = items.get();
            let mut keys: Vec<Value> = items.keys().cloned().collect();
            methods::sort(&mut keys)?;
            let mut out = value::Items::new();
            for key in keys {
                let item = sorted(items.get(&key).unwrap_or(&Value::UNDEFINED), depth + 1)?;
                out.insert(key, item);
            }
            value::dict(out)
        }
        _ => value.clone(),
    })
}

fn method(call: &mut Call, name: &str, args: &[Value]) -> Result<Value> {
    let text = Value::from(call.input()?);
    methods::call(call.state, &text, name, args)
}

fn escape(call: &mut Call) -> Result<Value> {
    Ok(Value::from(escaped(&call.input()?)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('>', "&gt;")
        .replace('<', "&lt;")
        .replace('\'', "&#39;")
        .replace('"', "&#34;")
}

/// Jinja's: a word starts after white space, a dash or a bracket.
fn title(call: &mut Call) -> Result<Value> {
    let mut out = String::new();
    let mut start = true;
    for c in call.input()?.chars() {
        if start {
            out.extend(c.to_uppercase())
        } else {
            out.extend(c.to_lowercase())
        }
        start = c.is_whitespace() || matches!(c, '-' | '(' | '{' | '[' | '<');
    }
    Ok(Value::from(out))
}

fn indent(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let width = match call.arg(1, "width") {
        None => "    ".to_owned(),
        Some(width) => match view(&width) {
            View::Text(text) => text.to_string(),
            _ => " ".repeat(python::integer(&width).unwrap_or(0).clamp(0, 10_000) as usize),
        },
    };
    let (first, blank) = (call.flag(2, "first", false)?, call.flag(3, "blank", false)?);
    budget::room((text.matches('\n').count() + 1).saturating_mul(width.len() + 24))?;
    // Jinja adds the newline itself, so that the last line counts.
    let text = text + "\n";
    let mut out = if blank {
        methods::lines(&text, false).join(&format!("\n{width}"))
    } else {
        let lines = methods::lines(&text, false);
        let mut lines = lines.iter();
        let mut out = lines.next().cloned().unwrap_or_default();
        for line in lines {
            out.push('\n');
            if !line.is_empty() {
                out.push_str(&width);
            }
            out.push_str(line);
        }
        out
    };
    if first {
        out.insert_str(0, &width);
    }
    Ok(Value::from(out))
}

/// `shlex.quote`.
fn quote(call: &mut Call) -> Result<Value> {
    let text = if call.value().is_none() {
        String::new()
    } else {
        call.input()?
    };
    let safe = !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c));
    Ok(Value::from(if safe {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\"'\"'"))
    }))
}

fn truncate(call: &mut Call) -> Result<Value> {
    let length = call.integer(1, "length")?.unwrap_or(255).max(0) as usize;
    if !matches!(view(call.value()), View::Text(_)) {
        // Jinja looks at the length of whatever it is, and cuts strings only.
        let leeway = call.integer(4, "leeway")?.unwrap_or(5).max(0) as usize;
        return match call.items()?.len() <= length.saturating_add(leeway) {
            true => Ok(call.value().clone()),
            false => fault::fail("truncate takes a string"),
        };
    }
    let text = call.input()?;
    let kill_words = call.flag(2, "killwords", false)?;
    let end = call.text_or(3, "end", "...")?;
    let leeway = call.integer(4, "leeway")?.unwrap_or(5).max(0) as usize;
    let count = text.chars().count();
    if count <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let kept: String = text
        .chars()
        .take(length.saturating_sub(end.chars().count()))
        .collect();
    let kept = if kill_words {
        kept.as_str()
    } else {
        kept.rsplit_once(' ').map_or(kept.as_str(), |(a, _)| a)
    };
    Ok(Value::from(format!("{kept}{end}")))
}

fn percent_encode(text: &str, safe: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let c = byte as char;
        if c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn urlencode(call: &mut Call) -> Result<Value> {
    let pairs = match view(call.value()) {
        View::Dict(items) => items.get().into_iter().collect(),
        View::List(_) | View::Tuple(_) => methods::pairs(call.value())?.into_iter().collect(),
        _ => return Ok(Value::from(percent_encode(&call.input()?, "/"))),
    };
    let pairs: Vec<(Value, Value)> = pairs;
    let encode = |value: &Value| percent_encode(&python::text(value), "").replace("%20", "+");
    Ok(Value::from(
        pairs
            .iter()
            .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
            .collect::<Vec<_>>()
            .join("&"),
    ))
}

fn urldecode(call: &mut Call) -> Result<Value> {
    let text = call.input()?.replace('+', " ");
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'%')
            .then(|| tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) => {
                out.push(code);
                rest = &tail[2..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    Ok(Value::from(String::from_utf8_lossy(&out).into_owned()))
}

fn wordwrap(call: &mut Call) -> Result<Value> {
    let width = call.integer(1, "width")?.unwrap_or(79).clamp(1, 1_000_000) as usize;
    let break_long = call.flag(2, "break_long_words", true)?;
    let newline = call.text_or(3, "wrapstring", "\n")?;
    let on_hyphens = call.flag(4, "break_on_hyphens", true)?;
    let mut out = Vec::new();
    let text = call.input()?;
    budget::room(text.len().saturating_mul(newline.len() + 24))?;
    for line in methods::lines(&text, false) {
        out.push(wrap(&line, width, break_long, on_hyphens).join(&newline));
    }
    Ok(Value::from(out.join(&newline)))
}

/// `textwrap.wrap` with `expand_tabs`, `replace_whitespace` and dropping of blanks as Jinja sets them.
fn wrap(line: &str, width: usize, break_long: bool, on_hyphens: bool) -> Vec<String> {
    let mut chunks: Vec<String> = Vec::new();
    let mut previous = None;
    for c in line.chars() {
        let blank = c.is_whitespace();
        if previous == Some(blank) {
            if let Some(chunk) = chunks.last_mut() {
                chunk.push(c);
            }
        } else {
            chunks.push(c.to_string());
        }
        previous = Some(blank);
    }
    if on_hyphens {
        chunks = chunks.iter().flat_map(|chunk| hyphens(chunk)).collect();
    }
    chunks.reverse();
    let length = |text: &str| text.chars().count();
    let mut lines: Vec<String> = Vec::new();
    while !chunks.is_empty() {
        let mut current = String::new();
        if !lines.is_empty() && chunks.last().is_some_and(|chunk| chunk.trim().is_empty()) {
            chunks.pop();
        }
        while let Some(chunk) = chunks.pop() {
            if length(&current) + length(&chunk) <= width {
                current.push_str(&chunk);
            } else {
                chunks.push(chunk);
                break;
            }
        }
        if let Some(chunk) = chunks.last_mut()
            && length(chunk) > width
        {
            let space = width - length(&current);
            if break_long {
                let head: String = chunk
                    .chars()
                    .take(space.max(usize::from(current.is_empty())))
                    .collect();
                *chunk = chunk.chars().skip(length(&head)).collect();
                current.push_str(&head);
            } else if current.is_empty()
                && let Some(chunk) = chunks.pop()
            {
                current = chunk;
            }
        }
        let trimmed = current.trim_end();
        if !trimmed.is_empty() {
            lines.push(trimmed.to_owned());
        }
    }
    lines
}

/// Splits after hyphens between letters.
fn hyphens(chunk: &str) -> Vec<String> {
    let chars: Vec<char> = chunk.chars().collect();
    let mut parts = Vec::new();
    let mut part = String::new();
    for (at, c) in chars.iter().enumerate() {
        part.push(*c);
        let letters = |range: std::ops::Range<usize>| {
            chars
                .get(range)
                .is_some_and(|c| !c.is_empty() && c.iter().all(|c| c.is_alphabetic()))
        };
        if *c == '-' && at >= 2 && letters(at - 2..at) && letters(at + 1..at + 3) {
            parts.push(std::mem::take(&mut part));
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

fn comment(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let style = call.text_or(1, "style", "plain")?;
    let (style_beginning, style_decoration, style_end) = match style.as_str() {
        "plain" => ("", "# ", ""),
        "erlang" => ("", "% ", ""),
        "c" => ("", "// ", ""),
        "cblock" => ("/*", " * ", " */"),
        "xml" => ("<!--", " - ", "-->"),
        _ => return fault::fail("an unknown style of comment"),
    };
    let option = |name: &str, default: &str| -> Result<String> {
        call.keyword(name).map_or_else(
            || Ok(default.to_owned()),
            |value| python::defined_text(&value),
        )
    };
    let count = |name: &str| -> usize {
        call.keyword(name).map_or(1, |value| {
            python::integer(&value)
                .or_else(|| python::parse_int(&python::text(&value), 10))
                .unwrap_or(1)
                .clamp(0, 10_000) as usize
        })
    };
    let decoration = option("decoration", style_decoration)?;
    let bare = decoration.trim_end();
    let newline = option("newline", "\n")?;
    let beginning = option("beginning", style_beginning)?;
    let prefix = option("prefix", bare)?;
    let postfix = option("postfix", bare)?;
    let end = option("end", style_end)?;

    budget::room(
        (text.len() + 1)
            .saturating_mul(decoration.len() + newline.len() + 1)
            .saturating_add(
                (count("prefix_count") + count("postfix_count"))
                    .saturating_mul(prefix.len() + postfix.len() + newline.len()),
            ),
    )?;
    let mut out = String::new();
    if !beginning.is_empty() {
        out.push_str(&format!("{beginning}{newline}"));
    }
    if !prefix.is_empty() {
        let line = if prefix == newline {
            newline.clone()
        } else {
            format!("{prefix}{newline}")
        };
        out.push_str(&line.repeat(count("prefix_count")));
    }
    let body = format!(
        "{decoration}{}",
        text.replace(&newline, &format!("{newline}{decoration}"))
    );
    out.push_str(&body.replace(
        &format!("{decoration}{newline}"),
        &format!("{bare}{newline}"),
    ));
    out.push_str(&format!("{newline}{postfix}").repeat(count("postfix_count")));
    if !end.is_empty() {
        out.push_str(&format!("{newline}{end}"));
    }
    Ok(Value::from(out))
}
