//! Errors while rendering. Only text made here is ever shown: minijinja's own messages may quote values.

use std::fmt;

use minijinja::{Error, ErrorKind};

pub type Result<T> = std::result::Result<T, Error>;

/// Travels as the source of a [`minijinja::Error`].
#[derive(Debug, Clone)]
pub struct Cause {
    pub why: String,
    /// Variables on the way to the failure, outermost first.
    pub chain: Vec<String>,
    /// Ansible fails here, too.
    pub refused: bool,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Cause {}

pub fn error(why: impl Into<String>) -> Error {
    with_cause(
        ErrorKind::InvalidOperation,
        Cause {
            why: why.into(),
            chain: Vec::new(),
            refused: false,
        },
    )
}

/// What Ansible does not take either, unlike what only this crate cannot do.
pub fn refused(why: impl Into<String>) -> Error {
    with_cause(
        ErrorKind::InvalidOperation,
        Cause {
            why: why.into(),
            chain: Vec::new(),
            refused: true,
        },
    )
}

pub fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(refused(why))
}

/// Whether ansible-core 2.19 and later keep the failure until the value is used. What this
/// crate alone cannot do never waits: a `default` would hide it.
pub fn waits(error: &Error) -> bool {
    match cause(error) {
        Some(cause) => cause.refused,
        None => is_undefined(error),
    }
}

pub fn with_cause(kind: ErrorKind, cause: Cause) -> Error {
    Error::new(kind, "").with_source(cause)
}

pub fn fail<T>(why: impl Into<String>) -> Result<T> {
    Err(error(why))
}

/// Use of something undefined; its name is found when the error is reported.
pub fn undefined() -> Error {
    Error::from(ErrorKind::UndefinedError)
}

pub fn cause(error: &Error) -> Option<&Cause> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(current) = source {
        if let Some(cause) = current.downcast_ref::<Cause>() {
            return Some(cause);
        }
        source = current.source();
    }
    None
}

/// Whether the failure is, at its bottom, an undefined value.
pub fn is_undefined(error: &Error) -> bool {
    if error.kind() == ErrorKind::UndefinedError {
        return true;
    }
    let mut source = std::error::Error::source(error);
    while let Some(current) = source {
        if let Some(error) = current.downcast_ref::<Error>()
            && error.kind() == ErrorKind::UndefinedError
        {
            return true;
        }
        source = current.source();
    }
    false
}
