//! Images in registries: the OCI distribution protocol (distribution-spec 1.1) on a
//! blocking HTTP client.
//!
//! Nothing that a registry says is believed: documents and blobs are verified against the
//! digest by which they were asked for, or, where a tag was asked for, against the digest
//! that this computes and that everything after hangs on.

mod auth;
mod client;
mod pull;
mod push;

use std::path::PathBuf;

pub use client::Registry;
pub use pull::Remote;
pub use push::Pushed;

use crate::Reference;

/// What is set outside of the recipe, since it belongs to the machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Docker's directory with `config.json`, where `docker login` keeps credentials.
    pub docker_config: Option<PathBuf>,
    /// Docker's directory with a directory for each `HOST[:PORT]` that has an authority of
    /// its own, in `*.crt`.
    pub certificates: PathBuf,
    /// More authorities, for all registries: a PEM file.
    pub authority: Option<PathBuf>,
    /// `(HOST, MIRROR)`: asked before the host itself, when pulling. A mirror may begin
    /// with `http://`.
    pub mirrors: Vec<(String, String)>,
    /// Hosts that are spoken to without encryption. Those of this machine may be anyway.
    pub plain: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            docker_config: None,
            certificates: "/etc/docker/certs.d".into(),
            authority: None,
            mirrors: Vec::new(),
            plain: Vec::new(),
        }
    }
}

/// Why a registry did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {image}: {reason}")]
pub struct Problem {
    /// `pull` or `push`.
    pub action: &'static str,
    pub image: String,
    pub reason: String,
    pub hint: Option<String>,
}

/// A refusal before it is known what it was for.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) reason: String,
    pub(crate) hint: Option<String>,
    /// Somebody else may have what this one lacks, or cannot be reached for.
    pub(crate) elsewhere: bool,
}

impl Fault {
    pub(crate) fn new(reason: impl Into<String>) -> Fault {
        Fault {
            reason: reason.into(),
            hint: None,
            elsewhere: false,
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Fault {
        Fault {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub(crate) fn about(self, action: &'static str, image: &Reference) -> crate::Error {
        crate::Error::Registry(Problem {
            action,
            image: image.to_string(),
            reason: self.reason,
            hint: self.hint,
        })
    }
}

type Result<T> = std::result::Result<T, Fault>;

/// Whether a `HOST[:PORT]` can only be this machine.
pub(crate) fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
