//! systemd units: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5).

mod environment;
mod keys;
mod lines;
mod time;
mod unit;
mod words;

pub use environment::environment_file;
pub use unit::parse;
