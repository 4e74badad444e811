//! From a recipe to baked layers and a contract. Knows no image format.
//!
//! A layer is what a part of the playbook changed in the root file system below it. Its
//! files lie in the cache as overlayfs left them; whoever writes an image turns them into
//! bytes. Everything that a sandbox mounts ends with the sandbox, see [`sandbox`].

pub mod account;
mod ansible;
mod base;
pub mod cache;
mod capture;
mod clean;
mod edits;
mod error;
mod facts;
mod finish;
mod host;
mod inputs;
pub mod interrupt;
mod keys;
mod lookups;
pub mod sandbox;
mod secrets;
mod steps;
mod surface;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use contract::Contract;
use recipe::Recipe;
use serde::{Deserialize, Serialize};

pub use account::Account;
pub use base::Image;
pub use edits::Fixed;
pub use error::{Error, Result};
pub use surface::Surface;

/// What somebody watching wants to know; every method may stay silent.
pub trait Progress: Sync {
    /// A step of the build begins.
    fn phase(&self, _name: &str) {}
    /// A task of the playbook begins.
    fn task(&self, _name: &str) {}
    /// What did not go as usual, though the build goes on.
    fn note(&self, _text: &str) {}
    /// A line of Ansible's output.
    fn output(&self, _line: &str) {}
    /// A layer is there: baked in this time, or found in the cache.
    fn layer(&self, _name: &str, _baked: Option<Duration>) {}
}

pub struct Options<'a> {
    /// Where layers, packages and blobs are kept between builds.
    pub cache: &'a Path,
    /// Where the release will be written: never an input.
    pub output: &'a Path,
    /// The box's version: the image's tag.
    pub version: &'a str,
    /// The program that answers to [`sandbox::init::VERB`]: normally this one.
    pub helper: &'a Path,
    /// Seconds since 1970 that file times are clamped to (`SOURCE_DATE_EPOCH`); by default
    /// the date of the last commit that touched a layer's inputs.
    pub epoch: Option<u64>,
    /// The base, where the recipe names an image.
    pub image: Option<&'a dyn Image>,
    /// Bake every layer again.
    pub fresh: bool,
    /// Open a shell in the root file system of a layer that failed.
    pub shell_on_failure: bool,
    pub progress: &'a dyn Progress,
}

#[derive(Debug)]
pub struct BakedLayer {
    pub name: String,
    /// Hash of all that the layer was made from.
    pub key: String,
    /// The layer's files; an overlay's upper directory unless it is the first.
    pub tree: PathBuf,
    pub overlay: bool,
    /// Seconds since 1970; later file times are to be clamped to it.
    pub epoch: u64,
    pub from_cache: bool,
    /// How long baking it, or finding it, took.
    pub took: Duration,
}

#[derive(Debug)]
pub struct Baked {
    /// The lowest first.
    pub layers: Vec<BakedLayer>,
    pub contract: Contract,
    pub surface: Surface,
    /// What the vendor should know, though the box is good.
    pub warnings: Vec<String>,
    pub account: Account,
    /// A place for compressed layers that outlives the build.
    pub blobs: PathBuf,
    /// Until the layers are packed.
    _held: Vec<cache::Held>,
    _work: cache::Work,
}

/// What is kept beside a layer's files.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    events: Vec<capture::Event>,
    /// Files that hold a placeholder of a secret, as paths in the box.
    placeholders: Vec<String>,
}

