//! From one version of the box to the next, and back.
//!
//! A start that finds data of an older version copies the volumes while nothing runs, and
//! then lets the box start: one-shot jobs migrate. When everything has been ready once, the
//! volume is this version's. Until then a failure puts the copy back, and so does the next
//! start after a `kill -9`, whichever of the two versions it is.
//!
//! Users may write as soon as the web server runs, which is after the migrations and before
//! everything is ready. So once all jobs are done, the data is not put back behind
//! anybody's back: a start of the new version goes on with it, and when a service is given
//! up then, what was there is kept as a copy too.

pub mod before;
pub mod check;
mod copies;
mod decision;
mod journal;
pub mod rollback;
mod swap;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::SystemTime;

use contract::Contract;

use self::copies::{About, Copies};
pub use self::decision::Decision;
use self::decision::{decide, refused};
use self::journal::{Book, Journal, Stage};
use self::swap::Stuck;
use crate::databases::Database;
use crate::exit::{Code, Failure, Result};
use crate::log::{self, say, warn};
use crate::owners;
use crate::root::Root;
use crate::settings::Environment;
use crate::volume::State;

/// `off`: no safety copy is made.
pub const COPY: &str = "TIFFIN_UPGRADE_COPY";
/// How many copies are kept after a success.
pub const KEEP: &str = "TIFFIN_UPGRADE_KEEP";

/// A version that nobody knows.
const UNKNOWN: &str = "unknown";

pub struct Upgrade<'a> {
    contract: &'a Contract,
    root: &'a Root,
    state: &'a State<'a>,
    copies: Copies<'a>,
    copy: bool,
    keep: usize,
}

/// Whether an upgrade, or the way back from one, did not come to its end; `directory` is that
/// of the volume's state.
pub fn is_under_way(root: &Root, directory: &str) -> Result<bool> {
    Ok(Book { root, directory }.read()?.is_some())
}

impl<'a> Upgrade<'a> {
    pub fn new(
        contract: &'a Contract,
        root: &'a Root,
        state: &'a State<'a>,
        environment: &Environment,
    ) -> Self {
        let keep = environment.get(KEEP).and_then(|text| text.parse().ok());
        Upgrade {
            contract,
            root,
            state,
            copies: Copies::new(contract, root),
            copy: environment.get(COPY) != Some("off"),
            keep: keep.unwrap_or(1),
        }
    }

