//! What a run of Ansible read on the build machine, and whether it is still the same.
//!
//! `tiffin_reads.py` writes the record while Ansible runs. From it comes a list of names
//! with digests. Names below the directories of the recipe, playbook and inventory are
//! relative, so that a cache serves every checkout. What holds variables counts by those that
//! could be used ([`variables`](crate::variables)).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use contract::Variables;
use serde::{Deserialize, Serialize};

use crate::{
    cache::{self, Hashes},
    error::{Error, Result},
    variables::{Texts, Uses},
};

/// What is asked of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A file's content.
    Read,
    /// The names in a directory.
    List,
    /// Whether it is there, and what it is.
    Seen,
    /// Everything below: a program ran of which nobody knows what it read.
    Tree,
    /// A variable of the environment.
    Env,
    /// What is used of a file of variables.
    Vars,
    /// Handlers of a role of which a layer has no task, unless none could be notified.
    Handlers,
    /// What is used of the recipe's own variables.
    Given,
}

/// The name of [`Kind::Given`].
const GIVEN: &str = "one of the recipe's variables";
/// What is found of handlers that do not count.
const NOBODY: &str = "nobody notifies them";

/// By name what was found: the same at another time means that a run would find the same.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    entries: Vec<(Kind, String, String)>,
    /// What the run could use of variables and handlers; `None` where all of them count.
    uses: Option<Uses>,
}

/// What is read in part, by name.
#[derive(Default)]
struct InPart {
    found: BTreeMap<(Kind, String), String>,
    used: BTreeSet<String>,
}

/// Where names begin, and what is no input.
#[derive(Debug)]
pub struct Places<'a> {
    anchors: Vec<PathBuf>,
    /// The directories of recipe, playbook and inventory, none inside another.
    dirs: &'a [PathBuf],
    ignored: &'a BTreeSet<PathBuf>,
}

impl<'a> Places<'a> {
    pub fn new(dirs: &'a [PathBuf], ignored: &'a BTreeSet<PathBuf>) -> Self {
        let mut common = dirs.first().cloned().unwrap_or_default();
        while !dirs.iter().all(|dir| dir.starts_with(&common)) {
            common.pop();
        }
        // Directories that lie nowhere together are anchors each.
        let anchors = match common.parent() {
            Some(_) => vec![common],
            None => dirs.to_vec(),
        };
        Places {
            anchors,
            dirs,
            ignored,
        }
    }

    fn name(&self, path: &Path) -> Option<String> {
        for (number, anchor) in self.anchors.iter().enumerate() {
            if let Ok(below) = path.strip_prefix(anchor) {
                return Some(format!("{number}:{}", below.to_str()?));
            }
        }
        path.to_str().map(str::to_owned)
    }

    /// The anchor of a name and the path below it, unless the name is a whole path.
    fn anchored<'n>(&self, name: &'n str) -> Option<(&Path, &'n str)> {
        let (number, below) = name.split_once(':')?;
        let number: usize = number.parse().ok()?;
        Some((self.anchors.get(number)?, below))
    }

    fn path(&self, name: &str) -> PathBuf {
        match self.anchored(name) {
            Some((anchor, below)) => anchor.join(below),
            None => name.into(),
        }
    }

    /// As people know it.
    pub fn shown(&self, name: &str) -> String {
        match self.anchored(name) {
            Some((_, "")) => "a file beside the recipe, playbook or inventory".to_owned(),
            Some((_, below)) => below.to_owned(),
            None => name.to_owned(),
        }
    }

    fn is_ignored(&self, path: &Path) -> bool {
        path.ancestors().any(|above| self.ignored.contains(above))
    }

    fn find(&self, kind: Kind, name: &str, hashes: &mut Hashes) -> Result<String> {
        let path = self.path(name);
        let missing = "-".to_owned();
        Ok(match kind {
            Kind::Given => missing,
            Kind::Env => match std::env::var_os(name) {
                Some(value) => cache::hash(&[&value.to_string_lossy()]),
                None => missing,
            },
            Kind::Tree => {
                let without = with_recipe(&path, self.ignored);
                cache::hash_tree(&path, &without, hashes)?
            }
            Kind::Read | Kind::Vars | Kind::Handlers => match fs::metadata(&path) {
                Ok(found) if found.is_file() => {
                    format!("{} {}", what(&found), hashes.file(&path)?)
                }
                Ok(_) => "other".to_owned(),
                Err(_) => missing,
            },
            Kind::List => match fs::read_dir(&path) {
                Ok(entries) => {
                    let mut names: Vec<_> = entries
                        .flatten()
                        .filter(|entry| {
                            !cache::is_never_input(&entry.path(), self.dirs)
                                && !self.ignored.contains(&entry.path())
                        })
                        .map(|entry| entry.file_name().to_string_lossy().into_owned())
                        .collect();
                    names.sort();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    cache::hash(&names)
                }
                Err(_) => missing,
            },
            Kind::Seen => match fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() => {
                    let target = fs::read_link(&path).map_err(Error::io("read", &path))?;
                    let leads = fs::metadata(&path).map(|found| what(&found)).ok();
                    format!("{} {leads:?}", target.display())
                }
                Ok(found) => what(&found),
                Err(_) => missing,
            },
        })
    }
}

