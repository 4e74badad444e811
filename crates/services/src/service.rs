//! The common form of a unit and a program.

use std::time::Duration;

use crate::{Command, Program, Signal};

/// One service, whichever file described it. Paths and names are as written there.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// A unit's name without `.service`, or a program's name as supervisorctl shows it
    /// (`worker`, `worker:worker_00`).
    pub name: String,
    /// Other names that mean this service: a unit's aliases, a program's own name, its
    /// group, the unit that it was started by.
    pub aliases: Vec<String>,
    pub description: String,
    pub origin: Origin,
    pub kind: Kind,
    /// False for `autostart=false`: only started when somebody asks.
    pub autostart: bool,
    /// Lower starts first among services that may start at the same time.
    pub priority: i32,
    pub conditions: Vec<Condition>,
    pub commands: Commands,
    pub identity: Identity,
    pub environment: Vec<(String, String)>,
    /// Read by the caller; its variables win over [`Service::environment`].
    pub environment_files: Vec<EnvironmentFile>,
    pub working_directory: Option<WorkingDirectory>,
    pub directories: Vec<ManagedDirectory>,
    pub umask: u32,
    pub nice: Option<i32>,
    pub oom_score_adj: Option<i32>,
    pub limits: Vec<Limit>,
    pub privileges: Privileges,
    pub restart: Restart,
    pub stopping: Stopping,
    /// Time from start to ready; `None` is without limit.
    pub start_timeout: Option<Duration>,
    /// `WatchdogSec=`: while it is ready it says `WATCHDOG=1` at least this often.
    pub watchdog: Option<Duration>,
    /// `Type=notify-reload`: it reloads on this signal, and says `RELOADING=1` and `READY=1`.
    pub reload_signal: Option<Signal>,
    /// A one-shot that is done counts as active to whom systemctl tells so (RemainAfterExit=).
    pub remains: bool,
    pub order: Order,
    /// Set when supervisord's configuration describes it.
    pub program: Option<Box<Program>>,
}

impl Service {
    /// It is given a socket for sd_notify(3).
    pub fn notifies(&self) -> bool {
        self.kind == Kind::Notify || self.watchdog.is_some()
    }
}

/// What its processes may at most. Sets are bit masks, bit n for capability n of
/// capabilities(7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges {
    /// No program that it executes gains any (setuid bits, file capabilities).
    pub no_new: bool,
    /// All others can never be had again; `None` keeps what the container has.
    pub bounding: Option<u64>,
    /// Kept although it is not root.
    pub ambient: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Unit,
    Program,
}

/// When a service counts as started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Once its process runs, and has run for `settle` (supervisord's startsecs).
    Simple { settle: Duration },
    /// When the first process has exited with 0; the daemon it leaves is the service.
    Forking { pid_file: Option<String> },
    /// When it says `READY=1` on `NOTIFY_SOCKET`.
    Notify,
    /// When all its commands have exited with 0.
    Oneshot,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commands {
    pub start_pre: Vec<Command>,
    /// Exactly one, but for [`Kind::Oneshot`].
    pub start: Vec<Command>,
    pub start_post: Vec<Command>,
    pub reload: Vec<Command>,
    pub stop: Vec<Command>,
    pub stop_post: Vec<Command>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name or number.
    pub user: Option<String>,
    pub group: Option<String>,
    pub supplementary_groups: Vec<String>,
}

/// `ConditionPathExists=`: the service is left out when it does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub path: String,
    pub exists: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentFile {
    pub path: String,
    /// A missing file is no error.
    pub optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingDirectory {
    /// `~` is the user's home.
    pub path: String,
    /// A missing directory is no error.
    pub optional: bool,
}

/// `RuntimeDirectory=` and its kin: made before the start, owned by the service's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedDirectory {
    pub path: String,
    pub mode: u32,
    /// The variable in which systemd tells the service, such as `RUNTIME_DIRECTORY`.
    pub variable: &'static str,
}

/// `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub resource: Resource,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    AddressSpace,
    Core,
    Cpu,
    Data,
    FileSize,
    Locks,
    MemoryLock,
    MessageQueue,
    Nice,
    OpenFiles,
    Processes,
    RealtimePriority,
    RealtimeTime,
    ResidentSet,
    PendingSignals,
    Stack,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    pub when: RestartWhen,
    /// Exit codes that are as good as 0.
    pub success_codes: Vec<i32>,
    /// Signals that are as good as exit code 0.
    pub success_signals: Vec<Signal>,
    /// Exit codes after which it is not restarted, whatever `when` says.
    pub prevent_codes: Vec<i32>,
    /// Exit codes after which it is restarted, whatever `when` says.
    pub force_codes: Vec<i32>,
    /// At least this long between death and restart, when the file asks for it.
    pub delay: Option<Duration>,
    /// Quick deaths in a row before it is given up; `None` is never.
    pub limit: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartWhen {
    Never,
    Always,
    /// After exit code 0 or a signal that counts as success.
    OnSuccess,
    OnFailure,
    /// After a signal or a timeout, not after an exit code.
    OnAbnormal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopping {
    pub signal: Signal,
    /// Who gets [`Stopping::signal`]; SIGKILL goes to all that is left.
    pub scope: StopScope,
    /// Between the signal and SIGKILL; `None` is without limit.
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopScope {
    /// The main process alone.
    Main,
    /// Every process of the service.
    All,
    /// The main process, and what is left is not killed when the service restarts
    /// (`KillMode=process`: the sessions of sshd, the jobs of cron).
    MainKeepRest,
}

/// Unit names as written, with their suffix, but for those that cannot be services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    pub after: Vec<String>,
    pub before: Vec<String>,
    pub requires: Vec<String>,
    pub wants: Vec<String>,
    /// As `requires`; also stops when the other stops.
    pub binds_to: Vec<String>,
}
