//! The captured templates, rendered with the operator's settings.

use std::collections::BTreeMap;
use std::io;

use contract::{Contract, Parity, Template, Variables};

use crate::diff;
use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::root::{Owned, Root, cannot_create, mode};
use crate::secrets::{self, Secrets};
use crate::validate::validate;
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

/// What a file was before it was written: content and owner, if there was one.
type Before = (String, Option<(Vec<u8>, Owned)>);

/// Writes what differs from the files there, in the playbook's order. Nothing is written
/// before all is rendered, and all is put back when one cannot be written or is refused by
/// its task's `validate:`.
pub fn write(
    contract: &Contract,
    engine: &Engine<'_>,
    root: &Root,
    secrets: &Secrets,
) -> Result<Count> {
    let mut written = Vec::new();
    let count = write_each(contract, engine, root, secrets, &mut written);
    if count.is_err() {
        put_back(root, written);
    }
    count
}

fn put_back(root: &Root, written: Vec<Before>) {
    for (path, before) in written.into_iter().rev() {
        let undone = match before {
            Some((content, owned)) => root.render(&path, &content, owned),
            None => std::fs::remove_file(root.path(&path)),
        };
        if let Err(error) = undone {
            say(&format!("cannot put {path} back as it was: {error}"));
        }
    }
}

fn write_each(
    contract: &Contract,
    engine: &Engine<'_>,
    root: &Root,
    secrets: &Secrets,
    written: &mut Vec<Before>,
) -> Result<Count> {
    let rendered = all(contract, engine)?;
    let mut count = Count {
        total: rendered.len(),
        changed: Vec::new(),
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
        let is_new = current
            .as_ref()
            .is_none_or(|(content, _)| content != text.as_bytes());
        if let Some(command) = template.validate.as_ref().filter(|_| is_new) {
            validate(root, &template.dest, command, &text, wanted, secrets)?;
        }
        match root.render(&dest, text.as_bytes(), wanted) {
            Ok(()) => {
                count.changed.push(template.dest.clone());
                written.push((dest, current));
            }
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub total: usize,
    /// Destinations of those that were written.
    pub changed: Vec<String>,
}

/// Secrets of these values, and where they stand in the rendered files.
pub fn secrets(
    contract: &Contract,
    variables: &Variables,
    kept: &BTreeMap<String, String>,
) -> Secrets {
    let mut secrets = Secrets::new(contract, variables, kept);
    let masked = secrets::masked(contract, variables);
    if masked == *variables {
        // No secret among them: the text would be the same.
        return secrets;
    }
    let (real, masked) = (
        Engine::new(contract, variables),
        Engine::new(contract, &masked),
    );
    for template in contract
        .templates
        .iter()
        .filter(|t| t.parity == Parity::Identical)
    {
        if let Ok(text) = real.render(template) {
            // What cannot be made of a mask: nothing of that file is shown.
            secrets.learn(&text, &masked.render(template).unwrap_or_default());
        }
    }
    secrets
}

/// The unified difference between the files there and the rendered ones, and which differ.
/// Before its first start a box has no files where its links lead to: `built` renders what
/// they are without settings.
pub fn difference(
    root: &Root,
    rendered: &[(&Template, String)],
    secrets: &Secrets,
    built: Option<&Engine<'_>>,
) -> (String, Vec<String>) {
    let (mut text, mut changed) = (String::new(), Vec::new());
    for (template, new) in rendered {
        let old = root.current(&template.dest);
        let old = old
            .map(|(content, _)| String::from_utf8_lossy(&content).into_owned())
            .or_else(|| built.filter(|_| template.link)?.render(template).ok());
        let own = diff::unified(&template.dest, old.as_deref(), new, secrets);
        if !own.is_empty() || old.is_none() {
            text.push_str(&own);
            changed.push(template.dest.clone());
        }
    }
    (text, changed)
}
