//! How far an upgrade, or the way back from one, has come: one small file beside the data,
//! whose name is the stage. To go on to the next stage is a rename, which needs no room: the
//! way back works on a disk that is full.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::{Code, Failure, Result};
use crate::root::{Root, cannot_create};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The copy is whole; what runs may change the data.
    Begun,
    /// All jobs that run once have run; users may have written.
    Migrated,
    /// The way back: what is there is put aside, then the copy is put in its place.
    Aside,
    Back,
}

impl Stage {
    /// Those that are further come first: a stage that was left may still have a file.
    const ALL: [Stage; 4] = [Stage::Back, Stage::Aside, Stage::Begun, Stage::Migrated];

    fn file(self) -> &'static str {
        match self {
            Stage::Begun => "upgrade.begun.json",
            Stage::Migrated => "upgrade.migrated.json",
            Stage::Aside => "upgrade.aside.json",
            Stage::Back => "upgrade.back.json",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// The version that wrote the copy.
    pub from: String,
    /// The version that wrote what is put aside.
    pub to: String,
    /// The copy's name; none was made when the operator said so.
    pub copy: Option<String>,
    /// The copy that what is put aside becomes.
    pub aside: String,
}

/// Where the journal lies: the first volume's `.tiffin`.
pub struct Book<'a> {
    pub root: &'a Root,
    pub directory: &'a str,
}

impl Book<'_> {
    fn path(&self, stage: Stage) -> PathBuf {
        self.root
            .path(&format!("{}/{}", self.directory, stage.file()))
    }

    /// What is under way.
    ///
    /// # Errors
    ///
    /// When the file is not what a box wrote.
    pub fn read(&self) -> Result<Option<(Stage, Journal)>> {
        for stage in Stage::ALL {
            let path = format!("{}/{}", self.directory, stage.file());
            let Some(text) = self.root.read(&path)? else {
                continue;
            };
            let journal: Option<Journal> = serde_json::from_str(&text).ok();
            let journal = journal.filter(|journal| {
                let names = journal.copy.iter().chain([&journal.aside]);
                names.into_iter().all(|name| is_name(name))
            });
            return match journal {
                Some(journal) => Ok(Some((stage, journal))),
                None => Err(Failure::new(
                    Code::Config,
                    format!("cannot read {path}: it is not what this box wrote"),
                )
                .hint("it says how far an upgrade has come: restore the volume from a backup")),
            };
        }
        Ok(None)
    }

    pub fn write(&self, stage: Stage, journal: &Journal) -> Result<()> {
        let path = format!("{}/{}", self.directory, stage.file());
        let text = format!("{:#}\n", serde_json::json!(journal));
        self.root
            .replace(&path, text.as_bytes(), crate::volume::own(0o600))
            .map_err(|error| cannot_create("the file", &path, &error))
    }

    pub fn go_on(&self, from: Stage, to: Stage) -> io::Result<()> {
        rename(&self.path(from), &self.path(to))?;
        sync(&self.root.path(self.directory))
    }

    pub fn close(&self, stage: Stage) -> io::Result<()> {
        std::fs::remove_file(self.path(stage))?;
        sync(&self.root.path(self.directory))
    }
}

/// Every rename of this module, so that tests can end the process before any of them.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    super::tests::may_go_on()?;
    std::fs::rename(from, to)
}

/// What was renamed in a directory is on the disk when this returns.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A name of a copy leads nowhere else.
pub fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '~');
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.chars().all(good)
}
