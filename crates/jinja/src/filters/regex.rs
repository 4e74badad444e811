//! Python's `re`.

use std::cell::RefCell;
use std::collections::HashMap;

use fancy_regex::{Captures, Regex};
use minijinja::value::Value;

use super::Filter;
use crate::fault::{self, Result};
use crate::runtime::Call;
use crate::value;
use crate::{budget, python};

pub const FILTERS: &[(&str, Filter)] = &[
    ("regex_escape", escape),
    ("regex_findall", findall),
    ("regex_replace", replace),
    ("regex_search", search),
];

/// Compiles a pattern written for Python.
pub fn compile(pattern: &str, ignore_case: bool, multiline: bool) -> Result<Regex> {
    let mut flags = String::new();
    if ignore_case {
        flags.push_str("(?i)");
    }
    if multiline {
        flags.push_str("(?m)");
    }
    let not_understood = || fault::error("a regular expression that is not understood");
    let pattern = flags + &translate(pattern, multiline).ok_or_else(not_understood)?;
    COMPILED.with_borrow_mut(|compiled| {
        if let Some(regex) = compiled.get(&pattern) {
            return Ok(regex.clone());
        }
        // Compiling takes some hundred times as long as matching.
        budget::spend(50_000);
        budget::check()?;
        let regex = Regex::new(&pattern).map_err(|_| not_understood())?;
        if compiled.len() >= 64 {
            compiled.clear();
        }
        compiled.insert(pattern, regex.clone());
        Ok(regex)
    })
}

thread_local! {
    static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// What Python and the regex crate write differently.
fn translate(pattern: &str, multiline: bool) -> Option<String> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    let mut class = false;
    let multiline = multiline || pattern.starts_with("(?m)");
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            '\\' => {
                let next = chars.get(at).copied();
                at += usize::from(next.is_some());
                match next {
                    Some('Z') if !class => out.push_str("\\z"),
                    // Classes by Unicode property, which Python does not know.
                    Some('p' | 'P') => return None,
                    // Escaping what needs none is an error in the regex crate.
                    Some(c) if !c.is_alphanumeric() && !c.is_ascii_punctuation() => out.push(c),
                    Some(c @ ('<' | '>')) => out.push(c),
                    Some(c) => {
                        out.push('\\');
                        out.push(c);
                    }
                    None => out.push('\\'),
                }
            }
            '[' if class => out.push_str("\\["),
            '[' => {
                class = true;
                out.push('[');
                if chars.get(at) == Some(&'^') {
                    out.push('^');
                    at += 1;
                }
                if chars.get(at) == Some(&']') {
                    out.push_str("\\]");
                    at += 1;
                }
            }
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            // Before a last newline, too.
            '$' if !class && !multiline => out.push_str("(?=\\n?\\z)"),
            '{' if !class => {
                let rest: String = chars[at..].iter().take_while(|c| **c != '}').collect();
                let closed = chars.get(at + rest.chars().count()) == Some(&'}');
                let quantifier = closed
                    && rest.chars().any(|c| c.is_ascii_digit())
                    && rest.chars().all(|c| c.is_ascii_digit() || c == ',')
                    && rest.matches(',').count() <= 1;
                if quantifier && rest.starts_with(',') {
                    out.push_str("{0");
                } else if quantifier {
                    out.push('{');
                } else {
                    out.push_str("\\{");
                }
            }
            c => out.push(c),
        }
    }
    Some(out)
}

fn failed<E>(_: E) -> minijinja::Error {
    fault::error("a regular expression that takes too long")
}

fn flags(call: &Call, ignore_case: usize, multiline: usize) -> Result<(bool, bool)> {
    Ok((
        call.flag(ignore_case, "ignorecase", false)?,
        call.flag(multiline, "multiline", false)?,
    ))
}

