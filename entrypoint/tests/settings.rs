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
fn a_setting_that_asks_a_lookup_something_else_is_refused() {
    let mut b = TestBox::new();
    b.put("settings", "REGION", json!({"variable": "region", "type": "string", "default": "eu", "files": ["/etc/app.conf"]}));
    b.put("variables", "region", json!("eu"));
    b.put(
        "variables",
        "(lookups)",
        json!([{"name": "file", "terms": ["eu.txt"], "options": {}, "result": ["Paris {{ x }}"]}]),
    );
    b.template("/etc/app.conf", "{{ lookup('file', region ~ '.txt') }}\n");
    let rendered = b.run(&["render"]);
    rendered.exits(0);
    assert!(rendered.out.contains("Paris {{ x }}"), "{}", rendered.out);
    b.env("REGION", "us");
    b.run(&["start"])
        .exits(78)
        .says("cannot render /etc/app.conf")
        .says("the lookup `file` was made with other arguments while building");
    assert!(!b.path("/etc/app.conf").exists());
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
        &["settings", "--origin"],
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
    for code in 0..256 {
        b.run(&["sh", "-c", &format!("exit {code}")]).exits(code);
    }
}

#[test]
fn a_command_that_a_signal_ends_is_ended_by_it() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut b = with_settings();
    b.env("API_TOKEN", CANARY);
    for number in [1, 2, 3, 6, 9, 10, 11, 13, 15] {
        let dies = format!("ulimit -c 0; kill -{number} $$");
        let status = b.command(&["sh", "-c", &dies]).status().unwrap();
        // Engines make 128 + the number of this; so do shells, and the inits of other names.
        assert_eq!(status.signal(), Some(number));
        let shell = format!("sh -c '{dies}'; exit $?");
        b.run(&["sh", "-c", &shell]).exits(128 + number);
    }
}

#[test]
fn origin_says_where_each_value_is_from() {
    let mut b = with_settings();
    b.put(
        "settings",
        "ZONE",
        json!({"variable": "zone", "type": "string", "default": "{{ base }}/x"}),
    );
    b.put("variables", "zone", json!("{{ base }}/x"));
    b.put("variables", "base", json!("a"));
    b.put(
        "settings",
        "TLS",
        json!({"variable": "tls", "type": "bool"}),
    );
    b.put("variables", "tls", json!("{{ base == 'b' }}"));
    b.file("/data/settings.env", "# mine\nREDIS_PORT=7000\n");
    b.env("API_TOKEN", CANARY);
    let told = b.run(&["settings", "--origin"]);
    let line = told.out.lines().find(|line| line.starts_with("TLS "));
    assert_eq!(line.unwrap().split_whitespace().nth(1), Some("false"));
    told.exits(0)
        .says("/data/settings.env, line 2")
        .says("will be generated by the first start")
        .says("environment variable API_TOKEN")
        .says("a/x");
    b.start()
        .until(&b, "app ready")
        .stop()
        .exits(0)
        .says("2 settings given");
    let ended = b.run(&["settings", "--origin", "--format", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let sources: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["name"].as_str(), r["source"].as_str()))
        .collect();
    let pair = |name, source| (Some(name), Some(source));
    assert_eq!(
        sources,
        [
            pair("API_TOKEN", "environment"),
            pair("DB_PASSWORD", "generated"),
            pair("REDIS_PORT", "env_file"),
            pair("TLS", "default"),
            pair("ZONE", "default")
        ]
    );
    assert!(!ended.out.contains(CANARY));
    let kept = std::fs::read_to_string(b.path("/data/.tiffin/settings.json")).unwrap();
    let password: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert!(
        !ended
            .out
            .contains(password["DB_PASSWORD"].as_str().unwrap())
    );
}

#[test]
fn no_password_is_generated_over_data_whose_passwords_are_lost() {
    let mut b = with_settings();
    b.env("API_TOKEN", CANARY);
    b.start()
        .until(&b, "app ready")
        .stop()
        .exits(0)
        .says("1 setting given");
    let kept = b.path("/data/.tiffin/settings.json");
    let text = std::fs::read_to_string(&kept).unwrap();
    let before = std::fs::read_to_string(b.path("/etc/app.conf")).unwrap();
    std::fs::remove_file(&kept).unwrap();
    for words in [&["start"][..], &["check"], &["sh", "-c", "true"]] {
        b.run(words)
            .exits(78)
            .says("DB_PASSWORD: /data/.tiffin/settings.json is gone")
            .says("restore the file");
        assert!(!kept.exists(), "nothing was generated");
    }
    std::fs::write(&kept, &text[..text.len() / 2]).unwrap();
    b.run(&["start"])
        .exits(78)
        .says("it is not what this box wrote")
        .says("restore it from a backup");
    assert_eq!(
        std::fs::read_to_string(b.path("/etc/app.conf")).unwrap(),
        before
    );
    // The way out.
    std::fs::remove_file(&kept).unwrap();
    b.env("DB_PASSWORD", "given-by-hand");
    b.start().until(&b, "app ready").stop().exits(0);
    b.environment.retain(|(name, _)| name != "DB_PASSWORD");
    b.run(&["check"])
        .exits(78)
        .says("DB_PASSWORD: an earlier start was given it");
}

#[test]
fn a_job_that_runs_once_runs_again_when_its_settings_change() {
    let mut b = with_settings();
    b.unit("job.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo ran >> ROOT/runs'\n");
    b.put(
        "services",
        "job",
        json!({"once": true, "again": ["API_TOKEN", "REDIS_PORT"]}),
    );
    let runs = |b: &TestBox| {
        b.start()
            .until(b, "app ready")
            .until(b, "job")
            .stop()
            .exits(0);
        std::fs::read_to_string(b.path("/runs"))
            .unwrap()
            .lines()
            .count()
    };
    b.env("API_TOKEN", CANARY);
    assert_eq!((runs(&b), runs(&b)), (1, 1));
    b.env("REDIS_PORT", "1234");
    assert_eq!((runs(&b), runs(&b)), (2, 2));
    b.env("API_TOKEN", "other");
    assert_eq!(runs(&b), 3);
    let kept = std::fs::read_to_string(b.path("/data/.tiffin/again.json")).unwrap();
    assert!(!kept.contains(CANARY) && !kept.contains("other"), "{kept}");
}
