//! Settings: from the environment and its like to typed values of the playbook's variables.
//!
//! Sources, first wins: `NAME` or `NAME_FILE`, `/run/secrets/NAME`, the env file on the
//! first volume, values kept on it, generated ones, the playbook's own default (which is
//! not a value here: the templates have it already).

pub mod env_file;
mod nearest;
pub mod origin;
pub mod reference;
mod report;
mod resolve;
mod schema;
mod sources;
mod unknown;
mod zones;

pub use nearest::nearest;
pub use report::{Problem, report};
pub use resolve::{Resolved, resolve};
pub use sources::{Given, Sources, env_file_path, setting_of};
pub use values::{MASK, is_secret, text_of};

use std::collections::BTreeMap;

/// The process environment, read once in `main`.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub variables: BTreeMap<String, String>,
    /// Names of variables whose value is not UTF-8.
    pub unreadable: Vec<String>,
}

impl Environment {
    pub fn of_this_process() -> Self {
        let mut environment = Environment::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => {
                    environment.variables.insert(name, value);
                }
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }
}
