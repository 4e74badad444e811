//! From all sources to one value a setting, or to the list of all that is wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use contract::{Contract, Kind, Setting, Value, Variables};

use super::{Environment, convert, is_secret, nearest};

/// Files named by `NAME_FILE` are not read beyond this.
const FILE_LIMIT: u64 = 1 << 20;

/// Variables that every container has or may have, and that nobody mistypes.
const COMMON: &[&str] = &[
    "PATH",
    "HOME",
    "HOSTNAME",
    "TERM",
    "LANG",
    "LANGUAGE",
    "USER",
    "SHELL",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "LOGNAME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "DEBIAN_FRONTEND",
    "NOTIFY_SOCKET",
];

/// One wrong setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub name: String,
    /// What was given, fit to be shown.
    pub given: Option<String>,
    pub reason: String,
    pub hint: Option<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    Environment,
    File,
    Kept,
}

#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// By setting.
    pub values: BTreeMap<String, (Value, Given)>,
    /// Settings that want a generated value and have none yet, with its length.
    pub to_generate: BTreeMap<String, u16>,
    pub warnings: Vec<String>,
}

impl Resolved {
    /// By variable, as the templates want it.
    pub fn variables(&self, contract: &Contract) -> Variables {
        let mut out = Variables::new();
        for (name, (value, _)) in &self.values {
            if let Some(setting) = contract.settings.get(name) {
                out.insert(setting.variable.clone(), value.clone());
            }
        }
        out
    }
}

