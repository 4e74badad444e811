//! What the recipe's `ready` asks for, its expressions rendered; `supervise::probe` asks it.

use std::time::Duration;

use contract::Ready;

use crate::engine::Engine;

/// A readiness check with its expressions rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub probe: Probe,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    Tcp(String),
    Unix(String),
    Http {
        address: String,
        host: String,
        path: String,
    },
    Command(String),
    /// A path that was not there, or another file, when the service started.
    File(String),
    /// What [`values::search`] finds in a line of its output.
    Log(String),
}

impl Probe {
    /// What is the matter while it does not hold.
    pub fn missing(&self) -> String {
        match self {
            Probe::Tcp(address) => format!("nothing accepts connections at {address}"),
            Probe::Unix(path) => format!("nothing accepts connections at {path}"),
            Probe::Http { host, path, .. } => {
                format!("http://{host}{path} does not answer with 2xx or 3xx")
            }
            Probe::Command(line) => format!("`{line}` does not exit with 0"),
            Probe::File(path) => format!("{path} was not made since it started"),
            Probe::Log(pattern) => format!("no line of its output matches `{pattern}`"),
        }
    }
}

/// # Errors
///
/// What cannot be asked, for people.
pub fn check(ready: &Ready, engine: &Engine<'_>) -> Result<Check, String> {
    let timeout = Duration::from_secs(ready.timeout.unwrap_or(60).into());
    let probe = if let Some(text) = &ready.tcp {
        Probe::Tcp(engine.text(text)?)
    } else if let Some(text) = &ready.unix {
        Probe::Unix(engine.text(text)?)
    } else if let Some(text) = &ready.http {
        let url = engine.text(text)?;
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| format!("`{url}` does not begin with http://"))?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let address = if host.rsplit(']').next().unwrap_or(host).contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        Probe::Http {
            address,
            host: host.to_owned(),
            path: path.to_owned(),
        }
    } else if let Some(text) = &ready.command {
        Probe::Command(engine.text(text)?)
    } else if let Some(text) = &ready.file {
        let path = engine.text(text)?;
        if !path.starts_with('/') {
            return Err(format!("`{path}` is not an absolute path"));
        }
        Probe::File(path)
    } else if let Some(text) = &ready.log {
        let pattern = engine.text(text)?;
        values::search(&pattern)
            .map_err(|why| format!("`{pattern}` is no regular expression: {why}"))?;
        Probe::Log(pattern)
    } else {
        return Err("it says none of tcp, unix, http, command, file, log".to_owned());
    };
    if let Probe::Tcp(address) | Probe::Http { address, .. } = &probe {
        crate::sys::address(address)?;
    }
    Ok(Check { probe, timeout })
}
