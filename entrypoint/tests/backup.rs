//! Backups and restores on volumes in directories: round trips, damage, refusals, kills.

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Ended, TestBox};
use serde_json::json;

/// Everything below a directory, as `ls -l` would tell it, with contents; without what is of
/// this volume alone.
fn tree(top: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut queue = vec![top.to_owned()];
    while let Some(next) = queue.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(top).unwrap().to_owned();
            if name == Path::new(".tiffin/lock") || name == Path::new(".tiffin/backup") {
                continue;
            }
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_dir() {
                queue.push(path.clone());
                "directory".to_owned()
            } else if meta.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else {
                format!(
                    "{} names, {:?}",
                    meta.nlink(),
                    String::from_utf8_lossy(&fs::read(&path).unwrap())
                )
            };
            let time = if name.starts_with(".tiffin") {
                0
            } else {
                meta.mtime()
            };
            lines.push(format!(
                "{name:?} {:o} {}:{} {time} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid()
            ));
        }
    }
    lines.sort();
    lines
}

#[test]
fn who_waits_for_a_backup_is_told_how_far_it_is() {
    // One backup of a volume is taken at a time.
    let (b, other) = (with_data(), with_data());
    let mut seed = 1_u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    });
    let noise: Vec<u8> = noise.take(16 << 20).collect();
    for b in [&b, &other] {
        fs::write(b.path("/data/large"), &noise).unwrap();
    }
    let mut quiet = other.spawn(&["backup"]);
    let mut told = b.spawn(&["backup", "--progress"]);
    // Both write no further than a pipe holds until somebody reads, long enough for one line.
    std::thread::sleep(Duration::from_millis(5300));
    for child in [&mut quiet, &mut told] {
        let mut archive = Vec::new();
        let mut out = child.stdout.take().unwrap();
        std::io::Read::read_to_end(&mut out, &mut archive).unwrap();
        assert!(archive.len() > 16_000_000, "{}", archive.len());
    }
    let said = |child: std::process::Child| Ended::of(child.wait_with_output().unwrap());
    let told = said(told);
    told.exits(0);
    let line = (told.err.lines()).find(|line| line.contains(" written of about "));
    let line = line.unwrap_or_else(|| panic!("{told:#?}"));
    let percent = line.split_once("(").unwrap().1.trim_end_matches(" %)");
    assert!((1..=100).contains(&percent.parse().unwrap()), "{line}");
    let quiet = said(quiet);
    assert!(!quiet.err.contains("written of about"), "{quiet:#?}");
}

/// A box with data of all kinds, which does not run.
fn with_data() -> TestBox {
    let b = TestBox::new();
    b.file("/data/.tiffin/settings.json", "{\"PASSWORD\": \"kept\"}\n");
    b.file("/data/.tiffin/version", "v1\n");
    b.file("/data/settings.env", "# none\n");
    b.file("/data/db/table", &"row\n".repeat(20_000));
    b.file("/data/empty", "");
    // More than a pipe holds, and nothing that compresses.
    let mut seed = 88_172_645_463_325_252_u64;
    let mut noise = Vec::new();
    while noise.len() < 500_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        noise.extend_from_slice(&seed.to_le_bytes());
    }
    fs::write(b.path("/data/noise"), noise).unwrap();
    b.file("/data/odd \\ name\nof two lines", "odd");
    let deep = format!("/data/uploads/{}/{}/file", "d".repeat(120), "e".repeat(200));
    b.file(&deep, "deep");
    let path = |name: &str| b.path(&format!("/data/{name}"));
    fs::hard_link(path("db/table"), path("db/other-name")).unwrap();
    symlink("../db/table", path("uploads/link")).unwrap();
    symlink("/nowhere/".repeat(20), path("uploads/long-link")).unwrap();
    fs::create_dir(path("uploads/nothing-in-it")).unwrap();
    for (name, mode) in [
        (".tiffin", 0o700),
        ("db", 0o700),
        ("db/table", 0o640),
        ("settings.env", 0o600),
        ("uploads", 0o2775),
    ] {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let root = fs::metadata(b.dir.path()).unwrap().uid() == 0;
    if root {
        std::os::unix::fs::chown(path("db/table"), Some(4_000_000), Some(1234)).unwrap();
        std::os::unix::fs::lchown(path("uploads/link"), Some(77), Some(77)).unwrap();
    }
    let old = Command::new("touch")
        .args(["-h", "-d", "2001-02-03T04:05:06Z"])
        .args([
            path("db/table"),
            path("uploads/link"),
            path("uploads/nothing-in-it"),
            path("uploads"),
        ])
        .status()
        .unwrap();
    assert!(old.success());
    b
}

