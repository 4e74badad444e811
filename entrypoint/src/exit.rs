//! The exit codes, in one place; `README.md` has the table for people.
//!
//! Those from 64 to 78 are sysexits.h's.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Stopped when asked to, or the question was answered.
    Ok = 0,
    /// `health`: not all services are ready. `status NAME` and the like: refused. `backup`: not
    /// taken.
    Failed = 1,
    /// The command line is not understood.
    Usage = 64,
    /// A backup is damaged, of another product or of a newer version; nothing was changed.
    Data = 65,
    /// A service was given up; everything was stopped. That of a box with one service is its own.
    Service = 69,
    /// Something the entrypoint did not expect: a defect, or a broken box.
    Internal = 70,
    /// A file, directory or socket could not be made.
    CannotCreate = 73,
    /// The data volume belongs to another running box.
    Locked = 75,
    /// Settings, units or programs are wrong; nothing was touched.
    Config = 78,
    /// The command could not be executed.
    NotExecutable = 126,
    /// The command does not exist.
    NotFound = 127,
}

/// Why the entrypoint ends early: the code, what to say, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;
