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

/// The configuration file, when the unit is supervisord's.
pub fn config(service: &crate::Service) -> Option<String> {
    let words = &service.commands.start.first()?.words;
    let is_it = words
        .iter()
        .take(2)
        .any(|word| word.rsplit('/').next() == Some("supervisord"));
    if !is_it {
        return None;
    }
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "-c" || word == "--configuration" {
            return words.next().cloned();
        }
        if let Some(path) = word
            .strip_prefix("--configuration=")
            .or_else(|| word.strip_prefix("-c").filter(|p| p.starts_with('/')))
        {
            return Some(path.to_owned());
        }
    }
    Some("/etc/supervisor/supervisord.conf".to_owned())
}
