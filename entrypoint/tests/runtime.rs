//! Rendered files and the place they have in memory.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use common::TestBox;
use serde_json::json;

const INSIDE: &str = "/run/tiffin/files/etc/private/app.conf";

/// As the build makes it: `/run/tiffin` leads to memory, and the file there.
fn linked() -> TestBox {
    let mut b = TestBox::new();
    b.template("/etc/private/app.conf", "port=7\n");
    b.contract["templates"][0]["link"] = json!(true);
    for directory in ["run", "dev/shm", "etc/private"] {
        fs::create_dir_all(b.path(directory)).unwrap();
    }
    fs::set_permissions(b.path("/etc/private"), fs::Permissions::from_mode(0o2751)).unwrap();
    symlink("../dev/shm/tiffin", b.path("/run/tiffin")).unwrap();
    symlink(format!("../..{INSIDE}"), b.path("/etc/private/app.conf")).unwrap();
    b
}

fn mode(b: &TestBox, path: &str) -> u32 {
    fs::metadata(b.path(path)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_linked_file_is_written_to_memory_and_its_directory_keeps_its_mode() {
    let b = linked();
    b.run(&["true"]).exits(0);
    assert!(b.path("/etc/private/app.conf").is_symlink());
    let text = fs::read_to_string(b.path("/etc/private/app.conf")).unwrap();
    assert_eq!(text, "port=7\n");
    assert!(
        b.path("/dev/shm/tiffin/files/etc/private/app.conf")
            .is_file()
    );
    assert_eq!(mode(&b, "/run/tiffin/files/etc/private"), 0o2751);
    assert_eq!(mode(&b, INSIDE), 0o640);
}

#[test]
fn a_file_in_the_links_place_is_rendered_where_it_is() {
    let b = linked();
    fs::remove_file(b.path("/etc/private/app.conf")).unwrap();
    b.file("/etc/private/app.conf", "port=6\n");
    b.run(&["true"]).exits(0);
    assert!(!b.path("/etc/private/app.conf").is_symlink());
    let text = fs::read_to_string(b.path("/etc/private/app.conf")).unwrap();
    assert_eq!(text, "port=7\n");
    assert!(!b.path(INSIDE).exists());
}

#[test]
fn memory_that_another_box_uses_is_left_to_it() {
    let b = linked();
    b.file(
        "/dev/shm/tiffin/files/etc/private/app.conf",
        "the other's\n",
    );
    b.file("/dev/shm/tiffin/lock", "");
    let other = fs::File::open(b.path("/dev/shm/tiffin/lock")).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    b.run(&["true"]).exits(0);
    let read = |path| fs::read_to_string(b.path(path)).unwrap();
    assert_eq!(
        read("/dev/shm/tiffin/files/etc/private/app.conf"),
        "the other's\n"
    );
    assert!(!b.path("/run/tiffin").is_symlink());
    assert_eq!(read("/etc/private/app.conf"), "port=7\n");
}

#[test]
fn a_runtime_directory_that_leads_to_memory_is_made_there() {
    let mut b = linked();
    symlink("tiffin/run/app", b.path("/run/app")).unwrap();
    b.script(
        "app",
        "echo $RUNTIME_DIRECTORY > ROOT/told; exec sleep 1000",
    );
    b.unit(
        "app.service",
        "[Service]\nRuntimeDirectory=app\nRuntimeDirectoryMode=0711\nExecStart=ROOT/bin/app\n",
    );
    let running = b.start();
    assert_eq!(b.wait_for("/told"), "/run/app\n");
    assert_eq!(mode(&b, "/dev/shm/tiffin/run/app"), 0o711);
    running.stop().exits(0);
}

#[test]
fn a_pid_file_that_leads_to_memory_can_be_written() {
    let b = linked();
    symlink("tiffin/run/nginx.pid", b.path("/run/nginx.pid")).unwrap();
    b.run(&["true"]).exits(0);
    fs::write(b.path("/run/nginx.pid"), "7\n").unwrap();
    assert!(b.path("/dev/shm/tiffin/run/nginx.pid").is_file());
}

#[test]
fn what_packages_list_for_each_start_is_made() {
    let mut b = linked();
    symlink("tiffin/run/pg", b.path("/run/pg")).unwrap();
    b.file(
        "/usr/lib/tmpfiles.d/pg.conf",
        "d /var/run/pg 2775 - - - -\nd /data/no\nd /var/log/pg 1777\nz /run/pg\nd /run/x 0755 nobody-here\n",
    );
    b.file("/usr/lib/tmpfiles.d/hidden.conf", "d /run/hidden\n");
    b.file(
        "/etc/tmpfiles.d/hidden.conf",
        "f /run/motd 0600 - - - hello\\n\nL+ /run/link - - - - motd\nr! /run/stale\n",
    );
    b.file("/run/stale", "");
    b.file("/run/link", "a file");
    b.unit("x.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let running = b.start();
    b.wait_status("x ready");
    let root = fs::read_to_string(b.path("/run/link"));
    running
        .stop()
        .exits(0)
        .says("not applied: z /run/pg")
        .says("/run/x is not made: there is no user `nobody-here`");
    assert_eq!(root.unwrap(), "hello\n");
    assert_eq!(mode(&b, "/dev/shm/tiffin/run/pg"), 0o2775);
    assert_eq!(mode(&b, "/var/log/pg"), 0o1777);
    assert_eq!(mode(&b, "/run/motd"), 0o600);
    for path in ["/run/hidden", "/run/stale", "/run/x", "/data/no"] {
        assert!(!b.path(path).exists(), "{path}");
    }
}
