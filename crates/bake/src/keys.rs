//! What each layer is made from, as a hash.
//!
//! A layer's key covers the key of the layer below, its tags, the versions of Ansible and of this program's own part in it (its basis), and
//! by content all that Ansible read on the build machine when the layer was baked
//! ([`reads`](crate::reads)), except the tasks of roles that none of its tasks belongs to.
//! Never a time of change.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
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
    capture::Event,
    dates,
    error::{Error, Result},
    inputs,
    reads::{self, Places, Reads},
    variables::Texts,
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
    history: RefCell<dates::History>,
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
            history: RefCell::default(),
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
        let known = known.map(|known| self.planned(layer, &known.reads, &basis));
        Ok(Plan {
            known: known.transpose()?,
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
            match known
                .reads
                .difference(&places, self.variables, &mut self.hashes)?
            {
                None => {
                    self.cache.used(basis, &known);
                    return Ok((Some(known), changed));
                }
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
        texts: Option<Texts>,
        value: T,
    ) -> Result<Option<Reads>> {
        let used = texts.map(|texts| (texts, self.variables));
        let Some(reads) = record.reads(&self.places(), self.since, used)? else {
            return Ok(None);
        };
        let known = Known { reads, value };
        self.cache.remember(basis, &known, &self.ansible.dir)?;
        Ok(Some(known.reads))
    }

    /// The key of a layer that has just been baked: one that nobody finds when something that
    /// it read was changed meanwhile. `carried` is what the layers below left in Ansible's
    /// memory.
    pub fn made(
        &self,
        layer: &Layer,
        basis: &Basis,
        mut record: reads::Record,
        events: &[Event],
        carried: Option<&str>,
    ) -> Result<Planned> {
        let progress = self.options.progress;
        let name = &layer.name;
        if let Some(program) = &record.unknown {
            progress.note(&format!(
                "layer {name} ran `{program}` on this machine, outside the box: any change beside the \
                 playbook makes it again"
            ));
        }
        record.leave_out(&basis.unused);
        let texts = self.texts(events, carried);
        Ok(
            match self.remember(&basis.hash, &record, Some(texts), ())? {
                Some(reads) => self.planned(layer, &reads, basis)?,
                None => {
                    progress.note(&format!(
                    "files that layer {name} reads were changed meanwhile: the next build makes it again"
                ));
                    self.stray(layer, basis)
                }
            },
        )
    }

    /// Where a layer could come upon variables, besides what it read.
    fn texts(&self, events: &[Event], carried: Option<&str>) -> Texts {
        let mut texts = Texts::default();
        for expression in self.expressions {
            texts.text(expression);
        }
        match carried.map(serde_json::from_str) {
            None => {}
            Some(Ok(value)) => texts.carried(&value),
            Some(Err(_)) => texts.all(),
        }
        // Their variable is chosen among all, and by name. And what is vaulted cannot be read here.
        let looked_up = |event: &Event| {
            matches!(
                event,
                Event::Vaulted {
                    lookup: Some(_),
                    ..
                }
            )
        };
        if events.iter().any(looked_up) || !self.recipe.public.is_empty() {
            texts.all();
        }
        texts
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

    fn planned(&self, layer: &Layer, reads: &Reads, basis: &Basis) -> Result<Planned> {
        let epoch = match self.options.epoch {
            Some(epoch) => epoch,
            None => self.date(reads)?.unwrap_or(EPOCH),
        };
        Ok(Planned {
            name: layer.name.clone(),
            key: reads.key(&basis.hash),
            epoch,
        })
    }

    /// Of the last commit that changed what was read.
    fn date(&self, reads: &Reads) -> Result<Option<u64>> {
        let places = self.places();
        let whole = dates::of_files(&self.inputs.dirs, &reads.inputs(&places));
        let (files, used) = reads.variables(&places, self.variables)?;
        let mut history = self.history.borrow_mut();
        let parts = files.iter().filter_map(|file| history.of_used(file, &used));
        Ok(parts.chain(whole).max())
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
            "roles 4",
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
        self.remember(&basis, &record, None, &roles)?;
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
                dates.push(dates::of_copy(&copy.from, ignored));
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

/// Directories of roles without a task in a layer.
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
        .map(|e| e.path())
        .collect()
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