/// Bakes all layers that the cache does not hold, then works out the contract.
pub fn bake(recipe: &Recipe, options: &Options) -> Result<Baked> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Unsupported(
            "without root: run `sudo tiffin build`".into(),
        ));
    }
    let cache = cache::Cache::open(options.cache)?;
    let work = cache.work()?;
    let progress = options.progress;
    progress.phase("recipe");
    let variables = secrets::variables(recipe)?;
    let ansible = ansible::Ansible::prepare(recipe, &work.path.join("ansible"), &variables)?;
    let expressions = expressions(recipe);
    let inputs = keys::Inputs::of(recipe, options)?;
    let keys = keys::keys(
        recipe,
        &ansible,
        &variables,
        &expressions,
        options,
        &cache,
        &inputs,
    )?;

    let mut held = Vec::new();
    let mut layers: Vec<BakedLayer> = Vec::new();
    let mut records = Vec::new();
    for (index, planned) in keys.into_iter().enumerate() {
        interrupt::check()?;
        let mut place = cache.layer(&planned.key);
        let kept = if options.fresh {
            None
        } else {
            cache.hold(&planned.key).and_then(|hold| {
                held.push(hold);
                read_record(&place)
            })
        };
        let from_cache = kept.is_some();
        let started = Instant::now();
        let record = match kept {
            Some(record) => record,
            None => {
                progress.phase(&format!("layer {}", planned.name));
                let made = work.path.join(format!("layer-{index}"));
                let tree = made.join("tree");
                fs::create_dir_all(&tree).map_err(Error::io("make", &tree))?;
                let record = match index.checked_sub(1).map(|i| &recipe.layers[i]) {
                    None => {
                        base::make(
                            &recipe.base,
                            &recipe.base_packages,
                            options.image,
                            &tree,
                            planned.epoch,
                        )?;
                        Record::default()
                    }
                    Some(layer) => {
                        let lower = layers.iter().map(|l| l.tree.clone()).collect();
                        let kitchen = Kitchen {
                            recipe,
                            options,
                            cache: &cache,
                            work: &work.path,
                            ansible: &ansible,
                            ignored: &inputs.ignored,
                        };
                        let carried = capture::state(records.iter().map(|r: &Record| &*r.events));
                        let start = Start {
                            lower,
                            carried,
                            epoch: planned.epoch,
                        };
                        kitchen.layer(layer, start, &tree, &expressions)?
                    }
                };
                clean::clean(&tree, planned.epoch)?;
                let record = Record {
                    placeholders: secrets::find(&tree)?,
                    ..record
                };
                let path = made.join("record.json");
                let text = serde_json::to_vec(&record).expect("records are JSON");
                fs::write(&path, text).map_err(Error::io("write", &path))?;
                // It holds variables of tasks that are marked no_log.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                    .map_err(Error::io("write", &path))?;
                let hold;
                (place, hold) = cache.keep(&made, &planned.key)?;
                held.push(hold);
                record
            }
        };
        let took = started.elapsed();
        progress.layer(&planned.name, (!from_cache).then_some(took));
        layers.push(BakedLayer {
            name: planned.name,
            key: planned.key,
            tree: place.join("tree"),
            overlay: index > 0,
            epoch: planned.epoch,
            from_cache,
            took,
        });
        records.push(record);
    }

    progress.phase("contract");
    let events = || records.iter().flat_map(|r| &r.events);
    let with_vaulted = secrets::with_vaulted(recipe, events())?;
    let finished = finish::finish(
        &with_vaulted,
        &recipe.settings,
        options,
        &layers,
        &records,
        &work.path,
    )?;
    Ok(Baked {
        layers,
        contract: finished.contract,
        surface: finished.surface,
        warnings: finished.warnings,
        account: finished.account,
        blobs: cache.blobs(),
        _held: held,
        _work: work,
    })
}

