//! Variables that nobody knows and that were probably meant for the box.

use contract::Contract;

use super::{Environment, nearest};

/// The entrypoint's own variables.
pub const OWN: &[&str] = &[
    "TIFFIN_SERVICE",
    "TIFFIN_HTTP",
    "TIFFIN_LOG",
    crate::roles::DRAIN,
    crate::roles::VARIABLE,
    "TIFFIN_STATUS_PAGE",
    "TIFFIN_STOP_TIMEOUT",
    "TIFFIN_UNKNOWN",
    crate::backup::schedule::DIRECTORY,
    crate::backup::schedule::KEEP,
    crate::backup::schedule::SCHEDULE,
    crate::upgrade::COPY,
    crate::upgrade::KEEP,
];

/// Variables that every container has or may have, and that nobody mistypes.
const COMMON: &[&str] = &[
    "PATH",
    "HOME",
    "HOSTNAME",
    "TERM",
    "LANG",
    "LANGUAGE",
    "USER",
    "SHELL",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "LOGNAME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "FTP_PROXY",
    "ALL_PROXY",
    "DEBIAN_FRONTEND",
    "NOTIFY_SOCKET",
];

/// All names under which the settings may be given.
pub struct Names {
    known: Vec<String>,
    prefix: String,
}

impl Names {
    pub fn of(contract: &Contract) -> Self {
        let names = contract
            .settings
            .iter()
            .flat_map(|(name, setting)| std::iter::once(name).chain(&setting.deprecated));
        let known = names
            .flat_map(|name| [name.clone(), format!("{name}_FILE")])
            .collect();
        let product = contract.product.name.rsplit('/').next().unwrap_or_default();
        Names {
            known,
            prefix: format!("{}_", upper(product)),
        }
    }

    pub fn know(&self, name: &str) -> bool {
        self.known.iter().any(|known| known == name)
    }

    /// The setting that was probably meant.
    pub fn meant(&self, name: &str) -> Option<&str> {
        let upper = upper(name);
        let known = || self.known.iter().map(String::as_str);
        known()
            .find(|known| *known == upper)
            .or_else(|| nearest(&upper, known()).filter(|_| name.len() >= 5))
    }

    /// Why a variable of the environment is taken for a mistake, and the name meant.
    pub fn suspect(
        &self,
        name: &str,
        environment: &Environment,
    ) -> Option<(&'static str, Option<&str>)> {
        if self.know(name) || OWN.contains(&name) || COMMON.contains(&name) {
            return None;
        }
        if upper(name).starts_with("TIFFIN_") {
            let meant = OWN[1..].iter().find(|own| **own == upper(name)).copied();
            let meant = meant.or_else(|| nearest(name, OWN[1..].iter().copied()));
            return Some(("the entrypoint knows no such variable", meant));
        }
        let value = environment.get(name).unwrap_or_default();
        if name.starts_with("LC_")
            || COMMON.contains(&upper(name).as_str())
            || is_service_link(name, value)
        {
            return None;
        }
        let meant = self.meant(name);
        let ours = name.starts_with(&self.prefix) && self.prefix.len() > 3;
        (meant.is_some() || ours).then_some(("it is no setting of this box", meant))
    }
}

fn upper(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

/// What Kubernetes and Docker's links set for each service beside the box:
/// `X_SERVICE_HOST`, `X_SERVICE_PORT_HTTP`, `X_PORT_80_TCP_ADDR`, `X_PORT=tcp://…`.
fn is_service_link(name: &str, value: &str) -> bool {
    let numbered = |rest: &str| {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|kind| rest.starts_with(kind))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name
            .match_indices("_PORT_")
            .any(|(at, found)| numbered(&name[at + found.len()..]))
        || name.ends_with("_PORT")
            && ["tcp://", "udp://", "sctp://"]
                .iter()
                .any(|kind| value.starts_with(kind))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_operators_book_has_all_of_them() {
        let book = include_str!("../../../docs/operator.md");
        // One is told to services by the box.
        for name in super::OWN.iter().filter(|name| **name != "TIFFIN_SERVICE") {
            assert!(book.contains(&format!("`{name}`")), "no `{name}`");
        }
    }
}
