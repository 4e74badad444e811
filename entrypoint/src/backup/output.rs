//! Where an archive goes.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::exit::{Code, Failure, Result};
use crate::root::cannot_create;

/// How the name of a file ends that is not whole yet.
pub const PARTIAL: &str = ".tiffin-partial";

pub fn unwritten(error: io::Error) -> Failure {
    Failure::new(
        Code::CannotCreate,
        format!("cannot write the backup: {error}"),
    )
}

/// Where the archive goes: a file appears under its name when it is whole.
pub struct Output {
    path: Option<PathBuf>,
    file: File,
    kept: bool,
}

impl Output {
    pub fn open(path: Option<&str>) -> Result<Self> {
        let Some(path) = path else {
            let stdout = io::stdout();
            let fd = stdout.as_fd().try_clone_to_owned().map_err(unwritten)?;
            return Ok(Output {
                path: None,
                file: File::from(fd),
                kept: true,
            });
        };
        let own = PathBuf::from(path);
        let partial = partial(&own);
        let _ = std::fs::remove_file(&partial);
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .map_err(|error| cannot_create("the file", path, &error))?;
        Ok(Output {
            path: Some(own),
            file,
            kept: false,
        })
    }

    pub fn identity(&self) -> Result<Option<(u64, u64)>> {
        let meta = self.file.metadata().map_err(unwritten)?;
        Ok(meta.is_file().then(|| (meta.dev(), meta.ino())))
    }

    pub fn writer(&self) -> Result<Box<dyn Write + Send>> {
        Ok(Box::new(self.file.try_clone().map_err(unwritten)?))
    }

    pub fn cannot(&self, error: &io::Error) -> Failure {
        match &self.path {
            Some(path) => cannot_create("the file", &path.display().to_string(), error),
            None => Failure::new(
                Code::CannotCreate,
                format!("cannot write the backup to standard output: {error}"),
            )
            .hint("what was written so far is no backup: remove it"),
        }
    }

    /// The size of a file that is whole now.
    pub fn keep(mut self) -> Result<Option<u64>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let keep = || -> io::Result<u64> {
            self.file.sync_all()?;
            let size = self.file.metadata()?.len();
            std::fs::rename(partial(path), path)?;
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(size)
        };
        let size = keep().map_err(|error| self.cannot(&error))?;
        self.kept = true;
        Ok(Some(size))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let (false, Some(path)) = (self.kept, &self.path) {
            let _ = std::fs::remove_file(partial(path));
        }
    }
}

fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{PARTIAL}"))
}