fn archive(b: &TestBox) -> PathBuf {
    let file = b.path("/backup.tar.gz");
    b.run(&["backup", "-o", file.to_str().unwrap()]).exits(0);
    file
}

fn restore(b: &TestBox, file: &Path, more: &[&str]) -> Ended {
    let mut words = vec!["restore", file.to_str().unwrap()];
    words.extend(more);
    b.run(&words)
}

fn empty() -> TestBox {
    let b = TestBox::new();
    fs::create_dir_all(b.path("/data/db")).unwrap();
    b
}

#[test]
fn what_is_backed_up_is_restored_with_owners_modes_times_and_links() {
    let b = with_data();
    let before = tree(&b.path("/data"));
    let file = archive(&b);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    b.run(&["backup", "verify", file.to_str().unwrap()])
        .exits(0)
        .says("OK: 8 files")
        .says("acme/test v1");
    assert_eq!(tree(&b.path("/data")), before, "a backup changes nothing");
    let new = empty();
    restore(&new, &file, &[])
        .exits(0)
        .says("restored acme/test v1");
    assert_eq!(tree(&new.path("/data")), before);
    // And once more from there.
    let again = archive(&new);
    let third = empty();
    restore(&third, &again, &[]).exits(0);
    assert_eq!(tree(&third.path("/data")), before);
}

#[test]
fn public_tools_open_a_backup_and_check_its_sums() {
    let b = with_data();
    let file = archive(&b);
    let out = b.path("/out");
    fs::create_dir(&out).unwrap();
    let run = |command: &mut Command| {
        let ended = Ended::of(command.current_dir(&out).output().unwrap());
        ended.exits(0);
        assert_eq!(ended.err, "", "{ended:?}");
        ended.out
    };
    let listed = run(Command::new("tar").arg("-tzf").arg(&file));
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(
        (lines[0], *lines.last().unwrap()),
        ("tiffin-backup.json", "SHA256SUMS")
    );
    run(Command::new("tar")
        .arg("-xpzf")
        .arg(&file)
        .arg("--same-owner"));
    let checked = run(Command::new("sha256sum").args(["-c", "--strict", "SHA256SUMS"]));
    assert_eq!(checked.lines().count(), 9, "{checked}");
    let left: Vec<String> = tree(&b.path("/data"));
    assert_eq!(tree(&out.join("data")), left);
}

#[test]
fn a_backup_is_encrypted_on_its_way_with_a_public_key() {
    let b = with_data();
    let before = tree(&b.path("/data"));
    let (key, secret, file) = (b.path("/key.txt"), b.path("/b.age"), b.path("/b.tar.gz"));
    let run = |command: &mut Command| {
        let ended = Ended::of(command.output().unwrap());
        ended.exits(0);
        ended.out
    };
    run(Command::new("age-keygen").arg("-o").arg(&key));
    let public = run(Command::new("age-keygen").arg("-y").arg(&key));
    let mut taking = b.spawn(&["backup"]);
    let out = taking.stdout.take().unwrap();
    let mut age = Command::new("age");
    age.args(["-r", public.trim(), "-o"])
        .arg(&secret)
        .stdin(out);
    run(&mut age);
    assert!(taking.wait().unwrap().success());
    let bytes = fs::read(&secret).unwrap();
    assert!(bytes.starts_with(b"age-encryption.org/v1"));
    b.run(&["backup", "verify", secret.to_str().unwrap()])
        .exits(65);
    let open = || {
        let mut age = Command::new("age");
        age.args(["-d", "-i"])
            .arg(&key)
            .arg("-o")
            .arg(&file)
            .arg(&secret);
        age
    };
    run(&mut open());
    let new = empty();
    restore(&new, &file, &[]).exits(0);
    assert_eq!(tree(&new.path("/data")), before);
    // Cut or changed, it does not even open.
    fs::write(&secret, &bytes[..bytes.len() - 1]).unwrap();
    assert!(!open().output().unwrap().status.success());
}

