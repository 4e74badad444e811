//! Units that really run while a layer is baked: those that the recipe's `start` names, from
//! the task that starts them until the layer is taken.
//!
//! They run in the sandbox under the entrypoint's own supervisor, which the stand-in
//! `systemctl` calls. Rejected: running whatever a task starts (an application server would
//! then want settings that only an operator has, and databases that nobody asks would write
//! files), and guessing from the tasks that follow (`command: redis-cli …` looks like any
//! other, and a wrong guess would show as a box that differs from one build to the next).
//!
//! What they write below a volume is not part of the box, as an empty volume would hide it:
//! it is put aside, and lies below the layers above for as long as they are baked.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    host::Host,
    sandbox::Sandbox,
};

/// Where the stand-ins look for the supervisor.
const PROGRAM: &str = "bin/tiffin-units";
/// In the sandbox.
const PROGRAM_INSIDE: &str = "/run/tiffin/bin/tiffin-units";
const SYSTEMCTL: &str = "/run/tiffin/bin/systemctl";
/// What a task's output says when nobody listens where it calls.
const NOBODY_THERE: [&str; 8] = [
    "connection refused",
    "can't connect",
    "cannot connect",
    "could not connect",
    "unable to connect",
    "failed to connect",
    "connection to server",
    "timeout when waiting for",
];

/// What running units left, for the layers above and for the account.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ran {
    /// Units that a task started, by name without suffix.
    pub started: BTreeSet<String>,
    /// Those that still ran when the layer was taken: they run in the layers above too.
    pub running: Vec<String>,
    /// What was put aside: a directory in the box, files, bytes.
    pub aside: Vec<(String, u64, u64)>,
}

/// The units of one layer's sandbox.
pub struct Units<'a> {
    /// Names without suffix.
    pub wanted: &'a [String],
    /// What the sandbox sees as `/run/tiffin`.
    pub shown: &'a Path,
    pub volumes: &'a [String],
}