/// The directory of handlers that a file lies in.
fn handlers_dir(path: &Path) -> Option<&Path> {
    path.ancestors().find(|dir| dir.ends_with("handlers"))
}

/// Of a directory only that it is one: its permissions are the checkout's.
fn what(found: &fs::Metadata) -> String {
    match found.is_dir() {
        true => "directory".to_owned(),
        false if found.is_file() => format!("{:o}", found.permissions().mode() & 0o777),
        false => "other".to_owned(),
    }
}

/// The recipe itself is not input as a file: what of it matters to a layer is known
/// otherwise, and a change of a help text bakes nothing again.
fn with_recipe(dir: &Path, ignored: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut without = ignored.clone();
    without.insert(dir.join("tiffin.yaml"));
    without.insert(dir.join("README.md"));
    without
}

/// The record of one run.
#[derive(Debug, Default)]
pub struct Record {
    entries: BTreeMap<(Kind, PathBuf), When>,
    /// Files whose content Ansible has seen, not only passed on.
    texts: BTreeSet<PathBuf>,
    env: BTreeSet<String>,
    /// A program of the build machine that nobody could watch.
    pub unknown: Option<String>,
    /// A task chose a role while it ran.
    chose_roles: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// When the playbook was parsed.
    Before,
    /// By a task, or for one.
    Task,
}

