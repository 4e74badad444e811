//! What a box says of the machine before it relies on it.

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::TestBox;
use serde_json::{Value, json};

fn checks(b: &TestBox, code: i32) -> Vec<Value> {
    let ended = b.run(&["preflight", "--json"]);
    let answer: Value = serde_json::from_str(&ended.exits(code).out).unwrap();
    let checks = answer["checks"].as_array().unwrap().clone();
    let worst = |level: &str| checks.iter().any(|check| check["level"] == level);
    let wanted = match (worst("error"), worst("warning")) {
        (true, _) => "error",
        (_, true) => "warning",
        _ => "ok",
    };
    assert_eq!(answer["level"], wanted);
    assert_eq!(code, i32::from(wanted == "error"));
    checks
}

fn level(checks: &[Value], name: &str) -> String {
    let check = checks.iter().find(|check| check["name"] == name);
    let check = check.unwrap_or_else(|| panic!("no {name} in {checks:#?}"));
    check["level"].as_str().unwrap().to_owned()
}

#[test]
fn what_the_box_needs_is_compared_with_the_machine() {
    let mut b = TestBox::new();
    b.file("/data/x", "");
    b.file(
        "/proc/meminfo",
        "MemTotal: 4194304 kB\nMemFree: 4194304 kB\n",
    );
    b.file("/proc/cpuinfo", "flags : fpu avx\n");
    b.contract["needs"] = json!({"memory": 1_u64 << 30, "cpu": ["avx"], "cores": 1});
    let found = checks(&b, 0);
    for name in ["settings", "memory", "cpu", "cores", "clock", "entropy"] {
        assert_eq!(level(&found, name), "ok", "{found:#?}");
    }
    // A service's needs add up, while it runs.
    b.put(
        "services",
        "db",
        json!({"when": "bundled", "needs": {"memory": 8_u64 << 30, "cpu": ["sse9"]}}),
    );
    b.put("variables", "bundled", json!(false));
    assert_eq!(level(&checks(&b, 0), "memory"), "ok");
    b.put("variables", "bundled", json!(true));
    let found = checks(&b, 1);
    assert_eq!(level(&found, "memory"), "error");
    assert_eq!(level(&found, "cpu"), "error");
    let table = b.run(&["preflight"]);
    table
        .exits(1)
        .says("has no sse9")
        .says("the box wants 9 GiB");
    let advice = table
        .out
        .lines()
        .filter(|line| line.trim().starts_with("-> "));
    assert!(advice.count() >= 2, "{table:#?}");
}

#[test]
fn a_start_warns_of_it_and_goes_on() {
    let mut b = TestBox::new();
    b.file("/proc/cpuinfo", "flags : fpu\n");
    b.contract["needs"] = json!({"cpu": ["avx"]});
    b.unit("app.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let begun = Instant::now();
    let running = b.start().until(&b, "app ready");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let ended = running.stop();
    ended.exits(0).says("tiffin: preflight: cpu: has no avx");
}

#[test]
fn settings_that_are_wrong_are_one_error_among_others_and_show_no_secret() {
    let mut b = TestBox::new();
    b.put(
        "settings",
        "PORT",
        json!({"variable": "port", "type": "port"}),
    );
    b.put(
        "settings",
        "QUEUE",
        json!({"variable": "queue", "type": "secret"}),
    );
    b.env("QUEUE", "amqp://user:hunter2hunter2@nobody.invalid/x");
    let ended = b.run(&["preflight"]);
    ended.exits(1).says("nobody.invalid");
    assert!(!ended.out.contains("hunter2"), "{ended:#?}");
    b.env("PORT", "many");
    let found = checks(&b, 1);
    assert_eq!(level(&found, "settings"), "error");
    assert!(found.iter().any(|check| check["name"] == "entropy"));
}

/// Hosts that are silent cost their time once, not each.
#[test]
fn hosts_are_asked_all_at_once() {
    let mut b = TestBox::new();
    // Of a backlog that is full the kernel drops what comes; nobody accepts here.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    let filled: Vec<_> = (0..400)
        .map_while(|_| {
            let address = deaf.local_addr().unwrap();
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()
        })
        .collect();
    b.file("/etc/hosts", "127.0.0.1 deaf.test\n");
    for at in 0..8 {
        let name = format!("HOST_{at}");
        b.put(
            "settings",
            &name,
            json!({"variable": format!("host_{at}"), "type": "url"}),
        );
        b.env(&name, &format!("redis://deaf.test:{port}/{at}"));
    }
    let begun = Instant::now();
    let found = checks(&b, i32::from(filled.len() < 400));
    let levels: Vec<String> = (0..8)
        .map(|at| level(&found, &format!("reach HOST_{at}")))
        .collect();
    let wanted = if filled.len() < 400 { "error" } else { "ok" };
    assert!(levels.iter().all(|level| level == wanted), "{found:#?}");
    assert!(
        begun.elapsed() < Duration::from_secs(6),
        "{:?}",
        begun.elapsed()
    );
}
