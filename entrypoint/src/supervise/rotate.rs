//! Log files that services insist on: those of the recipe's `log_files` are rotated when they
//! have grown too large.
//!
//! PID 1 looks at sizes alone, and wakes up for that only while there are such files. What is
//! renamed and copied is by a process of its own, as the service's user: in a directory that
//! the service may write to, links can lead anywhere.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::time::{Duration, Instant};

use super::{Role, Supervisor};
use crate::exit::Code;
use crate::log::{fail, say};
use crate::sys::{self, Ended};

/// As which this binary is called to rotate one.
pub const VERB: &str = "rotate-log-file";
/// Between looks at files that hardly grow.
const CALM: Duration = Duration::from_secs(60);
/// Before the first look, and between looks at a file that will soon be full.
const SOON: Duration = Duration::from_secs(1);

/// When sizes are looked at next, and what they were when they were looked at last.
#[derive(Default)]
pub struct Sizes {
    due: Option<Instant>,
    looked: Option<Instant>,
}

impl Sizes {
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }
}

impl Supervisor<'_> {
    pub(super) fn rotation_timers(&mut self, now: Instant) {
        let there = self.slots.iter().any(|s| !s.planned.log_files.is_empty());
        if !there {
            self.sizes.due = None;
            return;
        }
        let due = *self.sizes.due.get_or_insert(now + SOON);
        if due > now {
            return;
        }
        let since = self.sizes.looked.replace(now).unwrap_or(now);
        let elapsed = now.duration_since(since).as_secs_f64();
        let mut next = CALM;
        for at in 0..self.slots.len() {
            for index in 0..self.slots[at].planned.log_files.len() {
                let slot = &mut self.slots[at];
                let file = &mut slot.planned.log_files[index];
                let size = fs::symlink_metadata(&file.path)
                    .ok()
                    .filter(fs::Metadata::is_file)
                    .map_or(0, |meta| meta.len());
                let before = std::mem::replace(&mut file.size, size);
                let grown = size.saturating_sub(before);
                if size > file.max {
                    self.rotate(at, index);
                    // Full at the last look too: it could not be rotated.
                    if before <= self.slots[at].planned.log_files[index].max {
                        next = SOON;
                    }
                } else if grown > 0 {
                    // Half of the time that is left if it goes on like this.
                    let left = (file.max - size) as f64 / grown as f64;
                    next = next.min(Duration::from_secs_f64((elapsed * left / 2.0).min(60.0)));
                }
            }
        }
        self.sizes.due = Some(now + next.max(SOON));
    }

    fn rotate(&mut self, at: usize, index: usize) {
        let role = Role::Rotation(index);
        let slot = &self.slots[at];
        let file = &slot.planned.log_files[index];
        // By another process of the same program, or still.
        let runs = self.processes.values().any(|(at, role)| match role {
            Role::Rotation(index) => {
                let other = self.slots[*at].planned.log_files.get(*index);
                other.is_some_and(|other| other.path == file.path)
            }
            _ => false,
        });
        if runs {
            return;
        }
        let how = match file.signal {
            Some(_) => "move",
            None => "copy",
        };
        let keep = file.keep.to_string();
        let words = ["/proc/self/exe", VERB, &file.path, &keep, how].map(str::to_owned);
        match slot.spawn_helper(&words) {
            Ok(pid) => {
                self.seen = None;
                self.processes
                    .insert(pid.as_raw_nonzero().get(), (at, role));
            }
            Err(error) => fail(&format!("cannot rotate {}: {error}", file.path)),
        }
    }

    /// The file has its number now, or the process has said why not.
    pub(super) fn rotated(&mut self, at: usize, index: usize, ended: Ended) {
        // A reload may have taken it away.
        let Some(file) = self.slots[at].planned.log_files.get_mut(index) else {
            return;
        };
        if ended == Ended::Exit(0) {
            file.size = 0;
            let slot = &self.slots[at];
            let file = &slot.planned.log_files[index];
            say(&format!("{}: {} is rotated", slot.name(), file.path));
            for slot in &self.slots {
                let mut files = slot.planned.log_files.iter();
                let same = files.find(|other| other.path == file.path);
                if let (Some(signal), Some(main)) = (same.and_then(|f| f.signal), slot.main) {
                    sys::kill(main, signal);
                }
            }
        }
    }
}

