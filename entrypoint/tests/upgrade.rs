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

    /// In a file, of a kind that shares content between files; `None` where that cannot be, which CI
    /// must be able to.
    fn sharing(b: &TestBox, make: &[&str]) -> Option<Disk> {
        let (path, image) = (b.path("/data"), b.path("/disk"));
        fs::create_dir_all(&path).unwrap();
        fs::File::create(&image)
            .unwrap()
            .set_len(400 << 20)
            .unwrap();
        let run = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
        let made = run(Command::new(make[0]).args(&make[1..]).arg(&image))
            && run(Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&path));
        assert!(
            made || std::env::var_os("CI").is_none(),
            "CI must have {} and mount what it makes: ci/setup test",
            make[0]
        );
        if !made {
            eprintln!("SKIPPED: {} or a loop mount cannot be had here", make[0]);
        }
        made.then_some(Disk(path))
    }

    /// Bytes that are free, once all is written.
    fn free(&self) -> u64 {
        Command::new("sync")
            .arg("-f")
            .arg(&self.0)
            .status()
            .unwrap();
        let found = rustix::fs::statvfs(&self.0).unwrap();
        found.f_bavail * found.f_frsize
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
    let refused = b.run(&["start"]);
    // Five of data, a tenth and one for what the file system notes; of eight, five are taken.
    let told = refused.err.split_once("its safety copy on /data takes ");
    let (needed, rest) = told.unwrap().1.split_once(" MiB, and ").unwrap();
    let (free, _) = rest.split_once(" MiB are free").unwrap();
    let (needed, free): (f64, f64) = (needed.parse().unwrap(), free.parse().unwrap());
    assert!((6.4..7.6).contains(&needed), "{refused:#?}");
    assert!((1.5..2.9).contains(&free), "{refused:#?}");
    refused
        .exits(73)
        .says("are free; nothing was touched")
        .says("TIFFIN_UPGRADE_COPY=off");
    assert_eq!(seen(&b.path("/data")), before);
    b.env("TIFFIN_UPGRADE_COPY", "off");
    once(&b);
    is_whole(&b, "v2");
}