#[test]
fn no_flipped_byte_and_no_cut_goes_unnoticed_and_nothing_is_touched() {
    let b = with_data();
    // Where a flipped bit breaks the compression itself.
    let lines = (0..30_000_u64).map(|n| format!("{:x}\n", n.wrapping_mul(2_654_435_761) % 99_991));
    b.file("/data/db/lines", &lines.collect::<String>());
    let good = fs::read(archive(&b)).unwrap();
    let target = empty();
    target.file("/data/db/mine", "stays");
    target.file("/data/.tiffin/version", "v1\n");
    fs::set_permissions(
        target.path("/data/.tiffin"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    let before = tree(&target.path("/data"));
    let bad = b.path("/bad.tar.gz");
    let plain = |bytes: &[u8]| {
        let mut plain = Vec::new();
        let mut gzip = flate2::read::GzDecoder::new(bytes);
        std::io::Read::read_to_end(&mut gzip, &mut plain).map(|_| plain)
    };
    let plain_good = plain(&good).unwrap();
    let mut same = 0;
    let mut refused = |bytes: &[u8], what: &str| {
        // Compression can say the same in two ways: of zeros, those one or two places before.
        if bytes.len() == good.len()
            && plain(bytes).is_ok_and(|plain| plain == plain_good)
            && bytes[..10] == good[..10]
        {
            same += 1;
            return;
        }
        fs::write(&bad, bytes).unwrap();
        let verified = b.run(&["backup", "verify", bad.to_str().unwrap()]);
        assert_eq!(verified.code, Some(65), "{what}: {verified:?}");
        let restored = restore(&target, &bad, &["--overwrite"]);
        assert_eq!(restored.code, Some(65), "{what}: {restored:?}");
        assert_eq!(tree(&target.path("/data")), before, "{what}");
    };
    for part in 0..50 {
        let at = part * (good.len() - 1) / 49;
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (part % 8);
        refused(&bytes, &format!("byte {at} of {}", good.len()));
    }
    for cut in [0, 1, 9, 10, good.len() / 2, good.len() - 9, good.len() - 1] {
        refused(&good[..cut], &format!("cut at {cut}"));
    }
    refused(&[&good[..], b"x"].concat(), "something behind it");
    refused(&[&good[..], &good[..]].concat(), "twice");
    refused(b"not an archive at all", "text");
    assert!(same < 5, "{same} of 50 said the same");
    restore(&target, &archive(&b), &["--overwrite"]).exits(0);
}

#[test]
fn only_what_is_empty_is_filled_unless_somebody_says_overwrite() {
    let b = with_data();
    let file = archive(&b);
    let target = empty();
    target.file("/data/db/mine", "old");
    target.file("/data/other", "old");
    target.file("/data/lost+found/x", "the file system's");
    target.file("/data/backups/.tiffin-backups", "");
    target.file("/data/backups/one.tar.gz", "a backup");
    restore(&target, &file, &[])
        .exits(73)
        .says("it holds data")
        .says("--overwrite");
    assert_eq!(
        fs::read_to_string(target.path("/data/db/mine")).unwrap(),
        "old"
    );
    restore(&target, &file, &["--overwrite"]).exits(0);
    assert!(!target.path("/data/db/mine").exists() && !target.path("/data/other").exists());
    assert!(target.path("/data/lost+found/x").exists());
    assert!(target.path("/data/backups/one.tar.gz").exists());
    assert!(!target.path("/data/.tiffin/restore").exists());
    assert_eq!(
        fs::read_to_string(target.path("/data/.tiffin/settings.json")).unwrap(),
        "{\"PASSWORD\": \"kept\"}\n"
    );
}

#[test]
fn newer_data_another_product_and_another_volume_are_refused() {
    let mut b = with_data();
    b.contract["product"]["version"] = json!("v1.10.0");
    let file = archive(&b);
    let mut older = empty();
    older.contract["product"]["version"] = json!("v1.9.3");
    restore(&older, &file, &[])
        .exits(65)
        .says("v1.10.0 took it")
        .says("v1.9.3");
    let mut newer = empty();
    newer.contract["product"]["version"] = json!("v1.11");
    newer.contract["product"]["name"] = json!("registry.example:5000/acme/test");
    restore(&newer, &file, &[]).exits(0);
    let mut other = empty();
    other.contract["product"]["name"] = json!("acme/other");
    restore(&other, &file, &[])
        .exits(65)
        .says("it is of acme/test");
    let mut elsewhere = empty();
    elsewhere.contract["product"]["version"] = json!("v1.10");
    elsewhere.contract["volumes"] = json!([{"path": "/srv"}]);
    fs::create_dir(elsewhere.path("/srv")).unwrap();
    restore(&elsewhere, &file, &[])
        .exits(65)
        .says("it holds /data");
    for untouched in [&older, &other] {
        assert!(!untouched.path("/data/settings.env").exists());
        assert!(!untouched.path("/data/.tiffin/restore").exists());
    }
}

/// A service with a database, and the freeze command `freeze` of it.
fn with_database(freeze: &str) -> TestBox {
    let mut b = with_data();
    b.script("db", "echo up; while true; do sleep 1; done");
    b.unit("db.service", "[Service]\nExecStart=ROOT/bin/db\n");
    b.script("freeze", freeze);
    let command = b.path("/bin/freeze");
    b.put(
        "services",
        "db",
        json!({"data": ["/data/db"], "freeze": [command, "one"]}),
    );
    b
}

#[test]
fn a_database_is_copied_while_it_holds_still_and_goes_on_before_anybody_reads() {
    let b = with_database(
        "echo frozen-$1 > ROOT/data/db/state; echo here; cat > /dev/null; \
         echo thawed > ROOT/data/db/state; echo again >> ROOT/thawed",
    );
    let running = b.start().until(&b, "db ready");
    let mut child = b.spawn(&["backup"]);
    // Nobody reads a byte, and the database goes on.
    b.wait_for("/thawed");
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut out).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    ended.exits(0).says("writes were blocked for");
    fs::write(b.path("/streamed"), out).unwrap();
    running.stop().exits(0);
    let new = empty();
    restore(&new, &b.path("/streamed"), &[]).exits(0);
    let state = |b: &TestBox| fs::read_to_string(b.path("/data/db/state")).unwrap();
    assert_eq!(
        (state(&new).as_str(), state(&b).as_str()),
        ("frozen-one\n", "thawed\n")
    );
    assert_eq!(
        fs::read_dir(b.path("/data/.tiffin/backup"))
            .unwrap()
            .count(),
        0
    );
    b.run(&["backup", "verify", b.path("/streamed").to_str().unwrap()])
        .says("db: /data/db (consistent, copied while it took no writes)");
}

#[test]
fn a_database_that_cannot_be_frozen_or_thaws_by_itself_is_not_backed_up() {
    for (freeze, reason) in [
        ("echo refused >&2; exit 3", "ended before it was frozen"),
        ("echo frozen; exit 0", "ended too early (code 0)"),
        (
            "echo frozen; cat > /dev/null; exit 4",
            "did not thaw it (code 4)",
        ),
        (
            "head -c 9000 /dev/zero; cat > /dev/null",
            "says something else than a line",
        ),
    ] {
        let b = with_database(freeze);
        let running = b.start().until(&b, "db ready");
        let file = b.path("/backup.tar.gz");
        b.run(&["backup", "-o", file.to_str().unwrap()])
            .exits(1)
            .says("cannot back up db")
            .says(reason);
        assert!(!file.exists() && !b.path("/.backup.tar.gz.tiffin-partial").exists());
        assert_eq!(
            fs::read_dir(b.path("/data/.tiffin/backup"))
                .unwrap()
                .count(),
            0
        );
        running.stop().exits(0);
    }
}

#[test]
fn a_killed_backup_lets_the_database_go_on_and_the_next_one_removes_what_it_left() {
    let b = with_database("echo frozen; cat > /dev/null; echo again >> ROOT/thawed");
    let running = b.start().until(&b, "db ready");
    // Nobody reads: it waits.
    let mut child = b.spawn(&["backup"]);
    b.wait_for("/thawed");
    b.run(&["backup", "-o", "/dev/null/x"])
        .exits(75)
        .says("another backup");
    child.kill().unwrap();
    child.wait().unwrap();
    archive(&b);
    assert_eq!(
        fs::read_dir(b.path("/data/.tiffin/backup"))
            .unwrap()
            .count(),
        0
    );
    running.stop().exits(0);
}

#[test]
fn data_that_is_elsewhere_is_named_and_services_that_start_are_waited_for() {
    let mut b = with_database("exit 1");
    b.script("web", "while true; do sleep 1; done");
    b.unit("web.service", "[Service]\nExecStart=ROOT/bin/web\n");
    b.contract["services"]["db"]["when"] = json!("db_bundled");
    b.contract["variables"] = json!({"db_bundled": false});
    let running = b.start().until(&b, "db skipped");
    let file = b.path("/backup.tar.gz");
    b.run(&["backup", "-o", file.to_str().unwrap()])
        .exits(0)
        .says("db is not in this backup: its data is elsewhere");
    b.run(&["backup", "verify", file.to_str().unwrap()])
        .says("db: NOT in this backup");
    running.stop().exits(0);
    b.run(&["backup", "-o", file.to_str().unwrap()])
        .exits(0)
        .says("db is not in this backup");
}

#[test]
fn excluded_paths_and_leftovers_are_in_no_backup() {
    let mut b = with_data();
    b.contract["backup"] = json!({"exclude": ["/data/cache"]});
    b.file("/data/cache/big", "x");
    b.file("/data/.tiffin-tmp/x", "x");
    b.file("/data/db/.table.tiffin-77", "half");
    b.file("/data/.tiffin/copies/v0/x", "x");
    b.file("/data/old/.tiffin-backups", "");
    b.file("/data/old/x.tar.gz", "x");
    let file = b.path("/data/by-hand.tar.gz");
    b.run(&["backup", "-o", file.to_str().unwrap()]).exits(0);
    let listed = Command::new("tar").arg("-tzf").arg(&file).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for absent in [
        "cache",
        "tiffin-tmp",
        "tiffin-77",
        "copies",
        "old/",
        "by-hand",
        "lock",
    ] {
        assert!(!listed.contains(absent), "{absent} is in\n{listed}");
    }
    assert!(listed.contains("data/db/table"), "{listed}");
}

#[test]
fn a_running_box_is_not_restored_into() {
    let b = with_database("exit 1");
    let file = archive(&b);
    let running = b.start().until(&b, "db ready");
    restore(&b, &file, &["--overwrite"]).exits(75);
    running.stop().exits(0);
    restore(&b, &file, &["--overwrite"]).exits(0);
}

/// An archive made by hand, with right sums, so that only what is wrong on purpose is wrong.
struct Forged {
    tar: Vec<u8>,
    sums: Vec<u8>,
}

impl Forged {
    fn new() -> Self {
        let mut forged = Forged {
            tar: Vec::new(),
            sums: Vec::new(),
        };
        let description = json!({
            "format": 1, "product": "acme/test", "title": "T", "version": "v1", "created": "x",
            "host": "x", "volumes": ["/data"], "databases": [], "elsewhere": [], "left_out": [],
            "files": 1, "bytes": 1, "writes_blocked_ms": 0
        });
        forged.put(
            "tiffin-backup.json",
            b'0',
            description.to_string().as_bytes(),
            "",
        );
        forged.put("data/", b'5', b"", "");
        forged
    }

    fn put(&mut self, path: &str, kind: u8, content: &[u8], link: &str) -> &mut Self {
        use sha2::Digest as _;
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        if kind == b'0' {
            let sum: String = sha2::Sha256::digest(content)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            self.sums
                .extend_from_slice(format!("{sum}  {path}\n").as_bytes());
        }
        self
    }

    fn end(&mut self) -> Vec<u8> {
        use sha2::Digest as _;
        let sum: String = sha2::Sha256::digest(&self.tar)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let length = self.tar.len();
        let mut sums = std::mem::take(&mut self.sums);
        sums.extend_from_slice(
            format!("# {sum} is the sum of the {length} bytes of the tar before this member\n")
                .as_bytes(),
        );
        self.put("SHA256SUMS", b'0', &sums, "");
        self.tar.resize(self.tar.len() + 1024, 0);
        let mut gzip = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::new(4));
        gzip.write_all(&self.tar).unwrap();
        gzip.finish().unwrap()
    }
}

