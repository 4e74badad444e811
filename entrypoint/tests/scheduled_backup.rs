//! Backups that the box takes by itself: whole files or none, read back, the old ones removed.

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::{TestBox, wait};
use serde_json::{Value, json};

/// A box with a service, data, and a backup every second.
fn scheduled() -> TestBox {
    let mut b = TestBox::new();
    b.contract["volumes"] = json!([{"path": "/data"}]);
    b.file("/data/uploads/one", "one");
    b.script("web", "echo up; while true; do sleep 1; done");
    b.unit("web.service", "[Service]\nExecStart=ROOT/bin/web\n");
    b.env("TIFFIN_BACKUP_SCHEDULE", "*:*:*");
    b.env("TIFFIN_BACKUP_KEEP", "2");
    b
}

fn archives(b: &TestBox, directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(b.path(directory)).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(".tar.gz"));
    found.sort();
    found
}

fn last(b: &TestBox) -> Value {
    let text = fs::read_to_string(b.path("/data/.tiffin/last-backup.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

#[test]
fn as_many_as_are_wanted_are_kept_and_none_holds_another() {
    let b = scheduled();
    let running = b.start();
    // The operator's own, and what a killed one has left.
    let seen = wait("the first backup", || archives(&b, "/data/backups").pop());
    b.file("/data/backups/mine.tar.gz", "mine");
    b.file("/data/backups/.x.tar.gz.tiffin-partial", "half");
    wait("the first one's end", || (!seen.exists()).then_some(()));
    wait("two of them", || {
        (archives(&b, "/data/backups").len() == 3).then_some(())
    });
    let status = b.run(&["status"]);
    status
        .exits(0)
        .says("scheduled-backup")
        .says("last good: 20");
    b.run(&["health"]).exits(0);
    let said = running.stop();
    said.exits(0).says("is removed").says("OK: ");
    assert!(b.path("/data/backups/mine.tar.gz").exists());
    assert!(!b.path("/data/backups/.x.tar.gz.tiffin-partial").exists());
    assert!(
        last(&b)["good"].as_u64().unwrap() > 1_700_000_000,
        "{}",
        last(&b)
    );
    assert_eq!(last(&b)["failed"], Value::Null);

    // Each is whole, and holds the data and no other backup.
    let found = archives(&b, "/data/backups");
    for file in found.iter().filter(|path| !path.ends_with("mine.tar.gz")) {
        b.run(&["backup", "verify", file.to_str().unwrap()])
            .exits(0);
        let out = std::process::Command::new("tar")
            .arg("-tzf")
            .arg(file)
            .output()
            .unwrap();
        let listed = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(listed.contains("data/uploads/one"), "{listed}");
        assert!(
            !listed.contains("backups") && !listed.contains("last-backup"),
            "{listed}"
        );
    }
}

#[test]
fn one_that_fails_is_told_and_removes_none() {
    let mut b = scheduled();
    b.env("TIFFIN_BACKUP_DIRECTORY", "/mounted");
    let running = b.start();
    wait("the failure", || {
        last(&b)["failed"].as_str().map(str::to_owned)
    });
    b.run(&["status"]).exits(0).says("none so far; FAILED: ");
    b.run(&["health", "--live"]).exits(0);
    // Once it is mounted, the next one is good.
    fs::create_dir(b.path("/mounted")).unwrap();
    wait("a good one", || last(&b)["good"].as_u64());
    // And when the volume cannot be read again, the good ones stay.
    b.file(
        "/data/.tiffin/upgrade.begun.json",
        r#"{"from":"v0","to":"v1","copy":null,"aside":"x"}"#,
    );
    wait("a refusal", || {
        last(&b)["failed"].as_str().map(str::to_owned)
    });
    let kept = archives(&b, "/mounted");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(archives(&b, "/mounted"), kept);
    assert!(!kept.is_empty());
    let out = b.path("/o.tar.gz");
    b.run(&["backup", "-o", out.to_str().unwrap()])
        .exits(75)
        .says("an upgrade of the data is under way");
    assert!(!out.exists());
    fs::remove_file(b.path("/data/.tiffin/upgrade.begun.json")).unwrap();
    running.stop().exits(0).says("mount it: -v FOLDER:/mounted");
}

#[test]
fn wrong_settings_are_named_and_data_is_never_taken_for_a_directory_of_backups() {
    for (name, value, reason) in [
        (
            "TIFFIN_BACKUP_SCHEDULE",
            "at noon",
            "a time of day such as 03:30",
        ),
        ("TIFFIN_BACKUP_KEEP", "0", "at least 1"),
        ("TIFFIN_BACKUP_DIRECTORY", "backups", "an absolute path"),
        ("TIFFIN_BACKUP_DIRECTORY", "/data", "a directory of its own"),
        (
            "TIFFIN_BACKUP_DIRECTORY",
            "/data/a/b",
            "a directory of its own",
        ),
        (
            "TIFFIN_BACKUP_DIRECTORY",
            "/data/.tiffin",
            "a directory of its own",
        ),
        ("TIFFIN_BACKUP_DIRECTORY", "/data/../x", "an absolute path"),
    ] {
        let mut b = scheduled();
        b.env(name, value);
        b.run(&["check"]).exits(78).says(name).says(reason);
    }
    let mut b = scheduled();
    b.env("TIFFIN_BACKUP_DIRECTORY", "/data/uploads");
    let running = b.start();
    wait("the failure", || {
        last(&b)["failed"].as_str().map(str::to_owned)
    });
    running.stop().exits(0).says("it holds something else");
    assert_eq!(fs::read_dir(b.path("/data/uploads")).unwrap().count(), 1);
}
