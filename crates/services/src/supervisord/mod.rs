//! supervisord's configuration, as supervisord 4 reads it
//! (<http://supervisord.org/configuration.html>).

mod expand;
mod ini;
mod program;
mod shell;

pub use program::{File, includes, parse};