    fn own(&self) -> &'a str {
        &self.contract.product.version
    }

    fn book(&self) -> Book<'_> {
        Book {
            root: self.root,
            directory: self.state.directory(),
        }
    }

    fn home(&self) -> PathBuf {
        self.root.path(self.state.directory())
    }

    /// An upgrade, or the way back from one, did not come to its end.
    pub fn is_under_way(&self) -> Result<bool> {
        Ok(self.book().read()?.is_some())
    }

    /// Whether this box takes the data; nothing is touched.
    ///
    /// # Errors
    ///
    /// [`Code::Config`] when it does not, with the release that does.
    pub fn look(&self) -> Result<Decision> {
        let own = self.own();
        let decided = |data: &str| decide(data, own, self.contract.upgrade.as_ref());
        let data = match self.book().read()? {
            Some((stage, journal)) => {
                let is = |version: &str| decided(version) == Decision::Same;
                match stage {
                    Stage::Begun if journal.copy.is_none() && !is(&journal.to) => {
                        return Err(Failure::new(
                            Code::Config,
                            format!(
                                "cannot start {own}: the upgrade from {} to {} did not come to its end, and without a \
                                 safety copy ({COPY}=off); nothing was touched",
                                journal.from, journal.to
                            ),
                        )
                        .hint(format!("run {} until all is ready, or restore your backup", journal.to)));
                    }
                    Stage::Migrated if is(&journal.from) && journal.copy.is_some() => journal.from,
                    Stage::Begun if journal.copy.is_none() => journal.to,
                    Stage::Migrated => journal.to,
                    Stage::Begun | Stage::Aside | Stage::Back => journal.from,
                }
            }
            None => match self.state.version()? {
                Some(version) => version,
                None if self.state.has_data()? => UNKNOWN.to_owned(),
                None => return Ok(Decision::New),
            },
        };
        let decision = decided(&data);
        match refused(&decision, &data, own, &self.contract.product.name) {
            Some(failure) => Err(failure),
            None => Ok(decision),
        }
    }

    /// Brings what is under way to a state that is one version's. Needs the lock.
    pub fn recover(&self) -> Result<()> {
        let Some((stage, journal)) = self.book().read()? else {
            self.copies.tidy();
            return Ok(());
        };
        let own = self.own();
        let is_from = decide(&journal.from, own, None) == Decision::Same;
        let is_to = decide(&journal.to, own, None) == Decision::Same;
        match stage {
            Stage::Migrated if is_to => {
                say(&format!("the upgrade from {} goes on", journal.from));
                return Ok(());
            }
            Stage::Migrated if !is_from || journal.copy.is_none() => {
                // The data is that version's, and a later one begins with it.
                self.state.record_version(&journal.to)?;
                return self.close(stage);
            }
            // Without a copy, what was begun can only go on.
            _ if journal.copy.is_none() => return Ok(()),
            _ => say(&format!(
                "the way from {} to {} did not come to its end: the copy is put back",
                journal.from, journal.to
            )),
        }
        self.undo(stage, &journal)
    }

    /// The version that wrote the data.
    fn from(&self) -> Result<String> {
        Ok(self.state.version()?.unwrap_or_else(|| UNKNOWN.to_owned()))
    }

    /// What takes long before services start; `None` when nothing does.
    pub fn takes_long(&self) -> Result<Option<String>> {
        if self.copy && matches!(self.look()?, Decision::Forward { .. }) {
            let (from, own) = (self.from()?, self.own());
            return Ok(Some(format!(
                "upgrade from {from} to {own}: copying the data"
            )));
        }
        let wrong = owners::are_wrong(self.contract, self.root, self.state)?;
        Ok(wrong.then(|| "putting right whose files the data is".to_owned()))
    }

    /// What is to be done before services start: nothing, or the safety copy. Needs the lock.
    pub fn begin(&self, databases: &[Database]) -> Result<()> {
        let own = self.own();
        // What has begun already says so.
        if self.is_under_way()? {
            return Ok(());
        }
        let Decision::Forward { unclear } = self.look()? else {
            return Ok(());
        };
        let from = self.from()?;
        if unclear {
            warn(&format!(
                "nobody can tell whether {own} is later than {from}, which wrote the data: it is taken for an upgrade"
            ));
        }
        let now = SystemTime::now();
        let made = log::rfc3339(now);
        let about = |version: &str, reason: String| About {
            version: version.to_owned(),
            made: made.clone(),
            reason,
        };
        let name = self.copies.name(&from, now);
        let mut aside = self.copies.name(own, now);
        if self.copy {
            self.copies.fits(databases, &from, own)?;
            self.copies
                .make(&name, databases, &about(&from, format!("before {own}")))?;
            aside = self.copies.name(own, now);
            let failed = about(own, format!("the upgrade from {from} failed"));
            self.copies.prepare(&aside, &failed)?;
        } else {
            say(&format!(
                "upgrade from {from} to {own}, without a safety copy ({COPY}=off)"
            ));
        }
        let journal = Journal {
            from,
            to: own.to_owned(),
            copy: self.copy.then_some(name),
            aside,
        };
        self.book().write(Stage::Begun, &journal)
    }

    /// All jobs that run once have run.
    pub fn migrated(&self) {
        if let Ok(Some((Stage::Begun, _))) = self.book().read()
            && let Err(error) = self.book().go_on(Stage::Begun, Stage::Migrated)
        {
            warn(&format!("cannot note that the data is migrated: {error}"));
        }
    }

    /// Everything has been ready once: the data is this version's.
    pub fn complete(&self) {
        let done = || -> Result<()> {
            let Some((stage, journal)) = self.book().read()? else {
                return Ok(());
            };
            self.state.record_version(&journal.to)?;
            self.close(stage)?;
            say(&format!("upgraded from {} to {}", journal.from, journal.to));
            self.copies.tidy();
            self.copies.prune(self.keep);
            Ok(())
        };
        if let Err(failure) = done() {
            // The next start of this version finds it done and tries again.
            warn(&failure.to_string());
        }
    }

    /// The box ended before the upgrade did, and not because somebody stopped it.
    pub fn give_up(&self) -> Result<()> {
        let Some((stage, journal)) = self.book().read()? else {
            return Ok(());
        };
        let (from, to) = (&journal.from, &journal.to);
        if journal.copy.is_none() {
            say(&format!(
                "the upgrade from {from} to {to} failed, and there is no safety copy ({COPY}=off)\n\
                 hint: restore your backup, or mend what failed and start {to} again"
            ));
            return Ok(());
        }
        self.undo(stage, &journal)?;
        let name = &self.contract.product.name;
        let kept = match stage {
            Stage::Migrated => format!("; what {to} wrote is kept as the copy {}", journal.aside),
            _ => String::new(),
        };
        say(&format!(
            "the upgrade from {from} to {to} failed: the data is as it was before{kept}\n\
             hint: `docker run` of {name}:{from} works as before; the lines above say what failed"
        ));
        Ok(())
    }

    /// Puts the copy back, from whatever stage.
    fn undo(&self, mut stage: Stage, journal: &Journal) -> Result<()> {
        let Some(copy) = &journal.copy else {
            return Ok(());
        };
        let book = self.book();
        let told = |error: std::io::Error| {
            self.stuck(Stuck {
                path: self.home(),
                error,
            })
        };
        if matches!(stage, Stage::Begun | Stage::Migrated) {
            if stage == Stage::Migrated {
                self.copies.keep(&journal.aside).map_err(told)?;
            }
            book.go_on(stage, Stage::Aside).map_err(told)?;
            stage = Stage::Aside;
        }
        let home = self.home();
        if stage == Stage::Aside {
            swap::put_aside(&self.copies, &home, &journal.aside).map_err(|s| self.stuck(s))?;
            book.go_on(stage, Stage::Back).map_err(told)?;
        }
        swap::put_back(&self.copies, &home, copy).map_err(|s| self.stuck(s))?;
        self.copies.remove(copy);
        self.close(Stage::Back)?;
        self.copies.tidy();
        Ok(())
    }

    fn close(&self, stage: Stage) -> Result<()> {
        self.book().close(stage).map_err(|error| {
            self.stuck(Stuck {
                path: self.home(),
                error,
            })
        })
    }

    fn stuck(&self, stuck: Stuck) -> Failure {
        Failure::new(
            Code::CannotCreate,
            format!(
                "cannot put the copy of the data back: {}: {}",
                stuck.path.display(),
                stuck.error
            ),
        )
        .hint("nothing is lost: the next start of either version goes on from here")
    }
}
