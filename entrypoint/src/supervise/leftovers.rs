//! What a service's processes left behind, found by session, start mark and parentage.
//!
//! Only descendants of the entrypoint are looked at: what `docker exec` started is not
//! ours to kill. A start mark alone would not do: nginx and others overwrite their
//! environment with a title; a session alone would not do either: daemons call setsid.

use std::collections::{HashMap, HashSet};

use crate::sys::{self, Process};

/// In the environment of every process that a service starts.
pub const MARK: &str = "TIFFIN_SERVICE";

/// Whether there are processes that may be anybody's: children of ours that nobody `knows`.
/// What a dead process leaves behind becomes our child, so that without one of these there
/// is nothing to look for. One file instead of one for each process of the container; as
/// nobody but us waits for our children, the list is whole (proc_tid_children(5)).
pub fn are_there_orphans(knows: impl Fn(i32) -> bool) -> bool {
    match std::fs::read_to_string("/proc/thread-self/children") {
        Ok(text) => text
            .split_ascii_whitespace()
            .any(|pid| !pid.parse().is_ok_and(&knows)),
        // Not every kernel has it.
        Err(_) => true,
    }
}

/// One look at the process table.
pub struct Table {
    /// Living descendants of the entrypoint, parents before children.
    descendants: Vec<Process>,
    marks: HashMap<i32, Option<Vec<u8>>>,
}

impl Table {
    pub fn read() -> Self {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
        for process in sys::processes() {
            children.entry(process.parent).or_default().push(process);
        }
        let mut descendants: Vec<Process> = Vec::new();
        let mut queue = vec![own];
        while let Some(parent) = queue.pop() {
            for process in children.remove(&parent).unwrap_or_default() {
                queue.push(process.pid);
                if !process.zombie {
                    descendants.push(process);
                }
            }
        }
        Table {
            descendants,
            marks: HashMap::new(),
        }
    }

    /// Living processes that belong to the service.
    pub fn of(&mut self, service: &str, sessions: &[i32]) -> Vec<i32> {
        let found = self.processes_of(service, sessions);
        found.into_iter().map(|process| process.pid).collect()
    }

    pub fn processes_of(&mut self, service: &str, sessions: &[i32]) -> Vec<Process> {
        let mut found = HashSet::new();
        let mut processes = Vec::new();
        for at in 0..self.descendants.len() {
            let process = self.descendants[at];
            if sessions.contains(&process.session)
                || found.contains(&process.parent)
                || self
                    .mark(process.pid)
                    .is_some_and(|mark| mark == service.as_bytes())
            {
                found.insert(process.pid);
                processes.push(process);
            }
        }
        processes
    }

    pub fn all(&self) -> Vec<i32> {
        self.descendants.iter().map(|process| process.pid).collect()
    }

    fn mark(&mut self, pid: i32) -> Option<&[u8]> {
        self.marks
            .entry(pid)
            .or_insert_with(|| {
                let prefix = format!("{MARK}=").into_bytes();
                sys::environment_of(pid)?
                    .split(|byte| *byte == 0)
                    .find_map(|variable| variable.strip_prefix(prefix.as_slice()))
                    .map(<[u8]>::to_vec)
            })
            .as_deref()
    }
}
