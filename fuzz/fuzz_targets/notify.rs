//! A datagram on a service's notification socket.
#![no_main]

#[path = "../../entrypoint/src/supervise/notify.rs"]
mod notify;

use libfuzzer_sys::fuzz_target;
use notify::Said;

fuzz_target!(|bytes: &[u8]| {
    let message = &bytes[..bytes.len().min(notify::LONGEST)];
    for said in notify::read(message) {
        match said {
            Said::Status(text) => assert!(text.chars().count() <= 200 && !text.contains('\x1b')),
            Said::Main(pid) => assert!(pid > 1),
            _ => {}
        }
    }
});
