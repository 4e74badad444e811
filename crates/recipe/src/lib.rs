//! `tiffin.yaml` becomes a checked [`Recipe`], or one error that names the key, the line
//! and what would have been allowed.
//!
//! Unquoted values mean what they mean in a playbook (YAML 1.1, as Ansible reads it):
//! `yes` is true, `0644` is 420. Relative paths are resolved against the recipe's own
//! directory. The only files touched are the recipe itself and, for their existence,
//! those that it names.

mod certificates;
mod error;
mod field;
mod jobs;
mod needs;
mod read;
mod roles;
mod services;
mod setting;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contract::{Needs, ServiceOverride, Setting};

pub use error::Error;

/// Reads and checks the recipe at `path`.
pub fn read(path: &Path) -> Result<Recipe, Error> {
    let text = read::text(path)?;
    parse(&text, path)
}

/// Checks the text of a recipe that lies at `origin`.
pub fn parse(text: &str, origin: &Path) -> Result<Recipe, Error> {
    read::recipe(text, origin)
}

/// What a vendor wants packed. All paths on the host are absolute.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The recipe's own file.
    pub path: PathBuf,
    /// The image's name without registry and tag: `acme/backend`.
    pub name: String,
    /// `registry.acme.example`, perhaps with `:port`.
    pub registry: Option<String>,
    /// For people.
    pub title: Option<String>,
    pub description: Option<String>,
    pub vendor: Option<String>,
    pub url: Option<String>,
    /// An SPDX expression.
    pub licenses: Option<String>,
    pub base: Base,
    /// Debian packages of the base besides those that it needs itself.
    pub base_packages: Vec<String>,
    /// Exists.
    pub playbook: PathBuf,
    /// Exists: a file or a directory.
    pub inventory: Option<PathBuf>,
    /// The inventory groups that the box's one host belongs to; all when none is named.
    pub groups: Vec<String>,
    /// Extra variables for Ansible.
    pub variables: serde_json::Map<String, serde_json::Value>,
    /// Variables that may be in the image although a vault or a `no_log` task holds them.
    pub public: Vec<String>,
    pub frozen_facts: Frozen,
    /// Of the image's layers.
    pub compression: Compression,
    /// At least one, lowest first.
    pub layers: Vec<Layer>,
    /// Units, without `.service`, that really run during the build once a task starts them.
    pub start: Vec<String>,
    /// By the name of the environment variable. `files` and `default` are for the builder to fill in.
    pub settings: BTreeMap<String, Setting>,
    /// Absolute paths of the device nodes that may be in the image.
    pub devices: Vec<String>,
    /// Absolute paths in the box. `/data` when the recipe says nothing.
    pub volumes: Vec<String>,
    /// TCP ports.
    pub ports: Vec<u16>,
    /// By service name, jobs included.
    pub services: BTreeMap<String, ServiceOverride>,
    /// What runs again and again, by name.
    pub jobs: BTreeMap<String, contract::Job>,
    /// By path in the box: whether a file that settings change becomes a link into memory.
    /// For files that are not named, the builder decides.
    pub links: BTreeMap<String, bool>,
    /// What the machine must have.
    pub needs: Needs,
    /// Commands for the support bundle, by name.
    pub support: BTreeMap<String, Vec<String>>,
    pub backup: contract::Backup,
    /// By name.
    pub certificates: BTreeMap<String, contract::ServerCertificate>,
    pub ca_bundle: Option<contract::CaBundle>,
    /// Parts that can run as boxes of their own.
    pub roles: BTreeMap<String, contract::Role>,
    /// `SIGTERM`.
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL, for the whole box.
    pub stop_timeout: Option<u32>,
    pub labels: BTreeMap<String, String>,
    pub health: Option<Health>,
    /// Which earlier versions' data the box takes.
    pub upgrade: Option<contract::Upgrade>,
}

impl Recipe {
    /// The directory of the recipe, absolute.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

/// What the image's layers are compressed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Which every engine reads.
    #[default]
    Gzip,
    /// A level of [`Compression::ZSTD_LEVELS`].
    Zstd { level: i32 },
}

impl Compression {
    /// Higher ones want more memory from whoever reads the stream.
    pub const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = 1..=19;
    /// zstd's own default.
    pub const ZSTD_LEVEL: i32 = 3;
}

/// What the layers are put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// `debootstrap:bookworm`
    Debootstrap { suite: String },
    /// `rootfs:FILE`: a tar of a root file system, plain or compressed.
    Rootfs(PathBuf),
    /// `docker-archive:FILE`, from `docker save`.
    DockerArchive(PathBuf),
    /// `oci-archive:FILE`
    OciArchive(PathBuf),
    /// `docker://host/repo:tag`, without the `docker://`.
    Docker(String),
}

/// Facts about the machine that stay as they were at build instead of being computed at
/// each start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Frozen {
    #[default]
    None,
    All,
    Named(Vec<String>),
}

/// One run of the playbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// `[a-z0-9-]+`, unique.
    pub name: String,
    /// Ansible's `--tags`; empty for all.
    pub tags: Vec<String>,
    /// Ansible's `--skip-tags`.
    pub skip_tags: Vec<String>,
    /// Instead of the playbook, when there are any.
    pub steps: Vec<Step>,
}

/// For what there is no playbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// For `sh -e`, in the box.
    Run(String),
    Copy(Copy),
}

/// Files of the build machine that come into the box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Exists: a file or a directory.
    pub from: PathBuf,
    /// Absolute. A directory's content comes into it; a file becomes it, or comes into it
    /// when it ends with a slash.
    pub to: String,
    /// Permission bits of files.
    pub mode: Option<u32>,
    /// `user[:group]`, by name or number; root when it says nothing.
    pub owner: Option<String>,
}

/// How often an engine asks whether the box is well. Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    pub interval: u32,
    pub timeout: u32,
    /// Failures do not count for so long after the start.
    pub start_period: u32,
    /// So many failures in a row mean unhealthy.
    pub retries: u32,
}

impl Default for Health {
    /// Docker's own, but for a stack that takes a while to come up.
    fn default() -> Self {
        Health {
            interval: 30,
            timeout: 10,
            start_period: 120,
            retries: 3,
        }
    }
}
