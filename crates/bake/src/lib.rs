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
mod dates;
pub mod downloads;
mod edits;
mod error;
mod facts;
mod finish;
mod host;
mod inputs;
pub mod interrupt;
mod keys;
mod lookups;
mod reads;
mod running;
pub mod sandbox;
pub mod sealed;
mod secrets;
mod steps;
mod surface;
mod units;
mod variables;

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use contract::Contract;
use recipe::Recipe;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

pub use account::Account;
pub use base::Image;
pub use edits::Fixed;
pub use error::{Error, Result};
pub use running::Ran;
pub use surface::Surface;

/// How often it is looked how much was fetched: the caches of packages may be large.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// What somebody watching wants to know; every method may stay silent.
pub trait Progress: Sync {
    /// A step of the build begins.
    fn phase(&self, _name: &str) {}
    /// A task of the playbook begins.
    fn task(&self, _name: &str) {}
    /// What did not go as usual, though the build goes on.
    fn note(&self, _text: &str) {}
    /// Bytes of packages that the layer in the making has fetched so far.
    fn fetched(&self, _bytes: u64) {}
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
    /// The box's own first process, which supervises units that run during the build too.
    pub entrypoint: &'a Path,
    /// Seconds since 1970 that file times are clamped to (`SOURCE_DATE_EPOCH`); by default
    /// the date of the last commit that touched a layer's inputs.
    pub epoch: Option<u64>,
    /// The base, where the recipe names an image.
    pub image: Option<&'a dyn Image>,
    /// Bake every layer again.
    pub fresh: bool,
    /// Without a network, from packages that earlier builds have kept.
    pub offline: bool,
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
    /// Data that units wrote below volumes while it was baked: no part of the image.
    pub data: Option<PathBuf>,
    pub overlay: bool,
    /// Seconds since 1970; later file times are to be clamped to it.
    pub epoch: u64,
    pub from_cache: bool,
    /// How long baking it, or finding it, took.
    pub took: Duration,
}

impl BakedLayer {
    fn planned(&self) -> keys::Planned {
        keys::Planned {
            name: self.name.clone(),
            key: self.key.clone(),
            epoch: self.epoch,
        }
    }
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
    #[serde(default)]
    ran: Ran,
}

