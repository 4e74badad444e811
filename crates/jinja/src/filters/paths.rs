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
    ("commonpath", |call| {
        let paths: Vec<String> = call
            .items()?
            .iter()
            .map(|path| python::defined_text(path).map(|path| normal_parts(&path)))
            .collect::<Result<_>>()?;
        let Some(first) = paths.first() else {
            return fault::fail("commonpath takes at least one path");
        };
        let absolute = first.starts_with('/');
        if paths.iter().any(|path| path.starts_with('/') != absolute) {
            return fault::fail("absolute and relative paths have nothing in common");
        }
        let split = |path: &str| -> Vec<String> {
            path.split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let mut common = split(first);
        for path in &paths[1..] {
            let parts = split(path);
            let same = common
                .iter()
                .zip(&parts)
                .take_while(|(a, b)| a == b)
                .count();
            common.truncate(same);
        }
        let root = if absolute { "/" } else { "" };
        Ok(Value::from(format!("{root}{}", common.join("/"))))
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
    ("expandvars", |call| {
        let text = call.input()?;
        match text.contains('$') {
            true => fault::fail("expandvars reads the environment of who runs Ansible"),
            false => Ok(Value::from(text)),
        }
    }),
    ("normpath", |call| {
        let text = call.input()?;
        Ok(Value::from(match text.as_str() {
            "" => ".".to_owned(),
            // POSIX leaves two slashes at the start alone.
            text if text.starts_with("//") && !text.starts_with("///") => {
                format!("/{}", normal(text))
            }
            text => normal(text),
        }))
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
        if path.starts_with('/') != start.starts_with('/') {
            return fault::refuse("relpath of a relative and an absolute path");
        }
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
    ("win_basename", |call| {
        let text = call.input()?;
        let (_, path) = drive(&text)?;
        Ok(Value::from(
            path.rsplit(['/', '\\']).next().unwrap_or_default(),
        ))
    }),
    ("win_dirname", |call| {
        let text = call.input()?;
        let (drive, path) = drive(&text)?;
        let head = &path[..path.rfind(['/', '\\']).map_or(0, |at| at + 1)];
        let trimmed = head.trim_end_matches(['/', '\\']);
        let head = if trimmed.is_empty() { head } else { trimmed };
        Ok(Value::from(format!("{drive}{head}")))
    }),
    ("win_splitdrive", |call| {
        let text = call.input()?;
        let (drive, path) = drive(&text)?;
        Ok(value::tuple(vec![Value::from(drive), Value::from(path)]))
    }),
];

/// `C:` and the rest.
fn drive(path: &str) -> Result<(&str, &str)> {
    if path.starts_with(r"\\") || path.starts_with("//") {
        return fault::fail("a Windows share is not supported");
    }
    match path.char_indices().nth(1) {
        Some((at, ':')) => Ok(path.split_at(at + 1)),
        _ => Ok(("", path)),
    }
}

/// A path without `.` and empty parts.
fn normal_parts(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    format!("{root}{}", parts.join("/"))
}

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
    let url = call.input()?.replace(['\t', '\r', '\n'], "");
    if url.starts_with(|c: char| c <= ' ') {
        return fault::fail("a URL that begins with a blank, on which Pythons differ");
    }
    let mut rest = url.as_str();
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
