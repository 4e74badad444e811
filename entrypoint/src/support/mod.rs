//! `support-bundle`: one archive that says what somebody far away needs to know, and no secret.
//!
//! All parts are made at the same time, each with a limit; one that fails is named in
//! `index.json` and stops nothing. Every part goes through the [`Redactor`], and there is no
//! other way into the archive.

mod archive;
mod command;
mod parts;
mod redact;

use std::io::{IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use contract::Contract;
use serde_json::{Value, json};

use self::archive::Archive;
use self::parts::Part;
pub use self::redact::Redactor;
use crate::exit::{Code, Failure, Result};
use crate::log::rfc3339;
use crate::root::Root;
use crate::settings::Environment;

/// For all of it, but the writing.
const TIME: Duration = Duration::from_secs(25);
/// Of one part, and of all together.
const PART: usize = 2 << 20;
const ALL: usize = 32 << 20;

/// What one part came to.
struct Made {
    text: Vec<u8>,
    /// Why it is not whole.
    problem: Option<String>,
}

pub fn verb(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    output: Option<&str>,
) -> Result<Code> {
    let Some(path) = output else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(
                Failure::new(Code::Usage, "cannot write the support bundle to a terminal").hint(
                    "send it to a file: docker exec BOX tiffin support-bundle > support.tar.gz",
                ),
            );
        }
        write(contract, root, environment, stdout.lock())
            .map_err(|error| cannot_write("standard output", &error))?;
        return Ok(Code::Ok);
    };
    // Whole or not at all, and for nobody else to read.
    let partial = format!("{path}.partial-{}", std::process::id());
    let make = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)?;
        write(contract, root, environment, &file)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    make().map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        cannot_write(path, &error)
    })?;
    Ok(Code::Ok)
}

fn cannot_write(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        Code::CannotCreate,
        format!("cannot write the support bundle to {what}: {error}"),
    )
}

fn write(
    contract: &Contract,
    root: &Root,
    environment: &Environment,
    out: impl Write,
) -> std::io::Result<()> {
    let redactor = Redactor::new(contract, root, environment);
    let now = SystemTime::now();
    let name = contract.product.name.rsplit('/').next().unwrap_or("box");
    let folder = format!("support-{name}-{}", contract.product.version);
    let mut archive = Archive::new(out, &folder, now);
    let parts = parts::all(contract, root, environment);
    let mut index: Vec<Value> = Vec::new();
    let mut waiting: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
    let mut left = ALL;
    for (name, took, made) in begin(parts) {
        waiting.retain(|other| *other != name);
        let (text, cut) = bounded(&made.text, PART.min(left));
        let text = redactor.redact(&text);
        left = left.saturating_sub(text.len());
        archive.add(&name, text.as_bytes())?;
        let mut entry =
            json!({"name": name, "bytes": text.len(), "milliseconds": took.as_millis() as u64});
        if cut {
            entry["cut"] = json!("only its beginning is here");
        }
        if let Some(problem) = made.problem {
            entry["problem"] = json!(redactor.redact(&problem));
        }
        index.push(entry);
    }
    for name in waiting {
        index.push(json!({"name": name, "problem": format!("it was not done within {} s", TIME.as_secs())}));
    }
    let index = json!({
        "product": contract.product.name,
        "version": contract.product.version,
        "made": rfc3339(now),
        "parts": index,
    });
    archive.add("index.json", format!("{index:#}\n").as_bytes())?;
    archive.finish()
}

/// Each part as it is done, until the time is over.
fn begin(parts: Vec<Part>) -> impl Iterator<Item = (String, Duration, Made)> {
    let until = Instant::now() + TIME;
    let (sender, receiver) = mpsc::channel();
    for part in parts {
        let sender = sender.clone();
        // One that hangs is left behind: this process ends soon.
        std::thread::spawn(move || {
            let begun = Instant::now();
            let made = (part.make)();
            let _ = sender.send((part.name, begun.elapsed(), made));
        });
    }
    drop(sender);
    std::iter::from_fn(move || {
        receiver
            .recv_timeout(until.saturating_duration_since(Instant::now()))
            .ok()
    })
}

/// As text, and whether something was left out: of a line that is cut, all, since half a
/// secret would not be known as one.
fn bounded(bytes: &[u8], limit: usize) -> (String, bool) {
    if bytes.len() <= limit {
        return (String::from_utf8_lossy(bytes).into_owned(), false);
    }
    let end = bytes[..limit]
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_does_not_fit_is_left_out_whole() {
        assert_eq!(bounded(b"one\nhunter2", 8), ("one\n".to_owned(), true));
        assert_eq!(bounded(b"hunter2", 3), (String::new(), true));
        assert_eq!(bounded(b"one\n", 4), ("one\n".to_owned(), false));
    }
}
