//! From one version to the next and back, with the real binary: what a migration did is there
//! as a whole or not at all, however the box ended.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::TestBox;
use serde_json::json;

/// A box with a database of 100 files that its migration changes in place, one by one.
fn product() -> TestBox {
    let mut b = TestBox::new();
    b.script(
        "migrate",
        "v=$(cat ROOT/etc/version); [ -e ROOT/etc/bad-$v ] && { echo 'no such column'; exit 1; }\n\
         [ -e ROOT/data/db/format ] || { mkdir -p ROOT/data/db; for i in $(seq 100); do echo 'by v1' > ROOT/data/db/$i; done; echo v1 > ROOT/data/db/format; exit 0; }\n\
         for i in $(seq 100); do echo \"by $v\" 1<> ROOT/data/db/$i; sleep 0.002; done; echo $v 1<> ROOT/data/db/format",
    );
    b.unit(
        "migrate.service",
        "[Service]\nType=oneshot\nExecStart=ROOT/bin/migrate\n",
    );
    b.unit(
        "web.service",
        "[Unit]\nAfter=migrate.service\n[Service]\nExecStart=/bin/sleep 1000\n",
    );
    b.put(
        "services",
        "migrate",
        json!({"once": true, "data": ["/data/db"]}),
    );
    version(&mut b, "v1");
    b
}

fn version(b: &mut TestBox, version: &str) {
    b.contract["product"]["version"] = json!(version);
    b.file("/etc/version", &format!("{version}\n"));
}

/// Runs it until all is ready once.
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

/// Content, owner and mode of all below a directory, but the lock.
fn seen(tree: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    let mut out = BTreeMap::new();
    let mut left = vec![tree.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match meta.is_dir() {
            true => {
                left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                Vec::new()
            }
            false => fs::read(&path).unwrap(),
        };
        if !path.ends_with("lock") {
            out.insert(path, (meta.mode(), meta.uid(), content));
        }
    }
    out
}

/// Every file of the database is of this version, and none is missing.
#[track_caller]
fn is_whole(b: &TestBox, version: &str) {
    let format = fs::read_to_string(b.path("/data/db/format")).unwrap();
    assert_eq!(format.trim(), version);
    for at in 1..=100 {
        let text = fs::read_to_string(b.path(&format!("/data/db/{at}"))).unwrap();
        assert_eq!(text, format!("by {version}\n"), "file {at}");
    }
}

#[test]
fn forward_and_back_and_forward() {
    let mut b = product();
    once(&b);
    is_whole(&b, "v1");
    version(&mut b, "v2");
    let told = once(&b);
    assert!(told.contains("upgrade from v1 to v2: copying"), "{told}");
    assert!(told.contains("upgraded from v1 to v2"), "{told}");
    is_whole(&b, "v2");
    b.run(&["rollback", "--list"]).exits(0).says("before v2");
    b.run(&["rollback"]).exits(1).says("add --yes");
    is_whole(&b, "v2");
    b.run(&["rollback", "--yes"]).exits(0).says("acme/test:v1");
    is_whole(&b, "v1");
    version(&mut b, "v1");
    let told = once(&b);
    assert!(!told.contains("upgrade"), "{told}");
    b.run(&["rollback", "v2", "--yes"]).exits(0);
    is_whole(&b, "v2");
    b.run(&["rollback", "v7", "--yes"])
        .exits(78)
        .says("no copy of v7");
}

#[test]
fn scheduled_backups_are_in_no_copy_and_stay_over_an_upgrade_and_back() {
    let mut b = product();
    once(&b);
    b.file("/data/backups/.tiffin-backups", "one.tar.gz\n");
    b.file("/data/backups/one.tar.gz", "a backup");
    let holds_it = |path: PathBuf| path.ends_with("one.tar.gz");
    version(&mut b, "v2");
    once(&b);
    let copies = seen(&b.path("/data/.tiffin/copies"));
    assert!(copies.len() > 100, "{copies:?}");
    assert!(!copies.into_keys().any(holds_it));
    b.run(&["rollback", "--yes"]).exits(0);
    is_whole(&b, "v1");
    assert!(
        !seen(&b.path("/data/.tiffin/copies"))
            .into_keys()
            .any(holds_it)
    );
    let text = fs::read_to_string(b.path("/data/backups/one.tar.gz")).unwrap();
    assert_eq!(text, "a backup");
}

#[test]
fn a_start_that_is_refused_touches_nothing() {
    let mut b = product();
    version(&mut b, "v2");
    b.contract["upgrade"] = json!({"from": "v1", "stops": ["v3"]});
    once(&b);
    let before = seen(&b.path("/data"));
    version(&mut b, "v1");
    b.run(&["start"])
        .exits(78)
        .says("written by v2, which is later")
        .says("rollback");
    version(&mut b, "v4");
    b.run(&["start"])
        .exits(78)
        .says("v3 may not be skipped")
        .says("run acme/test:v3");
    assert_eq!(seen(&b.path("/data")), before);
    version(&mut b, "v3");
    once(&b);
    version(&mut b, "v4");
    once(&b);
    is_whole(&b, "v4");
}

