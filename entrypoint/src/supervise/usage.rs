//! What services use: the sum over their processes, and what those used that have ended.

use std::time::Duration;

use super::{Supervisor, leftovers};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub processes: u32,
    /// Resident, in bytes; pages that processes share count in each.
    pub memory: u64,
    /// Since the box started. It never falls.
    pub cpu: Duration,
}

impl Supervisor<'_> {
    /// One for each slot. Reads the process table: for those who ask, not for each turn.
    pub(super) fn measure(&mut self) -> Vec<Usage> {
        let mut table = leftovers::Table::read();
        self.slots
            .iter_mut()
            .map(|slot| {
                let mut usage = Usage {
                    cpu: slot.cpu_of_ended,
                    ..Usage::default()
                };
                if !slot.sessions.is_empty() {
                    for process in table.processes_of(slot.traits()) {
                        usage.processes += 1;
                        usage.memory += process.memory;
                        usage.cpu += process.cpu;
                    }
                }
                // Of an orphan that ended, nobody knows any more whose it was.
                slot.cpu_told = slot.cpu_told.max(usage.cpu);
                usage.cpu = slot.cpu_told;
                usage
            })
            .collect()
    }
}
