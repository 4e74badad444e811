//! The software bill of materials of a box: what its layers hold, as CycloneDX 1.6 JSON.
//!
//! What is listed is read from the layers as they were baked, never asked of a program in
//! them: Debian's packages from dpkg's own database, Python distributions from the metadata
//! that each installer leaves. All of it is input from outside; what cannot be read is
//! named, not guessed.

mod cyclonedx;
mod debian;
mod python;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use image::{Source, UnionFile};
use serde::{Deserialize, Serialize};

pub use cyclonedx::{Product, document};

/// A component that was found. Ordered, so that a document is the same each time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    pub ecosystem: Ecosystem,
    pub name: String,
    pub version: String,
    /// Debian's name of it; empty where there is none.
    pub architecture: String,
    /// An SPDX expression, where the package itself gives one.
    pub license: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ecosystem {
    Debian,
    Python,
}

/// All that was found in a tree.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// `ID` and `VERSION_ID` of os-release: `debian`, `12`.
    pub distribution: Option<(String, String)>,
    /// With the files that say so, as paths in the box.
    pub packages: Vec<(Package, BTreeSet<String>)>,
    /// What should have told of a package and does not, and why.
    pub unreadable: Vec<String>,
}

/// dpkg's database of the largest installation is some 30 MiB.
const MAX_STATUS: u64 = 128 << 20;
/// Fields come first; what follows is prose.
const MAX_METADATA: u64 = 256 << 10;

/// Looks through stacked trees, the lowest first.
///
/// # Errors
///
/// What the system refuses.
pub fn find(trees: &[(&Path, Source)]) -> Result<Found, image::Error> {
    let mut found = Found::default();
    let mut packages: BTreeMap<Package, BTreeSet<String>> = BTreeMap::new();
    image::union_files(trees, &limit, &mut |file: UnionFile| {
        let path = format!("/{}", String::from_utf8_lossy(file.path));
        let text = String::from_utf8_lossy(&file.content);
        if path.ends_with("/os-release") {
            // That of /etc comes first, as os-release(5) wants it.
            if found.distribution.is_none() {
                found.distribution = debian::distribution(&text);
            }
            return;
        }
        let (read, what) = match path.ends_with("/METADATA") {
            true => (vec![python::distribution(&text)], "distribution"),
            false if file.size > MAX_STATUS => (vec![None], "whole database that can be read"),
            false => (debian::packages(&text), "package with name and version"),
        };
        for package in read {
            match package {
                Some(package) => {
                    packages.entry(package).or_default().insert(path.clone());
                }
                None => found.unreadable.push(format!("{path} names no {what}")),
            }
        }
    })?;
    found.packages = packages.into_iter().collect();
    found.unreadable.dedup();
    Ok(found)
}

/// How much of a file is read; `None` for those that say nothing of packages.
fn limit(path: &[u8]) -> Option<u64> {
    match path {
        b"etc/os-release" | b"usr/lib/os-release" => Some(64 << 10),
        b"var/lib/dpkg/status" => Some(MAX_STATUS),
        // Bases without dpkg itself keep one file a package.
        _ if path.starts_with(b"var/lib/dpkg/status.d/") && !path.ends_with(b".md5sums") => {
            Some(MAX_METADATA)
        }
        _ if python::is_metadata(path) => Some(MAX_METADATA),
        _ => None,
    }
}

/// A word of somebody else that may be a name or a version: visible ASCII, and not endless.
fn word(text: &str) -> Option<String> {
    let good = !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| text.to_owned())
}
