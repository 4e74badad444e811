//! What the tests share: a scratch place, layers of a tree, and the entries of a layer.
#![allow(dead_code)]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Layer, LayerOptions, Silent, Source};

pub const EPOCH: u64 = 1_700_000_000;

pub fn options(kind: Source) -> LayerOptions<'static> {
    LayerOptions {
        epoch: EPOCH,
        skip: &|_| false,
        kind,
        progress: &Silent,
        threads: 2,
    }
}

pub fn pack(root: &Path, blobs: &Path, kind: Source) -> Layer {
    image::write_layer(root, blobs, &options(kind)).unwrap()
}

#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub path: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub link: Option<Vec<u8>>,
    pub content: Vec<u8>,
    pub pax: Vec<(String, Vec<u8>)>,
}

/// The entries of a layer as another reader sees them, the `tar` crate's.
pub fn entries(layer: &Layer) -> Vec<Found> {
    let blob = File::open(&layer.blob).unwrap();
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(blob)
        .read_to_end(&mut plain)
        .unwrap();
    assert_eq!(plain.len() as u64, layer.uncompressed);
    let mut archive = tar::Archive::new(&plain[..]);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let pax = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .map(|record| {
                let record = record.unwrap();
                (
                    record.key().unwrap().to_owned(),
                    record.value_bytes().to_vec(),
                )
            });
        let pax = pax.collect();
        found.push(Found {
            path: entry.path_bytes().into_owned(),
            kind: entry.header().entry_type().as_byte(),
            mode: entry.header().mode().unwrap(),
            uid: entry.header().uid().unwrap(),
            gid: entry.header().gid().unwrap(),
            mtime: entry.header().mtime().unwrap(),
            link: entry.link_name_bytes().map(|name| name.into_owned()),
            content,
            pax,
        });
    }
    found
}

pub fn paths(layer: &Layer) -> Vec<String> {
    entries(layer)
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
        .collect()
}

/// Runs a command and gives its stdout; says everything when it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Whether `program` runs; says a word when it does not.
pub fn have(program: &str, args: &[&str]) -> bool {
    let works = Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: `{program} {}` does not work here", args.join(" "));
    }
    works
}

pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Names of the files in a directory.
pub fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names
}