impl Units<'_> {
    /// Makes the supervisor and what the stand-ins must know available, before the sandbox opens.
    pub fn prepare(&self, entrypoint: &Path, host: &mut Host) -> Result<()> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let program = self.shown.join(PROGRAM);
        fs::copy(entrypoint, &program).map_err(Error::io("copy", entrypoint))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("write", &program))?;
        let environment = &mut host.environment;
        environment.insert("TIFFIN_START".into(), self.wanted.join(" "));
        environment.insert("TIFFIN_VOLUMES".into(), self.volumes.join("\n"));
        Ok(())
    }

    /// Starts what ran when the layer below was taken.
    pub fn resume(
        &self,
        layer: &str,
        names: &[String],
        sandbox: &Sandbox,
        host: &Host,
    ) -> Result<()> {
        for name in names.iter().filter(|name| self.wanted.contains(name)) {
            let unit = format!("{name}.service");
            self.tell(
                layer,
                &format!("starting {unit} again"),
                sandbox,
                host,
                &[SYSTEMCTL, "start", &unit],
            )?;
        }
        Ok(())
    }

    /// Stops all that runs, the last first, and says what there was.
    pub fn stop(&self, layer: &str, sandbox: &Sandbox, host: &Host) -> Result<Ran> {
        let mut ran = Ran {
            started: self.names("units"),
            ..Ran::default()
        };
        if ran.started.is_empty() {
            return Ok(ran);
        }
        // In the order in which they were started, for the next layer.
        let active = self.names("state/active");
        let mut running: Vec<_> = ran
            .started
            .iter()
            .filter(|name| active.contains(*name))
            .map(|name| (self.since(name), name.clone()))
            .collect();
        running.sort();
        ran.running = running.into_iter().map(|(_, name)| name).collect();
        self.tell(
            layer,
            "stopping the units that ran",
            sandbox,
            host,
            &[PROGRAM_INSIDE, "stop-all"],
        )?;
        Ok(ran)
    }

    /// What may help with a task that failed: (more of its output, what to do).
    pub fn about_failure(&self, output: &str) -> (String, Option<String>) {
        let mut more = String::new();
        for name in self.names("units") {
            let place = self.shown.join("units").join(format!("{name}.service"));
            let ended = fs::read_to_string(place.join("ended")).unwrap_or_default();
            if !ended.is_empty() {
                let log = fs::read(place.join("log")).unwrap_or_default();
                more.push_str(&format!("\n{ended}; its last lines:\n{}", last_lines(&log)));
            }
        }
        let told = output.to_lowercase();
        let recorded: Vec<String> = self
            .names("state/active")
            .into_iter()
            .filter(|name| !self.wanted.contains(name))
            .collect();
        let talks = NOBODY_THERE.iter().any(|words| told.contains(words));
        let hint = (talks && !recorded.is_empty()).then(|| {
            format!(
                "{} {} recorded as started, and runs nothing: if this task talks to one, name it in the recipe, as in `start: [{}]`",
                recorded.join(", "),
                if recorded.len() == 1 { "is" } else { "are" },
                recorded[0],
            )
        });
        (more, hint)
    }

    /// Runs a command in the sandbox; its words are the error's.
    fn tell(
        &self,
        layer: &str,
        what: &str,
        sandbox: &Sandbox,
        host: &Host,
        words: &[&str],
    ) -> Result<()> {
        let mut command = sandbox.command(&host.environment, words);
        let out = command.output().map_err(|source| Error::Spawn {
            program: "nsenter".into(),
            source,
        })?;
        if out.status.success() {
            return Ok(());
        }
        crate::interrupt::check()?;
        Err(Error::Step {
            layer: layer.to_owned(),
            step: what.to_owned(),
            output: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
            hint: None,
        })
    }

    fn since(&self, name: &str) -> Option<std::time::SystemTime> {
        let log = self.shown.join(format!("units/{name}.service/log"));
        fs::metadata(log).ok()?.created().ok()
    }

    /// Units that have a file in a directory of the sandbox's state.
    fn names(&self, directory: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.shown.join(directory));
        let names = entries.into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|name| name.strip_suffix(".service").unwrap_or(&name).to_owned())
            .collect()
    }

    /// Moves what appeared below a volume since the first unit started, and is data, from the
    /// layer's `tree` to `aside`. `below` is what the layers below put aside.
    ///
    /// A directory in which files appeared is one in which data is kept: all that is new in
    /// it goes. A new directory without files may be what a task made for later.
    pub fn put_aside(
        &self,
        tree: &Path,
        aside: &Path,
        below: &[PathBuf],
    ) -> Result<Vec<(String, u64, u64)>> {
        let mut found = Vec::new();
        let list = self.shown.join("state/volumes");
        let Ok(text) = fs::read(&list) else {
            return Ok(found);
        };
        let known: BTreeSet<&OsStr> = text
            .split(|byte| *byte == 0)
            .map(OsStr::from_bytes)
            .collect();
        let mover = Mover {
            tree,
            aside,
            below,
            known,
        };
        for volume in self.volumes {
            let path = Path::new(volume.trim_start_matches('/'));
            // Never through a link of the box.
            let mut ancestors = path.ancestors().filter(|path| *path != Path::new(""));
            let real = ancestors.all(|path| {
                fs::symlink_metadata(tree.join(path)).is_ok_and(|found| found.is_dir())
            });
            if real {
                mover.directory(path, &mut found)?;
            }
        }
        Ok(found)
    }
}

struct Mover<'a> {
    tree: &'a Path,
    aside: &'a Path,
    below: &'a [PathBuf],
    known: BTreeSet<&'a OsStr>,
}

