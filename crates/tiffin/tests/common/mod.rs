//! A box that is baked in seconds, without a network: on a base of a shell and a few
//! programs of this machine, by a playbook of `raw` tasks, which need no Python.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{Config, Content, Entry, Silent};

pub const EPOCH: u64 = 1_700_000_000;

/// Whether builds work here; says a word when they do not.
pub fn can_build() -> bool {
    let out = Command::new("id").arg("-u").output().unwrap();
    let root = out.stdout == b"0\n";
    if !root {
        eprintln!("skipped: a build needs root");
    }
    root
}

pub fn entry(path: &str, mode: u32, content: Content) -> Entry {
    Entry {
        path: path.into(),
        mode,
        uid: 0,
        gid: 0,
        content,
    }
}

/// An image of these layers, as `tiffin build` writes its archives.
pub fn write_archive(place: &Path, name: &str, layers: &[Vec<Entry>]) -> PathBuf {
    let blobs = place.join("made");
    let layers: Vec<image::Layer> = layers
        .iter()
        .map(|entries| {
            image::layer_from_entries(entries, &blobs, EPOCH, image::Packing::Gzip).unwrap()
        })
        .collect();
    let config = Config {
        architecture: image::Platform::here().architecture,
        os: "linux".into(),
        created_epoch: EPOCH,
        ..Config::default()
    };
    let path = place.join(name);
    let names = ["acme/base:v1".to_owned()];
    image::write_archive(&path, &names, &config, &layers, &Silent).unwrap();
    fs::remove_dir_all(blobs).unwrap();
    path
}

/// Directories that a sandbox mounts something on, and a few programs with their libraries.
pub fn root_file_system() -> Vec<Entry> {
    root_file_system_with(&[])
}

/// With more programs of this machine's `/usr/bin`.
pub fn root_file_system_with(programs: &[&str]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = [
        "etc",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "srv",
        "usr",
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "usr/lib/x86_64-linux-gnu",
    ]
    .iter()
    .map(|path| entry(path, 0o755, Content::Directory))
    .collect();
    for dir in ["bin", "lib", "lib64"] {
        entries.push(entry(dir, 0o777, Content::Symlink(format!("usr/{dir}"))));
    }
    let mut files = std::collections::BTreeSet::new();
    for program in ["sh", "truncate", "mknod", "head", "sleep"]
        .iter()
        .chain(programs)
    {
        let path = format!("/usr/bin/{program}");
        let needs = Command::new("ldd").arg(&path).output().unwrap();
        let needs = String::from_utf8(needs.stdout).unwrap();
        files.insert(path);
        let words = needs
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        files.extend(words.map(str::to_owned));
    }
    for file in files {
        let inside = match file.strip_prefix("/usr/") {
            Some(_) => file.trim_start_matches('/').to_owned(),
            None => format!("usr{file}"),
        };
        entries.push(entry(
            &inside,
            0o755,
            Content::File(fs::read(file).unwrap()),
        ));
    }
    entries
}

/// Bytes that do not compress, the same each time.
pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend(seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A recipe, its playbook and its base.
pub struct Small {
    pub dir: tempfile::TempDir,
}

impl Small {
    /// With `ballast` bytes that do not compress in the base.
    pub fn new(ballast: usize) -> Small {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Content::File(noise(ballast, 88_172_645_463_325_252));
        let layers = [
            root_file_system(),
            vec![entry("srv/ballast", 0o644, ballast)],
        ];
        write_archive(dir.path(), "base.tar", &layers);
        let small = Small { dir };
        small.write("motd", "Welcome.\n");
        small.recipe(
            "layers:
  - {name: stack, tags: [stack]}
  - name: files
    steps:
      - copy: {from: motd, to: /etc/motd}
      - run: head -c 1000000 /dev/zero >/srv/zeros
",
        );
        small.write(
            "site.yml",
            "- hosts: all
  gather_facts: false
  tags: [stack]
  tasks:
    - raw: echo one >/etc/one
    - raw: head -c 3000000 /dev/zero >/srv/three; echo two >/etc/two
    - raw: rm -f /etc/nothing; echo three >/etc/three
",
        );
        small
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The recipe's part after name, base and playbook.
    pub fn recipe(&self, rest: &str) {
        let base = self.at("base.tar");
        let head = format!(
            "name: acme/small\nbase: oci-archive:{}\nplaybook: site.yml\n",
            base.display()
        );
        self.write("tiffin.yaml", &(head + rest));
    }

    /// A build with cache and output in `place`.
    pub fn build_in(&self, place: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiffin"));
        command
            .args(["build", "--progress", "plain", "--version", "v1", "--file"])
            .arg(self.at("tiffin.yaml"))
            .arg("--entrypoint")
            .arg(self.at("motd"))
            .arg("--cache")
            .arg(place.join("cache"))
            .arg("--output")
            .arg(place.join("dist"))
            .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
            .env_remove("TIFFIN_CACHE");
        command
    }

    pub fn build(&self) -> Command {
        self.build_in(self.dir.path())
    }

    pub fn archive(&self) -> PathBuf {
        self.at("dist/small-v1.tar")
    }
}

/// A file of a box, from the uppermost layer that has it.
pub fn in_box(archive: &Path, path: &str) -> Option<String> {
    let script = r#"for blob in $(tar -xOf "$1" manifest.json | grep -o 'blobs/sha256/[0-9a-f]*' | tail -n +2 | tac); do
        tar -xOf "$1" $blob | tar -xzO "$2" 2>/dev/null && exit
        done; exit 7"#;
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash"]).arg(archive).arg(path);
    let out = command.output().unwrap();
    out.status
        .success()
        .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

pub fn tiffin(arguments: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tiffin"))
        .args(arguments)
        .output()
        .unwrap();
    (out.status.code().unwrap(), said(&out))
}

/// Both streams.
pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// Both streams of a command that must succeed.
pub fn must(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}",
        out.status,
        said(&out)
    );
    said(&out)
}