/// `path`, how many are kept, and whether the file is moved (the service opens a new one) or
/// copied.
pub fn run(words: &[String]) -> Code {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [path, keep, how] = words[..] else {
        return Code::Usage;
    };
    let done = keep
        .parse()
        .map_err(io::Error::other)
        .and_then(|keep| match how {
            "move" => shift(path, keep),
            _ => copy(path, keep),
        });
    match done {
        Ok(()) => Code::Ok,
        Err(error) => {
            // Among the service's own lines, as an error.
            eprintln!("<3>cannot rotate {path}: {error}");
            Code::Failed
        }
    }
}

/// `path` becomes `path.1`, that `path.2`, up to `keep`.
pub fn shift(path: &str, keep: u32) -> io::Result<()> {
    make_room(path, keep)?;
    match keep {
        0 => fs::remove_file(path),
        _ => fs::rename(path, format!("{path}.1")),
    }
}

fn make_room(path: &str, keep: u32) -> io::Result<()> {
    for number in (1..keep).rev() {
        let renamed = fs::rename(format!("{path}.{number}"), format!("{path}.{}", number + 1));
        match renamed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The file itself stays, as the service has it open, and is emptied. What is written between
/// the end of the copy and that is lost.
fn copy(path: &str, keep: u32) -> io::Result<()> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = File::options()
        .read(true)
        .write(true)
        .custom_flags(nofollow)
        .open(path)?;
    if keep == 0 {
        return file.set_len(0);
    }
    let meta = file.metadata()?;
    let unfinished = format!("{path}.new");
    let _ = fs::remove_file(&unfinished);
    let mut new = File::options()
        .write(true)
        .create_new(true)
        .mode(meta.mode() & 0o777)
        .open(&unfinished)?;
    // Where the service's user may: its group reads logs.
    let _ = fchown(&new, Some(meta.uid()), Some(meta.gid()));
    let copied = pour(&mut file, &mut new)
        .and_then(|()| make_room(path, keep))
        .and_then(|()| fs::rename(&unfinished, format!("{path}.1")));
    if copied.is_err() {
        let _ = fs::remove_file(&unfinished);
        return copied;
    }
    // What came meanwhile.
    pour(&mut file, &mut new)?;
    file.set_len(0)
}

fn pour(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut buffer = [0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_and_the_oldest_goes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("app.log");
        let path = path.to_str().unwrap();
        let there = |number: u32| fs::read_to_string(format!("{path}.{number}")).ok();
        for (how, turn) in [("move", 0), ("copy", 10)] {
            for n in 0..5 {
                fs::write(path, format!("{}", turn + n)).unwrap();
                let words = [path, "3", how].map(str::to_owned);
                assert_eq!(run(&words), Code::Ok);
                match how {
                    "move" => assert!(!fs::exists(path).unwrap()),
                    _ => assert_eq!(fs::read_to_string(path).unwrap(), ""),
                }
            }
            let kept = [1, 2, 3, 4].map(there);
            let wanted = [4, 3, 2].map(|n| Some((turn + n).to_string()));
            assert_eq!(kept[..3], wanted);
            assert_eq!(kept[3], None);
            assert!(!fs::exists(format!("{path}.new")).unwrap());
        }
        // Kept are none: it is emptied.
        for how in ["move", "copy"] {
            fs::write(path, "x").unwrap();
            assert_eq!(run(&[path, "0", how].map(str::to_owned)), Code::Ok);
            assert_eq!(fs::read_to_string(path).unwrap_or_default(), "");
        }
        assert_eq!(there(1).unwrap(), "14");
    }

    #[test]
    fn a_link_is_not_followed_and_what_cannot_be_copied_stays() {
        let home = tempfile::tempdir().unwrap();
        let (secret, path) = (home.path().join("secret"), home.path().join("app.log"));
        fs::write(&secret, "mine").unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(run(&[path, "3", "copy"].map(str::to_owned)), Code::Failed);
        assert_eq!(fs::read_to_string(&secret).unwrap(), "mine");
        assert!(!fs::exists(format!("{path}.1")).unwrap());
        fs::remove_file(path).unwrap();
        fs::write(path, "lines").unwrap();
        // Nothing can have that name.
        fs::create_dir_all(format!("{path}.1/x")).unwrap();
        assert_eq!(run(&[path, "1", "copy"].map(str::to_owned)), Code::Failed);
        assert_eq!(fs::read_to_string(path).unwrap(), "lines");
        assert!(!fs::exists(format!("{path}.new")).unwrap());
    }
}
