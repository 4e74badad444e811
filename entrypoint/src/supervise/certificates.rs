//! Certificates while the box runs: renewed when their files change, and told of before
//! they end.
//!
//! inotify says that files changed. Where it does not (some file systems of the network), an
//! hourly look finds it; a box without certificates has neither.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::{CERTIFICATES, Supervisor};
use crate::certificates::{DAY, InUse, left};
use crate::log::{fail, warn};
use crate::supervisord::words::unix_time;

const LOOK: Duration = Duration::from_secs(3600);
/// Certificate and key are two files: both are written by then.
const SETTLED: Duration = Duration::from_secs(1);
/// Days that are left when the log says so.
const TOLD: [i64; 4] = [30, 14, 7, 1];

#[derive(Default)]
pub struct Watch {
    inotify: Option<OwnedFd>,
    due: Option<Instant>,
    /// What the files were when they were last read.
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    told: Told,
}

/// The last of [`TOLD`] that was reached, by certificate, 0 for its end, and when it was told.
#[derive(Default)]
struct Told(BTreeMap<String, (i64, i64)>);

impl Told {
    /// Days that are left at most, when that is to be told now: each of [`TOLD`] once, the end
    /// each day. All are Unix times.
    fn is_due(&mut self, name: &str, not_after: i64, now: i64) -> Option<i64> {
        let left = not_after - now;
        let reached = TOLD.iter().rev().find(|days| left <= **days * DAY);
        let stage = match reached {
            Some(_) if left <= 0 => 0,
            Some(days) => *days,
            None => i64::MAX,
        };
        let last = self.0.get(name);
        let is_new =
            last.is_none_or(|(last, at)| *last != stage || (stage == 0 && now - at >= DAY));
        if is_new {
            self.0.insert(name.to_owned(), (stage, now));
        }
        (is_new && stage != i64::MAX).then_some(stage)
    }
}

/// What changes with a file's content.
type Stamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}

impl Watch {
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|fd| fd.as_fd())
    }

    /// Looks at these from now on.
    fn follow(&mut self, certificates: &[InUse]) {
        self.due = (!certificates.is_empty()).then(|| Instant::now() + LOOK);
        let files = certificates.iter().flat_map(|one| &one.files);
        self.stamps = files
            .map(|path| (PathBuf::from(path), stamp(Path::new(path))))
            .collect();
        self.inotify = None;
        if self.stamps.is_empty() {
            return;
        }
        let Ok(inotify) = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) else {
            return;
        };
        // Directories, as files are replaced; of links both, as Kubernetes exchanges one.
        let mut folders: Vec<PathBuf> = Vec::new();
        for path in self.stamps.keys() {
            let real = path.canonicalize().ok();
            let both = [Some(path.clone()), real];
            let both = both.into_iter().flatten();
            folders.extend(both.filter_map(|path| Some(path.parent()?.to_owned())));
            // A file that was mounted by itself is written to where it is.
            folders.push(path.clone());
        }
        folders.sort();
        folders.dedup();
        let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE;
        let mut watched = folders
            .iter()
            .filter(|folder| inotify::add_watch(&inotify, folder.as_path(), what).is_ok());
        if watched.by_ref().count() > 0 {
            self.inotify = Some(inotify);
        }
    }

    fn changed(&mut self) -> bool {
        let mut changed = false;
        for (path, before) in &mut self.stamps {
            let now = stamp(path);
            // A file that is gone for a moment is being replaced.
            if now.is_some() && now != *before {
                *before = now;
                changed = true;
            }
        }
        changed
    }
}

impl Supervisor<'_> {
    /// After a start or a reload.
    pub(super) fn follow_certificates(&mut self) {
        let Some(loaded) = &self.loaded else { return };
        self.certificates.follow(&loaded.certificates);
        if let Some(socket) = self.certificates.socket() {
            let data = EventData::new_u64(CERTIFICATES);
            let _ = epoll::add(&self.epoll, socket, data, EventFlags::IN);
        }
        self.tell_of_ends(false);
    }

    /// Something happened to the files, or beside them.
    pub(super) fn certificate_files(&mut self) {
        let Some(socket) = self.certificates.socket() else {
            return;
        };
        let mut buffer = [0_u8; 4096];
        while rustix::io::read(socket, &mut buffer).is_ok_and(|count| count > 0) {}
        let soon = Instant::now() + SETTLED;
        let due = &mut self.certificates.due;
        *due = Some(due.map_or(soon, |due| due.min(soon)));
    }

    pub(super) fn certificate_timers(&mut self, now: Instant) {
        if self.certificates.due.is_none_or(|due| due > now) {
            return;
        }
        self.certificates.due = Some(now + LOOK);
        if self.ending.is_some() {
            return;
        }
        if self.is_reloading() {
            // Services are about to start with other files.
            self.certificates.due = Some(now + SETTLED);
            return;
        }
        let now = unix_time();
        let own_is_due = self
            .loaded
            .iter()
            .flat_map(|loaded| &loaded.certificates)
            .any(|one| one.is_due(now));
        if self.certificates.changed() || own_is_due {
            self.renew_certificates();
        }
        self.tell_of_ends(true);
    }

    /// What ends soon. At the start `preflight` has said it.
    fn tell_of_ends(&mut self, aloud: bool) {
        let now = unix_time();
        let Some(loaded) = &self.loaded else { return };
        for one in &loaded.certificates {
            let seconds = one.summary.not_after - now;
            let due = self
                .certificates
                .told
                .is_due(&one.name, one.summary.not_after, now);
            let Some(stage) = due.filter(|_| aloud) else {
                continue;
            };
            let hint = "hint: renew it; files that it was given by are read as soon as they change, other settings by `tiffin reload`";
            match stage {
                0 => fail(&format!(
                    "the certificate {} has ended: clients refuse it\n{hint}",
                    one.name
                )),
                _ => warn(&format!(
                    "the certificate {} ends in {}\n{hint}",
                    one.name,
                    left(seconds)
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told when somebody looks each hour from `days` before the end to ten days after,
    /// by the hours that are left.
    fn told(days: i64) -> Vec<(i64, i64)> {
        let (mut told, end) = (Told::default(), 1_800_000_000);
        let mut out = Vec::new();
        for hours in (-10 * 24..=days * 24).rev() {
            if let Some(stage) = told.is_due("web", end, end - hours * 3600) {
                out.push((hours, stage));
            }
        }
        out
    }

    #[test]
    fn as_the_clock_goes_on_each_stage_is_told_once_and_the_end_each_day() {
        let days = |day: i64| day * 24;
        let mut expected = vec![(days(30), 30), (days(14), 14), (days(7), 7), (days(1), 1)];
        expected.extend((0..=10).map(|day| (days(-day), 0)));
        assert_eq!(told(90), expected);
        // The box starts late: the first look says where it stands.
        assert_eq!(told(10)[..2], [(days(10), 14), (days(7), 7)]);
    }

    #[test]
    fn a_renewed_certificate_begins_anew() {
        let mut told = Told::default();
        assert_eq!(told.is_due("web", 5 * DAY, 0), Some(7));
        assert_eq!(told.is_due("web", 5 * DAY, DAY), None);
        assert_eq!(told.is_due("web", 90 * DAY, DAY), None);
        assert_eq!(told.is_due("web", 90 * DAY, 84 * DAY), Some(7));
        assert_eq!(told.is_due("other", 90 * DAY, 84 * DAY), Some(7));
        // A clock that was wrong is put back.
        assert_eq!(told.is_due("web", 90 * DAY, 0), None);
    }
}
