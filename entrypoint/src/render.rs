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
use crate::validate::Check;
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
    let mut writing = Writing::begin(contract, engine)?;
    while !writing.go_on(root)? {
        let success = writing.check().is_some_and(Check::wait);
        writing.answered(root, success, secrets)?;
    }
    Ok(writing.count)
}

/// [`write`] in steps, for who must not wait for a check. After an error all is as it was.
pub struct Writing<'a> {
    contract: &'a Contract,
    rest: std::vec::IntoIter<(&'a Template, String)>,
    asked: Option<(File<'a>, Check<'a>)>,
    written: Vec<Before>,
    count: Count,
}

/// One that is to be written.
struct File<'a> {
    template: &'a Template,
    text: String,
    owned: Owned,
    dest: String,
    current: Option<(Vec<u8>, Owned)>,
}

impl<'a> Writing<'a> {
    pub fn begin(contract: &'a Contract, engine: &Engine<'_>) -> Result<Self> {
        let rendered = all(contract, engine)?;
        Ok(Writing {
            contract,
            count: Count {
                total: rendered.len(),
                changed: Vec::new(),
            },
            rest: rendered.into_iter(),
            asked: None,
            written: Vec::new(),
        })
    }

    /// Whether all is written; otherwise a [check](Self::check) was asked, and
    /// [`Self::answered`] comes next.
    pub fn go_on(&mut self, root: &Root) -> Result<bool> {
        let done = self.until_asked(root);
        if done.is_err() {
            self.put_back(root);
        }
        done
    }

    /// The check that runs.
    pub fn check(&mut self) -> Option<&mut Check<'a>> {
        self.asked.as_mut().map(|(_, check)| check)
    }

    /// Until when it may run.
    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.asked.as_ref().and_then(|(_, check)| check.deadline())
    }

    /// It has ended; `success` is that it exited with 0.
    pub fn answered(&mut self, root: &Root, success: bool, secrets: &Secrets) -> Result<()> {
        let Some((file, check)) = self.asked.take() else {
            return Ok(());
        };
        let verdict = check.verdict(root, success, secrets);
        let done = verdict.and_then(|()| self.put(root, file));
        if done.is_err() {
            self.put_back(root);
        }
        done
    }

    /// All is as it was.
    pub fn abandon(mut self, root: &Root) {
        if let Some((_, check)) = self.asked.take() {
            check.abandon(root);
        }
        self.put_back(root);
    }

    fn put_back(&mut self, root: &Root) {
        for (path, before) in self.written.drain(..).rev() {
            let undone = match before {
                Some((content, owned)) => root.render(&path, &content, owned),
                None => std::fs::remove_file(root.path(&path)),
            };
            if let Err(error) = undone {
                say(&format!("cannot put {path} back as it was: {error}"));
            }
        }
    }

    fn until_asked(&mut self, root: &Root) -> Result<bool> {
        while let Some((template, text)) = self.rest.next() {
            let mode = mode(&template.mode).ok_or_else(|| {
                Failure::new(
                    Code::Internal,
                    format!(
                        "cannot write {}: its mode `{}` in the contract is not octal",
                        template.dest, template.mode
                    ),
                )
            })?;
            let mut owned = Owned {
                uid: template.uid,
                gid: template.gid,
                mode,
            };
            let dest = runtime::destination(root, template)?;
            if dest != template.dest && root.path(&dest).is_symlink() {
                mounted(template);
                continue;
            }
            let current = root.current(&dest);
            if let Some((content, before)) = &current {
                // Where owners cannot be changed, the owner is what it is.
                if !sys::may_own(owned.uid, owned.gid) {
                    (owned.uid, owned.gid) = (before.uid, before.gid);
                }
                if content == text.as_bytes() && *before == owned {
                    continue;
                }
            }
            let is_new = current
                .as_ref()
                .is_none_or(|(content, _)| content != text.as_bytes());
            let command = template.validate.as_ref().filter(|_| is_new);
            let check = match command {
                Some(command) => Check::ask(root, &template.dest, command, &text, owned)?,
                None => None,
            };
            let file = File {
                template,
                text,
                owned,
                dest,
                current,
            };
            match check {
                Some(check) => {
                    self.asked = Some((file, check));
                    return Ok(false);
                }
                None => self.put(root, file)?,
            }
        }
        Ok(true)
    }

    fn put(&mut self, root: &Root, file: File<'a>) -> Result<()> {
        let template = file.template;
        match root.render(&file.dest, file.text.as_bytes(), file.owned) {
            Ok(()) => {
                self.count.changed.push(template.dest.clone());
                self.written.push((file.dest, file.current));
            }
            // A mount point, that is a file the operator mounted over ours.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => mounted(template),
            // No setting reaches it (the build links those): it is what the build wrote,
            // and a user who may not read it has no service that may.
            Err(_)
                if file.current.is_none()
                    && root.path(&file.dest).exists()
                    && !reached(self.contract, template) =>
            {
                say(&format!(
                    "note: {} cannot be read as {} and is left as it is",
                    template.dest,
                    sys::who()
                ));
            }
            Err(error) => return Err(refused(self.contract, template, &error)),
        }
        Ok(())
    }
}

fn mounted(template: &Template) {
    say(&format!(
        "{} is mounted from outside and left as it is",
        template.dest
    ));
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
