//! The settings that name the new servers: where they come from, and how they come to last.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Read as _};

use contract::Contract;

use super::{cannot, cannot_create};
use crate::exit::{Code, Failure, Result};
use crate::root::{Owned, Root};
use crate::settings::{self, Environment, env_file};
use crate::volume;

/// More is no file of settings.
const LIMIT: u64 = 1 << 20;
const FILE: &str = "_FILE";

pub struct Target {
    /// The lines as they were written.
    lines: Vec<String>,
    /// What they give: `NAME` or `NAME_FILE`, and the value.
    given: Vec<(String, String)>,
    /// Every name by which one of these settings may be given: former ones, and with `_FILE`.
    names: BTreeSet<String>,
}

impl Target {
    /// # Errors
    ///
    /// [`Code::Config`] with all lines that are wrong, without their values.
    pub fn read(contract: &Contract, file: &str) -> Result<Self> {
        Self::parse(contract, &text(file)?)
    }

    fn parse(contract: &Contract, text: &str) -> Result<Self> {
        let of = |line: usize| format!("line {line} of the new settings");
        let entries = env_file::parse(text).map_err(|wrong| {
            let wrong = wrong.into_iter();
            let told: Vec<String> = wrong
                .map(|(line, reason)| format!("{}: {reason}", of(line)))
                .collect();
            cannot(&told.join("\n"))
        })?;
        if entries.is_empty() {
            return Err(cannot("no new settings are given").hint(
                "NAME=VALUE or NAME_FILE=PATH a line, as in settings.env: those that name your servers",
            ));
        }
        let raw: Vec<&str> = text.split('\n').collect();
        let mut target = Target {
            lines: Vec::new(),
            given: Vec::new(),
            names: BTreeSet::new(),
        };
        for entry in entries {
            // As the sources have it: a setting may itself be called SOMETHING_FILE.
            let of_file = || settings::setting_of(contract, entry.name.strip_suffix(FILE)?);
            let found = settings::setting_of(contract, &entry.name).or_else(of_file);
            let Some((own, setting)) = found else {
                return Err(
                    cannot(&format!("{}: {} is no setting", of(entry.line), entry.name))
                        .hint("`settings` lists all settings"),
                );
            };
            for name in std::iter::once(own).chain(&setting.deprecated) {
                target.names.insert(name.clone());
                let by_file = format!("{name}{FILE}");
                if settings::setting_of(contract, &by_file).is_none() {
                    target.names.insert(by_file);
                }
            }
            let line = raw.get(entry.line - 1).unwrap_or(&"");
            target.lines.push(line.trim_end_matches('\r').to_owned());
            target.given.push((entry.name, entry.value));
        }
        Ok(target)
    }

