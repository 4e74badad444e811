//! The steps of a layer for which there is no playbook: a command line that runs in the
//! sandbox, and files of the build machine that are copied into it.
//!
//! What is copied belongs to root, executables have 0755 and everything else 0644 unless the
//! recipe says otherwise: neither the owner nor the umask of a checkout shows in a layer.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Stdio,
};

use recipe::{Copy, Layer, Step};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, mkdirat, openat, symlinkat, unlinkat,
};

use crate::{
    Progress,
    error::{Error, Result},
    host::Host,
    interrupt,
    sandbox::Sandbox,
};

/// How much of a failing command's output is kept.
const OUTPUT_LINES: usize = 200;

/// Does what the layer's steps say, in their order.
pub struct Kitchen<'a> {
    pub sandbox: &'a Sandbox,
    pub host: &'a Host,
    /// Files that are no input, and are not copied.
    pub ignored: &'a BTreeSet<PathBuf>,
    pub progress: &'a dyn Progress,
}

impl Kitchen<'_> {
    pub fn layer(&self, layer: &Layer) -> Result<()> {
        for step in &layer.steps {
            interrupt::check()?;
            match step {
                Step::Run(command) => self.run(&layer.name, command)?,
                Step::Copy(copy) => self.copy(&layer.name, copy)?,
            }
        }
        Ok(())
    }

    fn run(&self, layer: &str, text: &str) -> Result<()> {
        let shown = text.trim().lines().next().unwrap_or_default();
        self.progress.task(&format!("run: {shown}"));
        // One stream, so that what was said last stands last.
        let script = format!("exec 2>&1\ncd /\n{text}\n");
        let mut child = self
            .sandbox
            .command(&self.host.environment, &["/bin/sh", "-ec", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: "nsenter".into(),
                source,
            })?;
        let _group = interrupt::Group::of(&child);
        let mut last = VecDeque::new();
        let stdout = BufReader::new(child.stdout.take().expect("piped above"));
        for line in stdout.split(b'\n').map_while(io::Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.progress.output(&line);
            if last.len() == OUTPUT_LINES {
                last.pop_front();
            }
            last.push_back(line);
        }
        let status = child.wait().map_err(|source| Error::Spawn {
            program: "nsenter".into(),
            source,
        })?;
        interrupt::check()?;
        if status.success() {
            return Ok(());
        }
        last.push_back(format!("it ended with {status}"));
        Err(Error::Step {
            layer: layer.to_owned(),
            step: format!("run: {shown}"),
            output: Vec::from(last).join("\n"),
            hint: None,
        })
    }

    fn copy(&self, layer: &str, copy: &Copy) -> Result<()> {
        let from = copy.from.display();
        self.progress.task(&format!("copy: {from} to {}", copy.to));
        let fail = |reason: String| Error::Step {
            layer: layer.to_owned(),
            step: format!("copy: {from} to {}", copy.to),
            output: reason,
            hint: None,
        };
        let owner = self.owner(copy.owner.as_deref()).map_err(fail)?;
        let target = Target {
            owner,
            mode: copy.mode,
            ignored: self.ignored,
        };
        let found = fs::metadata(&copy.from).map_err(Error::io("read", &copy.from))?;
        let name = copy.from.file_name().unwrap_or_default();
        let (directory, last) = match copy.to.rsplit_once('/') {
            _ if found.is_dir() => (copy.to.as_str(), None),
            Some((directory, "")) => (directory, Some(name.to_owned())),
            Some((directory, last)) => (directory, Some(last.into())),
            None => return Err(fail("it is no absolute path".into())),
        };
        let place = directories(self.sandbox.root(), directory, owner)
            .map_err(|error| fail(format!("cannot make {directory}: {error}")))?;
        match last {
            // What the recipe itself names is followed, if it is a link.
            Some(last) => {
                let real = copy
                    .from
                    .canonicalize()
                    .map_err(Error::io("read", &copy.from))?;
                target.put(place.as_fd(), Path::new(&last), &real)
            }
            None => target.tree(place.as_fd(), &copy.from),
        }
        .map_err(|(path, error)| fail(format!("{}: {error}", path.display())))
    }

    /// `user[:group]`, names as the box has them.
    fn owner(&self, text: Option<&str>) -> std::result::Result<(Uid, Gid), String> {
        let Some(text) = text else {
            return Ok((Uid::ROOT, Gid::ROOT));
        };
        let read = |path: &str| {
            let text = self.sandbox.read(path).unwrap_or_default();
            String::from_utf8_lossy(&text).into_owned()
        };
        let (uid, gid) = owner(text, &read("/etc/passwd"), &read("/etc/group"))?;
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }
}

