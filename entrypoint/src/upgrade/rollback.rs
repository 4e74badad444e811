//! `rollback`: a kept copy takes the place of the data, and the data its place. The box does
//! not run meanwhile.

use std::time::SystemTime;

use super::copies::{About, Kept};
use super::journal::{Journal, Stage};
use super::{UNKNOWN, Upgrade};
use crate::exit::{Code, Failure, Result};
use crate::log;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub list: bool,
    /// It shall be done, not only told.
    pub yes: bool,
    /// The version that wrote the copy, or the copy's name; the newest when there is none.
    pub version: Option<String>,
}

impl Upgrade<'_> {
    /// Needs the lock, but to list.
    pub fn rollback(&self, wanted: &Wanted) -> Result<Code> {
        if wanted.list {
            return Ok(crate::print(&self.table()));
        }
        let name = &self.contract.product.name;
        if let Some((stage, journal)) = self.book().read()?
            && journal.copy.is_some()
        {
            // Not finished: there is but one copy that it can be about.
            if !wanted.yes && matches!(stage, Stage::Begun | Stage::Migrated) {
                return Ok(self.ask(&journal.from, &journal.to, stage == Stage::Migrated));
            }
            self.undo(stage, &journal)?;
            return Ok(self.told(&journal.from, name));
        }
        let copies = self.copies.list();
        let is_wanted = |kept: &&Kept| match &wanted.version {
            Some(version) => kept.name == *version || kept.about.version == *version,
            None => true,
        };
        let Some(kept) = copies.iter().find(is_wanted) else {
            let what = match &wanted.version {
                Some(version) => format!("no copy of {version} is kept"),
                None => "no copy is kept".to_owned(),
            };
            return Err(
                Failure::new(Code::Config, format!("cannot go back: {what}")).hint(
                    "`rollback --list` lists the copies; a backup is restored with `restore`",
                ),
            );
        };
        let present = match self.book().read()? {
            Some((_, journal)) => journal.to,
            None => self.state.version()?.unwrap_or_else(|| UNKNOWN.to_owned()),
        };
        if !wanted.yes {
            return Ok(self.ask(&kept.about.version, &present, true));
        }
        let now = SystemTime::now();
        let aside = self.copies.name(&present, now);
        let about = About {
            version: present.clone(),
            made: log::rfc3339(now),
            reason: format!("before the rollback to {}", kept.about.version),
        };
        self.copies.prepare(&aside, &about)?;
        let journal = Journal {
            from: kept.about.version.clone(),
            to: present,
            copy: Some(kept.name.clone()),
            aside,
        };
        self.book().write(Stage::Migrated, &journal)?;
        self.undo(Stage::Migrated, &journal)?;
        Ok(self.told(&journal.from, name))
    }

    fn ask(&self, to: &str, present: &str, kept: bool) -> Code {
        let rest = match kept {
            true => format!(
                "What was written since is not in it. It is kept as a copy of {present}, until an upgrade\n\
                 succeeds, and `rollback {present} --yes` puts it back.\n"
            ),
            false => format!("What the unfinished upgrade to {present} has done is removed.\n"),
        };
        crate::print(&format!(
            "The data of {to} would be put back in the place of that of {present}.\n{rest}\
             Nothing was done; add --yes to do it.\n"
        ));
        Code::Failed
    }

    fn told(&self, version: &str, name: &str) -> Code {
        crate::print(&format!(
            "The data is that of {version}: `docker run` {name}:{version}.\n"
        ))
    }

    fn table(&self) -> String {
        let copies = self.copies.list();
        if copies.is_empty() {
            return "no copies are kept\n".to_owned();
        }
        let mut out = format!("{:<24}{:<26}{}\n", "VERSION", "MADE", "WHY");
        for Kept { about, .. } in copies {
            out.push_str(&format!(
                "{:<24}{:<26}{}\n",
                about.version, about.made, about.reason
            ));
        }
        out
    }
}
