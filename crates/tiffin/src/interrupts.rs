//! SIGINT and SIGTERM end a build in order; a second one ends it at once.

use nix::sys::signal::{SigSet, Signal};

/// Takes the signals on a thread of its own. Must run before other threads start, which
/// inherit the mask; commands that are started get a clean one from the standard library.
pub fn watch() {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    if set.thread_block().is_err() {
        return;
    }
    std::thread::spawn(move || {
        let mut earlier = false;
        while set.wait().is_ok() {
            bake::interrupt::interrupt();
            if earlier {
                std::process::exit(130);
            }
            earlier = true;
            crate::printer::aside("stopping; once more ends at once");
        }
    });
}