    /// What was given, without values.
    pub fn names(&self) -> Vec<&str> {
        self.given.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The environment of a box that has these settings, wherever it will be given them.
    pub fn environment(&self, now: &Environment) -> Environment {
        let mut environment = now.clone();
        let is_new = |name: &String| self.names.contains(name);
        environment.variables.retain(|name, _| !is_new(name));
        environment.unreadable.retain(|name| !is_new(name));
        environment.variables.extend(self.given.iter().cloned());
        environment
    }

    /// # Errors
    ///
    /// When one of the settings is given to the container itself, which would win over
    /// `settings.env`.
    pub fn check_that_it_wins(&self, root: &Root, environment: &Environment) -> Result<()> {
        let secret = |name: &&String| root.path(&format!("/run/secrets/{name}")).exists();
        let wins = |name: &&String| environment.variables.contains_key(*name) || secret(name);
        let winning: Vec<&str> = self.names.iter().filter(wins).map(String::as_str).collect();
        if winning.is_empty() {
            return Ok(());
        }
        Err(cannot(&format!(
            "the container itself is given {}, which would win over settings.env",
            winning.join(", ")
        ))
        .hint(
            "leave that away here, if the box is not given it either; else add --copy-only, and give the box \
             the new values yourself once all is copied",
        ))
    }

    /// Writes them into `settings.env`; answers its path. Readers see the old file or the new one.
    pub fn keep(&self, contract: &Contract, root: &Root, date: &str) -> Result<String> {
        let Some(path) = settings::env_file_path(contract) else {
            return Err(cannot("the box has no volume"));
        };
        let (old, owned) = match root.current(&path) {
            Some((bytes, owned)) => (String::from_utf8_lossy(&bytes).into_owned(), owned),
            None => (String::new(), volume::own(0o600)),
        };
        // There may be a password in it now.
        let owned = Owned {
            mode: owned.mode & 0o770,
            ..owned
        };
        root.replace(&path, self.merged(&old, date).as_bytes(), owned)
            .map_err(|error| cannot_create("the file", &path, &error))?;
        Ok(path)
    }

    /// Lines that these take the place of become comments: that is the way back.
    fn merged(&self, old: &str, date: &str) -> String {
        let mut out = String::new();
        for line in old.lines() {
            let name = line.trim_start().split('=').next().unwrap_or_default();
            if self.names.contains(name) {
                out.push_str(&format!("# until {date}: "));
            }
            out.push_str(line);
            out.push('\n');
        }
        out.push_str(&format!("# by `tiffin move`, {date}\n"));
        for line in &self.lines {
            out.push_str(line);
            out.push('\n');
        }
        out
    }
}

fn text(file: &str) -> Result<String> {
    let read = |from: &mut dyn io::Read| -> io::Result<String> {
        let mut text = String::new();
        from.take(LIMIT + 1).read_to_string(&mut text)?;
        if text.len() as u64 > LIMIT {
            return Err(io::Error::other("it is larger than 1 MiB"));
        }
        Ok(text)
    };
    let read = match file {
        "-" if io::stdin().is_terminal() => {
            return Err(
                Failure::new(Code::Usage, "cannot read the new settings from a terminal")
                    .hint("docker run --rm -i … move - < FILE"),
            );
        }
        "-" => read(&mut io::stdin().lock()),
        path => std::fs::File::open(path).and_then(|mut file| read(&mut file)),
    };
    read.map_err(|error| {
        cannot(&format!(
            "the new settings cannot be read from {}: {error}",
            if file == "-" { "standard input" } else { file }
        ))
        .hint("a path is one in the container; `-` reads standard input")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Contract {
        serde_json::from_value(serde_json::json!({
            "format": contract::FORMAT,
            "product": {"name": "acme/x", "title": "X", "version": "v1"},
            "settings": {
                "DB_HOST": {"variable": "db_host", "type": "host", "deprecated": ["MONGO"]},
                "DB_PASSWORD": {"variable": "db_password", "type": "secret"},
                "PROXY": {"variable": "proxy", "type": "string"},
                "PROXY_FILE": {"variable": "proxy_file", "type": "path"}
            },
            "volumes": [{"path": "/data"}]
        }))
        .unwrap()
    }

    fn parse(text: &str) -> Result<Target> {
        Target::parse(&contract(), text)
    }

    #[test]
    fn new_lines_take_the_place_of_old_ones_which_stay_as_comments() {
        let target = parse("# ours\r\nDB_HOST=db\r\nDB_PASSWORD=\"a # b\"\n").unwrap();
        let old = "# mine\nMONGO=127.0.0.1\nTIMEZONE=UTC\n  DB_PASSWORD_FILE=/x";
        assert_eq!(
            target.merged(old, "DATE"),
            "# mine\n# until DATE: MONGO=127.0.0.1\nTIMEZONE=UTC\n# until DATE:   DB_PASSWORD_FILE=/x\n\
             # by `tiffin move`, DATE\nDB_HOST=db\nDB_PASSWORD=\"a # b\"\n"
        );
        // What comes out is a file of settings again, and says the same a second time.
        let again = target.merged(old, "DATE");
        assert_eq!(env_file::parse(&again).unwrap().len(), 3);
        assert!(env_file::parse(&target.merged(&again, "LATER")).is_ok());
    }

    #[test]
    fn the_environment_has_the_new_settings_alone() {
        let target = parse("DB_HOST=db\nDB_PASSWORD_FILE=/p").unwrap();
        let mut now = Environment::default();
        for (name, value) in [("MONGO", "old"), ("DB_PASSWORD", "old"), ("PATH", "/bin")] {
            now.variables.insert(name.to_owned(), value.to_owned());
        }
        let new: Vec<(String, String)> = target.environment(&now).variables.into_iter().collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            new,
            [
                pair("DB_HOST", "db"),
                pair("DB_PASSWORD_FILE", "/p"),
                pair("PATH", "/bin")
            ]
        );
        let (_dir, root) = Root::made(&[]);
        let failure = target.check_that_it_wins(&root, &now).unwrap_err();
        assert!(failure.message.contains("DB_PASSWORD, MONGO"), "{failure}");
        let (_dir, root) = Root::made(&[("run/secrets/DB_PASSWORD", "x")]);
        let none = Environment::default();
        assert!(target.check_that_it_wins(&root, &none).is_err());
    }

    #[test]
    fn a_setting_that_is_called_like_a_file_of_another_is_none() {
        let target = parse("PROXY_FILE=/pac").unwrap();
        assert_eq!(
            target.merged("PROXY=a", "D").lines().next(),
            Some("PROXY=a")
        );
        let target = parse("PROXY=b").unwrap();
        assert_eq!(
            target.merged("PROXY_FILE=/p", "D").lines().next(),
            Some("PROXY_FILE=/p")
        );
    }

    #[test]
    fn what_is_no_setting_is_refused_without_its_value() {
        for text in [
            "",
            "# nothing\n",
            "DB=CANARY",
            "DB_HOST:CANARY",
            "TIFFIN_ROLE=CANARY",
        ] {
            let failure = parse(text).err().unwrap().to_string();
            assert!(!failure.contains("CANARY"), "{failure}");
        }
    }
}
