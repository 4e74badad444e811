//! What each layer is made from, as a hash.
//!
//! A layer's key covers the key of the layer below, its tags, the variables handed to
//! Ansible, the versions of Ansible and of this program's own part in it (its basis), and
//! by content all that Ansible read on the build machine when the layer was baked
//! ([`reads`](crate::reads)), except the tasks of roles that none of its tasks belongs to.
//! Never a time of change.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use contract::Variables;
use recipe::{Copy, Layer, Recipe, Step};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Options,
    ansible::{self, Ansible},
    base,
    cache::{self, Cache, Known, hash},
    error::{Error, Result},
    inputs,
    reads::{self, Places, Reads},
};

/// Raised when a change of this program changes what a layer holds, or how it is kept.
const OUTPUT: &str = "5";
/// Clamps file times where neither the caller nor git says better: 2025-01-01.
const EPOCH: u64 = 1_735_689_600;

pub struct Planned {
    pub name: String,
    pub key: String,
    pub epoch: u64,
}

/// What is known of a layer before it is baked.
pub struct Plan {
    /// Its key, when nothing that an earlier run of it read has changed; what needs no run
    /// to be known always has one.
    pub known: Option<Planned>,
    /// Of a layer that a playbook bakes: with what it reads this gives its key.
    pub basis: Option<Basis>,
    /// What changed since it was baked last.
    pub changed: Option<String>,
}

impl From<Planned> for Plan {
    fn from(planned: Planned) -> Self {
        Plan {
            known: Some(planned),
            basis: None,
            changed: None,
        }
    }
}

/// All that a layer is made from but what it reads.
pub struct Basis {
    hash: String,
    /// Directories of roles of which the layer has no task.
    unused: BTreeSet<PathBuf>,
}

/// Works out the keys of layers, the lowest first.
pub struct Planner<'a> {
    recipe: &'a Recipe,
    ansible: &'a Ansible<'a>,
    variables: &'a Variables,
    expressions: &'a [String],
    options: &'a Options<'a>,
    cache: &'a Cache,
    inputs: &'a Inputs,
    hashes: cache::Hashes,
    /// When the build began: what has changed since is not what a play read.
    since: SystemTime,
}

impl<'a> Planner<'a> {
    pub fn new(
        recipe: &'a Recipe,
        ansible: &'a Ansible<'a>,
        variables: &'a Variables,
        expressions: &'a [String],
        options: &'a Options<'a>,
        cache: &'a Cache,
        inputs: &'a Inputs,
    ) -> Self {
        Planner {
            recipe,
            ansible,
            variables,
            expressions,
            options,
            cache,
            inputs,
            hashes: cache::Hashes::default(),
            since: SystemTime::now(),
        }
    }

