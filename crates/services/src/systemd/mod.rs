//! systemd units: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5); and
//! tmpfiles.d(5).

mod calendar;
mod capabilities;
mod environment;
mod keys;
mod limits;
mod lines;
mod time;
mod timer;
mod tmpfiles;
mod unit;
mod words;

pub use calendar::Calendar;
pub use capabilities::capabilities;
pub use environment::environment_file;
pub use limits::{LIMITS, limit};
pub use timer::{Timer, timer};
pub use tmpfiles::{Tmpfile, Wanted, tmpfiles, tmpfiles_paths};
pub use unit::{parse, parse_on};
