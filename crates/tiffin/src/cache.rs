//! `tiffin cache`: what builds keep, how much of it, and whether it is sound.

use std::collections::BTreeMap;
use std::fs::File;

use anyhow::{Context, Result, bail};
use bake::cache::{Cache, Kept, Kind};

use crate::{build::default_cache, cli, printer::size};

/// Whether something damaged was found.
pub fn run(words: &cli::Cache) -> Result<bool> {
    let dir = words.cache.clone().map_or_else(default_cache, Ok)?;
    let cache = Cache::open(&dir)?;
    match &words.verb {
        cli::CacheVerb::List => list(&cache.list()?),
        cli::CacheVerb::Prune { keep } => {
            let removed = cache.prune(bytes(keep)?)?;
            let freed: u64 = removed.iter().map(|kept| kept.bytes).sum();
            println!("{} removed, {} things", size(freed), removed.len());
        }
        cli::CacheVerb::Verify => return verify(&cache.list()?),
    }
    Ok(false)
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
        };
        println!("{:>10}  {count} {name}", size(bytes));
    }
}

/// Blobs are named by their digest; layers have a record.
fn verify(kept: &[Kept]) -> Result<bool> {
    let mut bad = false;
    for kept in kept {
        let path = &kept.path;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match kept.kind {
            // Half fetched: it is continued, and verified then.
            Kind::Pulled if name.ends_with(".download") => {}
            Kind::Blob if name.starts_with('.') => {}
            Kind::Blob | Kind::Pulled => {
                let read = File::open(path).and_then(|mut file| image::sha256(&mut file));
                let found = read.with_context(|| format!("cannot read {}", path.display()))?;
                if found != *name {
                    bad = true;
                    println!(
                        "{}: it is damaged: its digest is sha256:{found}",
                        path.display()
                    );
                }
            }
            Kind::Layer => {
                let sound = std::fs::read(path.join("record.json"))
                    .is_ok_and(|text| serde_json::from_slice::<serde_json::Value>(&text).is_ok());
                if !sound || !path.join("tree").is_dir() {
                    bad = true;
                    println!("{}: its record is damaged", path.display());
                }
            }
            Kind::Download => {}
        }
    }
    if bad {
        eprintln!("hint: remove what is named; the next build makes it anew");
    }
    Ok(bad)
}

/// `20G`, `500M`, `0`.
fn bytes(text: &str) -> Result<u64> {
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
