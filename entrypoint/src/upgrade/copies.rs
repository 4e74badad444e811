//! The copies that are kept: `.tiffin/copies/NAME` on each volume, since only there a file
//! can share its content with the original, or change places with it by a rename. What the
//! box itself remembers (generated secrets above all) is copied beside, on the first volume.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use contract::Contract;
use serde::{Deserialize, Serialize};

use super::journal::{is_name, sync};
use crate::backup;
use crate::copy::{self, Problem, Rules};
use crate::databases::Database;
use crate::exit::{Code, Failure, Result};
use crate::log;
use crate::preflight::volumes;
use crate::root::{Root, cannot_create};
use crate::volume;

/// The operator's own.
const SETTINGS_ENV: &str = "settings.env";

/// Says that a copy is whole; written last.
const ABOUT: &str = "copy.json";
/// The same, for what will be put aside: it becomes [`ABOUT`] by a rename.
const PREPARED: &str = "prepared.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// That wrote the data.
    pub version: String,
    /// RFC 3339, UTC.
    pub made: String,
    /// Why, for people.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub name: String,
    pub about: About,
}

pub struct Copies<'a> {
    root: &'a Root,
    /// The volumes, the one that keeps what the box remembers first.
    volumes: Vec<String>,
}

impl<'a> Copies<'a> {
    pub fn new(contract: &Contract, root: &'a Root) -> Self {
        let volumes = contract.volumes.iter();
        let volumes = volumes
            .map(|volume| volume.path.trim_end_matches('/').to_owned())
            .collect();
        Copies { root, volumes }
    }

    pub fn volumes(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.volumes.iter().map(|volume| self.root.path(volume))
    }

    fn home(&self) -> PathBuf {
        self.root
            .path(self.volumes.first().map_or("", String::as_str))
            .join(".tiffin")
    }

    /// A copy's directory on a volume.
    fn place(volume: &Path, name: &str) -> PathBuf {
        volume.join(".tiffin/copies").join(name)
    }

    pub fn files(volume: &Path, name: &str) -> PathBuf {
        Self::place(volume, name).join("files")
    }

    pub fn remembered(&self, name: &str) -> PathBuf {
        self.home().join("copies").join(name).join("state")
    }

    fn about(&self, name: &str) -> PathBuf {
        self.home().join("copies").join(name).join(ABOUT)
    }

    /// What belongs to the operator, to us or to another volume, and so stays where it is.
    pub fn left_out(&self, volume: &Path) -> Vec<PathBuf> {
        let ours = [".tiffin", ".tiffin-tmp", "lost+found", SETTINGS_ENV];
        let mut out: Vec<PathBuf> = ours.iter().map(|name| volume.join(name)).collect();
        // Backups are no data, and would make each copy as large as all of them.
        let below = fs::read_dir(volume).into_iter().flatten().flatten();
        let index = OsStr::from_bytes(backup::INDEX.to_bytes());
        out.extend(
            below
                .map(|entry| entry.path())
                .filter(|path| path.join(index).is_file()),
        );
        let others = self.volumes().chain(volumes::points());
        out.extend(others.filter(|path| path != volume && path.starts_with(volume)));
        out
    }

    /// The newest first.
    pub fn list(&self) -> Vec<Kept> {
        let mut kept: Vec<Kept> = self
            .names()
            .into_iter()
            .filter_map(|name| {
                let text = fs::read_to_string(self.about(&name)).ok()?;
                let about = serde_json::from_str(&text).ok()?;
                Some(Kept { name, about })
            })
            .collect();
        kept.sort_by(|a, b| (&b.about.made, &b.name).cmp(&(&a.about.made, &a.name)));
        kept
    }

