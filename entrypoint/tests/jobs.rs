//! The recipe's jobs: services of the box that run again and again.

mod common;

use common::{TestBox, wait};
use serde_json::json;

fn text(b: &TestBox, path: &str) -> String {
    std::fs::read_to_string(b.path(path)).unwrap_or_default()
}

#[test]
fn a_job_runs_at_its_times_as_a_service_with_its_environment_and_never_twice_at_once() {
    let mut b = TestBox::new();
    let root = b.dir.path().to_str().unwrap().to_owned();
    b.put("variables", "root", json!(root));
    b.put("variables", "pace", json!("1s"));
    b.put("variables", "word", json!("it's $HOME;"));
    b.put(
        "jobs",
        "clean-up",
        json!({"command": "echo \"begin $WORD\" | tee -a {{ root }}/log; pwd; id -un; sleep 1.3; echo end >> {{ root }}/log",
            "every": "{{ pace }}", "directory": "{{ root }}/bin", "user": "root", "environment": {"WORD": "{{ word }}"}}),
    );
    b.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    b.put("services", "clean-up", json!({"after": ["db"]}));
    b.db_that_waits();
    b.env("CANARY", "of the container");
    let running = b.start().until(&b, "db starting");
    // Longer than its period: it waits for what it needs all the same.
    std::thread::sleep(std::time::Duration::from_millis(1300));
    b.wait_status("clean-up stopped");
    b.file("/go", "");
    wait("three runs", || {
        (text(&b, "/log").matches("end").count() >= 3).then_some(())
    });
    let log = text(&b, "/log");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "db");
    for (at, line) in lines[1..].iter().enumerate() {
        assert_eq!(*line, ["begin it's $HOME;", "end"][at % 2], "{log}");
    }
    b.run(&["health"]).exits(0);
    b.wait_log("clean-up | root");
    running
        .stop()
        .exits(0)
        .says("clean-up | begin it's $HOME;")
        .says(&format!("clean-up | {root}/bin"))
        .says("clean-up is started by its timer");
}

#[test]
fn status_tells_the_next_run_and_who_asks_gets_one_at_once() {
    let mut b = TestBox::new();
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.put(
        "jobs",
        "report",
        json!({"command": "echo reported", "at": "*-*-* 00/6:00"}),
    );
    b.put("jobs", "sweep", json!({"command": "exit 3", "every": "2h"}));
    let running = b.start().until(&b, "web ready");
    for job in ["report", "sweep"] {
        wait("the next run", || {
            let out = b.run(&["status"]).out;
            let mut lines = out.lines();
            lines
                .any(|l| l.starts_with(job) && l.contains("stopped") && l.contains("next run in"))
                .then_some(())
        });
    }
    b.run(&["start", "report"]).exits(0);
    b.wait_status("report finished");
    b.wait_log("report | reported");
    b.run(&["start", "sweep"]).exits(1).says("it did not start");
    b.wait_status("sweep failed");
    // One that fails ends nothing.
    b.run(&["health", "--live"]).exits(0);
    b.run(&["status"]).says("next run in");
    running
        .stop()
        .exits(0)
        .says("sweep is given up: it exited with code 3");
}

#[test]
fn a_job_that_hangs_is_killed_after_its_time() {
    let mut b = TestBox::new();
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    let command = format!("echo run >> {}/log; sleep 1000", b.dir.path().display());
    b.put(
        "jobs",
        "stuck",
        json!({"command": command, "every": "1s", "timeout": 1}),
    );
    let running = b.start();
    wait("two runs", || {
        (text(&b, "/log").lines().count() >= 2).then_some(())
    });
    running
        .stop()
        .exits(0)
        .says("stuck is given up: it did not end in time");
}

#[test]
fn a_setting_reaches_a_job_and_a_reload_waits_for_its_next_run() {
    let mut b = TestBox::new();
    let root = b.dir.path().to_str().unwrap().to_owned();
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.put(
        "settings",
        "KEEP",
        json!({"variable": "keep", "type": "int"}),
    );
    b.put("variables", "keep", json!(7));
    b.put(
        "jobs",
        "prune",
        json!({"command": format!("echo $KEEP >> {root}/log"), "every": "1h", "environment": {"KEEP": "{{ keep }} days"}}),
    );
    // As a recipe's reader writes them.
    b.put("services", "prune", json!({}));
    b.run(&["explain", "KEEP"])
        .exits(0)
        .says("keep is part of the job prune (`{{ keep }} days`)");
    let running = b.start().until(&b, "web ready");
    b.run(&["start", "prune"]).exits(0);
    b.wait_status("prune finished");
    b.file("/data/settings.env", "KEEP=30\n");
    b.run(&["reload"]).exits(0);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(text(&b, "/log"), "7 days\n");
    b.run(&["start", "prune"]).exits(0);
    wait("the second run", || {
        (text(&b, "/log") == "7 days\n30 days\n").then_some(())
    });
    running.stop().exits(0);
}

#[test]
fn roles_and_conditions_decide_about_jobs_too() {
    let mut b = TestBox::new();
    b.unit("web.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    b.put("variables", "wanted", json!(false));
    for name in ["sweep", "report", "never"] {
        b.put("jobs", name, json!({"command": "true", "every": "1h"}));
    }
    b.put("services", "never", json!({"when": "wanted"}));
    b.put("roles", "web", json!({"services": ["web", "never"]}));
    b.put(
        "roles",
        "scheduler",
        json!({"services": ["sweep"], "single": true}),
    );
    b.env("TIFFIN_ROLE", "web,scheduler");
    let running = b.start().until(&b, "web ready");
    b.wait_status("sweep stopped");
    b.wait_status("report skipped");
    b.wait_status("never skipped");
    running
        .stop()
        .exits(0)
        .says("report is left out: it is part of no role");
}

#[test]
fn what_cannot_be_a_time_or_a_user_starts_nothing() {
    for (job, reason) in [
        (
            json!({"command": "true", "every": "{{ 'soon' }}"}),
            "cannot start the job sweep: its `every`: `soon` is no time",
        ),
        (
            json!({"command": "true", "at": "{{ 'noon' }}"}),
            "cannot start the job sweep: its `at`: `noon` is no calendar event",
        ),
        (
            json!({"command": "{{ nobody_knows }}", "every": "1h"}),
            "cannot start the job sweep: its `command`",
        ),
        (
            json!({"command": "true", "every": "1h", "user": "nobody-knows"}),
            "nobody-knows",
        ),
    ] {
        let mut b = TestBox::new();
        b.unit(
            "web.service",
            "[Service]\nExecStart=/bin/sh -c 'echo > ROOT/started; sleep 1000'\n",
        );
        b.put("jobs", "sweep", job);
        b.start().end().exits(78).says(reason);
        assert!(!b.path("/started").exists());
    }
}
