//! `move`, with the real binary: what the recipe's commands are told, what becomes of the
//! settings, and that whatever fails leaves the box as it was.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use common::{TestBox, wait};
use serde_json::json;

const NEW: &str =
    "# theirs\nDB_HOST=db.corp.example\nDB_PASSWORD=\"their # own password\"\nQUEUE_HOST=q\n";

/// A box with two databases, which other hosts leave out, and a service that uses them. Its
/// `move` notes what it is told, says it aloud, and does as files in `/etc` want.
fn product() -> TestBox {
    let mut b = TestBox::new();
    b.script(
        "move",
        "read to; echo \"$* <$to\" >> ROOT/moved; echo \"told $to\"\n\
         [ -e \"ROOT/etc/fail-$1-$2\" ] && { echo 'no such luck' >&2; exit 3; }\n\
         if [ -e \"ROOT/etc/wait-$2\" ]; then sleep 1000 & echo $! > ROOT/etc/child; trap 'kill $!; exit 1' TERM; wait; fi\n\
         exit 0",
    );
    for (name, host) in [("db", "db_host"), ("queue", "queue_host")] {
        b.unit(
            &format!("{name}.service"),
            &format!("[Service]\nExecStartPre=/bin/sh -c 'mkdir -p ROOT/data/{name}; echo x > ROOT/data/{name}/dump.rdb'\nExecStart=/bin/sleep 1000\n"),
        );
        let command = [
            b.path("/bin/move").to_str().unwrap().to_owned(),
            name.to_owned(),
        ];
        b.put(
            "services",
            name,
            json!({"when": format!("{host} == '127.0.0.1'"), "data": [format!("/data/{name}")],
                "move": {"command": command, "to": format!("{name}://{{{{ db_password }}}}@{{{{ {host} }}}}")}}),
        );
        b.put(
            "settings",
            &host.to_uppercase(),
            json!({"variable": host, "type": "host", "default": "127.0.0.1"}),
        );
        b.put("variables", host, json!("127.0.0.1"));
    }
    b.put(
        "settings",
        "DB_PASSWORD",
        json!({"variable": "db_password", "type": "secret", "generate": 20}),
    );
    b.unit(
        "web.service",
        "[Unit]\nAfter=db.service\n[Service]\nExecStart=/bin/sleep 1000\n",
    );
    b.file("/new.env", NEW);
    b
}

/// The same, and it has run once.
fn used() -> TestBox {
    let b = product();
    once(&b, "ready");
    b.file("/data/settings.env", "DB_HOST=127.0.0.1\n");
    b
}

fn once(b: &TestBox, db: &str) {
    let running = b.start().until(b, "web ready");
    b.wait_status(&format!("db {db}"));
    running.stop().exits(0);
}

fn new(b: &TestBox) -> String {
    b.path("/new.env").to_str().unwrap().to_owned()
}