#[test]
fn hostile_archives_touch_nothing() {
    let target = TestBox::new();
    let mut target = target;
    target.contract["volumes"] = json!([{"path": "/data",
        "directories": [{"path": "/data/db", "uid": 0, "gid": 0, "mode": "0700"}]}]);
    fs::create_dir_all(target.path("/data")).unwrap();
    target.file("/outside", "mine");
    let outside = target.path("/outside");
    let outside = outside.to_str().unwrap();
    let long = "x".repeat(99);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "..",
            Forged::new().put("data/../outside", b'0', b"x", "").end(),
        ),
        (
            "absolute",
            Forged::new().put("/data/x", b'0', b"x", "").end(),
        ),
        (
            "no volume",
            Forged::new().put("etc/passwd", b'0', b"x", "").end(),
        ),
        (
            "doubled slash",
            Forged::new().put("data//x", b'0', b"x", "").end(),
        ),
        ("dot", Forged::new().put("data/./x", b'0', b"x", "").end()),
        (
            "sibling",
            Forged::new().put("database", b'0', b"x", "").end(),
        ),
        (
            "no parent",
            Forged::new().put("data/a/b", b'0', b"x", "").end(),
        ),
        (
            "the volume as a file",
            Forged::new().put("data", b'0', b"x", "").end(),
        ),
        (
            "twice",
            Forged::new()
                .put("data/a", b'0', b"x", "")
                .put("data/a", b'0', b"y", "")
                .end(),
        ),
        (
            "file over directory",
            Forged::new()
                .put("data/a/", b'5', b"", "")
                .put("data/a", b'0', b"y", "")
                .end(),
        ),
        (
            "through a link",
            Forged::new()
                .put("data/a", b'2', b"", "..")
                .put("data/a/x", b'0', b"x", "")
                .end(),
        ),
        (
            "through a link out",
            Forged::new()
                .put("data/a", b'2', b"", "/")
                .put("data/a/x", b'0', b"x", "")
                .end(),
        ),
        (
            "over a link",
            Forged::new()
                .put("data/a", b'2', b"", outside)
                .put("data/a", b'0', b"x", "")
                .end(),
        ),
        (
            "hard link out",
            Forged::new()
                .put("data/a", b'1', b"", outside.trim_start_matches('/'))
                .end(),
        ),
        (
            "hard link up",
            Forged::new()
                .put("data/a", b'1', b"", "data/../outside")
                .end(),
        ),
        (
            "hard link to a link",
            Forged::new()
                .put("data/a", b'2', b"", outside)
                .put("data/b", b'1', b"", "data/a")
                .end(),
        ),
        (
            "hard link to nothing",
            Forged::new().put("data/b", b'1', b"", "data/a").end(),
        ),
        ("device", Forged::new().put("data/a", b'3', b"", "").end()),
        ("fifo", Forged::new().put("data/a", b'6', b"", "").end()),
        (
            "pax",
            Forged::new()
                .put("data/a", b'x', b"20 path=data/../x\n", "")
                .end(),
        ),
        ("sparse", Forged::new().put("data/a", b'S', b"", "").end()),
        (
            "link where the box has a directory",
            Forged::new().put("data/db", b'2', b"", "/etc").end(),
        ),
        (
            "link as our own directory",
            Forged::new().put("data/.tiffin", b'2', b"", "/etc").end(),
        ),
        (
            "our journal",
            Forged::new()
                .put("data/.tiffin/", b'5', b"", "")
                .put("data/.tiffin/restore/", b'5', b"", "")
                .end(),
        ),
        (
            "our lock",
            Forged::new()
                .put("data/.tiffin/", b'5', b"", "")
                .put("data/.tiffin/lock", b'0', b"", "")
                .end(),
        ),
        (
            "long name without end",
            Forged::new()
                .put("././@LongLink", b'L', long.as_bytes(), "")
                .put("data/a", b'0', b"", "")
                .end(),
        ),
        (
            "long name of 1 MB",
            Forged::new()
                .put("././@LongLink", b'L', &vec![b'x'; 1 << 20], "")
                .put("data/a", b'0', b"", "")
                .end(),
        ),
        (
            "a second description",
            Forged::new()
                .put("tiffin-backup.json", b'0', b"{}", "")
                .end(),
        ),
    ];
    for (what, bytes) in cases {
        let file = target.path("/hostile.tar.gz");
        fs::write(&file, bytes).unwrap();
        let ended = restore(&target, &file, &[]);
        assert_eq!(ended.code, Some(65), "{what}: {ended:?}");
        assert_eq!(fs::read_to_string(outside).unwrap(), "mine", "{what}");
        let left: Vec<String> = tree(&target.path("/data"));
        assert!(
            left.iter().all(|line| line.starts_with("\".tiffin\"")),
            "{what}: {left:?}"
        );
    }
    // The forger's art is right: the same without malice is taken.
    let file = target.path("/good.tar.gz");
    fs::write(&file, Forged::new().put("data/a", b'0', b"x", "").end()).unwrap();
    restore(&target, &file, &[]).exits(0);
}

