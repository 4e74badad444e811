//! What the builder promises the entrypoint: one JSON document at [`PATH`] in the box.
//!
//! Types only: no I/O, no behaviour beyond serde. Both halves are built from the same
//! commit, so there is no version negotiation; [`FORMAT`] only guards against a box put
//! together by hand. Maps keep the order in which the playbook wrote them
//! (`serde_json` with `preserve_order`), because templates loop over them.
//!
//! # Values
//!
//! Variables are *raw*: a string such as `"{{ redis_port }}"` is still a template and is
//! rendered when it is used. Text that Ansible holds to be unsafe (facts, registered
//! results) is never rendered and is written as Ansible's own JSON encoder writes it:
//! `{"__ansible_unsafe": "text"}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
pub use serde_json::Value;

/// Where the contract lies in the box.
pub const PATH: &str = "/usr/lib/tiffin/contract.json";

/// Where the entrypoint lies in the box; `/usr/bin/tiffin` links to it.
pub const ENTRYPOINT: &str = "/usr/lib/tiffin/entrypoint";

/// The entrypoint's own, for as long as the box runs: sockets and rendered files.
pub const RUN: &str = "/run/tiffin";

/// Below it lie the rendered files that [`Template::link`] speaks of, each under its own
/// path: `/run/tiffin/files/etc/redis/redis.conf`.
pub const FILES: &str = "/run/tiffin/files";

/// Raised by every change that an older entrypoint would misread.
pub const FORMAT: u32 = 2;

/// Raw variables by name, in the playbook's order.
pub type Variables = serde_json::Map<String, Value>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Always [`FORMAT`].
    pub format: u32,
    pub product: Product,
    /// By the name of the environment variable, such as `REDIS_MAXMEMORY`.
    #[serde(default)]
    pub settings: BTreeMap<String, Setting>,
    /// The raw variables that the templates need, transitively, and no more. Where
    /// templates disagree (role variables, loop items), [`Template::variables`] holds the difference.
    #[serde(default)]
    pub variables: Variables,
    /// Those of [`Contract::variables`] that are facts about the machine and are computed
    /// anew at each start, such as `ansible_processor_vcpus`; all other facts stay as they
    /// were at build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<String>,
    #[serde(default)]
    pub templates: Vec<Template>,
    /// What the playbook's handlers do to services, by the handler's name or the topic that
    /// it listens to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub handlers: BTreeMap<String, Vec<Handler>>,
    /// The systemd units that the playbook enabled or started, by name.
    #[serde(default)]
    pub units: Vec<Unit>,
    /// What the recipe adds about services, by service name: a unit's name without
    /// `.service`, or a supervisor program's name.
    #[serde(default)]
    pub services: BTreeMap<String, ServiceOverride>,
    /// What must outlive the container. The first one also keeps what the entrypoint
    /// itself has to remember (under `.tiffin`).
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Which earlier versions' data this box takes; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
    /// TCP ports that the box listens on for the outside.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// What the machine must have, besides what [`ServiceOverride::needs`] adds.
    #[serde(default, skip_serializing_if = "Needs::is_nothing")]
    pub needs: Needs,
    /// Commands whose output belongs into a support bundle, by a name of `[a-z0-9-]+`;
    /// words that may hold Jinja expressions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub support: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "Backup::is_default")]
    pub backup: Backup,
    /// Certificates of the box's own servers, by a name of `[a-z0-9-]+`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<String, ServerCertificate>,
    /// Whom services trust besides the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Parts of the box that can run as boxes of their own, by the name that `TIFFIN_ROLE` takes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, Role>,
    /// What runs again and again, by the name of the service that it is. What it waits for and
    /// whether it is part of the box stands in [`Contract::services`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<String, Job>,
}

/// A command that a timer starts; exactly one of `every` and `at` is given. All texts may hold
/// Jinja expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// For `/bin/sh -c`.
    pub command: String,
    /// From one start to the next: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// As OnCalendar= of a timer unit, in UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it runs; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Seconds after which it is killed; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

impl Job {
    /// All that may hold Jinja expressions.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.every, &self.at, &self.user, &self.directory]
            .into_iter()
            .flatten()
            .chain([&self.command])
            .chain(self.environment.values())
            .map(String::as_str)
    }
}

/// A certificate with its key, which an operator gives, or the box makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerCertificate {
    /// A setting of [`Kind::Certificate`].
    pub certificate: String,
    /// A setting of [`Kind::Key`].
    pub key: String,
    /// A Jinja expression over the variables; the two are not looked at while it is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Text with Jinja expressions: the server's names, separated by spaces or commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaBundle {
    /// A setting of [`Kind::Certificate`].
    pub setting: String,
    /// Those that call others; all when none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

/// Services that run together where a product runs as several boxes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Role {
    /// Services, as [`Contract::services`] names them.
    pub services: Vec<String>,
    /// Those of [`Contract::ports`] that its boxes listen on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// There is never more than one such box at a time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub single: bool,
}

/// What the recipe says about backups of the volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    /// Absolute paths on a volume that no backup holds: caches, temporary files.
    pub exclude: Vec<String>,
}

