//! Paths and URLs, as text: `realpath` alone looks at the file system.

use minijinja::value::Value;

use super::Filter;
use crate::fault::{self, Result};
use crate::python;
use crate::runtime::Call;
use crate::value;

pub const FILTERS: &[(&str, Filter)] = &[
    ("basename", |call| {
        let text = call.input()?;
        Ok(Value::from(text.rsplit('/').next().unwrap_or_default()))
    }),
    ("dirname", |call| Ok(Value::from(dirname(&call.input()?)))),
    ("expanduser", |call| {
        let text = call.input()?;
        match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
                Ok(Value::from(format!("{}{rest}", home.trim_end_matches('/'))))
            }
            _ => Ok(Value::from(text)),
        }
    }),
    ("path_join", |call| {
        let parts: Vec<String> = match python::sequence(call.value()) {
            Some(parts) => parts
                .iter()
                .map(python::defined_text)
                .collect::<Result<_>>()?,
            None => vec![call.input()?],
        };
        let mut path = String::new();
        for part in parts {
            if part.starts_with('/') || path.is_empty() {
                path = part;
            } else {
                if !path.ends_with('/') {
                    path.push('/');
                }
                path.push_str(&part);
            }
        }
        Ok(Value::from(path))
    }),
    ("realpath", |call| {
        let text = call.input()?;
        #[allow(clippy::disallowed_methods)] // A path that does not exist is no error.
        let real = std::fs::canonicalize(&text)
            .ok()
            .and_then(|path| path.to_str().map(str::to_owned));
        Ok(Value::from(real.unwrap_or_else(|| normal(&text))))
    }),
    ("relpath", |call| {
        let path = normal(&call.input()?);
        let start = normal(&call.text_or(1, "start", ".")?);
        let split = |path: &str| -> Vec<String> {
            path.split('/')
                .filter(|part| !part.is_empty() && *part != ".")
                .map(str::to_owned)
                .collect()
        };
        let (path, start) = (split(&path), split(&start));
        let common = path.iter().zip(&start).take_while(|(a, b)| a == b).count();
        let mut parts = vec!["..".to_owned(); start.len() - common];
        parts.extend(path[common..].iter().cloned());
        Ok(Value::from(if parts.is_empty() {
            ".".to_owned()
        } else {
            parts.join("/")
        }))
    }),
    ("splitext", |call| {
        let text = call.input()?;
        let start = text.rfind('/').map_or(0, |at| at + 1);
        let name = &text[start..];
        let stem = name.trim_start_matches('.');
        let at = match stem.rfind('.') {
            Some(at) if !stem.is_empty() => start + (name.len() - stem.len()) + at,
            _ => text.len(),
        };
        Ok(value::tuple(vec![
            Value::from(&text[..at]),
            Value::from(&text[at..]),
        ]))
    }),
    ("urlsplit", urlsplit),
];

fn dirname(path: &str) -> String {
    let head = &path[..path.rfind('/').map_or(0, |at| at + 1)];
    let trimmed = head.trim_end_matches('/');
    if trimmed.is_empty() {
        head.to_owned()
    } else {
        trimmed.to_owned()
    }
}

/// `os.path.normpath`.
fn normal(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else if part != ".." || !absolute {
            parts.push(part);
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        _ => joined,
    }
}

fn urlsplit(call: &mut Call) -> Result<Value> {
    let url = call.input()?;
    let mut rest = url.trim();
    let mut scheme = String::new();
    if let Some((head, tail)) = rest.split_once(':')
        && head.starts_with(|c: char| c.is_ascii_alphabetic())
        && head
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    {
        scheme = head.to_lowercase();
        rest = tail;
    }
    let mut authority = "";
    if let Some(after) = rest.strip_prefix("//") {
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        (authority, rest) = after.split_at(end);
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (user_info, host_port) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let (user, password) = match user_info.map(|info| {
        info.split_once(':')
            .map_or((info, None), |(a, b)| (a, Some(b)))
    }) {
        Some((user, password)) => (Some(user), password),
        None => (None, None),
    };
    let (host, port) = match host_port
        .strip_prefix('[')
        .and_then(|inner| inner.split_once(']'))
    {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => host_port
            .split_once(':')
            .map_or((host_port, None), |(host, port)| (host, Some(port))),
    };
    let none = || Value::from(());
    let port = match port {
        None | Some("") => none(),
        Some(port) => port
            .parse::<u16>()
            .map(Value::from)
            .map_err(|_| fault::error("a URL with a wrong port"))?,
    };
    let parts = value::dict_of([
        ("fragment", Value::from(fragment)),
        (
            "hostname",
            if host.is_empty() {
                none()
            } else {
                Value::from(host.to_lowercase())
            },
        ),
        ("netloc", Value::from(authority)),
        ("password", password.map_or_else(none, Value::from)),
        ("path", Value::from(path)),
        ("port", port),
        ("query", Value::from(query)),
        ("scheme", Value::from(scheme)),
        ("username", user.map_or_else(none, Value::from)),
    ]);
    match call.text_or(1, "query", "")?.as_str() {
        "" => Ok(parts),
        name => match crate::runtime::item(&parts, &Value::from(name)) {
            Some(value) => Ok(value),
            None => fault::fail("an unknown part of a URL"),
        },
    }
}
