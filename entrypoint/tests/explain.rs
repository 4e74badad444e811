//! What a setting reaches, and what would change.

mod common;

use common::TestBox;
use serde_json::{Value, json};

fn a_box() -> TestBox {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "REDIS_HOST",
        json!({"variable": "redis_host", "type": "host"}),
    );
    b.put(
        "settings",
        "LEVEL",
        json!({"variable": "level", "type": "string", "deprecated": ["LOG_LEVEL"]}),
    );
    b.put(
        "settings",
        "PASSWORD",
        json!({"variable": "password", "type": "secret", "required": true}),
    );
    b.put("variables", "redis_host", json!("127.0.0.1"));
    b.put(
        "variables",
        "redis_url",
        json!("redis://{{ redis_host }}:6379"),
    );
    b.put(
        "variables",
        "redis_bundled",
        json!("{{ redis_host == '127.0.0.1' }}"),
    );
    b.put("variables", "level", json!("info"));
    b.template(
        "/etc/app.env",
        "URL={{ redis_url }}\nPASSWORD={{ password }}\n",
    );
    b.template(
        "/etc/redis.conf",
        "{% if redis_bundled %}bind {{ redis_host }}\n{% endif %}level {{ level }}\n",
    );
    b.contract["templates"][0]["notify"] = json!(["restart the app"]);
    b.put(
        "handlers",
        "restart the app",
        json!([{"service": "app", "action": "restart"}]),
    );
    b.unit("app.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.unit("redis.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.put("services", "redis", json!({"when": "redis_bundled", "ready": {"command": "test {{ redis_host }}"}, "uses": ["/etc/redis.conf"]}));
    b
}

fn answer(b: &TestBox, name: &str) -> Value {
    let ended = b.run(&["explain", "--json", name]);
    ended.exits(0);
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn a_setting_is_followed_to_files_and_services_without_the_settings_that_are_required() {
    let b = a_box();
    let found = answer(&b, "REDIS_HOST");
    assert_eq!(found["variable"], "redis_host");
    assert_eq!(found["files"][0]["path"], "/etc/app.env");
    assert_eq!(found["files"][0]["via"], json!(["redis_host", "redis_url"]));
    assert_eq!(
        found["files"][0]["services"],
        json!([{"service": "app", "action": "restart", "because": "handler `restart the app`"}])
    );
    assert_eq!(found["files"][1]["path"], "/etc/redis.conf");
    assert_eq!(
        found["files"][1]["services"][0]["because"],
        "the recipe's `uses`"
    );
    assert_eq!(found["services"][0]["what"], "when");
    assert_eq!(
        found["services"][0]["via"],
        json!(["redis_host", "redis_bundled"])
    );
    assert_eq!(found["services"][1]["what"], "ready");
    b.run(&["explain", "REDIS_HOST"])
        .exits(0)
        .says("redis_host -> redis_url -> x.j2 -> /etc/app.env\n  restarts app (handler `restart the app`)")
        .says("redis_host -> redis_bundled decides whether redis starts");
}

#[test]
fn a_variable_and_a_file_are_explained_too() {
    let b = a_box();
    let found = answer(&b, "redis_url");
    assert_eq!(
        (&found["kind"], found["files"].as_array().unwrap().len()),
        (&json!("variable"), 1)
    );
    assert_eq!(
        found["settings"],
        json!([{"setting": "REDIS_HOST", "via": ["redis_host", "redis_url"]}])
    );
    let found = answer(&b, "/etc/redis.conf");
    let settings: Vec<&str> = found["settings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["setting"].as_str().unwrap())
        .collect();
    assert_eq!(settings, ["LEVEL", "REDIS_HOST"]);
    assert_eq!(answer(&b, "LOG_LEVEL")["name"], "LEVEL");
}

#[test]
fn a_name_that_nobody_knows_is_64_with_the_nearest() {
    let b = a_box();
    b.run(&["explain", "REDIS_HSOT"])
        .exits(64)
        .says("did you mean REDIS_HOST?");
    b.run(&["explain", "redis"])
        .exits(64)
        .says("there are REDIS_HOST");
    b.run(&["explain", "xyzzy"])
        .exits(64)
        .says("`settings` lists");
    b.run(&["explain"]).exits(64);
}

#[test]
fn render_diff_is_1_when_something_would_change_and_0_when_nothing_would() {
    let mut b = a_box();
    b.env("PASSWORD", "CANARYpassword");
    b.file(
        "/etc/app.env",
        "URL=redis://127.0.0.1:6379\nPASSWORD=EARLIERpassword\n",
    );
    b.file("/etc/redis.conf", "bind 127.0.0.1\nlevel debug\n");
    let ended = b.run(&["render", "--diff"]);
    ended
        .exits(1)
        .says("--- /etc/app.env\n+++ /etc/app.env\n@@ -1,2 +1,2 @@\n URL=redis://127.0.0.1:6379\n-PASSWORD=********\n+PASSWORD=********\n")
        .says("-level debug\n+level info\n");
    assert!(!ended.out.contains("password"), "{ended:?}");
    b.run(&["render", "--diff", "--show-secrets", "/etc/app.env"])
        .exits(1)
        .says("-PASSWORD=EARLIERpassword\n+PASSWORD=CANARYpassword\n");
    b.run(&["true"]).exits(0);
    let ended = b.run(&["render", "--diff"]);
    ended.exits(0);
    assert_eq!(ended.out, "");
}

#[test]
fn facts_are_the_containers_own_and_a_setting_wins_over_one() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "WORKERS",
        json!({"variable": "ansible_processor_vcpus", "type": "int"}),
    );
    b.put("variables", "ansible_processor_vcpus", json!(64));
    b.put("variables", "ansible_memtotal_mb", json!(1));
    b.put(
        "variables",
        "workers",
        json!("{{ ansible_processor_vcpus * 2 + 1 }}"),
    );
    b.contract["facts"] = json!(["ansible_processor_vcpus", "ansible_memtotal_mb"]);
    b.template("/etc/app.conf", "{{ workers }} {{ ansible_memtotal_mb }}\n");
    b.file("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    b.file("/sys/fs/cgroup/cpu.max", "50000 100000\n");
    b.file("/sys/fs/cgroup/memory.max", "268435456\n");
    b.file("/proc/meminfo", "MemTotal: 999999 kB\nMemFree: 999999 kB\n");
    b.run(&["render", "/etc/app.conf"]).exits(0).says("3 256\n");
    b.env("WORKERS", "4");
    b.run(&["render", "/etc/app.conf"]).exits(0).says("9 256\n");
}