    /// All on the first volume, whole or not.
    fn names(&self) -> Vec<String> {
        let found = fs::read_dir(self.home().join("copies"));
        let names = found.into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_name(name))
            .collect()
    }

    /// A name that no copy has.
    pub fn name(&self, version: &str, now: SystemTime) -> String {
        let version: String = version
            .chars()
            .map(|c| {
                if is_name(&c.to_string()) || c == '.' {
                    c
                } else {
                    '_'
                }
            })
            .take(100)
            .collect();
        let time: String = log::rfc3339(now)
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '.')
            .collect();
        let time = time
            .split('.')
            .next()
            .unwrap_or_default()
            .trim_end_matches('Z');
        let version = version.trim_start_matches(['.', '-']);
        let first = format!("{}-{time}", if version.is_empty() { "x" } else { version });
        let free = |name: &String| {
            self.volumes()
                .all(|volume| !Self::place(&volume, name).exists())
        };
        (1..)
            .map(|n| {
                if n == 1 {
                    first.clone()
                } else {
                    format!("{first}-{n}")
                }
            })
            .find(free)
            .unwrap_or(first)
    }

    /// # Errors
    ///
    /// When there is no room for it: nothing was written then.
    pub fn fits(&self, databases: &[Database], from: &str, to: &str) -> Result<()> {
        let apart: Vec<PathBuf> = databases.iter().map(|d| self.root.path(&d.path)).collect();
        for (volume, path) in self.volumes().zip(&self.volumes) {
            let skip = self.left_out(&volume);
            let rules = Rules {
                link: true,
                apart: &apart,
                skip: &skip,
            };
            let size = copy::measure(&volume, rules).map_err(|p| cannot_copy(&p))?;
            let Ok(room) = copy::room(&volume) else {
                continue;
            };
            let bytes = match copy::shares(&volume.join(".tiffin")) {
                true => 0,
                false => size.bytes,
            };
            let needed = bytes + size.entries * 512 + MARGIN.min(size.bytes / 10 + (1 << 20));
            let no_inodes = room.inodes.is_some_and(|free| free < size.entries);
            if needed > room.bytes || no_inodes {
                let what = match no_inodes {
                    true => format!(
                        "{} files, and {} can be made",
                        size.entries,
                        room.inodes.unwrap_or_default()
                    ),
                    false => format!("{}, and {} are free", amount(needed), amount(room.bytes)),
                };
                return Err(Failure::new(
                    Code::CannotCreate,
                    format!(
                        "cannot upgrade the data from {from} to {to}: its safety copy on {path} takes {what}; \
                         nothing was touched"
                    ),
                )
                .hint(
                    "make room on the volume, or move it to a larger disk; whoever has a backup of \
                     their own can do without: TIFFIN_UPGRADE_COPY=off",
                ));
            }
        }
        Ok(())
    }

    /// Copies all volumes; the databases rest. A copy that fails leaves nothing.
    pub fn make(&self, name: &str, databases: &[Database], about: &About) -> Result<()> {
        let made = self.attempt(name, databases, about);
        if made.is_err() {
            self.remove(name);
        }
        made
    }

    fn attempt(&self, name: &str, databases: &[Database], about: &About) -> Result<()> {
        let apart: Vec<PathBuf> = databases.iter().map(|d| self.root.path(&d.path)).collect();
        for volume in self.volumes() {
            self.directory(&Self::place(&volume, name))?;
            let skip = self.left_out(&volume);
            let rules = Rules {
                link: true,
                apart: &apart,
                skip: &skip,
            };
            copy::tree(&volume, &Self::files(&volume, name), rules).map_err(|p| cannot_copy(&p))?;
        }
        let state = self.remembered(name);
        self.directory(&state)?;
        for file in volume::REMEMBERED {
            let path = self.home().join(file);
            match fs::read(&path) {
                Ok(content) => self.write(&state.join(file), &content)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot_copy(&Problem { path, error })),
            }
        }
        self.say(name, ABOUT, about)
    }

    /// An empty copy, which what is there will be put into.
    pub fn prepare(&self, name: &str, about: &About) -> Result<()> {
        for volume in self.volumes() {
            self.directory(&Self::files(&volume, name))?;
        }
        self.directory(&self.remembered(name))?;
        self.say(name, PREPARED, about)
    }

    /// What was put aside is a copy as others are, and is kept.
    pub fn keep(&self, name: &str) -> io::Result<()> {
        let about = self.about(name);
        match fs::rename(about.with_file_name(PREPARED), &about) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && about.exists() => Ok(()),
            other => other,
        }
    }

    fn say(&self, name: &str, file: &str, about: &About) -> Result<()> {
        let text = format!("{:#}\n", serde_json::json!(about));
        self.write(&self.about(name).with_file_name(file), text.as_bytes())
    }

    /// Durable, for nobody else to read.
    fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            use io::Write as _;
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(content)?;
            file.sync_all()?;
            sync(path.parent().unwrap_or(path))
        };
        write().map_err(|error| cannot_create("the file", &path.to_string_lossy(), &error))
    }

    /// Private directories, parents too. None may be a link that leads elsewhere.
    fn directory(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        let make = || -> io::Result<()> {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(path)?;
            is_real(path)
        };
        make().map_err(|error| cannot_create("the directory", &path.to_string_lossy(), &error))
    }

    /// Removes a copy. What cannot be removed is only room that is lost: it is tried again.
    pub fn remove(&self, name: &str) {
        if !is_name(name) {
            return;
        }
        // From here on it is no copy any more.
        let _ = fs::remove_file(self.about(name));
        for volume in self.volumes() {
            let place = Self::place(&volume, name);
            if let Err(error) = fs::remove_dir_all(&place)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn(&format!("cannot remove {}: {error}", place.display()));
            }
        }
    }

    /// Removes what was left half-made; nothing is under way.
    pub fn tidy(&self) {
        for name in self.names() {
            if !self.about(&name).exists() {
                self.remove(&name);
            }
        }
    }

    /// Keeps the newest `count`.
    pub fn prune(&self, count: usize) {
        for old in self.list().into_iter().skip(count) {
            log::say(&format!("the copy {} is removed", old.name));
            self.remove(&old.name);
        }
    }
}

/// For directories and what a file system notes beside.
const MARGIN: u64 = 64 << 20;

/// No name on the way from the volume on is a link.
fn is_real(path: &Path) -> io::Result<()> {
    let inside = path.ancestors().take_while(|at| !at.ends_with(".tiffin"));
    let home = path.ancestors().find(|at| at.ends_with(".tiffin"));
    for at in inside.chain(home) {
        if !fs::symlink_metadata(at)?.is_dir() {
            return Err(io::Error::other(format!(
                "{} is no directory",
                at.display()
            )));
        }
    }
    Ok(())
}

fn cannot_copy(problem: &Problem) -> Failure {
    problem.failure("the safety copy of")
}

/// `1.5 GiB`
pub fn amount(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return match unit {
                "bytes" => format!("{bytes} bytes"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