/// passwd(5) and group(5). Without a group, a user's own; of a number, the same number.
fn owner(text: &str, passwd: &str, group: &str) -> std::result::Result<(u32, u32), String> {
    // The name's number, and that of its group.
    let find = |file: &str, name: &str| -> Option<(u32, u32)> {
        let line = file
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let fields: Vec<&str> = line.split(':').collect();
        let number = fields.get(2)?.parse().ok()?;
        let second = fields.get(3).and_then(|field| field.parse().ok());
        Some((number, second.unwrap_or(number)))
    };
    let (user, of) = text.split_once(':').unwrap_or((text, ""));
    let (uid, own) = match user.parse() {
        Ok(number) => (number, number),
        Err(_) => find(passwd, user).ok_or(format!("the box has no user `{user}`"))?,
    };
    let gid = match (of, of.parse()) {
        ("", _) => own,
        (_, Ok(number)) => number,
        _ => {
            find(group, of)
                .ok_or(format!("the box has no group `{of}`"))?
                .0
        }
    };
    Ok((uid, gid))
}

/// Opens a directory of the box and makes what is missing on the way. Links resolve inside.
fn directories(root: BorrowedFd, path: &str, (uid, gid): (Uid, Gid)) -> io::Result<OwnedFd> {
    let mut done = String::from("/");
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let parent = crate::sandbox::open_in(root, &done, OFlags::PATH | OFlags::DIRECTORY)?;
        done = format!("{}/{part}", done.trim_end_matches('/'));
        match mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                chownat(
                    &parent,
                    part,
                    Some(uid),
                    Some(gid),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    crate::sandbox::open_in(root, &done, OFlags::RDONLY | OFlags::DIRECTORY)
}

struct Target<'a> {
    owner: (Uid, Gid),
    /// Of files.
    mode: Option<u32>,
    ignored: &'a BTreeSet<PathBuf>,
}

type Done = std::result::Result<(), (PathBuf, io::Error)>;

