//! Settings, generated values, rendering and the verbs around them.

mod common;

use common::TestBox;
use serde_json::json;

const CANARY: &str = "CANARYsecret1234";

fn with_settings() -> TestBox {
    let mut b = TestBox::new();
    b.put("settings", "REDIS_PORT", json!({"variable": "redis_port", "type": "port", "default": 6379, "help": "Where Redis listens", "files": ["/etc/app.conf"]}));
    b.put(
        "settings",
        "DB_PASSWORD",
        json!({"variable": "db_password", "type": "secret", "generate": 32}),
    );
    b.put(
        "settings",
        "API_TOKEN",
        json!({"variable": "api_token", "type": "secret", "required": true}),
    );
    b.put("variables", "redis_port", json!(6379));
    b.template(
        "/etc/app.conf",
        "port={{ redis_port }}\npassword={{ db_password }}\ntoken={{ api_token }}\n",
    );
    b.unit(
        "app.service",
        "[Service]\nExecStart=/bin/sh -c 'env; exec sleep 1000'\n",
    );
    b
}

#[test]
fn all_problems_at_once_and_nothing_is_touched() {
    let mut b = with_settings();
    b.env("REDIS_PORT", "seven").env("DB_PASWORD", CANARY);
    let ended = b.run(&["start"]);
    ended
        .exits(78)
        .says("cannot start: 3 settings are wrong")
        .says("API_TOKEN: it is required")
        .says("did you mean DB_PASSWORD?");
    assert!(!ended.err.contains(CANARY));
    assert!(!b.path("/data").exists() && !b.path("/etc/app.conf").exists());
    b.run(&["check"]).exits(78);
}

#[test]
fn no_output_holds_a_secret_and_no_service_sees_one() {
    let mut b = with_settings();
    b.env("API_TOKEN", CANARY);
    let running = b.start();
    b.wait_status("app ready");
    b.wait_log("TIFFIN_SERVICE=app");
    for words in [
        &["status", "--json"][..],
        &["logs"],
        &["settings"],
        &["check"],
        &["render"],
        &["help"],
        &["health"],
        &["settings", "--format", "json"],
    ] {
        let ended = b.run(words);
        ended.exits(0);
        assert!(
            !ended.out.contains(CANARY) && !ended.err.contains(CANARY),
            "{ended:#?}"
        );
    }
    assert!(
        std::fs::read_to_string(b.path("/etc/app.conf"))
            .unwrap()
            .contains(CANARY)
    );
    let ended = running.stop();
    ended.exits(0).says("TIFFIN_SERVICE=app");
    assert!(
        !ended.out.contains(CANARY) && !ended.err.contains(CANARY),
        "{ended:#?}"
    );
}

#[test]
fn render_masks_unless_told_otherwise_and_writes_nothing() {
    let mut b = with_settings();
    b.env("API_TOKEN", CANARY).env("REDIS_PORT", "1234");
    b.run(&["render"])
        .exits(0)
        .says("==> /etc/app.conf\nport=1234\npassword=********\ntoken=********\n");
    b.run(&["render", "/etc/app.conf", "--show-secrets"])
        .exits(0)
        .says(CANARY);
    b.run(&["render", "/etc/nothing"])
        .exits(64)
        .says("it is none of the rendered files");
    assert!(!b.path("/etc/app.conf").exists() && !b.path("/data").exists());
}

#[test]
fn a_generated_secret_survives_and_equal_files_are_not_written() {
    let mut b = with_settings();
    b.file("/run/secrets/token", &format!("{CANARY}\n"));
    let path = b.path("/run/secrets/token").display().to_string();
    b.env("API_TOKEN_FILE", &path);
    let mut texts = Vec::new();
    for changed in ["1 of 1 files changed", "0 of 1 files changed"] {
        let running = b.start();
        b.wait_status("app ready");
        running.stop().exits(0).says(changed);
        texts.push(std::fs::read_to_string(b.path("/etc/app.conf")).unwrap());
    }
    assert_eq!(texts[0], texts[1]);
    assert!(texts[0].contains(&format!("token={CANARY}\n")));
    b.env("API_TOKEN", "x");
    b.run(&["check"])
        .exits(78)
        .says("both API_TOKEN and API_TOKEN_FILE are set");
}

#[test]
fn a_second_box_on_the_volume_is_75() {
    let mut b = with_settings();
    b.env("API_TOKEN", CANARY).env("HOSTNAME", "abc123");
    let running = b.start();
    b.wait_status("app ready");
    b.run(&["start"]).exits(75).says("acme/test v1 on abc123");
    // A command beside a running box needs no lock: all values are there.
    b.run(&["sh", "-c", "exit 7"]).exits(7);
    running.stop().exits(0);
}

#[test]
fn a_command_runs_with_the_files_rendered_and_nothing_else_on_stdout() {
    let mut b = with_settings();
    b.env("API_TOKEN", CANARY).env("REDIS_PORT", "99");
    let ended = b.run(&["echo", "x"]);
    assert_eq!(
        (ended.code, ended.out.as_str(), ended.err.as_str()),
        (Some(0), "x\n", "")
    );
    assert!(
        std::fs::read_to_string(b.path("/etc/app.conf"))
            .unwrap()
            .starts_with("port=99\n")
    );
    b.run(&["no-such-command"]).exits(127);
    b.run(&["/etc"]).exits(126);
}

#[test]
fn usage() {
    let b = with_settings();
    b.run(&["status", "--yaml"]).exits(64);
    b.run(&["--nonsense"]).exits(64);
    b.run(&["version"]).exits(0).says("acme/test v1");
    b.run(&["settings"])
        .exits(0)
        .says("REDIS_PORT")
        .says("6379")
        .says("reaches /etc/app.conf");
    b.run(&["health"])
        .exits(1)
        .says("cannot ask the running box");
}

#[test]
fn all_exit_codes_of_a_command_pass_through() {
    let mut b = with_settings();
    b.env("API_TOKEN", CANARY);
    for code in [0, 1, 2, 63, 127, 128, 200, 255] {
        b.run(&["sh", "-c", &format!("exit {code}")]).exits(code);
    }
}