impl Backup {
    fn is_default(&self) -> bool {
        *self == Backup::default()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// The image's name without its tag, such as `acme/backend`.
    pub name: String,
    /// For people; the name when the recipe gives none.
    pub title: String,
    /// The image's tag, such as `v43.4.4`.
    pub version: String,
}

/// The way to this version from older ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upgrade {
    /// The oldest version whose data is taken directly.
    pub from: Option<String>,
    /// Versions that may not be skipped, the oldest first.
    pub stops: Vec<String>,
}

/// Something that an operator may set by an environment variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The playbook's variable that the setting overrides, everywhere.
    pub variable: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The start is refused when nobody gives a value.
    #[serde(default)]
    pub required: bool,
    /// A Jinja expression over the variables; the setting is required while it is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_if: Option<String>,
    /// Settings that may not be given together with this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// Earlier names of the setting: still read, with a warning that gives the new one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deprecated: Vec<String>,
    /// Never shown, logged or given a default; [`Kind::Secret`] implies it.
    #[serde(default)]
    pub secret: bool,
    /// Generated at first start with this many characters (`[A-Za-z0-9]`) and kept on
    /// the first volume, when nobody gives a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<u16>,
    /// [`Kind::Enum`]: what is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// Lowest and highest value of a number, or of a size in bytes or duration in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// A regular expression that the whole value must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The playbook's raw default; absent for secrets and for variables that have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// A value to show in the reference, as an operator would write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section: Option<String>,
    /// The files that change with it: destinations of [`Template`]s.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    String,
    Int,
    /// `true|yes|on|1` and `false|no|off|0`, any case.
    Bool,
    /// 1 to 65535.
    Port,
    /// A host name or an IP address, no port.
    Host,
    Url,
    Email,
    Enum,
    /// A JSON array, or text separated by commas.
    List,
    /// A JSON object.
    Map,
    /// `90`, `90s`, `15m`, `2h`, `1d`.
    Duration,
    /// `1048576`, `256k`, `256mb`, `1g`: binary multiples; the text is passed on as given.
    Size,
    /// An absolute path.
    Path,
    /// `0` to `100`, with or without `%`; passed on as given.
    Percent,
    /// Five fields as of crontab(5), or `@daily` and its like.
    Cron,
    /// A name of the box's own zone files: `Europe/Paris`.
    Timezone,
    /// PEM text of one or more X.509 certificates.
    Certificate,
    /// PEM text of a private key; a secret.
    Key,
    Secret,
}

/// One effect of a handler on a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handler {
    /// A unit's name without `.service`, or a supervisor program's or group's name.
    pub service: String,
    pub action: HandlerAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandlerAction {
    Reload,
    Restart,
}

/// One file whose content comes from variables: an Ansible `template` task wrote it, or
/// `copy: content=`, `lineinfile`, `blockinfile` and their like, which then appear here as
/// a template of the whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Absolute path in the box.
    pub dest: String,
    /// The template's path, relative to the playbook's directory where it lies below it.
    pub source: String,
    /// Name of the task that wrote the file, `role : task`.
    pub task: String,
    /// Numeric owner and group, permission bits in octal (`0640`), as found when the layer was taken.
    pub uid: u32,
    pub gid: u32,
    pub mode: String,
    /// The template's text without its `#jinja2:` header.
    pub body: String,
    #[serde(default)]
    pub options: TemplateOptions,
    /// Raw variables that differ from [`Contract::variables`] for this file: `item`,
    /// `ansible_managed`, `template_path`, role variables.
    #[serde(default)]
    pub variables: Variables,
    /// Text of included and imported templates, by the name used in the template.
    #[serde(default)]
    pub includes: BTreeMap<String, String>,
    pub parity: Parity,
    /// `dest` is a symbolic link to the same path below [`FILES`], where the start writes:
    /// the root may then be read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub link: bool,
    /// Names of the handlers that the task notifies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
    /// `validate:` of the task (`nginx -t -c %s`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate: Option<String>,
}

/// Ansible's options for one template: arguments of the task and the `#jinja2:` header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TemplateOptions {
    pub trim_blocks: bool,
    pub lstrip_blocks: bool,
    pub newline_sequence: String,
    pub block_start_string: String,
    pub block_end_string: String,
    pub variable_start_string: String,
    pub variable_end_string: String,
    pub comment_start_string: String,
    pub comment_end_string: String,
}

impl Default for TemplateOptions {
    /// Ansible's defaults, not Jinja's.
    fn default() -> Self {
        let text = str::to_owned;
        TemplateOptions {
            trim_blocks: true,
            lstrip_blocks: false,
            newline_sequence: text("\n"),
            block_start_string: text("{%"),
            block_end_string: text("%}"),
            variable_start_string: text("{{"),
            variable_end_string: text("}}"),
            comment_start_string: text("{#"),
            comment_end_string: text("#}"),
        }
    }
}

