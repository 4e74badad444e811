//! What services use: the sum over their processes, and what those used that have ended.

use std::time::Duration;

use super::slot::Slot;
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
        let traits: Vec<_> = self.slots.iter().map(|slot| slot.traits()).collect();
        let mut usages: Vec<Usage> = self.slots.iter().map(|slot| slot.of_ended()).collect();
        for (at, process) in table.shares(&traits) {
            usages[at].processes += 1;
            usages[at].memory += process.memory;
            usages[at].cpu += process.cpu;
        }
        for (slot, usage) in self.slots.iter_mut().zip(&mut usages) {
            // Of an orphan that ended, nobody knows any more whose it was.
            slot.cpu_told = slot.cpu_told.max(usage.cpu);
            usage.cpu = slot.cpu_told;
        }
        usages
    }
}

impl Slot {
    fn of_ended(&self) -> Usage {
        Usage {
            cpu: self.cpu_of_ended,
            ..Usage::default()
        }
    }
}