    fn places(&self) -> Places<'a> {
        Places::new(&self.inputs.dirs, &self.inputs.ignored)
    }

    /// The base, on which all stands.
    pub fn base(&self) -> Result<Planned> {
        let recipe = self.recipe;
        let described = base::describe(&recipe.base, &recipe.base_packages, self.options.image)?;
        let epoch = clock(self.options);
        let key = hash(&[
            "base",
            OUTPUT,
            std::env::consts::ARCH,
            &described,
            &epoch.to_string(),
        ]);
        Ok(Planned {
            name: "rootfs".into(),
            key,
            epoch,
        })
    }

    pub fn layer(&mut self, layer: &Layer, below: &Planned) -> Result<Plan> {
        if !layer.steps.is_empty() {
            let ignored = &self.inputs.ignored;
            return of_steps(layer, below, self.options, ignored, &mut self.hashes).map(Plan::from);
        }
        let basis = self.basis(layer, below)?;
        let (known, changed) = self.known::<()>(&basis.hash)?;
        Ok(Plan {
            known: known.map(|known| self.planned(layer, &known.reads, &basis)),
            basis: Some(basis),
            changed,
        })
    }

    /// What an earlier run came to whose reads are as they were; and what has changed since the
    /// newest, where that is another one.
    fn known<T: DeserializeOwned>(
        &mut self,
        basis: &str,
    ) -> Result<(Option<Known<T>>, Option<String>)> {
        let places = self.places();
        let mut changed = None;
        for known in self.cache.known::<T>(basis) {
            match known.reads.difference(&places, &mut self.hashes)? {
                None => return Ok((Some(known), changed)),
                Some(name) => drop(changed.get_or_insert(places.shown(&name))),
            }
        }
        Ok((None, changed))
    }

    /// Keeps what a run came to; `None` when something that it read was changed meanwhile.
    fn remember<T: Serialize>(
        &self,
        basis: &str,
        record: &reads::Record,
        value: T,
    ) -> Result<Option<Reads>> {
        let Some(reads) = record.reads(&self.places(), self.since)? else {
            return Ok(None);
        };
        let known = Known { reads, value };
        self.cache.remember(basis, &known, &self.ansible.dir)?;
        Ok(Some(known.reads))
    }

    /// The key of a layer that has just been baked: one that nobody finds when something that
    /// it read was changed meanwhile.
    pub fn made(&self, layer: &Layer, basis: &Basis, mut record: reads::Record) -> Result<Planned> {
        let progress = self.options.progress;
        let name = &layer.name;
        if let Some(program) = &record.unknown {
            progress.note(&format!(
                "layer {name} ran `{program}` on this machine, outside the box: any change beside the \
                 playbook makes it again"
            ));
        }
        record.leave_out(&basis.unused);
        Ok(match self.remember(&basis.hash, &record, ())? {
            Some(reads) => self.planned(layer, &reads, basis),
            None => {
                progress.note(&format!(
                    "files that layer {name} reads were changed meanwhile: the next build makes it again"
                ));
                self.stray(layer, basis)
            }
        })
    }

    /// A key that nobody finds.
    fn stray(&self, layer: &Layer, basis: &Basis) -> Planned {
        let now = self.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        Planned {
            name: layer.name.clone(),
            key: hash(&["stray", &basis.hash, &now.as_nanos().to_string()]),
            epoch: clock(self.options),
        }
    }

    fn planned(&self, layer: &Layer, reads: &Reads, basis: &Basis) -> Planned {
        let dated = || commit_date(&self.inputs.dirs, &reads.inputs(&self.places()));
        Planned {
            name: layer.name.clone(),
            key: reads.key(&basis.hash),
            epoch: self.options.epoch.or_else(dated).unwrap_or(EPOCH),
        }
    }

    fn basis(&mut self, layer: &Layer, below: &Planned) -> Result<Basis> {
        let recipe = self.recipe;
        let used = self.roles(layer)?;
        let mut parts = vec![
            "layer".to_owned(),
            chosen(recipe),
            OUTPUT.to_owned(),
            below.key.clone(),
            self.ansible.version.clone(),
            format!(
                "{:?} {:?} {:?} {:?} {:?} {:?} {used:?}",
                recipe.volumes,
                layer.tags,
                layer.skip_tags,
                self.ansible.groups,
                recipe.public,
                self.expressions
            ),
            format!("{:?}", ansible::computed_lookups()),
            serde_json::Value::Object(self.variables.clone()).to_string(),
            configuration(),
            clock(self.options).to_string(),
        ];
        // What supervises units that run during the build is part of how a layer is made.
        if !recipe.start.is_empty() {
            let program = self.hashes.file(self.options.entrypoint)?;
            parts.push(format!("{:?} {program}", recipe.start));
        }
        parts.extend(ansible::assets().into_iter().map(str::to_owned));
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let unused = used.map(|used| unused_roles(recipe, &used));
        Ok(Basis {
            hash: hash(&parts),
            unused: unused.unwrap_or_default(),
        })
    }

    /// Asks Ansible which roles have a task in the layer, once for each state of what it
    /// reads to know: starting it takes a second.
    fn roles(&mut self, layer: &Layer) -> Result<Option<BTreeSet<String>>> {
        let parts = [
            "roles 3",
            &self.ansible.version,
            &chosen(self.recipe),
            &format!(
                "{:?} {:?} {:?}",
                layer.tags, layer.skip_tags, self.ansible.groups
            ),
            &serde_json::Value::Object(self.variables.clone()).to_string(),
            &configuration(),
        ];
        let basis = hash(&parts);
        if let (Some(known), _) = self.known(&basis)? {
            return Ok(known.value);
        }
        let (roles, record) = self.ansible.roles(layer, &self.inputs.dirs)?;
        self.remember(&basis, &record, &roles)?;
        Ok(roles)
    }
}

