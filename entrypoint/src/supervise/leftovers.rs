//! What a service's processes left behind, found by session, start marks and parentage.
//!
//! Only descendants of the entrypoint are looked at: what `docker exec` started is not
//! ours to kill. A session alone would not do: daemons call setsid. Nor a mark in the
//! environment: nginx and others overwrite theirs with a title, and cron and su empty it. A
//! limit is what a process has from those before it and keeps whatever it does.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::{self, Process};

/// In the environment of every process that a service starts.
pub const MARK: &str = "TIFFIN_SERVICE";

/// Numbers that one supervisor gives out at most; a supervisor that a service runs has others.
const NUMBERS: u64 = 1 << 16;

/// The first number of this supervisor, below the one that stands for no limit.
fn first() -> u64 {
    static FIRST: OnceLock<u64> = OnceLock::new();
    *FIRST.get_or_init(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos() & ((1 << 44) - 1);
        u64::try_from(now).unwrap_or(0).max(1) * NUMBERS
    })
}

/// For the processes of one more service: see [`sys::number_of`].
pub fn next_number() -> u64 {
    static GIVEN: AtomicU64 = AtomicU64::new(0);
    first() + GIVEN.fetch_add(1, Ordering::Relaxed) % NUMBERS
}

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
    numbers: HashMap<i32, Option<u64>>,
    marks: HashMap<i32, Option<Vec<u8>>>,
}

/// What is known of a service's processes.
#[derive(Clone, Copy)]
pub struct Traits<'a> {
    pub name: &'a str,
    pub number: u64,
    /// That they lead or led.
    pub sessions: &'a [i32],
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
            numbers: HashMap::new(),
            marks: HashMap::new(),
        }
    }

    /// Living processes that belong to the service.
    pub fn of(&mut self, service: Traits<'_>) -> Vec<i32> {
        let mut found = HashSet::new();
        let mut processes = Vec::new();
        for at in 0..self.descendants.len() {
            let process = self.descendants[at];
            if service.sessions.contains(&process.session)
                || found.contains(&process.parent)
                || self.bears(process.pid, service)
            {
                found.insert(process.pid);
                processes.push(process.pid);
            }
        }
        processes
    }

    /// Whose each process is, by the service's place. What neither leads nor is in a session of
    /// a service and has no parent there is asked for its marks: a look at one more file.
    pub fn shares(&mut self, services: &[Traits<'_>]) -> Vec<(usize, Process)> {
        let mut sessions = HashMap::new();
        for (at, service) in services.iter().enumerate() {
            sessions.extend(service.sessions.iter().map(|session| (*session, at)));
        }
        let mut owners: HashMap<i32, usize> = HashMap::new();
        let mut shares = Vec::with_capacity(self.descendants.len());
        for at in 0..self.descendants.len() {
            let process = self.descendants[at];
            let known = sessions
                .get(&process.session)
                .or_else(|| owners.get(&process.parent));
            let owner = known.copied().or_else(|| {
                services
                    .iter()
                    .position(|service| self.bears(process.pid, *service))
            });
            if let Some(owner) = owner {
                owners.insert(process.pid, owner);
                shares.push((owner, process));
            }
        }
        shares
    }

    fn bears(&mut self, pid: i32, service: Traits<'_>) -> bool {
        let number = *self.numbers.entry(pid).or_insert_with(|| {
            let own = first()..first() + NUMBERS;
            sys::number_of(pid).filter(|number| own.contains(number))
        });
        match number {
            Some(number) => number == service.number,
            // Where limits are not to be had: in a container with low ones, after pam_limits(8).
            None => self
                .mark(pid)
                .is_some_and(|mark| mark == service.name.as_bytes()),
        }
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