fn moved(b: &TestBox) -> Vec<String> {
    let text = fs::read_to_string(b.path("/moved")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn settings(b: &TestBox) -> String {
    fs::read_to_string(b.path("/data/settings.env")).unwrap()
}

#[test]
fn what_is_copied_and_compared_is_used_from_then_on_and_the_way_back_is_kept() {
    let b = used();
    let ended = b.run(&["move", &new(&b)]);
    ended
        .exits(0)
        .says("db, queue: copied and compared in ")
        .says("/data/settings.env has the new DB_HOST, DB_PASSWORD, QUEUE_HOST: start the box now")
        .says("the data of db is still in /data/db");
    assert!(!format!("{ended:?}").contains("own password"), "{ended:?}");
    let db = "<db://their # own password@db.corp.example";
    let queue = "<queue://their # own password@q";
    let expected: Vec<String> = ["check", "copy", "verify"]
        .iter()
        .flat_map(|word| [format!("db {word} {db}"), format!("queue {word} {queue}")])
        .collect();
    assert_eq!(moved(&b), expected);

    let text = settings(&b);
    assert!(text.starts_with("# until 2"), "{text}");
    assert!(
        text.contains(": DB_HOST=127.0.0.1\n# by `tiffin move`, 2"),
        "{text}"
    );
    assert!(
        text.ends_with(NEW.strip_prefix("# theirs\n").unwrap()),
        "{text}"
    );
    let mode = fs::metadata(b.path("/data/settings.env"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o007, 0, "it has a password now");
    assert!(b.path("/data/db/dump.rdb").exists());
    once(&b, "skipped");

    // There is nothing left to move; without the new lines the box is as before.
    b.run(&["move", &new(&b)])
        .exits(78)
        .says("no database leaves the box");
    b.file("/data/settings.env", "");
    once(&b, "ready");
}

#[test]
fn one_that_fails_stops_all_and_changes_nothing() {
    for (fail, said, steps) in [
        (
            "queue-check",
            "cannot move queue: the server is not as it must be",
            2,
        ),
        ("db-copy", "cannot move db: the data was not copied", 3),
        (
            "queue-verify",
            "cannot move queue: the copy is not the same as the data",
            6,
        ),
    ] {
        let b = used();
        b.file(&format!("/etc/fail-{fail}"), "");
        let ended = b.run(&["move", "--overwrite", &new(&b)]);
        ended
            .exits(1)
            .says(said)
            .says("code 3")
            .says(": no such luck");
        assert!(!format!("{ended:?}").contains("own password"), "{ended:?}");
        assert_eq!(settings(&b), "DB_HOST=127.0.0.1\n");
        let moved = moved(&b);
        assert_eq!(moved.len(), steps, "{moved:?}");
        // To compare is not to remove.
        for line in moved {
            assert_eq!(
                line.contains("--overwrite"),
                !line.contains("verify"),
                "{line}"
            );
        }
        once(&b, "ready");
    }
}

#[test]
fn who_is_stopped_or_killed_meanwhile_leaves_the_box_as_it_was() {
    for step in ["check", "copy", "verify"] {
        for signal in ["-TERM", "-KILL"] {
            let b = used();
            b.file(&format!("/etc/wait-{step}"), "");
            let child = b.spawn(&["move", &new(&b)]);
            let sleeper = b.wait_for("/etc/child");
            let status = std::process::Command::new("/bin/kill")
                .args([signal, &child.id().to_string()])
                .status();
            assert!(status.unwrap().success());
            let ended = common::Ended::of(child.wait_with_output_of(signal, &sleeper));
            if signal == "-TERM" {
                ended.exits(1).says("it was stopped");
                let gone =
                    || (!fs::exists(format!("/proc/{}", sleeper.trim())).unwrap()).then_some(());
                wait("the end of what it started", gone);
            }
            assert_eq!(settings(&b), "DB_HOST=127.0.0.1\n");
            once(&b, "ready");
        }
    }
}

/// What a killed process leaves holds its pipes open.
trait Killed {
    fn wait_with_output_of(self, signal: &str, left: &str) -> std::process::Output;
}

impl Killed for std::process::Child {
    fn wait_with_output_of(mut self, signal: &str, left: &str) -> std::process::Output {
        if signal == "-KILL" {
            self.wait().unwrap();
            let parent = fs::read_to_string(format!("/proc/{}/stat", left.trim())).unwrap();
            let group = parent.split_whitespace().nth(4).unwrap().to_owned();
            let status = std::process::Command::new("/bin/kill")
                .args(["-KILL", "--", &format!("-{group}")])
                .status();
            assert!(status.unwrap().success());
        }
        self.wait_with_output().unwrap()
    }
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_asked() {
    let mut b = product();
    b.run(&["move", &new(&b)])
        .exits(78)
        .says("no box has run with this volume");
    b = used();
    b.run(&["move"]).exits(64);
    b.run(&["move", "--all", &new(&b)]).exits(64);
    b.run(&["move", "/nowhere"])
        .exits(78)
        .says("cannot be read from /nowhere");
    for (text, said) in [
        ("DB_HOST=db host\n", "DB_HOST = `db host`"),
        (
            "DB_HOTS=db\n",
            "line 1 of the new settings: DB_HOTS is no setting",
        ),
        ("DB_PASSWORD=x\n", "no database leaves the box"),
        (
            "DB_HOST=a\nDB_HOST=b\n",
            "DB_HOST is given in line 1 already",
        ),
    ] {
        b.file("/new.env", text);
        b.run(&["move", &new(&b)]).exits(78).says(said);
    }
    b.file("/new.env", NEW);
    // Data of another version, and a database of which nobody knows how it is moved.
    b.contract["product"]["version"] = json!("v2");
    b.run(&["move", &new(&b)])
        .exits(78)
        .says("an earlier version of the box");
    b.contract["product"]["version"] = json!("v1");
    let mut unknown = b.contract["services"]["queue"].take();
    unknown.as_object_mut().unwrap().remove("move");
    b.contract["services"]["queue"] = unknown;
    b.run(&["move", &new(&b)])
        .exits(78)
        .says("queue leaves the box too");
    assert!(moved(&b).is_empty());
    assert_eq!(settings(&b), "DB_HOST=127.0.0.1\n");
}

#[test]
fn a_running_box_keeps_its_data_to_itself_and_the_servers_can_be_checked_meanwhile() {
    let b = used();
    let running = b.start().until(&b, "web ready");
    b.run(&["move", &new(&b)])
        .exits(75)
        .says("stop that container first");
    b.run(&["move", "--check", &new(&b)])
        .exits(0)
        .says("OK: db, queue can be moved; nothing was copied");
    assert_eq!(moved(&b).len(), 2);
    running.stop().exits(0);
    assert_eq!(settings(&b), "DB_HOST=127.0.0.1\n");
}

#[test]
fn what_the_container_itself_is_given_is_the_operators_to_change() {
    let mut b = used();
    b.env("DB_HOST", "127.0.0.1");
    b.run(&["move", &new(&b)])
        .exits(78)
        .says("the container itself is given DB_HOST, which would win over settings.env")
        .says("--copy-only");
    assert!(moved(&b).is_empty());
    b.run(&["move", "--copy-only", &new(&b)])
        .exits(0)
        .says("start the box with the new DB_HOST, DB_PASSWORD, QUEUE_HOST");
    assert_eq!(moved(&b).len(), 6);
    assert_eq!(settings(&b), "DB_HOST=127.0.0.1\n");
}

#[test]
fn commands_are_given_the_authorities_that_the_new_settings_name() {
    let mut b = product();
    b.put(
        "settings",
        "CA",
        json!({"variable": "ca", "type": "certificate"}),
    );
    b.contract["ca_bundle"] = json!({"setting": "CA", "services": ["web"]});
    b.file("/etc/ssl/certs/ca-certificates.crt", "# the public ones");
    b.script(
        "move",
        "echo \"$2 $(cat \"${SSL_CERT_FILE:-ROOT/etc/none}\")\" >> ROOT/moved",
    );
    b.file("/etc/none", "nothing");
    once(&b, "ready");
    let path = |name: &str| b.path(name).to_str().unwrap().to_owned();
    let (key, authority) = (path("/key.pem"), path("/authority.pem"));
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ours";
    let made = std::process::Command::new("openssl")
        .args(words.split(' '))
        .args(["-keyout", &key, "-out", &authority])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pem = fs::read_to_string(&authority).unwrap();

    b.run(&["move", "--check", &new(&b)]).exits(0);
    assert_eq!(moved(&b), ["check nothing", "check nothing"]);
    fs::remove_file(b.path("/moved")).unwrap();
    b.file("/new.env", &format!("DB_HOST=db\nCA_FILE={authority}\n"));
    // The same in a box that runs, whose files stay its own.
    let running = b.start().until(&b, "web ready");
    b.run(&["move", "--check", &new(&b)]).exits(0);
    running.stop().exits(0);
    b.run(&["move", &new(&b)]).exits(0);
    let told = fs::read_to_string(b.path("/moved")).unwrap();
    let expected: Vec<String> = ["check", "check", "copy", "verify"]
        .iter()
        .map(|word| format!("{word} # the public ones\n{pem}"))
        .collect();
    assert_eq!(told, expected.concat());
    once(&b, "skipped");
}
