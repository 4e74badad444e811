//! What was found out about a layer and is kept beside its files in the cache.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::Result;
use bake::sealed;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{build::replace, printer::Printer};

/// Of a layer that was packed.
#[derive(Serialize, Deserialize)]
pub struct Packed {
    pub diff_id: String,
    pub digest: String,
    pub size: u64,
    pub uncompressed: u64,
    /// With these two, its files give the same `diff_id` again.
    pub epoch: u64,
    pub overlay: bool,
    /// Device nodes in it, as absolute paths.
    pub devices: Vec<String>,
    /// What was told while it was packed.
    pub told: Vec<String>,
}

/// A note that is there and sound; one that is damaged is as good as none, and told.
pub fn read<T: DeserializeOwned>(path: &Path, printer: &Printer) -> Option<T> {
    let note = sealed::value(path).ok()?;
    if note.is_none() {
        printer.note(&format!("{} is damaged: it is made anew", path.display()));
    }
    note
}

pub fn write(path: &Path, note: &impl Serialize) -> Result<()> {
    let text = sealed::of(note)?;
    replace(path, |fresh| fs::write(fresh, text))
}

/// The files of a layer in the cache have changed since they were packed.
#[derive(Debug)]
pub struct Damaged(PathBuf);

impl Damaged {
    /// `tree` is where they lie.
    pub fn new(tree: &Path) -> Damaged {
        Damaged(tree.parent().unwrap_or(tree).to_owned())
    }

    pub fn hint(&self) -> String {
        "remove the directory and build again; the layer will be baked anew".to_owned()
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = self.0.display();
        write!(f, "{layer}: its files are not those that were baked")
    }
}

impl std::error::Error for Damaged {}
