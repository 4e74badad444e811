//! How much work one rendering may do, so that no template hangs a start or exhausts its memory.
//!
//! Counted in units that mean about a byte written or an element touched, not in seconds: a
//! template that passes at the build passes at the start on a slower machine, too. A
//! rendering stays on its thread, so the count does as well.

use std::cell::Cell;

use crate::fault::{self, Result};

/// Some hundred times what the largest template of public roles takes.
const UNITS: usize = 100_000_000;

/// Instructions of minijinja's virtual machine, for what happens between our functions.
pub const FUEL: u64 = 10_000_000;

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(UNITS) };
}

/// Begins a rendering.
pub fn start() {
    LEFT.set(UNITS);
}

/// Counts work that is done anyhow. Where it was too much, the next [`check`] says so.
pub fn spend(units: usize) {
    LEFT.set(LEFT.get().saturating_sub(units));
}

pub fn exhausted() -> bool {
    LEFT.get() == 0
}

pub fn check() -> Result<()> {
    if exhausted() { too_much() } else { Ok(()) }
}

/// Asks before something large is made.
pub fn room(units: usize) -> Result<()> {
    if units >= LEFT.get() {
        LEFT.set(0);
        return too_much();
    }
    Ok(())
}

fn too_much<T>() -> Result<T> {
    fault::fail("this takes more work or memory than any configuration file needs")
}