impl Mover<'_> {
    fn directory(&self, path: &Path, found: &mut Vec<(String, u64, u64)>) -> Result<()> {
        let full = self.tree.join(path);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&full).map_err(Error::io("read", &full))? {
            let entry = entry.map_err(Error::io("read", &full))?;
            let path = path.join(entry.file_name());
            let meta = entry
                .metadata()
                .map_err(Error::io("look at", entry.path()))?;
            entries.push((path, meta));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let is_new = |path: &Path| !self.known.contains(Path::new("/").join(path).as_os_str());
        let is_data = entries
            .iter()
            .any(|(path, meta)| !meta.is_dir() && !is_whiteout(meta) && is_new(path));
        let (mut files, mut bytes) = (0, 0);
        for (path, meta) in &entries {
            // Seen here because it was put aside below.
            let carried = self
                .below
                .iter()
                .any(|below| fs::symlink_metadata(below.join(path)).is_ok_and(|m| !m.is_dir()));
            if carried || (is_data && is_new(path)) {
                count(&self.tree.join(path), meta, &mut files, &mut bytes);
                self.parents(path)?;
                let to = self.aside.join(path);
                fs::rename(self.tree.join(path), &to).map_err(Error::io("put aside", &to))?;
            } else if meta.is_dir() {
                self.directory(path, found)?;
            }
        }
        if files > 0 {
            found.push((format!("/{}", path.display()), files, bytes));
        }
        Ok(())
    }

    /// Makes the directories above a path as they are in the layer.
    fn parents(&self, path: &Path) -> Result<()> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        for path in above {
            let to = self.aside.join(path);
            if to.is_dir() {
                continue;
            }
            let from = self.tree.join(path);
            let meta = fs::symlink_metadata(&from).map_err(Error::io("look at", &from))?;
            fs::create_dir(&to).map_err(Error::io("make", &to))?;
            lchown(&to, Some(meta.uid()), Some(meta.gid())).map_err(Error::io("make", &to))?;
            fs::set_permissions(&to, meta.permissions()).map_err(Error::io("make", &to))?;
        }
        Ok(())
    }
}

/// As overlayfs marks what was removed.
fn is_whiteout(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn count(path: &Path, meta: &Metadata, files: &mut u64, bytes: &mut u64) {
    if !meta.is_dir() {
        *files += 1;
        *bytes += meta.len();
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if let Ok(meta) = entry.metadata() {
            count(&entry.path(), &meta, files, bytes);
        }
    }
}

fn last_lines(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units<'a>(shown: &'a Path, wanted: &'a [String], volumes: &'a [String]) -> Units<'a> {
        Units {
            wanted,
            shown,
            volumes,
        }
    }

    #[test]
    fn data_goes_aside_and_what_tasks_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, aside, below) = (
            dir.path().join("tree"),
            dir.path().join("data"),
            dir.path().join("below"),
        );
        for (path, text) in [
            ("tree/data/readme", "a task's, before"),
            ("tree/data/db/base/1", "one"),
            ("tree/data/db/version", "15"),
            ("tree/data/carried/state", "changed"),
            ("tree/etc/file", ""),
            ("below/data/carried/state", "as it was"),
            ("shown/state/x", ""),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::create_dir_all(tree.join("data/db/empty")).unwrap();
        fs::create_dir_all(tree.join("data/uploads")).unwrap();
        fs::create_dir_all(&aside).unwrap();
        let shown = dir.path().join("shown");
        let known = [
            "/data",
            "/data/readme",
            "/data/db",
            "/data/carried",
            "/data/carried/state",
        ];
        fs::write(shown.join("state/volumes"), known.join("\0")).unwrap();
        let volumes = ["/data".to_owned(), "/none".to_owned()];
        let found = units(&shown, &[], &volumes)
            .put_aside(&tree, &aside, &[below])
            .unwrap();
        assert_eq!(
            found,
            [
                ("/data/carried".to_owned(), 1, 7),
                ("/data/db".to_owned(), 2, 5)
            ]
        );
        for there in [
            "tree/data/readme",
            "tree/data/db",
            "tree/data/uploads",
            "data/data/db/base/1",
            "data/data/db/empty",
        ] {
            assert!(dir.path().join(there).exists(), "{there}");
        }
        for gone in [
            "tree/data/db/base",
            "tree/data/db/empty",
            "tree/data/db/version",
            "tree/data/carried/state",
        ] {
            assert!(!dir.path().join(gone).exists(), "{gone}");
        }
    }

    #[test]
    fn a_task_that_reaches_nobody_is_told_of_units_that_were_recorded() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("state/active")).unwrap();
        for name in ["mongod.service", "redis-server.service"] {
            fs::write(dir.path().join("state/active").join(name), "").unwrap();
        }
        let wanted = ["mongod".to_owned()];
        let units = units(dir.path(), &wanted, &[]);
        let (more, hint) =
            units.about_failure("Could not connect to Redis at 127.0.0.1:6379: Connection refused");
        assert!(more.is_empty());
        let hint = hint.unwrap();
        assert!(
            hint.contains("redis-server is recorded") && hint.contains("start: [redis-server]"),
            "{hint}"
        );
        assert_eq!(units.about_failure("No such file").1, None);
    }
}
