//! Reads the two formats in which Debian describes services, systemd units and
//! supervisord programs, into one [`Service`].
//!
//! Parsers only: the caller reads the files, finds drop-ins and expands globs. What a
//! format can say and Tiffin does not do is never dropped in silence: it comes back as a
//! [`Parsed::warnings`] or [`Parsed::not_applied`] entry.

mod command;
mod program;
mod service;
mod signal;
pub mod supervisord;
pub mod systemd;
mod text;

pub use command::Command;
pub use program::*;
pub use service::*;
pub use signal::{Signal, signal_name, signal_number};

/// What one file gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<T> {
    pub value: T,
    /// Things the author should look at: unknown keys, values that cannot be read.
    pub warnings: Vec<String>,
    /// Keys that are understood and deliberately have no effect in a box (sandboxing).
    pub not_applied: Vec<String>,
}

/// A file, or a part of it, that cannot be run as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct Error {
    /// The unit's name, or `file: section`.
    pub place: String,
    pub reason: String,
}

impl Error {
    fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Error {
            place: place.into(),
            reason: reason.into(),
        }
    }
}