/// Bakes all layers that the cache does not hold, then works out the contract.
pub fn bake(recipe: &Recipe, options: &Options) -> Result<Baked> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Unsupported(
            "without root: run `sudo tiffin build`".into(),
        ));
    }
    let _umask = Umask::usual();
    let cache = cache::Cache::open(options.cache)?;
    let work = cache.work()?;
    let progress = options.progress;
    progress.phase("recipe");
    let variables = secrets::variables(recipe)?;
    let ansible = ansible::Ansible::prepare(recipe, &work.path.join("ansible"), &variables)?;
    let expressions = expressions(recipe);
    let inputs = keys::Inputs::of(recipe, options)?;
    let mut planner = keys::Planner::new(
        recipe,
        &ansible,
        &variables,
        &expressions,
        options,
        &cache,
        &inputs,
    );
    let mut held = Vec::new();
    let mut layers: Vec<BakedLayer> = Vec::new();
    let mut records = Vec::new();
    let kitchen = Kitchen {
        recipe,
        options,
        cache: &cache,
        work: &work.path,
        ansible: &ansible,
        inputs: &inputs,
        expressions: &expressions,
        clock: keys::clock(options),
        checked: Cell::new(false),
    };
    for index in 0..=recipe.layers.len() {
        interrupt::check()?;
        let layer = index.checked_sub(1).map(|i| &recipe.layers[i]);
        let plan = match (layer, layers.last()) {
            (Some(layer), Some(below)) => planner.layer(layer, &below.planned())?,
            _ => planner.base()?.into(),
        };
        let found = plan.known.as_ref().filter(|_| !options.fresh);
        let kept = found.and_then(|planned| {
            let hold = cache.hold(&planned.key)?;
            let place = cache.layer(&planned.key);
            // A damaged one is let go of, so that a sound one can take its place.
            Some((read_record(&place, progress)?, place, hold))
        });
        let from_cache = kept.is_some();
        let started = Instant::now();
        let (planned, record, place, hold) = match (kept, plan.known) {
            (Some((record, place, hold)), Some(planned)) => (planned, record, place, hold),
            (_, known) => {
                let name = layer.map_or("rootfs", |layer| &layer.name);
                if let Some(changed) = &plan.changed {
                    progress.note(&format!(
                        "layer {name} is made again: {changed} has changed"
                    ));
                }
                progress.phase(&format!("layer {name}"));
                let made = work.path.join(format!("layer-{index}"));
                let (record, read) = kitchen.make(layer, &layers, &records, &made)?;
                let planned = match (layer, plan.basis) {
                    (Some(layer), Some(basis)) => {
                        let carried = capture::state(records.iter().map(|r: &Record| &*r.events));
                        planner.made(layer, &basis, read, &record.events, carried)?
                    }
                    _ => known.expect("what no playbook bakes has its key before"),
                };
                let (place, hold) = cache.keep(&made, &planned.key)?;
                (planned, record, place, hold)
            }
        };
        held.push(hold);
        let took = started.elapsed();
        progress.layer(&planned.name, (!from_cache).then_some(took));
        layers.push(BakedLayer {
            name: planned.name,
            key: planned.key,
            tree: place.join("tree"),
            data: Some(place.join("data")).filter(|data| data.is_dir()),
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

/// While this lives, files are made with the umask that nearly everybody has: the one of
/// who builds would show in what tasks and this crate make.
struct Umask(Mode);

impl Umask {
    fn usual() -> Umask {
        Umask(rustix::process::umask(Mode::from_raw_mode(0o022)))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        rustix::process::umask(self.0);
    }
}

fn read_record(place: &Path, progress: &dyn Progress) -> Option<Record> {
    let path = place.join("record.json");
    let record = sealed::value(&path).ok()?;
    if record.is_none() {
        progress.note(&format!(
            "{} is damaged: the layer is baked again",
            path.display()
        ));
    }
    record
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
        let moves = service.r#move.iter().flat_map(contract::Move::texts);
        let texts = commands.chain(&service.done).chain(moves);
        out.extend(texts.filter(|text| text.contains("{{")).cloned());
        if let Some(ready) = &service.ready {
            out.extend(ready.texts().map(str::to_owned));
        }
    }
    for job in recipe.jobs.values() {
        out.extend(job.texts().filter(|t| t.contains("{{")).map(str::to_owned));
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
    inputs: &'a keys::Inputs,
    /// The recipe's texts that a start renders.
    expressions: &'a [String],
    /// SOURCE_DATE_EPOCH of all that runs.
    clock: u64,
    /// Whether the downloads are known to be sound.
    checked: Cell<bool>,
}

/// What a layer begins with.
struct Start<'a> {
    lower: Vec<PathBuf>,
    /// What tasks below left in Ansible's memory.
    carried: Option<&'a str>,
    /// What units wrote below volumes, among `lower`.
    data: Vec<PathBuf>,
    /// Units that ran when the layer below was taken.
    running: &'a [String],
}

impl Kitchen<'_> {
    /// Makes a layer on those below, or the base, with its record in the new directory `made`;
    /// answers what it read, too.
    fn make(
        &self,
        layer: Option<&recipe::Layer>,
        below: &[BakedLayer],
        records: &[Record],
        made: &Path,
    ) -> Result<(Record, reads::Record)> {
        let downloads = self.cache.downloads();
        if !self.checked.replace(true) {
            for damaged in downloads::check(&downloads, self.options.offline)? {
                let path = damaged.path.display();
                let note = format!("{path} is damaged: it is removed, to be fetched again");
                self.options.progress.note(&note);
            }
        }
        let tree = made.join("tree");
        fs::create_dir_all(&tree).map_err(Error::io("make", &tree))?;
        let (record, read) = match layer {
            None => (self.base(&tree)?, reads::Record::default()),
            Some(layer) => {
                let lower = below
                    .iter()
                    .flat_map(|l| std::iter::once(&l.tree).chain(&l.data).cloned());
                let start = Start {
                    lower: lower.collect(),
                    carried: capture::state(records.iter().map(|r| &*r.events)),
                    data: below.iter().filter_map(|l| l.data.clone()).collect(),
                    running: records.last().map_or(&[][..], |r| &*r.ran.running),
                };
                self.layer(layer, start, made)
                    .map_err(|problem| problem.when_full(self.options.cache))?
            }
        };
        downloads::seal(&downloads)?;
        clean::clean(&tree, self.clock)?;
        let record = Record {
            placeholders: secrets::find(&tree)?,
            ..record
        };
        // It holds variables of tasks that are marked no_log.
        let text = sealed::of(&record).expect("records are JSON");
        cache::private(&made.join("record.json"), text)?;
        cache::Cache::measure(made)?;
        Ok((record, read))
    }

    fn base(&self, tree: &Path) -> Result<Record> {
        let options = self.options;
        let how = base::How {
            epoch: self.clock,
            packages: &host::Packages {
                cache: &self.cache.downloads(),
                offline: options.offline,
            },
        };
        let (base, packages) = (&self.recipe.base, &self.recipe.base_packages);
        let had = base::fetched(base, tree, how.packages, 0);
        let fetched = || base::fetched(base, tree, how.packages, had);
        let make = || base::make(base, packages, options.image, tree, &how);
        watching(options.progress, &fetched, make)
            .map_err(|problem| problem.when_full(options.cache))
            .map_err(|problem| problem.when_offline(options.offline))?;
        Ok(Record::default())
    }

    fn layer(
        &self,
        layer: &recipe::Layer,
        start: Start,
        made: &Path,
    ) -> Result<(Record, reads::Record)> {
        let Start {
            lower,
            carried,
            data,
            running,
        } = start;
        let tree = &made.join("tree");
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
        let system = base::system(
            &self.recipe.base,
            lower.first().map_or(tree, PathBuf::as_path),
        );
        let packages = host::Packages {
            cache: &self.cache.downloads(),
            offline: self.options.offline,
        };
        let mut host = host::Host::prepare(&shown, &packages, &system, self.clock)?;
        let units = running::Units {
            wanted: &self.recipe.start,
            shown: &shown,
            volumes: &self.recipe.volumes,
        };
        units.prepare(self.options.entrypoint, &mut host)?;
        let events = dir.join("events");
        let reads = dir.join("reads");
        let layout = sandbox::Layout {
            lower,
            upper: Some(sandbox::Upper {
                upper: tree.to_owned(),
                work: scratch,
            }),
            mount_point,
            host_name: ansible::HOST.into(),
            offline: self.options.offline,
            binds: host.binds.clone(),
        };
        let sandbox = sandbox::Sandbox::open(self.options.helper, &layout)?;
        let python = ansible::python(&sandbox);
        ansible::write_stand_ins(&shown.join("bin"), python)?;
        if let Some(reason) = host.fetch_lists(&sandbox)? {
            self.options
                .progress
                .note(&format!("apt's package lists are not fetched: {reason}"));
        }
        let carried = carried
            .map(|text| {
                let path = dir.join("carried.json");
                cache::private(&path, text).map(|()| path)
            })
            .transpose()?;
        units.resume(&layer.name, running, &sandbox, &host)?;
        let play = || {
            if !layer.steps.is_empty() {
                let kitchen = steps::Kitchen {
                    sandbox: &sandbox,
                    host: &host,
                    ignored: &self.inputs.ignored,
                    progress: self.options.progress,
                };
                return kitchen.layer(layer);
            }
            let run = ansible::Run {
                pid: sandbox.pid,
                python,
                environment: &host.environment,
                events: &events,
                reads: &reads,
                inputs: &self.inputs.dirs,
                expressions: self.expressions,
                offline: self.options.offline,
                carried: carried.as_deref(),
            };
            self.ansible.play(layer, &run, self.options.progress)
        };
        let mut played = watching(self.options.progress, &|| host.fetched(), play);
        if let Err(Error::Playbook { output, hint, .. } | Error::Step { output, hint, .. }) =
            &mut played
        {
            let (more, what) = units.about_failure(output);
            output.push_str(&more);
            *hint = what.or(hint.take());
        }
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
        let ran = played.and_then(|()| units.stop(&layer.name, &sandbox, &host));
        sandbox.close();
        host.keep_packages()?;
        if let Some(reason) = host.keep_wheels() {
            self.options.progress.note(&format!(
                "what pip fetched is not kept for --offline: {reason}"
            ));
        }
        self.options.progress.fetched(host.fetched());
        let mut ran = ran.map_err(|problem| problem.when_offline(self.options.offline))?;
        let aside = made.join("data");
        fs::create_dir_all(&aside).map_err(Error::io("make", &aside))?;
        ran.aside = units.put_aside(tree, &aside, &data)?;
        // Only an empty one can be removed so.
        let _ = fs::remove_dir(&aside);
        let text = match fs::read_to_string(&events) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io("read", &events)(e)),
        };
        let mut events = capture::parse(&text).map_err(|e| Error::Capture {
            layer: layer.name.clone(),
            reason: e.to_string(),
        })?;
        events.extend(recorded(&shown)?);
        let record = Record {
            events,
            placeholders: Vec::new(),
            ran,
        };
        Ok((record, reads::Record::read(&reads)?))
    }
}

/// Does the work, and tells meanwhile and afterwards how much it has fetched.
fn watching<T>(
    progress: &dyn Progress,
    fetched: &(dyn Fn() -> u64 + Sync),
    work: impl FnOnce() -> T,
) -> T {
    let (done, waiting) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(TOLD_EVERY) == Err(RecvTimeoutError::Timeout) {
                progress.fetched(fetched());
            }
        });
        let result = work();
        drop(done);
        progress.fetched(fetched());
        result
    })
}

/// What the stand-ins noted, in lines of their own form.
fn recorded(shown: &Path) -> Result<Vec<capture::Event>> {
    let path = shown.join("state/recorded");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", &path)(e)),
    };
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(lines
        .map(|(what, why)| capture::Event::Recorded { what, why })
        .collect())
}