impl Record {
    pub fn read(file: &Path) -> Result<Record> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io("read", file)(e)),
        };
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Record {
        let mut record = Record::default();
        let mut when = When::Before;
        let mut written = BTreeSet::new();
        for entry in bytes.split(|b| *b == 0).filter(|entry| !entry.is_empty()) {
            let space = entry.iter().position(|b| *b == b' ');
            let (word, about) = match space {
                Some(at) => (&entry[..at], &entry[at + 1..]),
                None => (entry, &[][..]),
            };
            let path = || PathBuf::from(std::ffi::OsStr::from_bytes(about));
            let kind = match word {
                b"read" => {
                    record.texts.insert(path());
                    Kind::Read
                }
                b"sent" => Kind::Read,
                b"vars" => Kind::Vars,
                b"list" => Kind::List,
                b"seen" => Kind::Seen,
                b"wrote" => {
                    let read = |kind| record.entries.contains_key(&(kind, path()));
                    if !read(Kind::Read) && !read(Kind::Vars) {
                        written.insert(path());
                    }
                    continue;
                }
                b"env" => {
                    record
                        .env
                        .insert(String::from_utf8_lossy(about).into_owned());
                    continue;
                }
                b"tasks" => {
                    when = When::Task;
                    continue;
                }
                b"roles" => {
                    record.chose_roles = true;
                    continue;
                }
                // A word that nobody knows is no reason to believe the rest.
                _ => {
                    let name = String::from_utf8_lossy(about).into_owned();
                    record.unknown.get_or_insert(name);
                    continue;
                }
            };
            if !written.contains(&path()) {
                let known = record.entries.entry((kind, path())).or_insert(when);
                if when == When::Task {
                    *known = when;
                }
            }
        }
        record
    }

    /// Ansible parses the tasks of all roles of a play. Those of roles in which a layer has
    /// no task are not part of it, unless a task reads them too; their handlers are, where
    /// something notifies them. `roles` are the directories of such roles.
    pub fn leave_out(&mut self, roles: &BTreeSet<PathBuf>) {
        if self.chose_roles {
            return;
        }
        let part = |path: &Path| {
            let mut below = path.ancestors().zip(path.ancestors().skip(1));
            below.find_map(|(part, role)| roles.contains(role).then(|| part.to_owned()))
        };
        let all = std::mem::take(&mut self.entries);
        for ((kind, path), when) in all {
            let part = part(&path).filter(|_| when == When::Before);
            let is = |names: &[&str]| {
                part.as_ref()
                    .is_some_and(|part| names.iter().any(|name| part.ends_with(name)))
            };
            if is(&["tasks", "templates", "files"]) {
                continue;
            }
            let kind = match kind {
                Kind::Read if is(&["handlers"]) => Kind::Handlers,
                kind => kind,
            };
            self.entries.insert((kind, path), when);
        }
    }

    /// What was read, as it is now; `None` when some of it has changed since the run. Variables
    /// and handlers count by what `texts` and all that was read could use.
    pub fn reads(
        &self,
        places: &Places,
        since: SystemTime,
        used: Option<(Texts, &Variables)>,
    ) -> Result<Option<Reads>> {
        let mut hashes = Hashes::default();
        let mut names = Vec::new();
        let mut unknown = self.unknown.is_some();
        for (kind, path) in self.entries.keys() {
            if places.is_ignored(path) {
                continue;
            }
            let Some(name) = places.name(path) else {
                unknown = true;
                continue;
            };
            let content = [Kind::Read, Kind::Vars, Kind::Handlers];
            if content.contains(kind) && changed_since(path, since) {
                return Ok(None);
            }
            names.push((*kind, name));
        }
        let mut reads = Reads::default();
        let mut part = InPart::default();
        if let Some((texts, given)) = used {
            names.push((Kind::Given, GIVEN.to_owned()));
            reads.uses = self.uses(texts);
            part = match InPart::of(&names, reads.uses.as_ref(), given, places, &mut hashes)? {
                Some(part) => part,
                None => {
                    reads.uses = None;
                    let all = InPart::of(&names, None, given, places, &mut hashes)?;
                    all.expect("without uses there is nothing to follow")
                }
            };
        }
        names.extend(self.env.iter().map(|name| (Kind::Env, name.clone())));
        if unknown {
            for dir in places.dirs {
                if any_changed_since(dir, places, since) {
                    return Ok(None);
                }
                names.extend(places.name(dir).map(|name| (Kind::Tree, name)));
            }
        }
        for (kind, name) in names {
            let found = part.find(kind, &name, places, &mut hashes)?;
            reads.entries.push((kind, name, found));
        }
        reads.entries.sort();
        Ok(Some(reads))
    }

    /// What could be used by a run that came upon these texts and what it read.
    fn uses(&self, mut texts: Texts) -> Option<Uses> {
        let mut handlers: BTreeMap<&Path, Vec<(&Path, Vec<u8>)>> = BTreeMap::new();
        for (kind, path) in self.entries.keys() {
            if !matches!(kind, Kind::Read | Kind::Handlers) {
                continue;
            }
            // One that is not there has no words.
            let content = match self.texts.contains(path) {
                true => fs::read(path).unwrap_or_default(),
                false => continue,
            };
            match handlers_dir(path).filter(|_| *kind == Kind::Handlers) {
                Some(dir) => handlers.entry(dir).or_default().push((path, content)),
                None => texts.file(path, &content),
            }
        }
        // A handler may notify another.
        loop {
            let notified = |files: &Vec<(&Path, Vec<u8>)>| {
                files.iter().any(|(_, file)| texts.could_notify(file))
            };
            let Some(dir) = handlers
                .iter()
                .find(|(_, files)| notified(files))
                .map(|(dir, _)| *dir)
            else {
                break;
            };
            for (path, content) in handlers.remove(dir).into_iter().flatten() {
                texts.file(path, &content);
            }
        }
        texts.uses()
    }
}