fn read_record(place: &Path) -> Option<Record> {
    let text = fs::read(place.join("record.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Every text of the recipe that is rendered at start.
fn expressions(recipe: &Recipe) -> Vec<String> {
    let conditions = recipe
        .settings
        .values()
        .filter_map(|s| s.required_if.as_ref());
    let mut out: Vec<String> = conditions.map(|text| format!("{{{{ {text} }}}}")).collect();
    for service in recipe.services.values() {
        out.extend(service.when.iter().map(|when| format!("{{{{ {when} }}}}")));
        let commands = service.data.iter().chain(&service.check_data);
        let texts = commands.chain(&service.done);
        out.extend(texts.filter(|text| text.contains("{{")).cloned());
        if let Some(ready) = &service.ready {
            out.extend(
                [&ready.tcp, &ready.unix, &ready.http, &ready.command]
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
    }
    for certificate in recipe.certificates.values() {
        let when = certificate.when.iter();
        out.extend(when.map(|when| format!("{{{{ {when} }}}}")));
        out.extend(certificate.names.clone());
    }
    out
}

/// Where layers are baked.
struct Kitchen<'a> {
    recipe: &'a Recipe,
    options: &'a Options<'a>,
    cache: &'a cache::Cache,
    work: &'a Path,
    ansible: &'a ansible::Ansible<'a>,
    ignored: &'a BTreeSet<PathBuf>,
}

/// What a layer begins with.
struct Start<'a> {
    lower: Vec<PathBuf>,
    /// What tasks below left in Ansible's memory.
    carried: Option<&'a str>,
    epoch: u64,
}

impl Kitchen<'_> {
    fn layer(
        &self,
        layer: &recipe::Layer,
        start: Start,
        tree: &Path,
        expressions: &[String],
    ) -> Result<Record> {
        let Start {
            lower,
            carried,
            epoch,
        } = start;
        let dir = self.work.join(format!("sandbox-{}", layer.name));
        let mount_point = dir.join("root");
        let scratch = dir.join("overlay");
        let shown = dir.join("shown");
        for path in [&mount_point, &scratch, &shown] {
            fs::create_dir_all(path).map_err(Error::io("make", path))?;
        }
        // Made before a task makes something below one: Ansible gives directories that it
        // makes on the way the owner and mode of the last, and others could not pass.
        for volume in &self.recipe.volumes {
            let path = tree.join(volume.trim_start_matches('/'));
            if !lower
                .iter()
                .any(|below: &PathBuf| below.join(volume.trim_start_matches('/')).exists())
            {
                fs::create_dir_all(&path).map_err(Error::io("make", &path))?;
            }
        }
        let suite = base::suite(
            &self.recipe.base,
            lower.first().map_or(tree, PathBuf::as_path),
        );
        let host = host::Host::prepare(&shown, &self.cache.downloads(), &suite, epoch)?;
        ansible::write_stand_ins(&shown.join("bin"))?;
        let events = dir.join("events");
        let layout = sandbox::Layout {
            lower,
            upper: Some(sandbox::Upper {
                upper: tree.to_owned(),
                work: scratch,
            }),
            mount_point,
            host_name: ansible::HOST.into(),
            binds: host.binds.clone(),
        };
        let sandbox = sandbox::Sandbox::open(self.options.helper, &layout)?;
        if let Some(reason) = host.fetch_lists(&sandbox)? {
            self.options
                .progress
                .note(&format!("apt's package lists are not fetched: {reason}"));
        }
        let carried = carried
            .map(|text| private(&dir.join("carried.json"), text))
            .transpose()?;
        let played = if layer.steps.is_empty() {
            let run = ansible::Run {
                pid: sandbox.pid,
                environment: &host.environment,
                events: &events,
                expressions,
                carried: carried.as_deref(),
            };
            self.ansible.play(layer, &run, self.options.progress)
        } else {
            let kitchen = steps::Kitchen {
                sandbox: &sandbox,
                host: &host,
                ignored: self.ignored,
                progress: self.options.progress,
            };
            kitchen.layer(layer)
        };
        if let (Err(problem @ (Error::Playbook { .. } | Error::Step { .. })), true) =
            (&played, self.options.shell_on_failure)
        {
            eprintln!("error: {problem}");
            eprintln!("hint: this shell is in the failed root file system; leave it with exit");
            let mut environment = host.environment.clone();
            environment.insert(
                "TERM".into(),
                std::env::var("TERM").unwrap_or_else(|_| "dumb".into()),
            );
            let _ = sandbox.command(&environment, &["/bin/sh", "-i"]).status();
        }
        sandbox.close();
        played?;
        let text = match fs::read_to_string(&events) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io("read", &events)(e)),
        };
        let events = capture::parse(&text).map_err(|e| Error::Capture {
            layer: layer.name.clone(),
            reason: e.to_string(),
        })?;
        Ok(Record {
            events,
            placeholders: Vec::new(),
        })
    }
}

/// A file that nobody else may read: results of tasks may be secrets.
fn private(path: &Path, text: &str) -> Result<PathBuf> {
    fs::write(path, "")
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .and_then(|()| fs::write(path, text))
        .map_err(Error::io("write", path))?;
    Ok(path.to_owned())
}