/// What plays see as SOURCE_DATE_EPOCH: the date of what a layer reads is known only after it.
pub fn clock(options: &Options) -> u64 {
    options.epoch.unwrap_or(EPOCH)
}

/// Ansible's configuration in the environment, but for what shows or unlocks something.
fn configuration() -> String {
    let silent = [
        "PASSWORD",
        "COLOR",
        "DEBUG",
        "VERBOSITY",
        "LOG_PATH",
        "CALLBACK",
        "DISPLAY",
        "FORKS",
    ];
    let mut set: Vec<_> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| {
            name.starts_with("ANSIBLE_") && !silent.iter().any(|word| name.contains(word))
        })
        .collect();
    set.sort();
    format!("{set:?}")
}

/// Files that a build may read.
pub struct Inputs {
    /// None inside another.
    pub dirs: Vec<PathBuf>,
    /// What lies below them, or below what a step copies, and does not count.
    pub ignored: BTreeSet<PathBuf>,
}

impl Inputs {
    pub fn of(recipe: &Recipe, options: &Options) -> Result<Inputs> {
        let dirs = directories(recipe);
        let mut looked_at = dirs.clone();
        for copy in copies(recipe.layers.iter()) {
            if copy.from.is_dir() && !looked_at.contains(&copy.from) {
                looked_at.push(copy.from.clone());
            }
        }
        let written = inputs::Written {
            output: &real(options.output),
            name: recipe.name.rsplit('/').next().unwrap_or(&recipe.name),
            cache: &real(options.cache),
        };
        let ignored = inputs::ignored(&looked_at, &written)?;
        Ok(Inputs { dirs, ignored })
    }
}

fn copies<'a>(layers: impl Iterator<Item = &'a Layer>) -> impl Iterator<Item = &'a Copy> {
    let steps = layers.flat_map(|layer| &layer.steps);
    steps.filter_map(|step| match step {
        Step::Copy(copy) => Some(copy),
        Step::Run(_) => None,
    })
}

/// A layer of steps is made from these, what they copy, and the layer below.
fn of_steps(
    layer: &Layer,
    below: &Planned,
    options: &Options,
    ignored: &BTreeSet<PathBuf>,
    hashes: &mut cache::Hashes,
) -> Result<Planned> {
    let mut parts = vec!["steps".to_owned(), OUTPUT.to_owned(), below.key.clone()];
    let mut dates = Vec::new();
    for step in &layer.steps {
        match step {
            Step::Run(command) => parts.push(format!("run {command}")),
            Step::Copy(copy) => {
                // Where it lies on this machine is no part of it, but a file's name may be.
                let name = copy.from.file_name().unwrap_or_default();
                let how = (name, &copy.to, copy.mode, &copy.owner);
                parts.push(format!("copy {how:?} {}", copy.from.is_dir()));
                let from = match copy.from.is_symlink() {
                    // What it leads to counts, not where.
                    true => copy
                        .from
                        .canonicalize()
                        .map_err(Error::io("read", &copy.from))?,
                    false => copy.from.clone(),
                };
                parts.push(cache::hash_tree(&from, ignored, hashes)?);
                dates.push(copy_date(&copy.from, ignored));
            }
        }
    }
    // Without a date of its own it is as old as what is below.
    let own = dates.into_iter().flatten().max();
    let epoch = options.epoch.unwrap_or(own.unwrap_or(0).max(below.epoch));
    parts.push(clock(options).to_string());
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(Planned {
        name: layer.name.clone(),
        key: hash(&parts),
        epoch,
    })
}

