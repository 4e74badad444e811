//! A root file system in namespaces of its own, for the time in which playbooks run in it.
//!
//! The sandbox is one child process tree. Its first process lives as long as its standard
//! input is open, and only this process holds the other end: however the build ends, even
//! by SIGKILL, the kernel then kills everything inside and unmounts everything with the
//! mount namespace. Nothing is ever mounted in the host's own namespace.

pub mod init;
pub mod user;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the sandbox is made of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Layout {
    /// Root file systems below, the lowest first.
    pub lower: Vec<PathBuf>,
    /// Where changes go, with overlayfs's own work directory beside it; a view without
    /// them is read-only.
    pub upper: Option<Upper>,
    /// An empty directory to mount the root on.
    pub mount_point: PathBuf,
    pub host_name: String,
    /// Without a network but the loopback interface.
    pub offline: bool,
    /// Host paths to show in the sandbox, `(host, box)`: directories under `/run`, and
    /// elsewhere whatever covers something that is there; other pairs are passed over.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Upper {
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// What would reach through to the machine, with which a sandbox shares network and clock:
/// nobody in it may. The connection plugin says the same.
const WITHOUT: [&str; 3] = [
    "--bounding-set=-net_admin,-sys_module,-sys_rawio,-sys_boot,-sys_time",
    "--inh-caps=-net_admin,-sys_module,-sys_rawio,-sys_boot,-sys_time",
    "--",
];

/// A running sandbox; dropping it ends everything in it.
pub struct Sandbox {
    child: Child,
    lifeline: Option<ChildStdin>,
    /// Process ID of the first process, as the host sees it.
    pub pid: u32,
    offline: bool,
    root: OwnedFd,
}

impl Sandbox {
    /// Starts `helper sandbox-init`, which must end up in [`init::main`].
    pub fn open(helper: &Path, layout: &Layout) -> Result<Sandbox> {
        let text = serde_json::to_string(layout).expect("paths of ours are UTF-8");
        let mut child = Command::new(helper)
            .arg(init::VERB)
            .env_clear()
            .env(init::LAYOUT, text)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Spawn {
                program: helper.display().to_string(),
                source,
            })?;
        let lifeline = child.stdin.take();
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("piped above");
        let _ = BufReader::new(stdout).read_line(&mut ready);
        let Some(pid) = ready.trim().parse::<u32>().ok() else {
            let out = child
                .wait_with_output()
                .map_err(|e| Error::sandbox(&e.to_string()))?;
            return Err(Error::sandbox(&String::from_utf8_lossy(&out.stderr)));
        };
        let path = format!("/proc/{pid}/root");
        let root = rustix::fs::open(
            &*path,
            OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| Error::sandbox(&format!("{path}: {e}")))?;
        Ok(Sandbox {
            child,
            lifeline,
            pid,
            offline: layout.offline,
            root,
        })
    }

    /// Opens a path of the box for reading: symbolic links resolve inside the box and never outside.
    pub fn open_file(&self, path: &str) -> std::io::Result<File> {
        self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map(File::from)
    }

    /// A handle for looking at what a path is, the last component's link not followed.
    pub fn handle(&self, path: &str) -> std::io::Result<File> {
        self.open_with(path, OFlags::PATH | OFlags::NOFOLLOW)
            .map(File::from)
    }

    fn open_with(&self, path: &str, flags: OFlags) -> std::io::Result<OwnedFd> {
        open_in(self.root(), path, flags)
    }

    /// For work that opens everything relative to it.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        std::io::Read::read_to_end(&mut self.open_file(path)?, &mut out)?;
        Ok(out)
    }

    /// A command that runs inside, with exactly this environment.
    pub fn command(&self, environment: &BTreeMap<String, String>, program: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(WITHOUT)
            .args([
                "nsenter",
                "--target",
                &self.pid.to_string(),
                "--mount",
                "--pid",
                "--uts",
                "--ipc",
            ])
            .args(self.offline.then_some("--net"))
            .arg("--")
            .args(program)
            .env_clear()
            .envs(environment);
        command
    }

    /// Ends everything inside and waits until it is gone and unmounted.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.lifeline.take());
        let _ = self.child.wait();
    }
}

/// Opens what is there in the file system below `root`: links resolve inside and never outside.
pub(crate) fn open_in(root: BorrowedFd, path: &str, flags: OFlags) -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::openat2(
        root,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?)
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}
