//! One error type: a sentence, and a hint on a line of its own.

use std::path::Path;

/// Displayed as `cannot read tiffin.yaml: …`; the hint is for the caller to print below.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    message: String,
    hint: Option<String>,
}

impl Error {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// What is wrong with the text, before the file's name is known.
#[derive(Debug)]
pub(crate) struct Problem {
    what: String,
    /// The file is fine, what it names is not: the sentence stands alone.
    complete: bool,
    hint: Option<String>,
}

pub(crate) type Result<T> = std::result::Result<T, Problem>;

impl Problem {
    pub(crate) fn new(what: impl Into<String>) -> Problem {
        Problem {
            what: what.into(),
            complete: false,
            hint: None,
        }
    }

    /// A whole sentence of its own: `cannot use the playbook: …`.
    pub(crate) fn sentence(what: impl Into<String>) -> Problem {
        Problem {
            complete: true,
            ..Problem::new(what)
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Problem {
        Problem {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub(crate) fn in_file(self, path: &Path) -> Error {
        let message = match self.complete {
            true => self.what,
            false => format!("cannot read {}: {}", path.display(), self.what),
        };
        Error {
            message,
            hint: self.hint,
        }
    }
}

/// The known name that was probably meant.
pub(crate) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = given.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&given, &name.to_lowercase()),
                name,
            )
        })
        // A third of the letters may be wrong: more is another word.
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
