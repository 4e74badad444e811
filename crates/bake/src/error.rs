//! What can stop a build, with the way on.

use std::{io, path::PathBuf};

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
    #[error("cannot open the sandbox: {0}")]
    Sandbox(String),
    #[error("cannot bake layer `{layer}`: {task} failed\n{output}")]
    Playbook {
        layer: String,
        task: String,
        /// Ansible's own words about the task, as printed.
        output: String,
        /// To be pasted into a shell.
        command: String,
    },
    #[error("cannot bake layer `{layer}`: the step `{step}` failed\n{output}")]
    Step {
        layer: String,
        step: String,
        /// What was said last, or why.
        output: String,
    },
    #[error("cannot use {}{}: {reason}", path.display(), at_line(*line))]
    Ignore {
        path: PathBuf,
        /// 0 for the file as a whole.
        line: usize,
        reason: String,
    },
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

    /// What to do next, when there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Io { source, path, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some(format!(
                    "no space is left on the device of {}: free some, or choose another place with --cache and --output",
                    path.display()
                ))
            }
            Error::Image(_) => None,
            Error::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("`make setup` installs what Tiffin needs".into())
            }
            Error::Playbook {
                command, output, ..
            } => {
                let space = output.contains("No space left on device");
                let what = if space {
                    "no space is left on the device of the cache: free some, or choose another with --cache\n"
                } else {
                    ""
                };
                Some(format!("{what}what ran: {command}"))
            }
            _ => None,
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