/// How the box's own engine compares with Ansible on one template. Only
/// [`Parity::Identical`] is rendered again at start; the rest stays as Ansible wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result", deny_unknown_fields)]
pub enum Parity {
    Identical,
    /// First differing line, counted from 1, as Ansible and as Tiffin wrote it.
    Differs {
        line: usize,
        ansible: String,
        tiffin: String,
    },
    Failed {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// With its suffix: `redis-server.service`. Never an alias.
    pub name: String,
    /// The unit file; drop-ins are looked for beside it as systemd does.
    pub path: String,
}

/// What the recipe says about a service that its own file cannot say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceOverride {
    /// Services that must be ready first, besides those of the unit's After= and Requires=.
    pub after: Vec<String>,
    pub ready: Option<Ready>,
    /// A one-shot that runs once per version of the box, not at every start.
    pub once: bool,
    /// Settings whose change makes a `once` job run again.
    pub again: Vec<String>,
    /// Files whose change restarts the service, besides what the playbook's handlers say.
    pub uses: Vec<String>,
    /// A Jinja expression over the variables; the service is left out when it is false.
    pub when: Option<String>,
    /// Seconds between the stop signal and SIGKILL.
    pub stop_timeout: Option<u32>,
    /// Given up, it ends the box, unless this is false: then the others go on without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// Directories below a volume in which it keeps a database: files that change in place.
    /// May hold Jinja expressions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<String>,
    /// A command that stops writes to [`ServiceOverride::data`], says so with a line when the
    /// files there are consistent, holds until its standard input ends, and exits with 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// What the machine must have for it, while [`ServiceOverride::when`] holds.
    #[serde(skip_serializing_if = "Needs::is_nothing")]
    pub needs: Needs,
    /// How the data gets to a server of the operator's own, with which
    /// [`ServiceOverride::when`] does not hold any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#move: Option<Move>,
    /// A command, as words with Jinja expressions, that refuses data which the service cannot
    /// open. It runs before anything is written, as the service's user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub check_data: Vec<String>,
    /// With `once`: a command line that succeeds when the job's work is there, whichever box
    /// did it. Boxes without the job wait for it. May hold Jinja expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// Names of capabilities(7) without `CAP_`: all others can never be had again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability_bounding_set: Option<Vec<String>>,
    /// Those that it keeps although it is not root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient_capabilities: Option<Vec<String>>,
    /// No program that it executes gains any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privileges: Option<bool>,
    /// From -20 to 19.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<i32>,
    /// From -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// By the names of setrlimit(2) in small letters (`nofile`): `1024`, `1024:4096`, `8M`,
    /// `infinity`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
    /// Log files that it writes itself, to be kept small.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log_files: Vec<LogFile>,
}

/// A log file that is rotated: `path.1` is the newest of those that are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Absolute path in the box.
    pub path: String,
    /// Bytes from which on it is rotated.
    pub max: u64,
    pub keep: u32,
    /// The signal (`USR1`) upon which the service opens the file anew: it is renamed then. Without
    /// one it is copied and emptied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// A command that copies a database to another server, and says whether the copy is whole. All
/// texts may hold Jinja expressions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Words, with the settings as they are; `check`, `copy` or `verify` follows.
    pub command: Vec<String>,
    /// One line for its standard input, with the settings as they will be: where to, with the
    /// password.
    pub to: String,
}

impl Move {
    pub fn texts(&self) -> impl Iterator<Item = &String> {
        self.command.iter().chain([&self.to])
    }
}

/// What the machine must have. Of the box and of its services memory and disk add up; of
/// cores and files the highest counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes on the first volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Files that one process has open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Features of the processor as `/proc/cpuinfo` names them: `avx`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpu: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<HugePages>,
}

impl Needs {
    pub fn is_nothing(&self) -> bool {
        *self == Needs::default()
    }
}

/// Transparent huge pages: whether the kernel should give them to programs that do not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    Always,
    /// Those who ask may have them: the kernel's `madvise` does as well as its `never`.
    Never,
}

/// A readiness check; exactly one of the first six is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ready {
    /// `address:port`; may hold Jinja expressions (`127.0.0.1:{{ redis_port }}`), as the next five.
    pub tcp: Option<String>,
    /// Path of a unix socket that accepts connections.
    pub unix: Option<String>,
    /// `http://address[:port]/path` that answers 2xx or 3xx.
    pub http: Option<String>,
    /// A command line that exits 0.
    pub command: Option<String>,
    /// Absolute path of a file that the service makes, or makes anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A regular expression that is found in a line of its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Seconds until the service counts as failed. 60 when absent.
    pub timeout: Option<u32>,
}

impl Ready {
    /// All that may hold Jinja expressions.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [
            &self.tcp,
            &self.unix,
            &self.http,
            &self.command,
            &self.file,
            &self.log,
        ]
        .into_iter()
        .flatten()
        .map(String::as_str)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Absolute path in the box.
    pub path: String,
    /// The directories below it that the playbooks made, parents first: made again at
    /// start where an empty volume hides them.
    #[serde(default)]
    pub directories: Vec<Directory>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Absolute path in the box.
    pub path: String,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits in octal: `0750`.
    pub mode: String,
}
