//! What can stop a build, with the way on.

use std::{
    io,
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot run {program}: {source}")]
    Spawn { program: String, source: io::Error },
    #[error("cannot make the base root file system: {reason}\n{output}")]
    Base { reason: String, output: String },
    /// The base is an image that could not be read; the caller knows more about it.
    #[error("{0}")]
    Image(Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot open the sandbox: {reason}")]
    Sandbox {
        reason: String,
        hint: Option<String>,
    },
    #[error("cannot bake layer `{layer}`: {task} failed\n{output}")]
    Playbook {
        layer: String,
        task: String,
        /// Ansible's own words about the task, as printed.
        output: String,
        /// To be pasted into a shell.
        command: String,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    #[error("cannot bake layer `{layer}`: the step `{step}` failed\n{output}")]
    Step {
        layer: String,
        step: String,
        /// What was said last, or why.
        output: String,
        /// What to do, where that is known.
        hint: Option<String>,
    },
    #[error("cannot use {}{}: {reason}", path.display(), at_line(*line))]
    Ignore {
        path: PathBuf,
        /// 0 for the file as a whole.
        line: usize,
        reason: String,
    },
    /// Something that ran found the cache's file system full.
    #[error("{problem}")]
    Full { place: PathBuf, problem: Box<Error> },
    /// Something that ran without a network, and may have wanted one.
    #[error("{0}")]
    Offline(Box<Error>),
    #[error("cannot use the download {}: it is damaged: its digest is sha256:{found}", path.display())]
    Download { path: PathBuf, found: String },
    #[error("stopped by a signal")]
    Interrupted,
    #[error("cannot understand what Ansible did in layer `{layer}`: {reason}")]
    Capture { layer: String, reason: String },
    #[error("setting {setting} cannot work: {reason}")]
    Setting { setting: String, reason: String },
    #[error("service {service} cannot work: {reason}")]
    Service { service: String, reason: String },
    #[error("cannot do what `files` says of {path}: {reason}")]
    File { path: String, reason: String },
    #[error("cannot bake without root: {reason}")]
    Rootless { reason: String, hint: String },
    #[error("cannot bake {0} here")]
    Unsupported(String),
    #[error("cannot supervise unit `{unit}`: {reason}")]
    Unit { unit: String, reason: String },
}

fn at_line(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!(" at line {line}"),
    }
}

impl Error {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }

    /// Says so when what ran in the sandbox found the file system of `place` full.
    pub(crate) fn when_full(self, place: &Path) -> Error {
        const FULL: &str = "No space left on device";
        let text = match &self {
            Error::Playbook { output, .. }
            | Error::Step { output, .. }
            | Error::Base { output, .. } => output,
            Error::Sandbox { reason, .. } => reason,
            _ => return self,
        };
        match text.contains(FULL) {
            true => Error::Full {
                place: place.to_owned(),
                problem: Box::new(self),
            },
            false => self,
        }
    }

    /// Says that there was no network, whatever failed for want of it.
    pub(crate) fn when_offline(self, offline: bool) -> Error {
        match self {
            Error::Playbook { .. } | Error::Step { .. } | Error::Base { .. } if offline => {
                Error::Offline(Box::new(self))
            }
            other => other,
        }
    }

    /// What it is at heart, for who treats kinds of failure differently.
    pub fn cause(&self) -> &Error {
        match self {
            Error::Full { problem, .. } | Error::Offline(problem) => problem.cause(),
            other => other,
        }
    }

    /// What the sandbox's first process said: the reason, and perhaps a line with a hint.
    pub(crate) fn sandbox(said: &str) -> Error {
        let (reason, hint) = match said.trim().split_once("\nhint: ") {
            Some((reason, hint)) => (reason, Some(hint.to_owned())),
            None => (said.trim(), None),
        };
        Error::Sandbox {
            reason: reason.to_owned(),
            hint,
        }
    }

    /// What to do next, when there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Io { source, path, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some(format!(
                    "no space is left on the device of {}: free some (`tiffin cache prune` removes old layers), or choose another place with --cache and --output",
                    path.display()
                ))
            }
            Error::Image(_) => None,
            Error::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`make setup` installs what Tiffin needs".into())
            }
            Error::Playbook { command, hint, .. } => {
                let hint = hint.iter().map(|hint| format!("{hint}\n"));
                Some(format!("{}what ran: {command}", hint.collect::<String>()))
            }
            Error::Offline(problem) => {
                let more = problem.hint().map(|hint| format!("\n{hint}"));
                Some(format!(
                    "this build is --offline: it has the apt and pip packages of earlier builds with this cache, and no network; what is not among them is fetched by a build without --offline{}",
                    more.unwrap_or_default()
                ))
            }
            Error::Full { place, problem } => {
                let more = problem.hint().map(|hint| format!("\n{hint}"));
                Some(format!(
                    "no space is left on the device of {}: free some (`tiffin cache prune` removes old layers), or choose another place with --cache{}",
                    place.display(),
                    more.unwrap_or_default()
                ))
            }
            Error::Step { hint, .. } | Error::Sandbox { hint, .. } => hint.clone(),
            Error::Rootless { hint, .. } => Some(hint.clone()),
            Error::Download { .. } => {
                Some("remove the file and build without --offline; it will be fetched anew".into())
            }
            _ => None,
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
