//! `tiffin build`: bakes a recipe's box, packs its layers, writes the release.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result};
use bake::{Baked, BakedLayer};
use contract::Contract;
use image::{Config, Content, Entry, Healthcheck, Packing, Source};
use recipe::{Compression, Recipe};

use crate::{
    account, base, cache, cli, note, pack,
    printer::Printer,
    sign,
    summary::{self, LayerLine, Summary},
};

pub fn run(words: &cli::Build) -> Result<()> {
    let printer = Printer::new(words.progress, words.verbose);
    let done = build(words, &printer);
    printer.finish();
    let release = done?;
    for line in &release.account {
        printer.line(line);
    }
    printer.summary(&release.summary);
    println!("{}", release.summary.archive.display());
    Ok(())
}

struct Release {
    summary: Summary,
    account: Vec<String>,
}

fn build(words: &cli::Build, printer: &Printer) -> Result<Release> {
    let start = SystemTime::now();
    let cache_size = cache::bytes(&words.cache_size)?;
    let recipe = recipe::read(&words.file)?;
    let version = match &words.version {
        Some(version) => version.clone(),
        None => described_version(&recipe),
    };
    image::Reference::new(recipe.registry.as_deref(), &recipe.name, &version).with_context(
        || format!("version `{version}` cannot be the image's tag: choose one with --version"),
    )?;
    let helper = std::env::current_exe().context("cannot find this program's own file")?;
    let entrypoint_path = words
        .entrypoint
        .clone()
        .unwrap_or_else(|| helper.with_file_name("entrypoint"));
    let entrypoint = fs::read(&entrypoint_path).with_context(|| {
        format!(
            "cannot read the entrypoint {}: `make build` puts it there, --entrypoint names another",
            entrypoint_path.display()
        )
    })?;
    let key = words
        .sign
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| sign::Key::read(path, std::env::var(sign::PASSWORD).ok()))
        .transpose()?;
    let cache = words.cache.clone().map_or_else(default_cache, Ok)?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let base = base::open(&recipe, &cache, words.offline, printer)?;
    let options = bake::Options {
        image: base.as_ref().map(|base| base as &dyn bake::Image),
        cache: &cache,
        output: &words.output,
        version: &version,
        helper: &helper,
        entrypoint: &entrypoint_path,
        epoch: words.epoch,
        fresh: words.no_cache,
        offline: words.offline,
        shell_on_failure: words.shell_on_failure,
        progress: printer,
    };
    fs::create_dir_all(&words.output)
        .with_context(|| format!("cannot make {}", words.output.display()))?;
    let baked = bake::bake(&recipe, &options)?;
    for warning in &baked.warnings {
        printer.warning(warning);
    }

    image::remove_leftovers(&baked.blobs);
    image::remove_leftovers(&words.output);
    printer.phase("layers");
    let packing = match recipe.compression {
        Compression::Gzip => Packing::Gzip,
        Compression::Zstd { level } => Packing::Zstd { level },
    };
    if matches!(packing, Packing::Zstd { .. }) {
        printer.note(
            "layers are compressed with zstd: Docker from 23, containerd from 1.5 and podman from 3 read them, Docker 20.10 does not",
        );
    }
    let mut layers = Vec::new();
    for layer in &baked.layers {
        let how = pack::How {
            packing,
            devices: &recipe.devices,
        };
        layers.push(pack::layer(layer, &baked.blobs, &how, printer)?);
    }
    let epoch = baked
        .layers
        .iter()
        .map(|l| l.epoch)
        .max()
        .unwrap_or_default();
    let began = Instant::now();
    let mut top = contract_layer(&baked.contract, &baked.surface, entrypoint);
    for entry in commands(&baked.layers) {
        // A directory may be there for another reason, with an owner of its own.
        if !top.iter().any(|other| other.path == entry.path) {
            top.push(entry);
        }
    }
    layers.push(image::layer_from_entries(
        &top,
        &baked.blobs,
        epoch,
        packing,
    )?);

    printer.phase("archive");
    let below = base.as_ref().and_then(base::BaseImage::environment);
    let config = config(&recipe, &baked, epoch, below.unwrap_or_default());
    let file = recipe.name.rsplit('/').next().unwrap_or(&recipe.name);
    let archive = words.output.join(format!("{file}-{version}.tar"));
    let reference = format!("{}:{version}", baked.contract.product.name);
    let before = summary::previous(&words.output, &baked.contract.product.name, &archive);
    let written = image::write_archive(
        &archive,
        std::slice::from_ref(&reference),
        &config,
        &layers,
        printer,
    )?;
    let sum = words.output.join(format!("{file}-{version}.tar.sha256"));
    let line = format!("{}  {file}-{version}.tar\n", written.sha256);
    let unchanged = fs::read_to_string(&sum).is_ok_and(|old| old == line);
    replace(&sum, |fresh| fs::write(fresh, &line))?;
    let signature = sign::signature_of(&archive);
    match &key {
        Some(key) => {
            let text = key.sign(&archive, epoch)?;
            replace(&signature, |fresh| fs::write(fresh, text))?;
        }
        None if unchanged => {}
        // One of earlier bytes under this name would accuse these.
        None => drop(fs::remove_file(&signature)),
    }
    let bill = words.output.join(format!("{file}-{version}.cdx.json"));
    let found = packages(&baked, printer)?;
    let document = bill_of_materials(&recipe, &baked, &written, epoch, &found);
    replace(&bill, |fresh| fs::write(fresh, &document))?;
    let latest = words.output.join(format!("{file}-latest.tar"));
    // A name more for the same bytes; a copy where the file system has no hard links.
    replace(&latest, |fresh| {
        fs::hard_link(&archive, fresh).or_else(|_| fs::copy(&archive, fresh).map(drop))
    })?;

    let made = baked
        .layers
        .iter()
        .map(|layer| (&*layer.name, (!layer.from_cache).then_some(layer.took)))
        .chain([("contract", Some(began.elapsed()))]);
    let summary = Summary {
        reference,
        archive,
        bytes: written.size,
        sha256: written.sha256,
        layers: made
            .zip(&layers)
            .map(|((name, baked), layer)| LayerLine {
                name: name.to_owned(),
                digest: layer.digest.clone(),
                bytes: layer.size,
                uncompressed: layer.uncompressed,
                baked,
            })
            .collect(),
        directories: summary::directories(&baked, printer)?,
        previous: before.map(|before| summary::compare(before, &words.output, &layers)),
        took: printer.elapsed(),
        fetched: printer.fetched(),
        memory: summary::memory(),
    };
    let account = account::lines(&baked.contract, &baked.account);
    // What this build used last is as young as itself.
    for layer in &layers {
        let _ = fs::File::open(&layer.blob).and_then(|blob| blob.set_modified(SystemTime::now()));
    }
    drop(baked);
    match cache::bound(&cache, cache_size, start) {
        Ok(said) => said.iter().for_each(|text| printer.note(text)),
        Err(problem) => printer.warning(&format!("the cache is not kept to its size: {problem:#}")),
    }
    Ok(Release { summary, account })
}

