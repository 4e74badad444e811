//! supervisord's configuration, as supervisord 4 reads it
//! (<http://supervisord.org/configuration.html>).

mod daemon;
mod expand;
mod ini;
mod keys;
mod program;
mod shell;

pub use daemon::{Address, Daemon, Server, daemon};
pub use program::{File, includes, parse};