fn expand(template: &str, captures: &Captures<str>, out: &mut String) -> Result<()> {
    let bad = || fault::error("a replacement that names an unknown group");
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('g') if chars.peek() == Some(&'<') => {
                chars.next();
                let name: String = chars.by_ref().take_while(|c| *c != '>').collect();
                match name.parse::<usize>() {
                    Ok(index) if index < captures.len() => {
                        out.push_str(captures.get(index).map_or("", |found| found.as_str()));
                    }
                    Ok(_) => return Err(bad()),
                    Err(_) => out.push_str(captures.name(&name).map_or("", |found| found.as_str())),
                }
            }
            Some('0') => {
                let mut code = 0;
                for _ in 0..2 {
                    if let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) {
                        code = code * 8 + digit;
                        chars.next();
                    }
                }
                out.extend(char::from_u32(code));
            }
            Some(first @ '1'..='9') => {
                let mut index = first as usize - '0' as usize;
                if let Some(second) = chars.peek().and_then(|c| c.to_digit(10)) {
                    index = index * 10 + second as usize;
                    chars.next();
                }
                if index >= captures.len() {
                    return Err(bad());
                }
                out.push_str(captures.get(index).map_or("", |found| found.as_str()));
            }
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('\\') => out.push('\\'),
            Some(c) if c.is_ascii_alphabetic() => {
                return fault::fail("a replacement with an unknown escape");
            }
            Some(c) => {
                out.push('\\');
                out.push(c);
            }
            None => return fault::fail("a replacement that ends in a backslash"),
        }
    }
    Ok(())
}

fn replace(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let (ignore_case, multiline) = flags(call, 3, 4)?;
    let regex = compile(&call.text_or(1, "pattern", "")?, ignore_case, multiline)?;
    let replacement = call.text_or(2, "replacement", "")?;
    let mut out = String::new();
    let mut end = 0;
    for captures in regex.captures_iter(text.as_str()) {
        let captures = captures.map_err(failed)?;
        let Some(whole) = captures.get(0) else {
            continue;
        };
        out.push_str(&text[end..whole.start()]);
        let before = out.len();
        expand(&replacement, &captures, &mut out)?;
        budget::spend(out.len() - before);
        budget::check()?;
        end = whole.end();
    }
    out.push_str(&text[end..]);
    Ok(Value::from(out))
}

fn findall(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let multiline = call.flag(2, "multiline", false)?;
    let ignore_case = call.flag(3, "ignorecase", false)?;
    let regex = compile(&call.text(1, "regex")?, ignore_case, multiline)?;
    let mut found = Vec::new();
    for captures in regex.captures_iter(text.as_str()) {
        let captures = captures.map_err(failed)?;
        let group = |index| Value::from(captures.get(index).map_or("", |found| found.as_str()));
        found.push(match captures.len() {
            1 => group(0),
            2 => group(1),
            count => value::tuple((1..count).map(group).collect()),
        });
    }
    Ok(value::list(found))
}

fn search(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let pattern = call.text(1, "regex")?;
    let keyword = |name: &str| call.keyword(name).is_some_and(|value| value.is_true());
    let regex = compile(&pattern, keyword("ignorecase"), keyword("multiline"))?;
    let Some(captures) = regex.captures(text.as_str()).map_err(failed)? else {
        return Ok(Value::from(()));
    };
    let text = |found: Option<fancy_regex::Match>| {
        found.map_or_else(|| Value::from(()), |found| Value::from(found.as_str()))
    };
    let mut groups = Vec::new();
    for group in call.args.iter().skip(2) {
        let name = python::text(group);
        let unknown = || fault::error("an unknown group of a regular expression");
        if let Some(name) = name
            .strip_prefix("\\g<")
            .and_then(|rest| rest.strip_suffix('>'))
        {
            groups.push(match name.parse::<usize>() {
                Ok(index) => text(captures.get(index)),
                Err(_) => text(captures.name(name)),
            });
        } else {
            let index: usize = name
                .strip_prefix('\\')
                .and_then(|n| n.parse().ok())
                .ok_or_else(unknown)?;
            if index >= captures.len() {
                return Err(unknown());
            }
            groups.push(text(captures.get(index)));
        }
    }
    Ok(if groups.is_empty() {
        text(captures.get(0))
    } else {
        value::list(groups)
    })
}

fn escape(call: &mut Call) -> Result<Value> {
    let text = call.input()?;
    let special = match call.text_or(1, "re_type", "python")?.as_str() {
        "python" => "()[]{}?*+-|^$\\.&~# \t\n\r\u{b}\u{c}",
        "posix_basic" => "[].^$*\\",
        _ => return fault::fail("an unknown kind of regular expression"),
    };
    let mut out = String::new();
    for c in text.chars() {
        if special.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    Ok(Value::from(out))
}

#[cfg(test)]
mod tests {
    #[test]
    fn classes_by_unicode_property_are_refused_as_python_does() {
        for pattern in [r"\p{L}", r"[\P{Nd}]"] {
            assert!(super::compile(pattern, false, false).is_err(), "{pattern}");
        }
        assert!(super::compile(r"\\p\w", false, false).is_ok());
    }
}
