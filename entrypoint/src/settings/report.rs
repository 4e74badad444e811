//! What is wrong with the settings, for people: all of it at once.

use std::fmt::Write as _;

use contract::{Kind, Setting};

use super::{is_secret, nearest};
use values::MASK;

/// One wrong setting, or one wrong line of the env file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub name: String,
    /// What was given, fit to be shown.
    pub given: Option<String>,
    pub reason: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Problem {
            name: name.into(),
            given: None,
            reason: reason.into(),
            hint: None,
        }
    }

    pub fn given(mut self, text: &str) -> Self {
        self.given = Some(shown(text));
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// `text` is not what the setting takes.
    pub fn refused(name: &str, setting: &Setting, text: &str, reason: &str) -> Self {
        let mut problem = Problem::new(name, reason).given(text);
        if is_secret(setting) {
            problem.given = Some("(a secret, not shown)".to_owned());
        } else if setting.kind == Kind::Certificate {
            problem.given = None;
        } else {
            problem.hint = hint(setting, text);
        }
        problem
    }
}

fn hint(setting: &Setting, text: &str) -> Option<String> {
    if setting.kind == Kind::Enum {
        let choices = setting.choices.iter().map(String::as_str);
        let same = choices
            .clone()
            .find(|choice| choice.eq_ignore_ascii_case(text));
        return same
            .or_else(|| nearest(text, choices))
            .map(|choice| format!("did you mean `{choice}`?"));
    }
    // Kubernetes sets REDIS_PORT=tcp://10.0.0.1:6379 for a service named redis.
    if matches!(setting.kind, Kind::Port | Kind::Int) && text.starts_with("tcp://") {
        return Some(
            "Kubernetes sets such variables for its services: set `enableServiceLinks: false` in the pod".to_owned(),
        );
    }
    let example = setting.example.as_deref()?;
    Some(format!("for example {}", shown(example)))
}

/// At most 60 letters, without line ends and without the password of a URL.
pub fn shown(text: &str) -> String {
    let bare = without_password(text);
    let short: String = bare.chars().take(60).collect();
    let dots = if short.len() < bare.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}

/// `redis://:secret@host` with a mask for what stands before the `@`.
pub fn without_password(text: &str) -> String {
    let Some(at) = text.find("://") else {
        return text.to_owned();
    };
    let (scheme, rest) = text.split_at(at + 3);
    // To the last @ of all: a password may hold a slash that should have been escaped.
    match rest.rfind('@') {
        Some(end) => format!("{scheme}{MASK}{}", &rest[end..]),
        None => text.to_owned(),
    }
}

/// The message for people.
pub fn report(problems: &[Problem]) -> String {
    let mut out = match problems.len() {
        1 => "cannot start: 1 setting is wrong".to_owned(),
        n => format!("cannot start: {n} settings are wrong"),
    };
    for problem in problems {
        let _ = write!(out, "\n  {}", problem.name);
        if let Some(given) = &problem.given {
            let _ = write!(out, " = {given}");
        }
        let _ = write!(out, ": {}", problem.reason);
        if let Some(hint) = &problem.hint {
            let _ = write!(out, "\n    hint: {hint}");
        }
    }
    out
}