impl InPart {
    /// All that is read in part; `None` when it cannot be told from what could be used.
    fn of(
        names: &[(Kind, String)],
        uses: Option<&Uses>,
        given: &Variables,
        places: &Places,
        hashes: &mut Hashes,
    ) -> Result<Option<InPart>> {
        let mut part = InPart::default();
        let of_kind = |kind| {
            names
                .iter()
                .filter(move |(other, _)| *other == kind)
                .map(|(_, name)| name)
        };
        let Some(uses) = uses else {
            let given = serde_json::to_string(given).expect("they are JSON");
            let all = cache::hash(&["all", &given]);
            part.found.insert((Kind::Given, GIVEN.to_owned()), all);
            return Ok(Some(part));
        };
        let there: Vec<(&String, Vec<u8>)> = of_kind(Kind::Vars)
            .filter_map(|name| Some((name, fs::read(places.path(name)).ok()?)))
            .collect();
        let contents: Vec<&[u8]> = there.iter().map(|(_, content)| &**content).collect();
        let Some(values) = uses.values(&contents, given) else {
            return Ok(None);
        };
        for name in of_kind(Kind::Vars) {
            part.found
                .insert((Kind::Vars, name.clone()), "-".to_owned());
        }
        for ((name, _), digest) in there.iter().zip(values.files) {
            part.found.insert((Kind::Vars, (*name).clone()), digest);
        }
        part.found
            .insert((Kind::Given, GIVEN.to_owned()), values.given);
        part.used = values.used;
        let mut counts = BTreeSet::new();
        for name in of_kind(Kind::Handlers) {
            let path = places.path(name);
            if fs::read(&path).is_ok_and(|file| uses.could_notify(&file)) {
                counts.extend(handlers_dir(&path).map(Path::to_owned));
            }
        }
        for name in of_kind(Kind::Handlers) {
            let path = places.path(name);
            let found = match handlers_dir(&path).is_some_and(|dir| counts.contains(dir)) {
                true => places.find(Kind::Handlers, name, hashes)?,
                false => NOBODY.to_owned(),
            };
            part.found.insert((Kind::Handlers, name.clone()), found);
        }
        Ok(Some(part))
    }

    fn find(&self, kind: Kind, name: &str, places: &Places, hashes: &mut Hashes) -> Result<String> {
        match self.found.get(&(kind, name.to_owned())) {
            Some(found) => Ok(found.clone()),
            None => places.find(kind, name, hashes),
        }
    }
}

fn changed_since(path: &Path, since: SystemTime) -> bool {
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    fs::metadata(path).is_ok_and(|found| {
        let (seconds, nanos) = (found.ctime(), found.ctime_nsec());
        (seconds, nanos) >= (since.as_secs() as i64, i64::from(since.subsec_nanos()))
    })
}

fn any_changed_since(dir: &Path, places: &Places, since: SystemTime) -> bool {
    let mut stack = vec![dir.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if places.ignored.contains(&path) || cache::is_never_input(&path, places.dirs) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                stack.push(path);
            } else if changed_since(&path, since) {
                return true;
            }
        }
    }
    false
}