/// Makes a file under another name first, so that it appears whole. What a killed build
/// leaves has a name that [`image::remove_leftovers`] knows.
pub fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = format!("{}{}-{name}", image::PARTIAL, std::process::id());
    let fresh = path.with_file_name(fresh);
    let _ = fs::remove_file(&fresh);
    let done = make(&fresh).and_then(|()| fs::rename(&fresh, path));
    if done.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    done.map_err(|error| image::Error::writing(path, error).into())
}

pub fn default_cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME").filter(|d| !d.is_empty()) {
        return Ok(PathBuf::from(dir).join("tiffin"));
    }
    let home = std::env::var_os("HOME")
        .context("cannot choose a cache: HOME is not set; name one with --cache")?;
    Ok(PathBuf::from(home).join(".cache/tiffin"))
}

/// What `git describe` says of the recipe's repository, made fit for a tag.
fn described_version(recipe: &Recipe) -> String {
    let dir = recipe.path.parent().unwrap_or(Path::new("."));
    let out = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["describe", "--tags", "--always", "--dirty"])
        .output();
    let text = out
        .ok()
        .filter(|o| o.status.success())
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    text.filter(|t| !t.is_empty())
        .unwrap_or_else(|| "dev".into())
}

/// What the layers hold, looked for once for all builds that share the uppermost: its key
/// covers those below.
fn packages(baked: &Baked, printer: &Printer) -> Result<sbom::Found> {
    let top = &baked.layers.last().context("a box has layers")?.tree;
    // A change of what is looked for needs another number.
    let note = top.with_file_name("packages-1.json");
    let found: sbom::Found = match note::read(&note, printer) {
        Some(found) => found,
        None => {
            let trees: Vec<_> = baked
                .layers
                .iter()
                .map(|layer| (&*layer.tree, source(layer)))
                .collect();
            let found = sbom::find(&trees)?;
            note::write(&note, &found)?;
            found
        }
    };
    for problem in &found.unreadable {
        printer.warning(&format!("the bill of materials is not complete: {problem}"));
    }
    Ok(found)
}

fn bill_of_materials(
    recipe: &Recipe,
    baked: &Baked,
    written: &image::Archive,
    epoch: u64,
    found: &sbom::Found,
) -> Vec<u8> {
    let product = sbom::Product {
        name: &baked.contract.product.name,
        version: &baked.contract.product.version,
        description: recipe.description.as_deref(),
        vendor: recipe.vendor.as_deref(),
        licenses: recipe.licenses.as_deref(),
        sha256: &written.sha256,
        manifest_digest: &written.manifest_digest,
        builder: env!("CARGO_PKG_VERSION"),
        created: &image::rfc3339(epoch),
    };
    sbom::document(&product, found)
}

pub fn source(layer: &BakedLayer) -> Source {
    match layer.overlay {
        true => Source::Overlay,
        false => Source::Tree,
    }
}

