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
use recipe::Recipe;

use crate::{
    Options,
    ansible::{self, Ansible},
    base,
    cache::{self, Cache, hash},
    error::Result,
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

    let dirs = directories(recipe);
    let mut hashes = cache::Hashes::default();
    let used = roles_of_layers(recipe, ansible, variables, &dirs, cache, &mut hashes)?;
    for layer in &recipe.layers {
        let roles = &used[&layer.name];
        let without = roles
            .as_ref()
            .map(|roles| unused_roles(recipe, roles))
            .unwrap_or_default();
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
        for dir in &dirs {
            parts.push(cache::hash_tree(
                dir,
                &with_recipes(dir, &without),
                &mut hashes,
            )?);
        }
        let epoch = options
            .epoch
            .or_else(|| commit_date(&dirs, &without))
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

/// Which playbook and inventory, since the recipe's own file is not hashed.
fn chosen(recipe: &Recipe) -> String {
    let folder = recipe.path.parent().unwrap_or(Path::new("/"));
    let below = |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_owned();
    let inventory = recipe.inventory.as_deref().map(below);
    format!("{:?} {inventory:?}", below(&recipe.playbook))
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
                Some(p.clone())
            } else {
                p.parent().map(Path::to_owned)
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
    recipe
        .playbook
        .parent()
        .unwrap_or(Path::new("/"))
        .join("roles")
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
fn chooses_roles_at_run_time(dirs: &[PathBuf]) -> bool {
    let mut stack = dirs.to_vec();
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
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
    dirs: &[PathBuf],
    cache: &Cache,
    hashes: &mut cache::Hashes,
) -> Result<Roles> {
    let mut parts = vec![
        ansible.version.clone(),
        chosen(recipe),
        format!("{:?} {variables:?}", recipe.layers),
    ];
    for dir in dirs {
        parts.push(cache::hash_tree(dir, &BTreeSet::new(), hashes)?);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let memo = cache.memo(&hash(&parts));
    if let Some(known) = fs::read(&memo)
        .ok()
        .and_then(|text| serde_json::from_slice::<Roles>(&text).ok())
    {
        return Ok(known);
    }
    let dynamic = chooses_roles_at_run_time(dirs);
    let roles: Roles = recipe
        .layers
        .iter()
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
        for path in with_recipes(dir, without) {
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
