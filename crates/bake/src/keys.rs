//! What each layer is made from, as a hash.
//!
//! A layer's key covers the key of the layer below, its tags, the variables handed to
//! Ansible, the versions of Ansible and of this program's own part in it, and by content
//! every file beside the recipe, playbook and inventory, except the roles that none of its
//! tasks belongs to. Never a time of change.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use contract::Variables;
use recipe::{Copy, Layer, Recipe, Step};

use crate::{
    Options,
    ansible::{self, Ansible},
    base,
    cache::{self, Cache, hash},
    error::{Error, Result},
    inputs,
};

/// Raised when a change of this program changes what a layer holds.
const OUTPUT: &str = "1";
/// Clamps file times where neither the caller nor git says better: 2025-01-01.
const EPOCH: u64 = 1_735_689_600;

pub struct Planned {
    pub name: String,
    pub key: String,
    pub epoch: u64,
}

/// The base's key, then one for each layer of the recipe.
pub fn keys(
    recipe: &Recipe,
    ansible: &Ansible,
    variables: &Variables,
    expressions: &[String],
    options: &Options,
    cache: &Cache,
    inputs: &Inputs,
) -> Result<Vec<Planned>> {
    let epoch = options.epoch.unwrap_or(EPOCH);
    let described = base::describe(&recipe.base, &recipe.base_packages, options.image)?;
    let key = hash(&[
        "base",
        OUTPUT,
        std::env::consts::ARCH,
        &described,
        &epoch.to_string(),
    ]);
    let mut planned = vec![Planned {
        name: "rootfs".into(),
        key,
        epoch,
    }];

    let Inputs { dirs, ignored } = inputs;
    let mut hashes = cache::Hashes::default();
    let used = roles_of_layers(recipe, ansible, variables, inputs, cache, &mut hashes)?;
    for layer in &recipe.layers {
        if !layer.steps.is_empty() {
            let below = planned.last().expect("the base is first");
            let step = of_steps(layer, below, options, ignored, &mut hashes)?;
            planned.push(step);
            continue;
        }
        let roles = &used[&layer.name];
        let mut without = roles
            .as_ref()
            .map(|roles| unused_roles(recipe, roles))
            .unwrap_or_default();
        without.extend(ignored.iter().cloned());
        let mut parts = vec![
            "layer".to_owned(),
            chosen(recipe),
            OUTPUT.to_owned(),
            planned.last().map(|p| p.key.clone()).unwrap_or_default(),
            ansible.version.clone(),
            format!(
                "{:?} {:?} {:?} {:?} {:?} {:?}",
                recipe.volumes,
                layer.tags,
                layer.skip_tags,
                recipe.groups,
                recipe.public,
                expressions
            ),
            serde_json::Value::Object(variables.clone()).to_string(),
        ];
        parts.extend(ansible::assets().into_iter().map(str::to_owned));
        for dir in dirs {
            parts.push(cache::hash_tree(
                dir,
                &with_recipes(dir, &without),
                &mut hashes,
            )?);
        }
        let epoch = options
            .epoch
            .or_else(|| commit_date(dirs, &without))
            .unwrap_or(EPOCH);
        parts.push(epoch.to_string());
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        planned.push(Planned {
            name: layer.name.clone(),
            key: hash(&parts),
            epoch,
        });
    }
    Ok(planned)
}

/// Files that a build may read.
pub struct Inputs {
    /// None inside another.
    dirs: Vec<PathBuf>,
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
    parts.push(epoch.to_string());
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(Planned {
        name: layer.name.clone(),
        key: hash(&parts),
        epoch,
    })
}

/// Of the last commit that touched what is copied.
fn copy_date(from: &Path, ignored: &BTreeSet<PathBuf>) -> Option<u64> {
    if from.is_dir() {
        return commit_date(&[from.to_owned()], ignored);
    }
    let mut command = Command::new("git");
    command.arg("-C").arg(from.parent()?);
    command.args(["log", "-1", "--format=%ct", "--"]);
    let out = command.arg(from.file_name()?).output().ok()?;
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

/// The recipe itself is not hashed as a file: what of it matters to a layer is a part of
/// its key already, and a change of a help text bakes nothing again.
fn with_recipes(dir: &Path, without: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut without = without.clone();
    without.insert(dir.join("tiffin.yaml"));
    without.insert(dir.join("README.md"));
    without
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

/// Whether a playbook chooses roles or tasks of roles while it runs: no list shows those.
fn chooses_roles_at_run_time(inputs: &Inputs) -> bool {
    let mut stack = inputs.dirs.clone();
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if inputs.ignored.contains(&path) {
                continue;
            }
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                stack.push(path);
            } else if path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let elsewhere = |line: &str| {
                    line.contains("include_tasks")
                        && (line.contains("..") || line.contains("roles/"))
                };
                if text.contains("include_role") || text.lines().any(elsewhere) {
                    return true;
                }
            }
        }
    }
    false
}

type Roles = BTreeMap<String, Option<BTreeSet<String>>>;

/// Asks Ansible, once for each state of the inputs: starting it takes a second a layer.
fn roles_of_layers(
    recipe: &Recipe,
    ansible: &Ansible,
    variables: &Variables,
    inputs: &Inputs,
    cache: &Cache,
    hashes: &mut cache::Hashes,
) -> Result<Roles> {
    let mut parts = vec![
        // Another number where lists are read in another way.
        "roles 2".to_owned(),
        ansible.version.clone(),
        chosen(recipe),
        format!("{:?} {variables:?}", recipe.layers),
    ];
    for dir in &inputs.dirs {
        parts.push(cache::hash_tree(dir, &inputs.ignored, hashes)?);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let memo = cache.memo(&hash(&parts));
    if let Some(known) = fs::read(&memo)
        .ok()
        .and_then(|text| serde_json::from_slice::<Roles>(&text).ok())
    {
        return Ok(known);
    }
    let dynamic = chooses_roles_at_run_time(inputs);
    let roles: Roles = recipe
        .layers
        .iter()
        .filter(|l| l.steps.is_empty())
        .map(|l| {
            (
                l.name.clone(),
                if dynamic { None } else { ansible.roles(l) },
            )
        })
        .collect();
    let fresh = memo.with_extension(std::process::id().to_string());
    if fs::write(&fresh, serde_json::to_vec(&roles).expect("names are JSON")).is_ok() {
        let _ = fs::rename(&fresh, &memo);
    }
    Ok(roles)
}

/// Seconds since 1970 of the last commit that touched the inputs.
fn commit_date(dirs: &[PathBuf], without: &BTreeSet<PathBuf>) -> Option<u64> {
    let mut newest = None;
    for dir in dirs {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(dir)
            .args(["log", "-1", "--format=%ct", "--", "."]);
        // A command line has its limit; what no commit touches does no harm.
        for path in with_recipes(dir, without).iter().take(2000) {
            if let Ok(below) = path.strip_prefix(dir) {
                command.arg(format!(":(exclude){}", below.display()));
            }
        }
        let out = command.output().ok()?;
        let date = String::from_utf8_lossy(&out.stdout)
            .trim()
            .parse::<u64>()
            .ok();
        newest = newest.max(date);
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
