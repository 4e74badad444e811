//! `tiffin cache`: what builds keep, how much of it, and whether it is sound.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use bake::cache::{Cache, Kept, Kind};
use bake::{downloads, sealed};
use image::{LayerOptions, Packing, Silent, Source};

use crate::{build::default_cache, cli, note, printer::size};

/// Whether something damaged was found.
pub fn run(words: &cli::Cache) -> Result<bool> {
    let dir = words.cache.clone().map_or_else(default_cache, Ok)?;
    let cache = Cache::open(&dir)?;
    match &words.verb {
        cli::CacheVerb::List => list(&cache.list()?),
        cli::CacheVerb::Prune { keep } => {
            let removed = cache.prune(bytes(keep)?, None)?.removed;
            println!("{} removed, {} things", size(sum(&removed)), removed.len());
        }
        cli::CacheVerb::Verify => return verify(&cache),
    }
    Ok(false)
}

fn sum(kept: &[Kept]) -> u64 {
    kept.iter().map(|kept| kept.bytes).sum()
}

/// After a good build that began then, removes what was unused longest and is not its own; a
/// line of what was done, if something was to be done.
pub fn bound(dir: &Path, limit: u64, began: SystemTime) -> Result<Option<String>> {
    // A file system's clock is a little behind.
    let since = began - Duration::from_secs(1);
    let pruned = Cache::open(dir)?.prune(limit, Some(since))?;
    let mut said = Vec::new();
    if !pruned.removed.is_empty() {
        said.push(format!(
            "{} removed from the cache, {} things that were unused longest",
            size(sum(&pruned.removed)),
            pruned.removed.len()
        ));
    }
    if pruned.left > limit {
        said.push(format!(
            "the cache holds {}, more than its size of {}: this build or another uses the rest",
            size(pruned.left),
            size(limit)
        ));
    }
    Ok((!said.is_empty()).then(|| said.join("; ")))
}

fn list(kept: &[Kept]) {
    let mut sums: BTreeMap<Kind, (usize, u64)> = BTreeMap::new();
    for kept in kept {
        if kept.kind == Kind::Layer {
            let age = kept.used.elapsed().unwrap_or_default().as_secs() / 3600;
            let name = kept.path.file_name().unwrap_or_default();
            println!(
                "layer {} {:>10}, used {age} hours ago",
                name.to_string_lossy(),
                size(kept.bytes)
            );
        }
        let sum = sums.entry(kept.kind).or_default();
        *sum = (sum.0 + 1, sum.1 + kept.bytes);
    }
    for (kind, (count, bytes)) in sums {
        let name = match kind {
            Kind::Layer => "layers",
            Kind::Blob => "compressed layers",
            Kind::Pulled => "layers of bases",
            Kind::Download => "packages",
            Kind::Lists => "package lists",
            Kind::Known => "notes of what was read",
        };
        println!("{:>10}  {count} {name}", size(bytes));
    }
}

/// Blobs are named by their digest; what is said of layers is sealed; the files of a layer
/// that was packed give the same tar again.
fn verify(cache: &Cache) -> Result<bool> {
    let mut bad = Vec::new();
    for kept in &cache.list()? {
        let path = &kept.path;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match kept.kind {
            // Half fetched: it is continued, and verified then.
            Kind::Pulled if name.ends_with(".download") => {}
            Kind::Blob | Kind::Pulled if name.starts_with('.') => {}
            Kind::Blob | Kind::Pulled => {
                let read = File::open(path).and_then(|mut file| image::sha256(&mut file));
                let found = read.with_context(|| format!("cannot read {}", path.display()))?;
                if found != *name {
                    bad.push(format!(
                        "{}: it is damaged: its digest is sha256:{found}",
                        path.display()
                    ));
                }
            }
            Kind::Layer => {
                let sound = matches!(sealed::read(&path.join("record.json")), Ok(Some(_)));
                if !sound || !path.join("tree").is_dir() {
                    bad.push(format!("{}: its record is damaged", path.display()));
                }
                bad.extend(changed(path)?);
            }
            Kind::Download | Kind::Lists | Kind::Known => {}
        }
    }
    for damaged in downloads::damaged(&cache.downloads(), cache.is_busy()?)? {
        bad.push(format!(
            "{}: it is damaged: its digest is sha256:{}",
            damaged.path.display(),
            damaged.found
        ));
    }
    for note in cache.notes() {
        let read = sealed::read(&note);
        let sound = read.with_context(|| format!("cannot read {}", note.display()))?;
        if sound.is_none() {
            bad.push(format!("{}: it is damaged", note.display()));
        }
    }
    bad.iter().for_each(|line| println!("{line}"));
    if !bad.is_empty() {
        eprintln!("hint: remove what is named; the next build makes it anew");
    }
    Ok(!bad.is_empty())
}

/// What is wrong with the files of a layer, as far as it was packed once.
fn changed(layer: &Path) -> Result<Option<String>> {
    let tree = layer.join("tree");
    let notes = std::fs::read_dir(layer)?
        .flatten()
        .map(|entry| entry.path());
    let blobs = notes.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("blob") && name.ends_with(".json")
    });
    let known = blobs
        .filter_map(|path| sealed::read(&path).ok()?)
        .find_map(|text| serde_json::from_slice::<note::Packed>(&text).ok());
    let Some(known) = known else { return Ok(None) };
    let options = LayerOptions {
        epoch: known.epoch,
        skip: &|_| false,
        devices: &|_| true,
        kind: match known.overlay {
            true => Source::Overlay,
            false => Source::Tree,
        },
        progress: &Silent,
        threads: 1,
        packing: Packing::default(),
    };
    Ok(match image::tree_digest(&tree, &options) {
        Ok(digest) if digest == known.diff_id => None,
        Ok(_) => Some(note::Damaged::new(&tree).to_string()),
        Err(error) => Some(format!("{}: {error}", layer.display())),
    })
}

/// `20G`, `500M`, `0`.
pub fn bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T', 'B']);
    let unit: u64 = match text[digits.len()..].trim_end_matches('B') {
        "" => 1,
        "k" | "K" => 1_000,
        "m" | "M" => 1_000_000,
        "g" | "G" => 1_000_000_000,
        "t" | "T" => 1_000_000_000_000,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)) {
        Some(bytes) if unit > 0 => Ok(bytes),
        _ => bail!("`{text}` is no size: write it as 20G or 500M"),
    }
}
