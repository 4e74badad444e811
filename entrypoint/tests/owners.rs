//! Whose the data is: put right at each start without a look at what lies below, and given to the
//! same user when a release numbers its users otherwise.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::TestBox;
use serde_json::json;

const OLD: u32 = 1234;
const NEW: u32 = 2345;
const OTHER: u32 = 77;

fn may_give() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var_os("CI").is_none(), "CI runs as root");
    if !root {
        eprintln!("skipped: only root gives files away");
    }
    root
}

/// A box whose database reads its file as a user of its own.
fn product() -> TestBox {
    let mut b = TestBox::new();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(b.dir.path(), open).unwrap();
    b.unit(
        "db.service",
        "[Service]\nUser=mongo\nExecStartPre=/bin/sh -c '[ ! -e ROOT/data/db/a ] || cat ROOT/data/db/a/file >/dev/null'\n\
         ExecStart=/bin/sleep 1000\n",
    );
    b.put("services", "db", json!({"data": ["/data/db"]}));
    release(&mut b, "v1", OLD);
    b
}

/// A release in which the database's user has this number.
fn release(b: &mut TestBox, version: &str, uid: u32) {
    b.contract["product"]["version"] = json!(version);
    let directory = |path: &str| json!({"path": path, "uid": uid, "gid": uid, "mode": "0750"});
    b.contract["volumes"] = json!([{"path": "/data", "directories":
        [directory("/data/db"), directory("/data/files")]}]);
    b.file(
        "/etc/passwd",
        &format!("root:x:0:0::/:/bin/sh\nmongo:x:{uid}:{uid}::/:/bin/sh\n"),
    );
    b.file("/etc/group", &format!("root:x:0:\nmongo:x:{uid}:\n"));
}

fn once(b: &TestBox) -> String {
    let running = b.start();
    common::wait("all to be ready", || {
        let ready = b.run(&["health", "--started"]);
        (ready.code == Some(0)).then_some(())
    });
    let ended = running.stop();
    ended.exits(0);
    ended.err
}

/// Files in directories, of this user.
fn fill(b: &TestBox, directories: usize, uid: u32) {
    for at in 0..directories {
        let directory = b.path(&format!("/data/db/{at}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..50 {
            let path = directory.join(file.to_string());
            fs::write(&path, "x").unwrap();
            chown(&path, Some(uid), Some(uid)).unwrap();
        }
        chown(&directory, Some(uid), Some(uid)).unwrap();
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid())
}

fn below(top: &Path) -> Vec<PathBuf> {
    let mut left = vec![top.to_owned()];
    let mut all = Vec::new();
    while let Some(path) = left.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        all.push(path);
    }
    all
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn the_owner_is_put_right_and_nothing_below_is_read() {
    if !may_give() {
        return;
    }
    let b = product();
    fs::create_dir_all(b.path("/data")).unwrap();
    // Where to read a directory, or to open one, leaves a time.
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "strictatime", "tmpfs"])
        .arg(b.path("/data"))
        .status();
    let done = mount.is_ok_and(|status| status.success());
    assert!(done || std::env::var_os("CI").is_none(), "CI may mount");
    if !done {
        eprintln!("skipped: no file system can be mounted");
        return;
    }
    let _mounted = Mounted(b.path("/data"));
    once(&b);
    fill(&b, 40, OLD);
    let top = b.path("/data/db");
    chown(&top, Some(0), Some(0)).unwrap();
    chown(top.join("3/7"), Some(OTHER), None).unwrap();
    // Of the directory itself, a start looks at some entries, for the clock's sake.
    let all = below(&top).split_off(1);
    let times = || -> Vec<_> {
        let time = |path: &PathBuf| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.atime(), found.atime_nsec())
        };
        all.iter().map(time).collect()
    };
    let before = times();
    let told = once(&b);
    assert!(times() == before, "somebody looked");
    assert!(!told.contains("is given to"), "{told}");
    assert_eq!(owner(&top), (OLD, OLD));
    assert_eq!(owner(&top.join("3/7")).0, OTHER);
    assert_eq!(all.len(), 40 * 51);
    // And that is how a look would have been seen.
    fs::read_dir(top.join("0")).unwrap().count();
    assert!(times() != before);
}

#[test]
fn a_release_that_numbers_its_users_otherwise_opens_the_data() {
    if !may_give() {
        return;
    }
    let mut b = product();
    once(&b);
    fill(&b, 3, OLD);
    let db = b.path("/data/db");
    fs::create_dir(db.join("a")).unwrap();
    fs::write(db.join("a/file"), "content").unwrap();
    fs::write(b.path("/outside"), "").unwrap();
    fs::write(b.path("/data/files/upload"), "").unwrap();
    symlink(b.path("/outside"), db.join("link")).unwrap();
    let mut own = vec![db.join("a"), db.join("a/file"), db.join("link")];
    own.push(b.path("/data/files/upload"));
    for path in &own {
        std::os::unix::fs::lchown(path, Some(OLD), Some(OLD)).unwrap();
    }
    fs::set_permissions(db.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    chown(db.join("1/1"), Some(OTHER), Some(OTHER)).unwrap();
    own.extend([db.clone(), db.join("2"), db.join("2/49")]);
    let outside = b.path("/outside");
    let belongs = |uid: u32| {
        for path in &own {
            assert_eq!(owner(path), (uid, uid), "{}", path.display());
        }
        assert_eq!(owner(&db.join("1/1")).0, OTHER);
        assert_eq!(owner(&outside).0, 0);
    };
    belongs(OLD);

    release(&mut b, "v2", NEW);
    let told = once(&b);
    for path in ["/data/db", "/data/files"] {
        let wanted =
            format!("{path} is given to mongo, whose number was {OLD} and is {NEW}:{NEW} now");
        assert!(told.contains(&wanted), "{told}");
    }
    belongs(NEW);
    let told = once(&b);
    assert!(!told.contains("is given"), "once is enough: {told}");

    // Back: what is a hard link to the copy has the new number there too.
    b.run(&["rollback", "--yes"]).exits(0);
    release(&mut b, "v1", OLD);
    once(&b);
    belongs(OLD);

    // Killed in the middle: some are given, and both numbers are remembered.
    let note = format!("mongo {NEW}:{NEW} {OLD}:{OLD}");
    let note = json!({"/data/db": note, "/data/files": note}).to_string();
    b.file("/data/.tiffin/owners.json", &note);
    for path in [db.join("2"), db.join("2/49"), db.join("a")] {
        chown(path, Some(NEW), Some(NEW)).unwrap();
    }
    once(&b);
    belongs(OLD);

    // Data of a box that remembered nothing yet.
    fs::remove_file(b.path("/data/.tiffin/owners.json")).unwrap();
    release(&mut b, "v3", NEW);
    let told = once(&b);
    assert!(told.contains("/data/db is given to mongo"), "{told}");
    belongs(NEW);
}
