//! When git last saw a change of what a layer is made from: to this the times of its files
//! are clamped.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    process::Command,
};

use crate::variables;

/// How many commits are looked through for the one that changed a variable.
const COMMITS: &str = "64";

/// Seconds since 1970 of the last commit that touched one of the files, which lie in `dirs`.
pub fn of_files(dirs: &[PathBuf], files: &[PathBuf]) -> Option<u64> {
    let mut newest = None;
    for dir in dirs {
        let below: Vec<&Path> = files
            .iter()
            .filter_map(|file| file.strip_prefix(dir).ok())
            .collect();
        // A command line has its limit.
        for some in below.chunks(1000) {
            let mut command = Command::new("git");
            command.arg("-C").arg(dir).arg("--literal-pathspecs");
            command.args(["log", "-1", "--format=%ct", "--"]);
            command.args(some.iter().map(|path| match path.as_os_str().is_empty() {
                true => Path::new("."),
                false => path,
            }));
            newest = newest.max(date_of(&mut command));
        }
    }
    newest
}

/// Of the last commit that touched what is copied.
pub fn of_copy(from: &Path, ignored: &BTreeSet<PathBuf>) -> Option<u64> {
    let mut command = Command::new("git");
    let dir = if from.is_dir() { from } else { from.parent()? };
    command.arg("-C").arg(dir);
    command.args(["log", "-1", "--format=%ct", "--"]);
    if from.is_dir() {
        command.arg(".");
        // A command line has its limit; what no commit touches does no harm.
        for below in ignored
            .iter()
            .filter_map(|path| path.strip_prefix(from).ok())
            .take(2000)
        {
            command.arg(format!(":(exclude){}", below.display()));
        }
    } else {
        command.arg(from.file_name()?);
    }
    date_of(&mut command)
}

/// What git answers to `%ct`, if it does.
fn date_of(command: &mut Command) -> Option<u64> {
    let out = command.output().ok()?;
    String::from_utf8_lossy(&out.stdout).trim().parse().ok()
}

/// What git knows of files of variables, asked for once.
#[derive(Default)]
pub struct History {
    /// By file, the newest first: commit and seconds since 1970.
    commits: HashMap<PathBuf, Vec<(String, u64)>>,
    contents: HashMap<(PathBuf, String), Option<Vec<u8>>>,
}

impl History {
    /// Seconds since 1970 of the commit that gave what is used of the file its value.
    pub fn of_used(&mut self, file: &Path, used: &BTreeSet<String>) -> Option<u64> {
        let commits = self.commits.entry(file.to_owned());
        let commits = commits.or_insert_with(|| commits_of(file)).clone();
        let mut commits = commits.into_iter();
        let (newest, mut date) = commits.next()?;
        let Some(now) = self.digest(file, newest, used) else {
            return Some(date);
        };
        for (commit, before) in commits {
            if self.digest(file, commit, used).as_ref() != Some(&now) {
                break;
            }
            date = before;
        }
        Some(date)
    }

    fn digest(&mut self, file: &Path, commit: String, used: &BTreeSet<String>) -> Option<String> {
        let key = (file.to_owned(), commit);
        let content = self
            .contents
            .entry(key)
            .or_insert_with_key(|(file, commit)| {
                let name = file.file_name()?.to_str()?;
                let mut command = git(file.parent()?);
                let out = command
                    .args(["show", &format!("{commit}:./{name}")])
                    .output()
                    .ok()?;
                out.status.success().then_some(out.stdout)
            });
        Some(variables::digest(content.as_ref()?, used))
    }
}

fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).arg("--literal-pathspecs");
    command
}

fn commits_of(file: &Path) -> Vec<(String, u64)> {
    let (Some(dir), Some(name)) = (file.parent(), file.file_name()) else {
        return Vec::new();
    };
    let mut command = git(dir);
    command
        .args(["log", "-n", COMMITS, "--format=%H %ct", "--"])
        .arg(name);
    let out = command.output().map(|out| out.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&out);
    let lines = text.lines().filter_map(|line| {
        let (commit, date) = line.split_once(' ')?;
        Some((commit.to_owned(), date.parse().ok()?))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_of_variables_is_as_old_as_what_is_used_of_it() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("all.yml");
        let run = |date: &str, arguments: &[&str]| {
            let out = Command::new("git")
                .args(["-c", "user.name=a", "-c", "user.email=a@b.test"])
                .args(arguments)
                .current_dir(place.path())
                .env("GIT_COMMITTER_DATE", date)
                .env("GIT_AUTHOR_DATE", date)
                .output()
                .unwrap();
            assert!(out.status.success(), "{out:?}");
        };
        run("1700000000 +0000", &["init", "-q"]);
        for (date, text) in [
            ("1700001000 +0000", "a: 1\nb: 1\n"),
            ("1700002000 +0000", "a: 2\nb: 1\n"),
            ("1700003000 +0000", "a: 2\nb: 2\n"),
            ("1700004000 +0000", "a: 2\nb: 3\n"),
        ] {
            fs::write(&file, text).unwrap();
            run(date, &["add", "all.yml"]);
            run(date, &["commit", "-q", "-m", "x"]);
        }
        let mut history = History::default();
        let mut of = |names: &[&str]| {
            let used = names.iter().map(|name| (*name).to_owned()).collect();
            history.of_used(&file, &used)
        };
        assert_eq!(of(&["a"]), Some(1700002000));
        assert_eq!(of(&["b"]), Some(1700004000));
        assert_eq!(of(&["c"]), Some(1700001000));
        assert_eq!(
            history.of_used(&place.path().join("none"), &BTreeSet::new()),
            None
        );
    }
}
