//! The captured templates, rendered with the operator's settings.

use contract::{Contract, Parity, Template};

use crate::engine::Engine;
use crate::exit::{Code, Failure, Result};
use crate::log::say;
use crate::root::{Owned, Root, cannot_create, mode};

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
        let current = root.current(&template.dest);
        if let Some((content, owned)) = &current {
            // Without root's rights the owner is what it is.
            if !crate::sys::is_root() {
                (wanted.uid, wanted.gid) = (owned.uid, owned.gid);
            }
            if content == text.as_bytes() && *owned == wanted {
                continue;
            }
        }
        match root.replace(&template.dest, text.as_bytes(), wanted) {
            Ok(()) => count.written += 1,
            // EBUSY: a mount point, that is a file the operator mounted over ours.
            Err(error) if error.raw_os_error() == Some(16) => {
                say(&format!(
                    "{} is mounted from outside and left as it is",
                    template.dest
                ));
            }
            Err(error) => return Err(cannot_create("the file", &template.dest, &error)),
        }
    }
    Ok(count)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub total: usize,
    pub written: usize,
}