#[test]
fn a_restore_killed_anywhere_leaves_old_or_new_and_the_next_start_ends_it() {
    let mut new = TestBox::new();
    new.script("job", "true");
    new.unit(
        "job.service",
        "[Service]\nType=oneshot\nExecStart=ROOT/bin/job\n",
    );
    for at in 0..60 {
        new.file(&format!("/data/n{at}/file"), &format!("new {at}\n"));
        new.file(&format!("/data/both{at}"), "new\n");
    }
    new.file("/data/.tiffin/settings.json", "{\"NEW\": \"1\"}\n");
    new.file("/data/.tiffin/version", "v1\n");
    let file = archive(&new);
    let wanted = tree(&new.path("/data"));
    let old = |b: &TestBox| {
        let _ = fs::remove_dir_all(b.path("/data"));
        for at in 0..60 {
            b.file(&format!("/data/o{at}/file"), &format!("old {at}\n"));
            b.file(&format!("/data/both{at}"), "old\n");
        }
        b.file("/data/.tiffin/settings.json", "{\"OLD\": \"1\"}\n");
        b.file("/data/.tiffin/version", "v1\n");
    };
    let mut target = TestBox::new();
    target.script("job", "true");
    target.unit(
        "job.service",
        "[Service]\nType=oneshot\nExecStart=ROOT/bin/job\n",
    );
    old(&target);
    // By content: directories' times are those of the last start in them.
    let content = |b: &TestBox| {
        let files = tree(&b.path("/data"))
            .into_iter()
            .filter(|line| !line.contains(" directory"));
        let kept =
            files.filter(|line| !line.contains(".tiffin/") || line.contains("settings.json"));
        kept.map(|line| {
            line.split_once(" names")
                .map(|(name, text)| (name.split(' ').next().unwrap().to_owned(), text.to_owned()))
                .unwrap()
        })
        .collect::<Vec<_>>()
    };
    let old_content = content(&target);
    let new_content = content(&new);
    let begun = Instant::now();
    restore(&target, &file, &["--overwrite"]).exits(0);
    let whole = begun.elapsed();
    assert_eq!(content(&target), new_content, "{wanted:?}");
    let (mut were_old, mut were_new) = (0, 0);
    for round in 0..40u32 {
        old(&target);
        let mut child = target.spawn(&["restore", file.to_str().unwrap(), "--overwrite"]);
        std::thread::sleep(whole * round / 40 + Duration::from_micros(u64::from(round) * 37 % 900));
        child.kill().unwrap();
        child.wait().unwrap();
        target.run(&[]).exits(0);
        let found = content(&target);
        if found == old_content {
            were_old += 1;
        } else {
            assert_eq!(found, new_content, "round {round}");
            were_new += 1;
        }
        assert!(
            !target.path("/data/.tiffin/restore").exists(),
            "round {round}"
        );
    }
    assert!(
        were_old > 0 && were_new > 0,
        "{were_old} old, {were_new} new: the kills all came too early or too late"
    );
}
