//! Who one is for a registry: Docker's own configuration file, credential helpers, and the
//! answers to a registry's challenge (RFC 7235; distribution, spec/auth/token.md).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Fault, Result};

/// Never shown: neither this nor anything that holds it has a `Debug` with its content.
#[derive(Clone)]
pub(crate) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// What a helper gives for the user `<token>`; exchanged for a token.
    Identity(String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// As `docker login HOST` left them; `None` where it never ran.
pub(crate) fn credentials(docker: Option<&Path>, host: &str) -> Result<Option<Credentials>> {
    let Some(path) = docker.map(|dir| dir.join("config.json")) else {
        return Ok(None);
    };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::new(format!("{}: {error}", path.display()))),
    };
    // Without serde's words, which may quote what stands there.
    let config: Config = serde_json::from_slice(&text).map_err(|error| {
        Fault::new(format!(
            "{}: line {} is wrong",
            path.display(),
            error.line()
        ))
    })?;
    let helper = config
        .cred_helpers
        .get(host)
        .or(config.creds_store.as_ref());
    if let Some(helper) = helper.filter(|name| !name.is_empty())
        && let Some(found) = ask(helper, host)?
    {
        return Ok(Some(found));
    }
    let bare = |key: &str| {
        let key = key
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        key.split('/').next() == Some(host)
    };
    let entry = config.auths.get(host).or_else(|| {
        config
            .auths
            .iter()
            .find(|(key, _)| bare(key))
            .map(|(_, entry)| entry)
    });
    let Some(entry) = entry else { return Ok(None) };
    if let Some(token) = entry
        .identitytoken
        .as_ref()
        .filter(|token| !token.is_empty())
    {
        return Ok(Some(Credentials::Identity(token.clone())));
    }
    if let (Some(user), Some(password)) = (&entry.username, &entry.password) {
        return Ok(Some(Credentials::Password {
            user: user.clone(),
            password: password.clone(),
        }));
    }
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else {
        return Ok(None);
    };
    let wrong = || {
        Fault::new(format!(
            "{}: the entry of {host} is malformed",
            path.display()
        ))
        .hint(format!("`docker login {host}` writes it anew"))
    };
    let plain = STANDARD.decode(auth).map_err(|_| wrong())?;
    let plain = String::from_utf8(plain).map_err(|_| wrong())?;
    let (user, password) = plain.split_once(':').ok_or_else(wrong)?;
    Ok(Some(Credentials::Password {
        user: user.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
    }))
}

/// docker-credential-helpers' protocol: the host on standard input, JSON on standard output.
fn ask(helper: &str, host: &str) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    if helper.contains('/') {
        return Err(Fault::new(format!(
            "`{helper}` is no name of a credential helper"
        )));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| Fault::new(format!("{program} does not answer: {reason}"));
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = writeln!(stdin, "{host}");
    }
    let out = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if !out.status.success() {
        // docker-credential-helpers, credentials/error.go: it says so on standard output.
        let said: String = String::from_utf8_lossy(&out.stdout)
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let reason = match said.trim() {
            "" => out.status.to_string(),
            said => said.to_owned(),
        };
        return Err(failed(reason).hint(format!("`docker login {host}` keeps credentials for it")));
    }
    let answer: Answer =
        serde_json::from_slice(&out.stdout).map_err(|_| failed("not JSON as expected".into()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        _ => Credentials::Password {
            user: answer.username,
            password: answer.secret,
        },
    }))
}

/// What a registry asks for with status 401.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// `Bearer realm="https://…",service="…",scope="…"`; commas may stand inside of quotes.
pub(crate) fn challenge(header: &str) -> Option<Challenge> {
    let header = header.trim();
    let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut rest = rest.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        let key = key.trim_matches([',', ' ']).to_ascii_lowercase();
        values.insert(key, value.to_owned());
        rest = after;
    }
    Some(Challenge::Bearer {
        realm: values.remove("realm")?,
        service: values.remove("service"),
        scope: values.remove("scope"),
    })
}

/// `Basic …`
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_are_read() {
        let text = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer {
            realm,
            service,
            scope,
        }) = challenge(text)
        else {
            panic!("not read");
        };
        assert_eq!(realm, "https://auth.example/token");
        assert_eq!(service.as_deref(), Some("r.example"));
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(challenge("Basic realm=x"), Some(Challenge::Basic));
        assert_eq!(challenge("Negotiate"), None);
        assert_eq!(challenge("Bearer service=x"), None);
    }

    proptest! {
        #[test]
        fn no_challenge_makes_it_panic(text in "\\PC{0,80}") {
            let _ = challenge(&text);
            let _ = challenge(&format!("Bearer {text}"));
        }
    }
}
