//! What the tests share: a scratch place, layers of a tree, and the entries of a layer.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Archive, Config, Healthcheck, Layer, LayerOptions, Silent, Source, write_archive};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

pub const EPOCH: u64 = 1_700_000_000;

pub fn options(kind: Source) -> LayerOptions<'static> {
    LayerOptions {
        epoch: EPOCH,
        skip: &|_| false,
        devices: &|_| false,
        kind,
        progress: &Silent,
        threads: 2,
        packing: image::Packing::Gzip,
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
    // ci/setup installs these: where CI is set a proof that is left out is a failure.
    let installed = ["umoci", "skopeo", "docker-registry"].contains(&program);
    assert!(
        works || !installed || std::env::var_os("CI").is_none(),
        "{program} does not work here"
    );
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

pub fn config() -> Config {
    Config {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        created_epoch: EPOCH,
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        entrypoint: vec!["/usr/lib/tiffin/entrypoint".to_owned()],
        cmd: vec!["run".to_owned()],
        exposed_ports: vec!["80/tcp".to_owned()],
        volumes: vec!["/data".to_owned()],
        labels: BTreeMap::from([(
            "org.opencontainers.image.title".to_owned(),
            "Acme".to_owned(),
        )]),
        stop_signal: Some("SIGTERM".to_owned()),
        healthcheck: Some(Healthcheck {
            test: vec![
                "CMD".to_owned(),
                "/usr/bin/tiffin".to_owned(),
                "health".to_owned(),
            ],
            interval_s: 30,
            timeout_s: 10,
            start_period_s: 120,
            retries: 3,
        }),
        ..Config::default()
    }
}

pub fn write(out: &Path, references: &[&str], layers: &[Layer]) -> Archive {
    let references: Vec<String> = references.iter().map(|text| (*text).to_owned()).collect();
    write_archive(out, &references, &config(), layers, &Silent).unwrap()
}

/// A lower tree and an overlay's upper directory over it, with everything that can differ.
pub fn two_layers(place: &Path) -> (Vec<Layer>, PathBuf) {
    let (lower, upper, merged) = (
        place.join("lower"),
        place.join("upper"),
        place.join("expected"),
    );
    for dir in [&lower, &upper, &merged] {
        fs::create_dir(dir).unwrap();
    }
    let set = |path: PathBuf, name: &str, value: &[u8]| {
        setxattr(path, name, value, XattrFlags::empty()).unwrap()
    };
    // The same in the layers and in the tree that must come out.
    for base in [&lower, &merged] {
        fs::create_dir_all(base.join("etc/keep")).unwrap();
        fs::write(base.join("etc/keep/a"), "a").unwrap();
        fs::hard_link(base.join("etc/keep/a"), base.join("etc/keep/b")).unwrap();
        fs::write(base.join("setuid"), "s").unwrap();
        std::os::unix::fs::chown(base.join("setuid"), Some(7), Some(8)).unwrap();
        fs::set_permissions(base.join("setuid"), PermissionsExt::from_mode(0o6755)).unwrap();
        symlink("../../etc/passwd", base.join("link")).unwrap();
    }
    fs::write(lower.join("etc/gone"), "x").unwrap();
    fs::create_dir(lower.join("hidden")).unwrap();
    fs::write(lower.join("hidden/old"), "x").unwrap();

    mknodat(
        CWD,
        upper.join("gone"),
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
    fs::create_dir(upper.join("etc")).unwrap();
    fs::rename(upper.join("gone"), upper.join("etc/gone")).unwrap();
    fs::create_dir(upper.join("hidden")).unwrap();
    set(upper.join("hidden"), "trusted.overlay.opaque", b"y");
    fs::create_dir(merged.join("hidden")).unwrap();
    for base in [&upper, &merged] {
        fs::write(base.join("hidden/new"), "new").unwrap();
        let long = base
            .join("hidden")
            .join("d".repeat(120))
            .join("é".repeat(100));
        fs::create_dir_all(&long).unwrap();
        fs::write(long.join("ping"), "ping").unwrap();
        fs::set_permissions(long.join("ping"), PermissionsExt::from_mode(0o755)).unwrap();
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        set(long.join("ping"), "security.capability", &capability);
        fs::hard_link(long.join("ping"), base.join("hidden/ping")).unwrap();
        fs::create_dir(base.join("tmp")).unwrap();
        fs::set_permissions(base.join("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    }
    let blobs = place.join("blobs");
    let layers = vec![
        pack(&lower, &blobs, Source::Tree),
        pack(&upper, &blobs, Source::Overlay),
    ];
    (layers, merged)
}

/// Path, type, mode, owner, links, attributes and content of everything below `dir`.
pub fn describe(dir: &Path, prefix: &str, out: &mut Vec<String>) {
    for path in names(dir) {
        let stat = path.symlink_metadata().unwrap();
        let name = format!("{prefix}/{}", path.file_name().unwrap().to_string_lossy());
        let content = if stat.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if stat.is_file() {
            let mut capability = [0; 64];
            let size = rustix::fs::lgetxattr(&path, "security.capability", &mut capability[..])
                .unwrap_or(0);
            format!(
                "{:?} {} {:?}",
                fs::read(&path).unwrap(),
                stat.nlink(),
                &capability[..size]
            )
        } else {
            String::new()
        };
        out.push(format!(
            "{name} {:o} {}:{} {content}",
            stat.mode(),
            stat.uid(),
            stat.gid()
        ));
        if stat.is_dir() {
            describe(&path, &name, out);
        }
    }
}

pub fn same(expected: &Path, found: &Path) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    describe(expected, "", &mut left);
    describe(found, "", &mut right);
    assert_eq!(left, right);
}
