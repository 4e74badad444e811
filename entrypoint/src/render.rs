//! The captured templates, rendered with the operator's settings.

use std::io;

use contract::{Contract, Parity, Template};

use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::root::{Owned, Root, cannot_create, mode};
use crate::{runtime, sys};

/// Destination and text of every template that the box renders itself.
pub fn all<'a>(contract: &'a Contract, engine: &Engine<'_>) -> Result<Vec<(&'a Template, String)>> {
    contract
        .templates
        .iter()
        .filter(|template| template.parity == Parity::Identical)
        .map(|template| {
            let text = engine.render(template).map_err(|reason| {
                Failure::new(
                    Code::Config,
                    format!("cannot render {}: {reason}", template.dest),
                )
                .hint(format!(
                    "the template is {}, of the task `{}`",
                    template.source, template.task
                ))
            })?;
            Ok((template, text))
        })
        .collect()
}

/// Writes what differs from the files there. Nothing is written before all is rendered.
pub fn write(contract: &Contract, engine: &Engine<'_>, root: &Root) -> Result<Count> {
    let rendered = all(contract, engine)?;
    let mut count = Count {
        total: rendered.len(),
        written: 0,
    };
    for (template, text) in rendered {
        let mode = mode(&template.mode).ok_or_else(|| {
            Failure::new(
                Code::Internal,
                format!(
                    "cannot write {}: its mode `{}` in the contract is not octal",
                    template.dest, template.mode
                ),
            )
        })?;
        let mut wanted = Owned {
            uid: template.uid,
            gid: template.gid,
            mode,
        };
        let dest = runtime::destination(root, template)?;
        let mounted = || {
            say(&format!(
                "{} is mounted from outside and left as it is",
                template.dest
            ));
        };
        if dest != template.dest && root.path(&dest).is_symlink() {
            mounted();
            continue;
        }
        let current = root.current(&dest);
        if let Some((content, owned)) = &current {
            // Where owners cannot be changed, the owner is what it is.
            if !sys::may_own(wanted.uid, wanted.gid) {
                (wanted.uid, wanted.gid) = (owned.uid, owned.gid);
            }
            if content == text.as_bytes() && *owned == wanted {
                continue;
            }
        }
        match root.replace(&dest, text.as_bytes(), wanted) {
            Ok(()) => count.written += 1,
            // A mount point, that is a file the operator mounted over ours.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => mounted(),
            // No setting reaches it (the build links those): it is what the build wrote,
            // and a user who may not read it has no service that may.
            Err(_)
                if current.is_none()
                    && root.path(&dest).exists()
                    && !reached(contract, template) =>
            {
                say(&format!(
                    "note: {} cannot be read as {} and is left as it is",
                    template.dest,
                    sys::who()
                ));
            }
            Err(error) => return Err(refused(contract, template, &error)),
        }
    }
    Ok(count)
}

fn reached(contract: &Contract, template: &Template) -> bool {
    setters(contract, template).next().is_some()
}

fn setters<'a>(contract: &'a Contract, template: &Template) -> impl Iterator<Item = &'a str> {
    contract
        .settings
        .iter()
        .filter(|(_, setting)| setting.files.contains(&template.dest))
        .map(|(name, _)| name.as_str())
}

fn refused(contract: &Contract, template: &Template, error: &io::Error) -> Failure {
    let failure = cannot_create("the file", &template.dest, error);
    let setters: Vec<&str> = setters(contract, template).collect();
    if error.kind() != io::ErrorKind::ReadOnlyFilesystem || template.link || setters.is_empty() {
        return failure;
    }
    failure.hint(format!(
        "this file can only be changed in a writable root: run without --read-only, or leave {} alone",
        setters.join(", ")
    ))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub total: usize,
    pub written: usize,
}