/// Of the last commit that touched what is copied.
fn copy_date(from: &Path, ignored: &BTreeSet<PathBuf>) -> Option<u64> {
    let mut command = Command::new("git");
    let dir = if from.is_dir() { from } else { from.parent()? };
    command.arg("-C").arg(dir);
    command.args(["log", "-1", "--format=%ct", "--"]);
    if from.is_dir() {
        command.arg(".");
        // A command line has its limit; what no commit touches does no harm.
        for below in ignored
            .iter()
            .filter_map(|path| path.strip_prefix(from).ok())
            .take(2000)
        {
            command.arg(format!(":(exclude){}", below.display()));
        }
    } else {
        command.arg(from.file_name()?);
    }
    date_of(&mut command)
}

/// What git answers to `%ct`, if it does.
fn date_of(command: &mut Command) -> Option<u64> {
    let out = command.output().ok()?;
    String::from_utf8_lossy(&out.stdout).trim().parse().ok()
}

/// Which playbook and inventory, since the recipe's own file is not hashed.
fn chosen(recipe: &Recipe) -> String {
    let folder = recipe.path.parent().unwrap_or(Path::new("/"));
    let below = |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_owned();
    let inventory = recipe.inventory.as_deref().map(below);
    format!("{:?} {inventory:?}", below(&recipe.playbook))
}

/// Without `..`: `stack/../playbooks` does not lie in `stack`.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The directories whose files a playbook may read, none inside another.
fn directories(recipe: &Recipe) -> Vec<PathBuf> {
    let files = [
        Some(&recipe.path),
        Some(&recipe.playbook),
        recipe.inventory.as_ref(),
    ];
    let mut dirs: Vec<PathBuf> = files
        .into_iter()
        .flatten()
        .filter_map(|p| {
            if p.is_dir() {
                Some(real(p))
            } else {
                p.parent().map(real)
            }
        })
        .collect();
    dirs.sort();
    dirs.dedup();
    let all = dirs.clone();
    dirs.retain(|dir| {
        !all.iter()
            .any(|other| other != dir && dir.starts_with(other))
    });
    dirs
}

fn roles_dir(recipe: &Recipe) -> PathBuf {
    real(recipe.playbook.parent().unwrap_or(Path::new("/"))).join("roles")
}

/// What roles without a task in a layer cannot have brought into it. Their defaults,
/// variables and handlers count: a play sees those of all its roles.
fn unused_roles(recipe: &Recipe, used: &BTreeSet<String>) -> BTreeSet<PathBuf> {
    let Ok(entries) = fs::read_dir(roles_dir(recipe)) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter(|e| {
            let name = e.file_name();
            let name = name.to_string_lossy();
            // `web/nginx` lies in the directory `web`.
            !used
                .iter()
                .any(|role| role.split('/').next() == Some(&*name))
        })
        .flat_map(|e| ["tasks", "templates", "files"].map(|part| e.path().join(part)))
        .collect()
}

/// Seconds since 1970 of the last commit that touched one of the files, which lie in `dirs`.
fn commit_date(dirs: &[PathBuf], files: &[PathBuf]) -> Option<u64> {
    let mut newest = None;
    for dir in dirs {
        let below: Vec<&Path> = files
            .iter()
            .filter_map(|file| file.strip_prefix(dir).ok())
            .collect();
        // A command line has its limit.
        for some in below.chunks(1000) {
            let mut command = Command::new("git");
            command.arg("-C").arg(dir).arg("--literal-pathspecs");
            command.args(["log", "-1", "--format=%ct", "--"]);
            command.args(some.iter().map(|path| match path.as_os_str().is_empty() {
                true => Path::new("."),
                false => path,
            }));
            newest = newest.max(date_of(&mut command));
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_playbook_beside_the_recipes_directory_is_input() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        for path in ["stack/tiffin.yaml", "playbooks/site.yml"] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let text = "name: acme/box\nplaybook: ../playbooks/site.yml\nlayers: [{name: all}]\n";
        let recipe = recipe::parse(text, &root.join("stack/tiffin.yaml")).unwrap();
        assert_eq!(
            directories(&recipe),
            [root.join("playbooks"), root.join("stack")]
        );
        assert_eq!(roles_dir(&recipe), root.join("playbooks/roles"));
    }
}
