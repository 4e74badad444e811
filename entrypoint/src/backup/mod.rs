//! `backup`, `backup verify` and `restore`: all that the volumes hold in one archive, taken
//! while the box runs, and back.

mod archive;
mod description;
mod freeze;
mod output;
mod place;
mod progress;
mod read;
mod restore;
pub mod schedule;
mod scope;
mod stage;
mod stream;
mod swap;
mod take;
pub mod tree;
mod version;
mod work;

use std::io::{self, BufRead, IsTerminal as _};

use crate::exit::{Code, Failure, Result};

pub use place::INDEX;
pub use restore::{Options as RestoreOptions, restore};
pub use swap::{recover, unfinished};
pub use take::{Options, take};

/// A file, or standard input for `-`.
fn open(file: &str) -> Result<Box<dyn BufRead>> {
    const BUFFER: usize = 256 << 10;
    if file == "-" {
        if io::stdin().is_terminal() {
            return Err(
                Failure::new(Code::Usage, "cannot read a backup from a terminal")
                    .hint("docker run --rm -i … - < FILE"),
            );
        }
        return Ok(Box::new(io::BufReader::with_capacity(BUFFER, io::stdin())));
    }
    let opened = std::fs::File::open(file).map_err(|error| {
        Failure::new(Code::Data, format!("cannot read {file}: {error}"))
            .hint("the path is one in the container; `-` reads standard input")
    })?;
    Ok(Box::new(io::BufReader::with_capacity(BUFFER, opened)))
}

struct Nothing;

impl read::Sink for Nothing {
    fn description(&mut self, _: &description::Description) -> Result<()> {
        Ok(())
    }

    fn member(&mut self, _: read::Member<'_>) -> Result<()> {
        Ok(())
    }
}

/// Reads an archive to its end, and says what it holds when it is whole.
pub fn verify(file: &str) -> Result<Code> {
    let (description, totals) = read::read(open(file)?, &mut Nothing)?;
    Ok(crate::print(&format!(
        "OK: {} files, {} bytes; all sums match\n{}",
        totals.files,
        totals.bytes,
        description.text()
    )))
}
