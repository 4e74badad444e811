//! Ending a build early: the command line calls [`interrupt`] on SIGINT and SIGTERM, the
//! process group that is running at that moment is ended, and the build returns
//! [`Error::Interrupted`] after it has cleaned up.

use std::{
    process::Child,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicI32 = AtomicI32::new(0);

/// Asks the build to end. May be called from any thread, more than once.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
    if let Some(group) = Pid::from_raw(RUNNING.load(Ordering::SeqCst)) {
        let _ = kill_process_group(group, Signal::TERM);
    }
}

pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// The process group to end on an interrupt, for as long as this lives.
pub(crate) struct Group;

impl Group {
    /// `child` must lead a group of its own.
    pub(crate) fn of(child: &Child) -> Group {
        RUNNING.store(child.id() as i32, Ordering::SeqCst);
        if INTERRUPTED.load(Ordering::SeqCst) {
            interrupt();
        }
        Group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        RUNNING.store(0, Ordering::SeqCst);
    }
}