#[test]
fn a_migration_that_fails_gives_the_data_back() {
    let mut b = product();
    once(&b);
    let before = seen(&b.path("/data"));
    version(&mut b, "v2");
    b.file("/etc/bad-v2", "");
    b.run(&["start"])
        .exits(69)
        .says("no such column")
        .says("the upgrade from v1 to v2 failed: the data is as it was before")
        .says("`docker run` of acme/test:v1");
    let mut after = seen(&b.path("/data"));
    after.retain(|path, _| !path.ends_with(".tiffin/copies"));
    assert_eq!(after, before);
    version(&mut b, "v1");
    once(&b);
    is_whole(&b, "v1");
}

/// `kill -9` of all processes at once, as the kernel does when a container is killed.
fn kill(b: &TestBox, running: &common::Running) {
    running.signal("-STOP");
    running.signal("-KILL");
    let root = b.dir.path().to_str().unwrap().to_owned();
    common::wait("processes to be gone", || {
        let mut left = 0;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(line) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            if name.parse::<u32>().is_ok() && String::from_utf8_lossy(&line).contains(&root) {
                left += 1;
                let _ = Command::new("/bin/kill").args(["-KILL", &name]).status();
            }
        }
        (left == 0).then_some(())
    });
}

fn killed_at_random_points(count: u64) {
    let mut b = product();
    once(&b);
    let seed = std::process::id();
    for round in 0..count {
        // Spread over copy, migration and what follows.
        let wait = (u64::from(seed) * 7 + round * 613) % 700;
        version(&mut b, "v2");
        let running = b.start();
        std::thread::sleep(Duration::from_millis(wait));
        kill(&b, &running);
        drop(running);
        if fs::read_to_string(b.path("/data/.tiffin/version")).unwrap() == "v2\n" {
            is_whole(&b, "v2");
            b.run(&["rollback", "v1", "--yes"]).exits(0);
        }
        match round % 2 {
            // Either version makes it whole.
            0 => {
                version(&mut b, "v1");
                once(&b);
                is_whole(&b, "v1");
            }
            _ => {
                once(&b);
                is_whole(&b, "v2");
                b.run(&["rollback", "v1", "--yes"]).exits(0);
                is_whole(&b, "v1");
            }
        }
    }
}

#[test]
fn a_box_killed_within_an_upgrade_loses_nothing() {
    killed_at_random_points(3);
}

#[test]
#[ignore = "long: make test-long"]
fn a_box_killed_at_30_points_within_an_upgrade_loses_nothing() {
    killed_at_random_points(30);
}

/// A small file system for the volume.
struct Disk(PathBuf);

impl Disk {
    fn new(b: &TestBox, size: &str) -> Option<Disk> {
        let path = b.path("/data");
        fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .status();
        let done = mounted.is_ok_and(|status| status.success());
        assert!(
            done || std::env::var_os("CI").is_none(),
            "CI may not mount a tmpfs"
        );
        done.then_some(Disk(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn without_room_for_the_copy_nothing_is_touched() {
    let mut b = product();
    let Some(_disk) = Disk::new(&b, "8m") else {
        return;
    };
    once(&b);
    fs::write(b.path("/data/db/large"), vec![1; 5 << 20]).unwrap();
    let before = seen(&b.path("/data"));
    version(&mut b, "v2");
    b.run(&["start"])
        .exits(73)
        .says("its safety copy on /data takes")
        .says("are free; nothing was touched")
        .says("TIFFIN_UPGRADE_COPY=off");
    assert_eq!(seen(&b.path("/data")), before);
    b.env("TIFFIN_UPGRADE_COPY", "off");
    once(&b);
    is_whole(&b, "v2");
}

#[test]
fn a_disk_that_is_full_in_the_middle_gives_the_data_back() {
    let mut b = product();
    let Some(_disk) = Disk::new(&b, "8m") else {
        return;
    };
    once(&b);
    b.script(
        "migrate",
        "for i in $(seq 50); do echo gone > ROOT/data/db/$i; done; exec head -c 100m /dev/zero > ROOT/data/db/fill",
    );
    version(&mut b, "v2");
    b.run(&["start"])
        .exits(69)
        .says("No space left on device")
        .says("the data is as it was before");
    is_whole(&b, "v1");
    version(&mut b, "v1");
    once(&b);
    is_whole(&b, "v1");
}

#[test]
fn data_that_a_service_cannot_open_is_refused_in_its_words() {
    let mut b = product();
    b.script(
        "check",
        "grep -q v1 $1/db/format || { echo \"format $(cat $1/db/format) needs v3\"; exit 1; }",
    );
    once(&b);
    b.contract["services"]["migrate"]["check_data"] = json!([b.path("/bin/check"), "{{ place }}"]);
    b.contract["variables"] = json!({"place": b.path("/data")});
    once(&b);
    b.file("/data/db/format", "v9\n");
    let before = seen(&b.path("/data"));
    version(&mut b, "v2");
    b.run(&["start"])
        .exits(78)
        .says("migrate cannot open the data")
        .says("format v9 needs v3");
    assert_eq!(seen(&b.path("/data")), before);
}