impl Target<'_> {
    /// What is in the directory `from`, into the one that is open.
    fn tree(&self, into: BorrowedFd, from: &Path) -> Done {
        let at = |error| (from.to_owned(), error);
        let mut entries = Vec::new();
        for entry in fs::read_dir(from).map_err(at)? {
            entries.push(entry.map_err(at)?.path());
        }
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap_or_default();
            if name == ".git" || self.ignored.contains(&path) {
                continue;
            }
            self.put(into, Path::new(name), &path)?;
        }
        Ok(())
    }

    /// One thing under a name of the directory that is open, replacing what is no directory.
    fn put(&self, into: BorrowedFd, name: &Path, from: &Path) -> Done {
        let at = |error: io::Error| (from.to_owned(), error);
        let (uid, gid) = self.owner;
        let found = fs::symlink_metadata(from).map_err(at)?;
        let free = || match unlinkat(into, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(at(error.into())),
        };
        if found.is_dir() {
            let made = mkdirat(into, name, Mode::from_raw_mode(0o755));
            match made {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(at(error.into())),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = openat(into, name, flags, Mode::empty()).map_err(|e| at(e.into()))?;
            if made.is_ok() {
                fchown(&directory, Some(uid), Some(gid)).map_err(|e| at(e.into()))?;
            }
            return self.tree(directory.as_fd(), from);
        }
        if found.is_symlink() {
            let link = fs::read_link(from).map_err(at)?;
            free()?;
            symlinkat(link, into, name).map_err(|e| at(e.into()))?;
            return chownat(into, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| at(e.into()));
        }
        if !found.is_file() {
            return Err(at(io::Error::other(
                "it is neither file, directory nor link",
            )));
        }
        let usual = match found.permissions().mode() & 0o100 {
            0 => 0o644,
            _ => 0o755,
        };
        free()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            openat(into, name, flags, Mode::from_raw_mode(0o600)).map_err(|e| at(e.into()))?;
        let mut file = File::from(file);
        let mut source = File::open(from).map_err(at)?;
        io::copy(&mut source, &mut file).map_err(at)?;
        // In this order: a change of owner takes the setuid bit away.
        fchown(&file, Some(uid), Some(gid)).map_err(|e| at(e.into()))?;
        fchmod(&file, Mode::from_raw_mode(self.mode.unwrap_or(usual))).map_err(|e| at(e.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_looked_up_in_the_box() {
        let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/false\nbad:x\n";
        let group = "root:x:0:\nstaff:x:50:web\n";
        let of = |text| owner(text, passwd, group);
        assert_eq!(of("web"), Ok((33, 34)));
        assert_eq!(of("web:staff"), Ok((33, 50)));
        assert_eq!(of("1000"), Ok((1000, 1000)));
        assert_eq!(of("1000:0"), Ok((1000, 0)));
        assert_eq!(of("bad"), Err("the box has no user `bad`".into()));
        assert_eq!(of("web:wheel"), Err("the box has no group `wheel`".into()));
    }

    /// docker CVE-2018-15664, buildkit CVE-2024-23651: a program of the box turns a directory
    /// into a link while files are copied into it.
    #[test]
    fn cve_2018_15664_a_link_that_comes_and_goes_never_leads_out() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let place = tempfile::tempdir().unwrap();
        let (from, root) = (place.path().join("from"), place.path().join("root"));
        let outside = place.path().join("outside");
        for dir in [&from, &root, &outside, &root.join("real")] {
            fs::create_dir(dir).unwrap();
        }
        fs::create_dir(from.join("deep")).unwrap();
        fs::write(from.join("deep/file"), "file").unwrap();
        let done = AtomicBool::new(false);
        let me = (rustix::process::geteuid(), rustix::process::getegid());
        let ignored = BTreeSet::new();
        let (mut there, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for to in [outside.as_path(), Path::new("../outside"), Path::new("/")] {
                        let _ = std::os::unix::fs::symlink(to, root.join("way"));
                        let _ = fs::remove_file(root.join("way"));
                        let _ = fs::rename(root.join("real"), root.join("way"));
                        let _ = fs::rename(root.join("way"), root.join("real"));
                    }
                }
            });
            let target = Target {
                owner: me,
                mode: None,
                ignored: &ignored,
            };
            let fd = File::open(&root).unwrap();
            for _ in 0..2000 {
                let copied = directories(fd.as_fd(), "/way/in", me)
                    .map(|place| target.tree(place.as_fd(), &from).is_ok());
                match copied {
                    Ok(true) => there += 1,
                    _ => refused += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(there > 0, "{there} went well, {refused} did not");
    }

    #[test]
    fn what_is_copied_stays_in_the_box_and_shows_nothing_of_the_checkout() {
        let place = tempfile::tempdir().unwrap();
        let (from, root) = (place.path().join("from"), place.path().join("root"));
        let outside = place.path().join("outside");
        fs::create_dir_all(from.join("bin")).unwrap();
        fs::create_dir_all(root.join("srv")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(from.join("bin/tool"), "tool").unwrap();
        fs::set_permissions(from.join("bin/tool"), PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(from.join("note"), "note").unwrap();
        fs::set_permissions(from.join("note"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(from.join("draft"), "draft").unwrap();
        std::os::unix::fs::symlink("/etc/shadow", from.join("link")).unwrap();
        // The box's own links lead into the box, whatever they say.
        std::os::unix::fs::symlink("/srv", root.join("way")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("srv/note")).unwrap();
        let ignored = BTreeSet::from([from.join("draft")]);
        let me = (rustix::process::geteuid(), rustix::process::getegid());
        let target = Target {
            owner: me,
            mode: None,
            ignored: &ignored,
        };
        let fd = File::open(&root).unwrap();
        let place = directories(fd.as_fd(), "/way/deep/../deep", me);
        assert!(place.is_ok());
        let place = directories(fd.as_fd(), "/way", me).unwrap();
        target.tree(place.as_fd(), &from).unwrap();
        let mode = |name: &str| {
            fs::symlink_metadata(root.join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777
        };
        assert_eq!((mode("srv/bin/tool"), mode("srv/note")), (0o755, 0o644));
        assert_eq!(fs::read_to_string(root.join("srv/note")).unwrap(), "note");
        assert_eq!(
            fs::read_link(root.join("srv/link")).unwrap(),
            Path::new("/etc/shadow")
        );
        assert!(!root.join("srv/draft").exists());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // A link of the box where a directory is copied is not walked through.
        std::os::unix::fs::symlink(&outside, root.join("bin")).unwrap();
        assert!(target.tree(fd.as_fd(), &from).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