/// More data than there is room for another time.
fn the_copy_takes_no_room(make: &[&str]) {
    let mut b = product();
    let Some(disk) = Disk::sharing(&b, make) else {
        return;
    };
    once(&b);
    let mut content = Vec::new();
    while content.len() < 16 << 20 {
        let at = content.len() as u64;
        content.extend_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    let data = b.path("/data/db");
    let large = |at: u32| data.join(format!("large-{at}"));
    for at in 0..12 {
        fs::write(large(at), &content).unwrap();
    }
    let before = disk.free();
    assert!(before < 190 << 20, "{before}");
    // What is there is changed in place, in the middle.
    b.script(
        "migrate",
        "v=$(cat ROOT/etc/version); for i in $(seq 100); do echo \"by $v\" 1<> ROOT/data/db/$i; done; \
         echo changed | dd of=ROOT/data/db/large-3 bs=1 seek=1000000 conv=notrunc status=none; echo $v 1<> ROOT/data/db/format",
    );
    version(&mut b, "v2");
    let told = once(&b);
    assert!(told.contains("upgraded from v1 to v2"), "{told}");
    is_whole(&b, "v2");
    assert_ne!(fs::read(large(3)).unwrap(), content);
    let taken = before.saturating_sub(disk.free());
    assert!(taken < 16 << 20, "{taken} of 192 MiB");
    b.run(&["rollback", "--yes"]).exits(0);
    is_whole(&b, "v1");
    for at in 0..12 {
        assert!(fs::read(large(at)).unwrap() == content, "{at}");
    }
}

#[test]
fn on_xfs_the_copy_takes_no_room() {
    the_copy_takes_no_room(&["mkfs.xfs", "-q", "-m", "reflink=1"]);
}

#[test]
fn on_btrfs_the_copy_takes_no_room() {
    the_copy_takes_no_room(&["mkfs.btrfs", "-q"]);
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

/// The process that copies the data, found when it has begun to, and held still.
fn held(b: &TestBox) -> u32 {
    let wanted = format!("{}\0rollback\0--before\0", b.dir.path().display());
    let end = std::time::Instant::now() + Duration::from_secs(20);
    let copies = b.path("/data/.tiffin/copies");
    while std::time::Instant::now() < end {
        let mut all = fs::read_dir(&copies).into_iter().flatten().flatten();
        if !all.any(|copy| copy.path().join("files/db").exists()) {
            continue;
        }
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let pid = entry.file_name().to_string_lossy().parse();
            if let (true, Ok(pid)) = (line.ends_with(wanted.as_bytes()), pid) {
                signal(pid, "-STOP");
                return pid;
            }
        }
    }
    panic!("nothing is copied");
}

fn signal(pid: u32, signal: &str) {
    let mut kill = Command::new("/bin/kill");
    kill.args([signal, &pid.to_string()]);
    assert!(kill.status().unwrap().success());
}

/// The status code; `None` while nobody listens.
fn asked(address: &str, path: &str) -> Option<u16> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

#[test]
fn a_box_that_copies_is_live_and_not_ready_and_stops_when_asked() {
    let mut b = product();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    b.env("TIFFIN_HTTP", &address);
    // Here to flush is not to wait for what others write.
    let Some(_disk) = Disk::new(&b, "200m") else {
        return;
    };
    once(&b);
    for at in 0..12_000 {
        fs::write(b.path(&format!("/data/db/more-{at}")), "x").unwrap();
    }
    let before = seen(&b.path("/data"));
    version(&mut b, "v2");
    let running = b.start();
    let copying = held(&b);
    let what = "upgrade from v1 to v2: copying the data";
    b.run(&["health", "--live"]).exits(0).says(what);
    b.run(&["health", "--ready"]).exits(1).says(what);
    b.run(&["health", "--started"]).exits(1).says(what);
    b.run(&["health"]).exits(1).says(what);
    b.run(&["status"]).exits(0).says("upgrade").says(what);
    assert_eq!(asked(&address, "/livez"), Some(200));
    assert_eq!(asked(&address, "/readyz"), Some(503));
    assert_eq!(asked(&address, "/startupz"), Some(503));
    let backup = b.path("/backup.tar.gz");
    b.run(&["backup", "-o", backup.to_str().unwrap()])
        .exits(75)
        .says("an upgrade of the data is under way");
    // As `docker stop` does.
    let began = std::time::Instant::now();
    running.signal("-TERM");
    std::thread::sleep(Duration::from_millis(200));
    signal(copying, "-CONT");
    let ended = running.end();
    ended.exits(0).says("the data is as it was");
    assert!(began.elapsed() < Duration::from_secs(5), "{began:?}");
    let copies = b.path("/data/.tiffin/copies");
    assert!(fs::read_dir(&copies).unwrap().count() == 1, "half of it");
    let mut after = seen(&b.path("/data"));
    // The refused backup has left its place.
    after.retain(|path, _| !path.starts_with(&copies) && !path.ends_with(".tiffin/backup"));
    assert_eq!(after, before);
    // What was half-made is gone, whichever version starts.
    version(&mut b, "v1");
    once(&b);
    is_whole(&b, "v1");
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 0);

    // Whoever asks while the one supervisor follows the other is answered.
    version(&mut b, "v2");
    let over = std::sync::atomic::AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = Vec::new();
            let end = std::time::Instant::now() + Duration::from_secs(60);
            while !over.load(std::sync::atomic::Ordering::Relaxed)
                && std::time::Instant::now() < end
            {
                answers.push(asked(&address, "/livez"));
                std::thread::sleep(Duration::from_millis(1));
            }
            answers
        });
        let running = b.start();
        common::wait("all to be ready", || {
            let ready = b.run(&["health", "--started"]);
            (ready.code == Some(0)).then_some(())
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let answers = asking.join().unwrap();
        running.stop().exits(0).says("upgraded from v1 to v2");
        answers
    });
    let answered = answers.iter().skip_while(|answer| answer.is_none());
    let answered: Vec<_> = answered.collect();
    assert!(answered.len() > 20, "{answers:?}");
    assert!(answered.iter().all(|a| **a == Some(200)), "{answers:?}");
    is_whole(&b, "v2");
}