impl Reads {
    /// The first name that is not as it was.
    pub fn difference(
        &self,
        places: &Places,
        given: &Variables,
        hashes: &mut Hashes,
    ) -> Result<Option<String>> {
        let Some(part) = self.in_part(places, given, hashes)? else {
            // A value that was used computes a name now; it is another one than it was.
            let vars = self.entries.iter().find(|(kind, ..)| *kind == Kind::Vars);
            return Ok(Some(
                vars.map_or(GIVEN.to_owned(), |(_, name, _)| name.clone()),
            ));
        };
        for (kind, name, found) in &self.entries {
            if part.find(*kind, name, places, hashes)? != *found {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }

    fn in_part(
        &self,
        places: &Places,
        given: &Variables,
        hashes: &mut Hashes,
    ) -> Result<Option<InPart>> {
        let names: Vec<(Kind, String)> = self
            .entries
            .iter()
            .filter(|(kind, ..)| matches!(kind, Kind::Vars | Kind::Handlers | Kind::Given))
            .map(|(kind, name, _)| (*kind, name.clone()))
            .collect();
        if names.is_empty() {
            return Ok(Some(InPart::default()));
        }
        InPart::of(&names, self.uses.as_ref(), given, places, hashes)
    }

    pub fn key(&self, basis: &str) -> String {
        let text = serde_json::to_string(&self.entries).expect("strings are JSON");
        cache::hash(&["read", basis, &text])
    }

    /// Files below the directories of recipe, playbook and inventory that count as a whole.
    pub fn inputs(&self, places: &Places) -> Vec<PathBuf> {
        let named = self.entries.iter().filter(|(kind, _, found)| match kind {
            Kind::Read | Kind::Handlers => found != "-" && found != NOBODY,
            Kind::Vars => self.uses.is_none(),
            Kind::Tree => true,
            _ => false,
        });
        self.below(named, places).collect()
    }

    /// Files of variables there of which a part counts, and the names of what is used.
    pub fn variables(
        &self,
        places: &Places,
        given: &Variables,
    ) -> Result<(Vec<PathBuf>, BTreeSet<String>)> {
        let part = self.in_part(places, given, &mut Hashes::default())?;
        let named = self.entries.iter().filter(|(kind, ..)| *kind == Kind::Vars);
        match (part, &self.uses) {
            (Some(part), Some(_)) => Ok((self.below(named, places).collect(), part.used)),
            _ => Ok(Default::default()),
        }
    }

    fn below<'a>(
        &'a self,
        entries: impl Iterator<Item = &'a (Kind, String, String)> + 'a,
        places: &'a Places,
    ) -> impl Iterator<Item = PathBuf> + 'a {
        entries
            .map(|(_, name, _)| places.path(name))
            .filter(|path| places.dirs.iter().any(|dir| path.starts_with(dir)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `word`, a file of it, and a record that says it was read.
    fn record(dir: &Path, entries: &[(&str, &str)]) -> Record {
        let mut bytes = Vec::new();
        for (word, about) in entries {
            let about = about.replace("DIR", dir.to_str().unwrap());
            let space = if about.is_empty() { "" } else { " " };
            bytes.extend(format!("{word}{space}{about}\0").into_bytes());
        }
        Record::parse(&bytes)
    }

    struct Input {
        _place: tempfile::TempDir,
        dirs: Vec<PathBuf>,
        ignored: BTreeSet<PathBuf>,
        given: Variables,
    }

    impl Input {
        fn new() -> Input {
            let place = tempfile::tempdir().unwrap();
            let dir = place.path().canonicalize().unwrap();
            for name in ["site.yml", "roles/db/tasks/main.yml", "app/main.py"] {
                let path = dir.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, name).unwrap();
            }
            let ignored = BTreeSet::from([dir.join("notes")]);
            Input {
                _place: place,
                dirs: vec![dir],
                ignored,
                given: Variables::new(),
            }
        }

        fn dir(&self) -> &Path {
            &self.dirs[0]
        }

        fn reads(&self, entries: &[(&str, &str)]) -> Reads {
            let places = Places::new(&self.dirs, &self.ignored);
            let record = record(self.dir(), entries);
            let later = SystemTime::now() + std::time::Duration::from_secs(60);
            let used = (Texts::default(), &self.given);
            record.reads(&places, later, Some(used)).unwrap().unwrap()
        }

        fn difference(&self, reads: &Reads) -> Option<String> {
            let places = Places::new(&self.dirs, &self.ignored);
            let hashes = &mut Hashes::default();
            reads.difference(&places, &self.given, hashes).unwrap()
        }
    }

    #[test]
    fn what_was_read_listed_or_looked_for_in_vain_counts() {
        let input = Input::new();
        let reads = input.reads(&[
            ("read", "DIR/site.yml"),
            ("list", "DIR/app"),
            ("seen", "DIR/group_vars"),
            ("read", "DIR/notes/x"),
        ]);
        assert_eq!(input.difference(&reads), None);
        let change = |name: &str| {
            let path = input.dir().join(name);
            let old = fs::read(&path).ok();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "changed").unwrap();
            let found = input.difference(&reads);
            match old {
                Some(old) => fs::write(&path, old).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            found
        };
        assert_eq!(change("site.yml").as_deref(), Some("0:site.yml"));
        assert_eq!(change("app/main.py"), None, "it was listed, not read");
        assert_eq!(change("app/new.py").as_deref(), Some("0:app"));
        assert_eq!(change("app/new.pyc"), None);
        assert_eq!(change("roles/db/tasks/main.yml"), None);
        assert_eq!(change("notes/x"), None, "ignored");
        assert_eq!(change("group_vars").as_deref(), Some("0:group_vars"));
        assert_eq!(input.difference(&reads), None);
    }

    #[test]
    fn a_checkout_elsewhere_has_the_same_key() {
        let entries = [("read", "DIR/site.yml"), ("list", "DIR/app")];
        let (one, other) = (Input::new().reads(&entries), Input::new().reads(&entries));
        assert_eq!(one.key("basis"), other.key("basis"));
        assert_ne!(one.key("basis"), one.key("another"));
    }

    #[test]
    fn tasks_that_a_layer_has_none_of_are_left_out_unless_a_task_reads_them() {
        let input = Input::new();
        let unused = BTreeSet::from([input.dir().join("roles/db")]);
        let tasks = ("read", "DIR/roles/db/tasks/main.yml");
        let count = |entries: &[(&str, &str)]| {
            let mut record = record(input.dir(), entries);
            record.leave_out(&unused);
            record.entries.len()
        };
        assert_eq!(count(&[tasks]), 0);
        assert_eq!(count(&[tasks, ("tasks", ""), tasks]), 1);
        assert_eq!(count(&[tasks, ("tasks", ""), ("roles", "")]), 1);
    }

    #[test]
    fn what_a_play_wrote_itself_is_no_input() {
        let input = Input::new();
        let record = record(
            input.dir(),
            &[
                ("wrote", "DIR/made"),
                ("read", "DIR/made"),
                ("read", "DIR/log"),
                ("wrote", "DIR/log"),
            ],
        );
        let names: Vec<_> = record
            .entries
            .keys()
            .map(|(_, path)| path.clone())
            .collect();
        assert_eq!(names, [input.dir().join("log")]);
    }

    #[test]
    fn a_program_that_nobody_watched_makes_everything_count() {
        let input = Input::new();
        let reads = input.reads(&[("read", "DIR/site.yml"), ("ran", "git")]);
        fs::write(input.dir().join("app/main.py"), "changed").unwrap();
        assert_eq!(input.difference(&reads).as_deref(), Some("0:"));
        let reads = input.reads(&[("word from a later version", "x")]);
        fs::write(input.dir().join("app/main.py"), "again").unwrap();
        assert!(input.difference(&reads).is_some());
    }

    #[test]
    fn what_changed_during_the_run_is_not_remembered() {
        let input = Input::new();
        let places = Places::new(&input.dirs, &input.ignored);
        let before = SystemTime::now() - std::time::Duration::from_secs(60);
        for entries in [[("read", "DIR/site.yml")], [("ran", "git")]] {
            let record = record(input.dir(), &entries);
            assert_eq!(record.reads(&places, before, None).unwrap(), None);
        }
    }
}