/// `kept` is what an earlier start generated. `read` gives the text of a `NAME_FILE`.
///
/// # Errors
///
/// All problems, in the settings' order and then those of unknown variables.
pub fn resolve(
    contract: &Contract,
    environment: &Environment,
    kept: &BTreeMap<String, String>,
) -> Result<Resolved, Vec<Problem>> {
    let mut resolved = Resolved::default();
    let mut problems = Vec::new();
    for (name, setting) in &contract.settings {
        match given(contract, environment, name, setting) {
            Ok(Some((text, source))) => match check(name, setting, &text) {
                Ok(value) => {
                    resolved.values.insert(name.clone(), (value, source));
                }
                Err(problem) => problems.push(problem),
            },
            Ok(None) => {
                if let Some(text) = kept.get(name) {
                    resolved
                        .values
                        .insert(name.clone(), (Value::from(text.as_str()), Given::Kept));
                } else if let Some(length) = setting.generate {
                    resolved.to_generate.insert(name.clone(), length);
                } else if setting.required {
                    problems.push(Problem {
                        name: name.clone(),
                        given: None,
                        reason: format!(
                            "it is required and not set; it takes {}",
                            convert::allowed(setting)
                        ),
                        hint: Some(example(name, setting)),
                    });
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    own(environment, &mut problems);
    unknown(contract, environment, &mut problems, &mut resolved.warnings);
    if problems.is_empty() {
        Ok(resolved)
    } else {
        Err(problems)
    }
}

fn example(name: &str, setting: &Setting) -> String {
    let what = if setting.help.is_empty() {
        String::new()
    } else {
        format!(" ({})", setting.help.trim_end_matches('.'))
    };
    if is_secret(setting) {
        format!("give -e {name}=…, or -e {name}_FILE=/run/secrets/…{what}")
    } else {
        format!("give -e {name}=…{what}")
    }
}

/// The text from the environment or from `NAME_FILE`.
fn given(
    contract: &Contract,
    environment: &Environment,
    name: &str,
    setting: &Setting,
) -> Result<Option<(String, Given)>, Problem> {
    let problem = |reason: String, hint: Option<&str>| Problem {
        name: name.to_owned(),
        given: None,
        reason,
        hint: hint.map(str::to_owned),
    };
    if environment.unreadable.iter().any(|n| n == name) {
        return Err(problem("its value is not UTF-8 text".to_owned(), None));
    }
    let file_name = format!("{name}_FILE");
    // A setting may itself be called SOMETHING_FILE; then it is no file for SOMETHING.
    let file = environment
        .get(&file_name)
        .filter(|_| !contract.settings.contains_key(&file_name));
    match (environment.get(name), file) {
        (Some(_), Some(_)) => Err(problem(
            format!("both {name} and {file_name} are set"),
            Some("remove one of the two"),
        )),
        (Some(text), None) => {
            let must_hold_something = setting.required
                || is_secret(setting)
                || !matches!(setting.kind, Kind::String | Kind::List);
            if text.is_empty() && must_hold_something {
                let hint = if setting.required {
                    "give it a value"
                } else {
                    "remove the variable to use the default"
                };
                return Err(problem(
                    format!("it is empty; it takes {}", convert::allowed(setting)),
                    Some(hint),
                ));
            }
            Ok(Some((text.to_owned(), Given::Environment)))
        }
        (None, Some(path)) => match read_file(path) {
            Ok(text) if text.is_empty() => Err(problem(
                format!("the file {path} of {file_name} is empty"),
                None,
            )),
            Ok(text) => Ok(Some((text, Given::File))),
            Err(reason) => Err(problem(
                format!("the file {path} of {file_name} cannot be read: {reason}"),
                Some("mount the file into the container, readable for root"),
            )),
        },
        (None, None) => Ok(None),
    }
}

/// Line ends at the end of the file are not part of the value, as with shell's `$(< file)`.
fn read_file(path: &str) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err("it is a directory".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err("it is larger than 1 MiB".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn check(name: &str, setting: &Setting, text: &str) -> Result<Value, Problem> {
    if text.contains('\0') {
        return Err(Problem {
            name: name.to_owned(),
            given: None,
            reason: "it holds a NUL byte".to_owned(),
            hint: None,
        });
    }
    convert::convert(setting, text).map_err(|allowed| Problem {
        name: name.to_owned(),
        given: Some(if is_secret(setting) {
            "(a secret, not shown)".to_owned()
        } else {
            shown(text)
        }),
        reason: format!("it takes {allowed}"),
        hint: hint(setting, text),
    })
}

fn hint(setting: &Setting, text: &str) -> Option<String> {
    if is_secret(setting) {
        return None;
    }
    if setting.kind == Kind::Enum {
        return nearest(text, setting.choices.iter().map(String::as_str))
            .map(|choice| format!("did you mean `{choice}`?"));
    }
    // Kubernetes sets REDIS_PORT=tcp://10.0.0.1:6379 for a service named redis.
    (matches!(setting.kind, Kind::Port | Kind::Int) && text.starts_with("tcp://")).then(|| {
        "Kubernetes sets such variables for its services: set `enableServiceLinks: false` in the pod".to_owned()
    })
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}

/// The entrypoint's own variables, which are in no contract.
fn own(environment: &Environment, problems: &mut Vec<Problem>) {
    let mut check = |name: &str, good: fn(&str) -> bool, reason: &str| {
        if let Some(text) = environment.get(name).filter(|text| !good(text)) {
            problems.push(Problem {
                name: name.to_owned(),
                given: Some(shown(text)),
                reason: reason.to_owned(),
                hint: None,
            });
        }
    };
    check(
        "TIFFIN_STOP_TIMEOUT",
        |text| text.parse::<u32>().is_ok(),
        "it takes a number of seconds",
    );
    check("TIFFIN_UNKNOWN", |text| text == "warn", "it takes `warn`");
}

/// Variables that look like a mistyped setting.
fn unknown(
    contract: &Contract,
    environment: &Environment,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    let files: Vec<String> = contract
        .settings
        .keys()
        .map(|name| format!("{name}_FILE"))
        .collect();
    let only_warn = environment.get("TIFFIN_UNKNOWN") == Some("warn");
    for name in environment.variables.keys() {
        let known = contract.settings.contains_key(name) || files.contains(name);
        if known
            || name.len() < 5
            || COMMON.contains(&name.as_str())
            || name.starts_with("TIFFIN_")
            || name.starts_with("LC_")
        {
            continue;
        }
        let candidates = contract.settings.keys().chain(&files).map(String::as_str);
        let Some(meant) = nearest(name, candidates) else {
            continue;
        };
        if only_warn {
            warnings.push(format!(
                "{name} is no setting of this box; did you mean {meant}?"
            ));
        } else {
            problems.push(Problem {
                name: name.clone(),
                // A mistyped name may hold a secret.
                given: None,
                reason: "it is no setting of this box".to_owned(),
                hint: Some(format!(
                    "did you mean {meant}? TIFFIN_UNKNOWN=warn starts nonetheless"
                )),
            });
        }
    }
}

/// The message for people: all problems at once.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn contract() -> Contract {
        serde_json::from_value(json!({
            "format": 2,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "settings": {
                "REDIS_PORT": {"variable": "redis_port", "type": "port"},
                "DB_PASSWORD": {"variable": "db_password", "type": "secret", "generate": 24},
                "API_TOKEN": {"variable": "api_token", "type": "secret", "required": true, "pattern": "[a-z]+"},
                "LEVEL": {"variable": "level", "type": "enum", "choices": ["debug", "info"]},
                "CERT_FILE": {"variable": "cert_file", "type": "path"},
                "CERT": {"variable": "cert", "type": "string"}
            }
        }))
        .unwrap()
    }

    fn with(pairs: &[(&str, &str)]) -> Result<Resolved, Vec<Problem>> {
        let environment = Environment {
            variables: pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            unreadable: Vec::new(),
        };
        resolve(
            &contract(),
            &environment,
            &BTreeMap::from([("OLD".to_owned(), "x".to_owned())]),
        )
    }

    #[test]
    fn all_problems_at_once_and_no_secret_among_them() {
        let problems = with(&[
            ("REDIS_PORT", "canary-port"),
            ("API_TOKEN", "CANARY-1"),
            ("LEVEL", "inf"),
            ("DB_PASWORD", "CANARY-2"),
        ])
        .unwrap_err();
        let text = report(&problems);
        assert!(
            text.starts_with("cannot start: 4 settings are wrong\n"),
            "{text}"
        );
        assert!(
            text.contains("REDIS_PORT = `canary-port`: it takes a port from 1 to 65535"),
            "{text}"
        );
        assert!(text.contains("did you mean `info`?"), "{text}");
        assert!(text.contains("did you mean DB_PASSWORD?"), "{text}");
        assert!(!text.contains("CANARY"), "{text}");
    }

    #[test]
    fn generated_when_nobody_gives_it() {
        let resolved = with(&[("API_TOKEN", "abc")]).unwrap();
        assert_eq!(
            resolved.to_generate,
            BTreeMap::from([("DB_PASSWORD".to_owned(), 24)])
        );
        let resolved = with(&[("API_TOKEN", "abc"), ("DB_PASSWORD", "given")]).unwrap();
        assert!(resolved.to_generate.is_empty());
        assert_eq!(
            resolved.variables(&contract())["db_password"],
            json!("given")
        );
    }

    #[test]
    fn name_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "abc\r\n\n").unwrap();
        let path = path.to_str().unwrap();
        let resolved = with(&[("API_TOKEN_FILE", path)]).unwrap();
        assert_eq!(resolved.values["API_TOKEN"], (json!("abc"), Given::File));
        let text = report(&with(&[("API_TOKEN_FILE", path), ("API_TOKEN", "x")]).unwrap_err());
        assert!(
            text.contains("both API_TOKEN and API_TOKEN_FILE are set"),
            "{text}"
        );
        let text = report(&with(&[("API_TOKEN_FILE", "/nowhere")]).unwrap_err());
        assert!(
            text.contains("/nowhere") && text.contains("cannot be read"),
            "{text}"
        );
    }

    #[test]
    fn a_setting_called_file_is_no_file_of_another() {
        let resolved = with(&[("API_TOKEN", "abc"), ("CERT_FILE", "/x"), ("CERT", "y")]).unwrap();
        assert_eq!(resolved.values["CERT_FILE"].0, json!("/x"));
    }

    #[test]
    fn unknown_may_be_a_warning_and_empty_is_not_a_value() {
        let resolved = with(&[
            ("API_TOKEN", "abc"),
            ("REDIS_PROT", "1"),
            ("TIFFIN_UNKNOWN", "warn"),
        ])
        .unwrap();
        assert_eq!(
            resolved.warnings,
            ["REDIS_PROT is no setting of this box; did you mean REDIS_PORT?"]
        );
        let text =
            report(&with(&[("API_TOKEN", ""), ("REDIS_PORT", "tcp://10.0.0.1:6379")]).unwrap_err());
        assert!(text.contains("API_TOKEN: it is empty"), "{text}");
        assert!(text.contains("enableServiceLinks"), "{text}");
        let text =
            report(&with(&[("API_TOKEN", "abc"), ("TIFFIN_STOP_TIMEOUT", "1m")]).unwrap_err());
        assert!(text.contains("TIFFIN_STOP_TIMEOUT = `1m`"), "{text}");
    }
}