/// The top layer: what a new version changes even when nothing below does.
fn contract_layer(contract: &Contract, surface: &bake::Surface, entrypoint: Vec<u8>) -> Vec<Entry> {
    let owned = |path: &str, mode: u32, (uid, gid): (u32, u32), content: Content| Entry {
        path: path.trim_start_matches('/').into(),
        mode,
        uid,
        gid,
        content,
    };
    let entry = |path: &str, mode, content| owned(path, mode, (0, 0), content);
    let mut text = serde_json::to_vec_pretty(contract).expect("a contract is JSON");
    text.push(b'\n');
    let own = [
        // Real directories everywhere; named because some readers unpack a layer alone.
        entry("usr", 0o755, Content::Directory),
        entry("usr/bin", 0o755, Content::Directory),
        entry("usr/lib", 0o755, Content::Directory),
        entry("usr/lib/tiffin", 0o755, Content::Directory),
        // It says which settings there are and how files are made, but holds no secret.
        entry(contract::PATH, 0o644, Content::File(text)),
        entry(contract::ENTRYPOINT, 0o755, Content::File(entrypoint)),
        entry(
            "usr/bin/tiffin",
            0o777,
            Content::Symlink("../lib/tiffin/entrypoint".into()),
        ),
    ];
    let directories = surface
        .directories
        .values()
        .filter(|directory| !own.iter().any(|e| format!("/{}", e.path) == directory.path))
        .map(|directory| {
            let mode = u32::from_str_radix(&directory.mode, 8).unwrap_or(0o755);
            let owner = (directory.uid, directory.gid);
            owned(&directory.path, mode, owner, Content::Directory)
        });
    let links = surface
        .links
        .iter()
        .map(|(path, target)| entry(path, 0o777, Content::Symlink(target.clone())));
    let removed = surface
        .removed
        .iter()
        .map(|path| entry(path, 0o644, Content::Removed));
    directories
        .chain(links)
        .chain(removed)
        .collect::<Vec<_>>()
        .into_iter()
        .chain(own)
        .collect()
}

/// `systemctl` and `service` for scripts in the running box, where PATH finds them first.
/// Debian's own ones need systemd and stay as they are; one that the playbook put in the
/// same place stays, too.
fn commands(layers: &[bake::BakedLayer]) -> Vec<Entry> {
    let entry = |path: &str, mode, content| Entry {
        path: path.into(),
        mode,
        uid: 0,
        gid: 0,
        content,
    };
    let mut entries: Vec<Entry> = ["systemctl", "service"]
        .into_iter()
        .map(|name| format!("usr/local/bin/{name}"))
        .filter(|path| {
            layers
                .iter()
                .all(|layer| layer.tree.join(path).symlink_metadata().is_err())
        })
        .map(|path| {
            let target = Content::Symlink("../../lib/tiffin/entrypoint".into());
            entry(&path, 0o777, target)
        })
        .collect();
    if !entries.is_empty() {
        for directory in ["usr/local/bin", "usr/local"] {
            entries.insert(0, entry(directory, 0o755, Content::Directory));
        }
    }
    entries
}

/// `below` is the environment of the image that the recipe is put on.
fn config(recipe: &Recipe, baked: &Baked, epoch: u64, below: &[String]) -> Config {
    let product = &baked.contract.product;
    let mut labels = BTreeMap::new();
    let mut label = |key: &str, value: Option<&String>| {
        if let Some(value) = value {
            labels.insert(format!("org.opencontainers.image.{key}"), value.clone());
        }
    };
    label("title", Some(&product.title));
    label("version", Some(&product.version));
    label("created", Some(&image::rfc3339(epoch)));
    label("description", recipe.description.as_ref());
    label("vendor", recipe.vendor.as_ref());
    label("url", recipe.url.as_ref());
    label("licenses", recipe.licenses.as_ref());
    labels.extend(recipe.labels.clone());
    let health = recipe.health.unwrap_or_default();
    let mut env = below.to_vec();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    // Read by the entrypoint; an operator's own value wins.
    env.extend(
        recipe
            .stop_timeout
            .map(|seconds| format!("TIFFIN_STOP_TIMEOUT={seconds}")),
    );
    let history = baked
        .layers
        .iter()
        .map(|l| format!("tiffin: layer {}", l.name));
    Config {
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64".into(),
            "aarch64" => "arm64".into(),
            other => other.into(),
        },
        os: "linux".into(),
        created_epoch: epoch,
        author: recipe.vendor.clone(),
        env,
        entrypoint: vec![contract::ENTRYPOINT.into()],
        cmd: Vec::new(),
        exposed_ports: recipe.ports.iter().map(|p| format!("{p}/tcp")).collect(),
        volumes: recipe.volumes.clone(),
        labels,
        stop_signal: Some(
            recipe
                .stop_signal
                .clone()
                .unwrap_or_else(|| "SIGTERM".into()),
        ),
        healthcheck: Some(Healthcheck {
            test: vec!["CMD".into(), contract::ENTRYPOINT.into(), "health".into()],
            interval_s: health.interval.into(),
            timeout_s: health.timeout.into(),
            start_period_s: health.start_period.into(),
            retries: health.retries,
        }),
        working_dir: Some("/".into()),
        user: None,
        history: history
            .chain(["tiffin: contract and entrypoint".to_owned()])
            .collect(),
    }
}
