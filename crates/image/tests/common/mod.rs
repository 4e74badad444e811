//! What the tests share: a scratch place, layers of a tree, and the entries of a layer.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Archive, Config, Healthcheck, Layer, LayerOptions, Silent, Source, write_archive};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat,
};

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

/// Whether a command succeeds; its words are nobody's business.
pub fn succeeds(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    output.is_ok_and(|output| output.status.success())
}

/// podman or buildah, with storage of its own below `place`, made by the driver `vfs` (copies,
/// which lose access control lists) or `overlay`.
pub fn stored(program: &str, driver: &str, place: &Path, args: &[&str]) -> String {
    let at = |name: &str| place.join(name).display().to_string();
    let storage = [
        "--root",
        &at("storage"),
        "--runroot",
        &at("runroot"),
        "--storage-driver",
        driver,
    ];
    run(program, &[&storage[..], args].concat())
}

/// Whether `program` runs; says a word when it does not.
pub fn have(program: &str, args: &[&str]) -> bool {
    let works = succeeds(program, args);
    // ci/setup installs these: where CI is set a proof that is left out is a failure.
    let installed = [
        "umoci",
        "skopeo",
        "docker-registry",
        "podman",
        "buildah",
        "docker",
        "containerd",
    ]
    .contains(&program);
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

/// A POSIX access control list as the kernel has it (linux/posix_acl_xattr.h): what tag, for
/// whom, may do. `mask` stands for the group in the mode.
fn access_list(user: u32, mask: u16) -> Vec<u8> {
    let nobody = u32::MAX;
    let entries = [
        (0x01u16, 6u16, nobody),
        (0x02, 5, user),
        (0x04, 4, nobody),
        (0x10, mask, nobody),
        (0x20, 0, nobody),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, may, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(may.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Gives everything below `dir` a time of its own, the same in each tree that has it.
fn date(dir: &Path, inside: u64) {
    for path in names(dir) {
        let name = path.file_name().unwrap().as_bytes();
        let sum = name.iter().fold(inside, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        });
        if path.symlink_metadata().unwrap().is_dir() {
            date(&path, sum);
        }
        let time = Timespec {
            tv_sec: (EPOCH - 1 - sum % 1_000_000) as i64,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
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
        std::os::unix::fs::lchown(base.join("link"), Some(70_000), Some(9)).unwrap();
        fs::write(base.join("etc/listed"), "l").unwrap();
        set(
            base.join("etc/listed"),
            "system.posix_acl_access",
            &access_list(1000, 5),
        );
        // Latin-1, which is no UTF-8.
        fs::write(base.join(OsStr::from_bytes(b"caf\xe9")), "").unwrap();
    }
    fs::write(lower.join("etc/gone"), "x").unwrap();
    fs::create_dir(lower.join("hidden")).unwrap();
    fs::write(lower.join("hidden/old"), "x").unwrap();
    set(lower.join("hidden"), "user.lower", b"gone");

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
        set(base.join("hidden/new"), "user.note", b"a\0=b\n");
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
        let fifo = base.join("tmp/fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::empty(), 0).unwrap();
        fs::set_permissions(&fifo, PermissionsExt::from_mode(0o2640)).unwrap();
        std::os::unix::fs::chown(&fifo, Some(3), Some(4)).unwrap();
        // After what is made in it, which would inherit the default list.
        let shared = base.join("hidden/shared");
        fs::create_dir(&shared).unwrap();
        set(
            shared.clone(),
            "system.posix_acl_access",
            &access_list(1001, 7),
        );
        set(
            shared.clone(),
            "system.posix_acl_default",
            &access_list(1002, 5),
        );
        set(shared, "user.directory", b"1");
    }
    for dir in [&lower, &upper, &merged] {
        date(dir, 0);
    }
    let blobs = place.join("blobs");
    let layers = vec![
        pack(&lower, &blobs, Source::Tree),
        pack(&upper, &blobs, Source::Overlay),
    ];
    (layers, merged)
}

/// Extended attributes by name, but for those of the machine.
pub fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = [0; 4096];
    let size = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..size].split(|byte| *byte == 0);
    names
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .filter(|name| !name.starts_with("trusted.") && name != "security.selinux")
        .map(|name| {
            let mut value = [0; 4096];
            let size = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap();
            (name, value[..size].to_vec())
        })
        .collect()
}

/// What is not looked at, since a tool on the way loses it.
#[derive(Clone, Copy, Default)]
pub struct But {
    /// Other attributes than capabilities.
    pub attributes: bool,
    /// Access control lists.
    pub lists: bool,
    /// The time of this path.
    pub time: Option<&'static str>,
}

/// Path, type, mode, owner, time, links, device number, attributes and content of everything
/// below `dir`.
fn describe(dir: &Path, prefix: &str, but: But, out: &mut Vec<String>) {
    for path in names(dir) {
        let stat = path.symlink_metadata().unwrap();
        let last = path.file_name().unwrap().as_bytes().escape_ascii();
        let name = format!("{prefix}/{last}");
        let content = if stat.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if stat.is_file() {
            format!("{:?} {}", fs::read(&path).unwrap(), stat.nlink())
        } else {
            String::new()
        };
        let time = match but.time {
            Some(other) if other == name => String::new(),
            _ => format!("{}.{:09}", stat.mtime(), stat.mtime_nsec()),
        };
        let mut kept = attributes(&path);
        kept.retain(|name, _| !but.attributes || name == "security.capability");
        kept.retain(|name, _| !but.lists || !name.starts_with("system.posix_acl_"));
        out.push(format!(
            "{name} {:o} {}:{} {time} {:x} {kept:?} {content}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.rdev(),
        ));
        if stat.is_dir() {
            describe(&path, &name, but, out);
        }
    }
}

pub fn same(expected: &Path, found: &Path) {
    same_but(But::default(), expected, found);
}

pub fn same_but(but: But, expected: &Path, found: &Path) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    describe(expected, "", but, &mut left);
    describe(found, "", but, &mut right);
    for line in &left {
        assert!(right.contains(line), "missing: {line}\nin: {right:#?}");
    }
    assert_eq!(left, right);
}
