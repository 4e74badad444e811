//! Canaries: a box gets secrets of every kind from every source, and everything that others
//! can see is searched for them.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use common::TestBox;
use serde_json::json;

const CANARY: &str = "CANARY7value";

/// Settings by kind, with a value that holds the canary.
fn canaries() -> Vec<(&'static str, &'static str, String)> {
    // Version 0, an empty algorithm, eight bytes of key.
    let key = "-----BEGIN PRIVATE KEY-----\nMA8CAQAwAAQIQ0FOQVJZNzc=\n-----END PRIVATE KEY-----";
    vec![
        ("A_SECRET", "secret", format!("{CANARY}-secret")),
        ("A_KEY", "key", format!("note {CANARY}\n{key}")),
        ("A_URL", "url", format!("redis://:{CANARY}@db:1/0")),
        ("A_LIST", "list", format!("x,{CANARY}")),
        ("A_MAP", "map", format!("{{\"a\":\"{CANARY}\"}}")),
        ("A_PATH", "path", format!("/{CANARY}")),
        ("A_HOST", "host", CANARY.to_owned()),
    ]
}

fn with_canaries() -> TestBox {
    let mut b = TestBox::new();
    let mut body = String::new();
    for (at, (name, kind, value)) in canaries().into_iter().enumerate() {
        let variable = name.to_lowercase();
        b.put("settings", name, json!({"variable": variable, "type": kind, "secret": true, "required": true, "help": "h"}));
        body.push_str(&format!("{variable}={{{{ {variable} }}}}\n"));
        match at % 4 {
            0 => {
                b.env(name, &value);
            }
            1 => {
                b.file(&format!("/given/{name}"), &value);
                secret_mode(&b, &format!("/given/{name}"));
                let path = b.path(&format!("/given/{name}")).display().to_string();
                b.env(&format!("{name}_FILE"), &path);
            }
            2 => {
                b.file(&format!("/run/secrets/{name}"), &value);
                secret_mode(&b, &format!("/run/secrets/{name}"));
            }
            _ => {
                b.file("/data/settings.env", &format!("{name}={value}\n"));
                secret_mode(&b, "/data/settings.env");
            }
        }
    }
    b.template("/etc/app.conf", &body);
    b.unit(
        "app.service",
        "[Service]\nExecStart=/bin/sh -c 'env; exec sleep 1000'\n",
    );
    b
}

fn secret_mode(b: &TestBox, path: &str) {
    fs::set_permissions(b.path(path), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Files below `folder` that every user may read and that hold the canary.
fn open_files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let meta = entry.path().symlink_metadata().unwrap();
        if meta.is_dir() {
            open_files(&entry.path(), found);
        } else if meta.is_file() && meta.permissions().mode() & 0o004 != 0 {
            let content = fs::read(entry.path()).unwrap();
            if String::from_utf8_lossy(&content).contains(CANARY) {
                found.push(entry.path().display().to_string());
            }
        }
    }
}

#[test]
fn no_secret_is_seen_from_outside() {
    let mut b = with_canaries();
    let running = b.start();
    b.wait_status("app ready");
    b.wait_log("TIFFIN_SERVICE=app");
    let conf = fs::read_to_string(b.path("/etc/app.conf")).unwrap();
    assert_eq!(
        conf.matches(CANARY).count(),
        canaries().len(),
        "all are in use:\n{conf}"
    );

    for words in [
        &["status"][..],
        &["status", "--json"],
        &["logs"],
        &["health"],
        &["help"],
        &["check"],
        &["render"],
        &["version"],
        &["settings"],
        &["settings", "--origin"],
        &["settings", "--origin", "--format", "json"],
        &["settings", "--format", "markdown"],
        &["settings", "--format", "json"],
        &["settings", "--format", "schema"],
        &["settings", "--format", "env"],
        &["explain", "A_SECRET"],
        &["explain", "A_URL", "--json"],
        &["render", "--diff"],
        &["reload", "--dry-run"],
    ] {
        let ended = b.run(words);
        ended.exits(0);
        assert!(
            !format!("{ended:?}").contains(CANARY),
            "{words:?}: {ended:#?}"
        );
    }

    let mut processes = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| {
            let content = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&content).replace('\0', "\n")
        };
        let (command, environment) = (read("cmdline"), read("environ"));
        assert!(!command.contains(CANARY), "{command}");
        if environment.contains("TIFFIN_SERVICE=") {
            processes += 1;
            assert!(!environment.contains(CANARY), "{command}: {environment}");
        }
    }
    assert!(processes > 0, "no process of a service was seen");

    let mut found = Vec::new();
    open_files(b.dir.path(), &mut found);
    assert!(found.is_empty(), "{found:?}");

    let ended = running.stop();
    ended.exits(0);
    assert!(!format!("{ended:?}").contains(CANARY), "{ended:#?}");
    // And when they are refused.
    for (name, _, _) in canaries() {
        let setting = json!({"variable": name.to_lowercase(), "type": "secret", "required": true, "pattern": "[a-z]"});
        b.put("settings", name, setting);
    }
    let ended = b.run(&["start"]);
    ended
        .exits(78)
        .says(&format!("{} settings are wrong", canaries().len()));
    assert!(!format!("{ended:?}").contains(CANARY), "{ended:#?}");
}

/// What cannot be traced is not dumped either.
#[test]
fn the_entrypoint_cannot_be_read_by_its_own_user() {
    let b = with_canaries();
    let running = b.start();
    b.wait_status("app ready");
    let path = format!("/proc/{}/environ", running.pid());
    // What root in a container has not, and root on a machine has.
    let without = "-sys_ptrace,-sys_admin,-perfmon";
    let words = [
        "--bounding-set",
        without,
        "--inh-caps",
        without,
        "--",
        "cat",
        &path,
    ];
    let mut command = match rustix::process::geteuid().is_root() {
        true => Command::new("setpriv"),
        false => Command::new("cat"),
    };
    match rustix::process::geteuid().is_root() {
        true => command.args(words),
        false => command.arg(&path),
    };
    let out = command.output().unwrap();
    assert!(!out.status.success() && out.stdout.is_empty(), "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("Permission denied"),
        "{out:?}"
    );
    running.stop().exits(0);
}
