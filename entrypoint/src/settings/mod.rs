//! Settings: from the environment to typed values of the playbook's variables.
//!
//! Sources, first wins: `NAME`, `NAME_FILE`, values kept on the volume, generated ones,
//! the playbook's own default (which is not a value here: the templates have it already).

mod convert;
mod nearest;
pub mod reference;
mod resolve;

pub use convert::text_of;
pub use nearest::nearest;
pub use resolve::{Given, Resolved, report, resolve};

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

/// Shown where a secret would stand.
pub const MASK: &str = "********";

/// Nobody may see the value.
pub fn is_secret(setting: &contract::Setting) -> bool {
    setting.secret || matches!(setting.kind, contract::Kind::Secret | contract::Kind::Key)
}
